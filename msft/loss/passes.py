"""Forward passes of training on packed rows: no padding, and the last layer and logits for target tokens alone."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import varlen

from msft.loss.tokens import Tokens, loss_weights
from msft.packing.attention import Pass, attend_blocks, packed_attention, tokens_first, wanted_states
from msft.packing.rows import Ends, Packed, Row, on_device, pack

_FULLEST = 1.1  # the longest row of an attention block against its shortest: backward pays for its padding too
# tokens of a pass on a processor, whose cache more would leave; under autocast each pass rounds all weights again and
# sums their gradients up (benchmarks/NOTES.md)
_CPU_TOKENS, _CPU_TOKENS_MIXED = 1024, 2048


class TargetPass(NamedTuple):
    """One pass: rows without their last token, which predicts nothing; targets, weights and examples as in Batch."""

    rows: Packed
    targets: Tensor
    weights: Tensor
    examples: Tensor


def split_evenly(rows: Sequence[Tokens], positions: Sequence[int], budget: int) -> list[list[int]]:
    """Positions, given the longest rows first, in as few passes of about equal numbers of tokens as keep near a budget."""
    tokens = np.cumsum([len(rows[i].ids) for i in positions])
    passes = math.ceil(tokens[-1] / budget) if positions else 0
    parts: list[list[int]] = [[] for _ in range(passes)]
    for i, end in zip(positions, tokens.tolist(), strict=True):
        # by its middle: a row is in the pass that holds most of it
        parts[min(int((end - len(rows[i].ids) / 2) * passes / tokens[-1]), passes - 1)].append(i)
    return [part for part in parts if part]


def make_passes(
    rows: Sequence[Tokens], group: int, budget: int, model, process: int = 0, processes: int = 1, mixed: bool = False
) -> Iterator[TargetPass]:
    """The passes of one step over a process's share of its rows; budget: tokens of a pass, about."""
    device, weights = model.device, loss_weights(rows, group)
    exact, with_ends = np.float64 if model.dtype == torch.float64 else np.float32, _varies(model)
    ranked = sorted(range(len(rows)), key=lambda i: (-len(rows[i].ids), i))
    budget = min(budget, _CPU_TOKENS_MIXED if mixed else _CPU_TOKENS) if device.type == "cpu" else budget
    for part in split_evenly(rows, ranked[process::processes], budget):
        members, counts = [rows[i] for i in part], [rows[i].targets for i in part]
        inputs = [Row(row.ids[:-1], wanted=range(row.start - 1, len(row.ids) - 1)) for row in members]
        yield TargetPass(
            rows=pack(inputs, device, model.dtype, _FULLEST, with_ends),
            targets=on_device(np.concatenate([row.ids[row.start :] for row in members]), device),  # [w]
            weights=on_device(np.repeat([weights[i] for i in part], counts).astype(exact), device),  # [w]
            examples=on_device(np.repeat(part, counts), device),  # [w]
        )


def _varies(model) -> bool:
    """Whether the variable-length kernel runs: half precision on a GPU that has it."""
    half = model.device.type == "cuda" and model.dtype in (torch.float16, torch.bfloat16)
    return half and torch.cuda.get_device_capability(model.device)[0] >= 8


class _TrainingPass(Pass):
    """A pass of rows without prefixes, through which gradients flow."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, tail: bool = False) -> Tensor:
        # one dtype for the kernels: under autocast the rotary embedding leaves query and key alone in fp32
        q, k, v = (tokens_first(x).to(query.dtype) for x in (query, key, value))  # [q, heads, d], [t, heads, d] twice
        reads = self.packed.tail if tail else self.packed.body
        if isinstance(reads, Ends):
            q, k, v = (x.contiguous() for x in (q, k, v))
            # causal from the right: the queries of the tail are the last of their rows
            options = {"scale": scale, "window_size": (-1, 0), "enable_gqa": q.shape[1] != k.shape[1]}
            return varlen.varlen_attn(q, k, v, *reads, **options).unsqueeze(0)  # [1, q, heads, d]
        outs = [out.flatten(0, 1) for out, _ in attend_blocks(q, k, v, reads, scale)]  # [b x m, heads, d]
        return torch.cat(outs)[reads.home].unsqueeze(0)  # [1, q, heads, d]


def target_losses(model, batch: TargetPass) -> tuple[Tensor, Tensor]:
    """(weighted sum of the losses, through which gradients flow; token losses [w], in nats)."""
    with packed_attention(model):
        hidden = wanted_states(model, _TrainingPass(batch.rows, []))  # [w, hidden size]
    head = model.get_output_embeddings().weight  # [vocabulary, hidden size]
    if not torch.is_grad_enabled():
        losses = torch.nn.functional.cross_entropy(upcast(hidden @ head.T), batch.targets, reduction="none")  # [w]
        return (losses * batch.weights).sum(), losses
    return _WeightedLosses.apply(hidden, head, batch.targets, batch.weights)


def upcast(logits: Tensor) -> Tensor:
    """Logits of half precision in fp32; others as they are."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


class _WeightedLosses(torch.autograd.Function):
    """Cross entropy with the gradients made on the way: one softmax instead of two, and its memory used again."""

    @staticmethod
    def forward(ctx, hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor):
        scores = torch.log_softmax(upcast(hidden @ head.T), -1)  # [w, vocabulary]
        losses = -scores.gather(1, targets[:, None]).squeeze(1)  # [w]
        # the gradient of each logit: weight x (softmax - one at the target)
        scores.exp_().mul_(weights[:, None]).scatter_add_(1, targets[:, None], -weights[:, None])
        gradient = scores.to(hidden.dtype)  # [w, vocabulary]
        to_head = gradient.T @ hidden if ctx.needs_input_grad[1] else None  # frozen beside an adapter
        ctx.save_for_backward(gradient @ head, to_head)
        ctx.mark_non_differentiable(losses)
        return (losses * weights).sum(), losses

    @staticmethod
    def backward(ctx, gradient: Tensor, _):
        to_hidden, to_head = ctx.saved_tensors
        return to_hidden.mul_(gradient), None if to_head is None else to_head.mul_(gradient), None, None
