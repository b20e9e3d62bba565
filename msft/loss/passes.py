"""Forward passes of training on packed rows: no padding, and the last layer and logits for target tokens alone."""

import functools
import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from msft.loss.tokens import Tokens, loss_weights
from msft.packing.attention import Pass, packed_attention, partial, tokens_first, wanted_states
from msft.packing.rows import Packed, Row, pack

_FULLEST = 1.1  # the longest row of an attention block against its shortest: backward pays for its padding too
_CPU_TOKENS = 1024  # of a pass on a processor, whose cache more would leave (benchmarks/NOTES.md)


@dataclass(frozen=True)
class Ends:
    """For the variable-length kernel: where each row's queries and keys end [rows + 1], and the most of a row."""

    queries: Tensor
    keys: Tensor
    most_queries: int
    most_keys: int


@dataclass(frozen=True)
class TargetPass:
    """One pass: rows without their last token, which predicts nothing; targets, weights and examples as in Batch.

    body, tail: of all tokens and of those that predict a target, where the variable-length kernel runs.
    """

    rows: Packed
    targets: Tensor
    weights: Tensor
    examples: Tensor
    body: Ends | None
    tail: Ends | None


def split_evenly(rows: Sequence[Tokens], positions: Sequence[int], budget: int) -> list[list[int]]:
    """Positions, the longest rows first, in as few passes of about equal numbers of tokens as keep near a budget."""
    ranked = sorted(positions, key=lambda i: (-len(rows[i].ids), i))
    tokens = np.cumsum([len(rows[i].ids) for i in ranked])
    passes = math.ceil(tokens[-1] / budget) if ranked else 0
    parts: list[list[int]] = [[] for _ in range(passes)]
    for i, end in zip(ranked, tokens.tolist(), strict=True):
        # by its middle: a row is in the pass that holds most of it
        parts[min(int((end - len(rows[i].ids) / 2) * passes / tokens[-1]), passes - 1)].append(i)
    return [part for part in parts if part]


def make_passes(
    rows: Sequence[Tokens], group: int, budget: int, model, process: int = 0, processes: int = 1
) -> Iterator[TargetPass]:
    """The passes of one step over a process's share of its rows; budget: tokens of a pass, about."""
    device, weights = model.device, loss_weights(rows, group)
    ranked = sorted(range(len(rows)), key=lambda i: (-len(rows[i].ids), i))
    budget = min(budget, _CPU_TOKENS) if device.type == "cpu" else budget
    for part in split_evenly(rows, ranked[process::processes], budget):
        counts = [rows[i].targets for i in part]
        targets = np.concatenate([rows[i].ids[rows[i].start :] for i in part])
        scale = np.repeat(np.array([weights[i] for i in part]), counts)
        tensors = [torch.from_numpy(a) for a in (targets, scale, np.repeat(part, counts))]
        yield TargetPass(*_pack([rows[i] for i in part], model, tensors))


def _pack(rows: Sequence[Tokens], model, tensors: list[Tensor]) -> tuple:
    """The fields of a pass on the model's device; tensors: targets, weights, examples."""
    tensors[1] = tensors[1].to(torch.promote_types(model.dtype, torch.float32))
    if not _varies(model):
        packed = [Row(row.ids[:-1], wanted=range(row.start - 1, len(row.ids) - 1)) for row in rows]
        return pack(packed, model.device, model.dtype, _FULLEST), *(t.to(model.device) for t in tensors), None, None
    keys, queries = np.array([len(row.ids) - 1 for row in rows]), np.array([row.targets for row in rows])
    ends = [np.concatenate([[0], np.cumsum(n)]) for n in (keys, queries)]
    tokens = np.concatenate([row.ids[:-1] for row in rows])[None]
    positions = np.concatenate([np.arange(n) for n in keys])[None]
    wanted = np.concatenate([np.arange(end - n, end) for end, n in zip(ends[0][1:], queries, strict=True)])
    tensors += [torch.from_numpy(a) for a in (tokens, positions, wanted)]
    tensors += [torch.from_numpy(a.astype(np.int32)) for a in ends]
    # from pinned memory the copies wait for nothing
    *own, tokens, positions, wanted, key_ends, query_ends = (
        t.pin_memory().to(model.device, non_blocking=True) for t in tensors
    )
    most_keys, most_queries = int(keys.max()), int(queries.max())
    body, tail = Ends(key_ends, key_ends, most_keys, most_keys), Ends(query_ends, key_ends, most_queries, most_keys)
    return Packed(tokens, positions, wanted), *own, body, tail


def _varies(model) -> bool:
    """Whether the variable-length kernel runs: half precision on a GPU that has it, in a torch that has it."""
    half = model.device.type == "cuda" and model.dtype in (torch.float16, torch.bfloat16)
    return half and torch.cuda.get_device_capability(model.device)[0] >= 8 and _has_kernel()


@functools.cache
def _has_kernel() -> bool:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    return {"window_size", "enable_gqa", "scale"} <= set(inspect.signature(varlen_attn).parameters)


@dataclass
class _OwnRows(Pass):
    """A pass of rows without prefixes, through which gradients flow."""

    body: Ends | None = None
    tail: Ends | None = None

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, tail: bool = False) -> Tensor:
        q, k, v = (tokens_first(x) for x in (query, key, value))
        ends = self.tail if tail else self.body
        if ends is not None:
            from torch.nn.attention.varlen import varlen_attn

            q, k, v = (x.contiguous() for x in (q, k, v))
            # causal from the right: the queries of the tail are the last of their rows
            most = (ends.queries, ends.keys, ends.most_queries, ends.most_keys)
            gqa = q.shape[1] != k.shape[1]
            return varlen_attn(q, k, v, *most, scale=scale, window_size=(-1, 0), enable_gqa=gqa).unsqueeze(0)
        reads = self.packed.tail if tail else self.packed.body
        blocks = [(q[b.queries], k[b.keys], v[b.keys], b.mask, b.mask is None, scale) for b in reads.blocks]
        return torch.cat([partial(*block)[0].flatten(0, 1) for block in blocks])[reads.home].unsqueeze(0)


def target_losses(model, batch: TargetPass) -> tuple[Tensor, Tensor]:
    """(weighted sum of the losses, through which gradients flow; token losses [k], in nats)."""
    with packed_attention(model):
        hidden = wanted_states(model, _OwnRows(batch.rows, [], body=batch.body, tail=batch.tail))
    head = model.get_output_embeddings().weight
    if not torch.is_grad_enabled():
        losses = torch.nn.functional.cross_entropy(_upcast(hidden @ head.T), batch.targets, reduction="none")
        return (losses * batch.weights).sum(), losses
    return _WeightedLosses.apply(hidden, head, batch.targets, batch.weights)


def _upcast(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


class _WeightedLosses(torch.autograd.Function):
    """Cross entropy with the gradients made on the way: one softmax instead of two, and its memory used again."""

    @staticmethod
    def forward(ctx, hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor):
        scores = torch.log_softmax(_upcast(hidden @ head.T), -1)
        losses = -scores.gather(1, targets[:, None]).squeeze(1)
        scores.exp_().mul_(weights[:, None]).scatter_add_(1, targets[:, None], -weights[:, None])
        gradient = scores.to(hidden.dtype)
        ctx.save_for_backward(gradient @ head, gradient.T @ hidden)
        ctx.mark_non_differentiable(losses)
        return (losses * weights).sum(), losses

    @staticmethod
    def backward(ctx, gradient: Tensor, _):
        to_hidden, to_head = ctx.saved_tensors
        return to_hidden.mul_(gradient), to_head.mul_(gradient), None, None
