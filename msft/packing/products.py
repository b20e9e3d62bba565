"""The weights that a model answers with: their precision, and how they lie in memory and for products on a processor.

oneDNN multiplies with weights that lie in blocks of its own faster than MKL does with plain ones: by a tenth where tokens
are many, two times where a handful of rows goes on token by token (benchmarks/NOTES.md). Layers that multiply the same
states are one product. Training changes the weights at each step, so it keeps plain ones.
"""

import contextlib
import ctypes
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from msft import adapter
from msft.packing.layers import LaidOutLayer, is_of_kinds
from msft.packing.probe import beyond_the_probe
from msft.settings import DTYPES

FEWEST = 2**22  # weights; laying out fewer gains nothing that one could measure
_ROWS = 1024  # tokens that the blocks are chosen for; they fit fewer as well
_FEWEST_TOKENS = 4  # fewer take longer than as many as these
_DTYPES = (torch.float32, torch.bfloat16)
# (parameter, value) of glibc's mallopt.  keep: no trimming, no maps.  usual: what its thresholds come to after large blocks
_KEEP = (-1, -1), (-4, 0)
_USUAL = (-1, 2**26), (-3, 2**25), (-4, 2**16)


@contextlib.contextmanager
def served(model, config):
    """Within it the weights are a copy in the precision that answers (RunConfig.answers), as a server would load them.

    An adapter stays as it is: peft loads it in fp32 beside weights of any precision. Before and after, freed memory goes
    back to the system: the passes of training and evaluation leave holes of other sizes, and a long run grew by half.
    Within it freed memory stays with the process, which saves the system a zeroed page for every 4 KiB of every result.
    """
    others = model.named_parameters() if config.answers != config.weights else ()
    kept = {p: p.data for name, p in others if adapter.WEIGHT not in name}
    _allocator("malloc_trim", 0)
    for setting in _KEEP:
        _allocator("mallopt", *setting)
    try:
        for parameter, weights in kept.items():
            parameter.data = weights.to(getattr(torch, DTYPES[config.answers]))
        with laid_out(model, packed=not beyond_the_probe(model)):
            yield
    finally:
        for parameter, weights in kept.items():
            parameter.data = weights
        for setting in _USUAL:
            _allocator("mallopt", *setting)
        _allocator("malloc_trim", 0)


def _allocator(name: str, *arguments: int) -> None:
    with contextlib.suppress(OSError, AttributeError):  # the C library of Linux has it
        getattr(ctypes.CDLL("libc.so.6"), name)(*arguments)


@contextlib.contextmanager
def laid_out(model, packed: bool = True):
    """Within it the linear layers of a large model on a processor multiply with copies of their weights in blocks.

    The weights may not change within it; it costs a copy of them. Where gradients are asked for, layers are as they were.
    packed: whether packed passes follow. For them all but the last decoder layer of KINDS have an attribute `laid_out`
    (attention.py); without them their linear layers are laid out one by one, as HFLM runs them.
    """
    layers = [layer for layer in model.modules() if type(layer) is nn.Linear and "forward" not in vars(layer)]
    # a weight that is no plain parameter is made anew before each pass (pruning), or multiplies in a way of its own
    layers = [layer for layer in layers if type(layer.weight) is nn.Parameter and layer.weight.dtype in _DTYPES]
    layers = [layer for layer in layers if layer.weight.device.type == "cpu"]
    is_used = torch.backends.mkldnn.is_available() and sum(layer.weight.numel() for layer in layers) >= FEWEST
    is_used = is_used and not hasattr(model, "is_laid_out")
    with contextlib.ExitStack() as undo:
        for module, name, value in _functions(model, layers, packed) if is_used else ():
            setattr(module, name, value)
            undo.callback(delattr, module, name)
        yield


def _functions(model, layers: Sequence[nn.Linear], packed: bool):
    """(module, attribute, value) of everything that multiplies in another way."""
    yield model, "is_laid_out", True
    alone = dict.fromkeys(layers)
    blocks = model.base_model.layers[:-1] if packed and is_of_kinds(model) else ()
    for block in blocks:  # the last one runs for few tokens, whose keys and values alone are of all
        linears = {part for part in block.modules() if isinstance(part, nn.Linear)}
        # seven as they were made: none is pruned, and none has an adapter, a hook or code of its own
        if len(linears) == 7 and alone.keys() >= linears and all(map(_is_stock, block.modules())):
            yield block, "laid_out", LaidOutLayer(block, _product)
            for layer in linears:
                del alone[layer]
    for layer in alone:
        yield layer, "forward", _or_plain(layer.forward, _product(layer), layer.weight.dtype)


def _is_stock(part: nn.Module) -> bool:
    """Whether a part of a layer does what its class says, and its class is of torch or transformers."""
    is_known = type(part).__module__.startswith(("torch.", "transformers."))
    return is_known and not (part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part))


def _product(*layers: nn.Linear) -> Callable[[Tensor], Tensor]:
    """[..., sum of outs] of [..., in]: what linear layers make of the same states, side by side."""
    weight = torch.cat([layer.weight.detach() for layer in layers])  # [sum of outs, in]
    blocks = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
    biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
    bias = torch.cat(biases) if biases else None

    def product(states: Tensor) -> Tensor:
        tokens = states.shape[-2]
        if tokens < _FEWEST_TOKENS:
            states = pad(states, (0, 0, 0, _FEWEST_TOKENS - tokens))
        return torch.ops.mkldnn._linear_pointwise(states, blocks, bias, "none", [], "")[..., :tokens, :]

    return product


def _or_plain(plain: Callable, fast: Callable, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    def forward(states: Tensor) -> Tensor:
        fits = states.dtype == dtype and states.dim() > 1 and states.numel() and not torch.is_grad_enabled()
        return fast(states) if fits else plain(states)

    return forward
