"""Weights laid out for matrix products on a processor, while a model answers.

oneDNN multiplies with weights that lie in blocks of its own faster than MKL does with plain ones: by a tenth where tokens
are many, two times where a handful of rows goes on token by token (benchmarks/NOTES.md). Training changes the weights at
each step, so it keeps plain ones.
"""

import contextlib

import torch
from torch import nn

FEWEST = 2**22  # weights; laying out fewer gains nothing that one could measure
_ROWS = 1024  # tokens that the blocks are chosen for; they fit fewer as well


@contextlib.contextmanager
def laid_out(model):
    """Within it the linear layers of a large model on a processor multiply with copies of their weights in blocks.

    The weights may not change within it. Where gradients are asked for, the layers are as they were.
    """
    layers = [layer for layer in model.modules() if type(layer) is nn.Linear and "forward" not in vars(layer)]
    is_used = torch.backends.mkldnn.is_available() and sum(layer.weight.numel() for layer in layers) >= FEWEST
    changed = []
    try:
        for layer in layers if is_used else ():
            weight = layer.weight
            if weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.bfloat16):
                layer.forward = _forward(layer, torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS))
                changed.append(layer)
        yield
    finally:
        for layer in changed:
            del layer.forward


def _forward(layer: nn.Linear, blocks: torch.Tensor):
    plain, bias = layer.forward, None if layer.bias is None else layer.bias.detach()

    def forward(states: torch.Tensor) -> torch.Tensor:
        """[..., out] of [..., in]."""
        if torch.is_grad_enabled() or not states.numel() or states.dtype != blocks.dtype:
            return plain(states)
        return torch.ops.mkldnn._linear_pointwise(states, blocks, bias, "none", [], "")

    return forward
