"""The loss of a mixture and its gradients: no logits for prompt tokens, exact weights whatever the batches' shapes.

A forward pass runs over packed rows, with the last layer and logits for target tokens alone, or over padded ones.
"""

import inspect
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import varlen
from torch.nn.functional import cross_entropy

from msft import distributed
from msft.loss.tokens import Tokens, deal_out, loss_weights
from msft.packing.attention import Pass, attend_blocks, keeps_logits, packed_attention, tokens_first, wanted_states
from msft.packing.probe import begin_row, changes_in_a_batch, mixes_rows, why_not_trained_packed
from msft.packing.rows import Ends, Packed, Row, on_device, pack, upcast

_FULLEST = 1.1  # the longest row of an attention block against its shortest: backward pays for its padding too
# tokens of a pass on a processor, whose cache more would leave; under autocast each pass rounds all weights again and
# sums their gradients up (benchmarks/NOTES.md)
_CPU_TOKENS, _CPU_TOKENS_MIXED = 1024, 2048
# torch 2.11 takes queries that share keys without being told
_SAYS_GROUPED = "enable_gqa" in inspect.signature(varlen.varlen_attn).parameters


class Padded(NamedTuple):
    """ids: [b, t], padded on the right.  rows, columns: [w] places whose logits predict a target."""

    ids: Tensor
    rows: Tensor
    columns: Tensor


class TargetPass(NamedTuple):
    """One pass; packed rows lack their last token, which predicts nothing.

    targets: [w] token ids.  weights: [w] of each in the loss.  examples: [w] position in the step of each target.
    """

    rows: Packed | Padded
    targets: Tensor
    weights: Tensor
    examples: Tensor


class TokenLosses:
    """Cross entropy of a model's target tokens, in nats; every process computes its share of the rows.

    loss_group: examples a micro-batch of the paper's loss.  token_budget: tokens a forward pass, padding included.
    mixed: weights of fp32 are multiplied in bf16 (torch.autocast); attention and the sums stay in fp32.
    path: 'packed' where rows are packed without padding, else 'padded: ' and why.
    """

    def __init__(self, model, loss_group: int, token_budget: int, mixed: bool = False):
        self.model, self.device = model, model.device
        self.loss_group, self.mixed = loss_group, mixed
        self._dtype = torch.promote_types(model.dtype, torch.float32)
        sharded = "its weights are sharded" if distributed.is_sharded(model) else ""
        reason = sharded or why_not_trained_packed(model)
        goes_alone = mixes_rows(model)
        if reason and not sharded and not goes_alone and changes_in_a_batch(model):
            reason, goes_alone = f"{reason}; what pads a row changes it, so rows go one at a time", True
        self.token_budget = 1 if goes_alone else token_budget  # one row a pass, whatever its length
        self.path = f"padded: {reason}" if reason else "packed"

    def gradients(self, rows: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
        """Adds the gradients of one step's loss; returns (loss, summed token losses [n] of the examples), on the device.

        The loss is the mean over micro-batches of `loss_group` examples of each one's token mean (paper, Table 5).
        """
        # what all processes add to goes through one sum
        both = torch.zeros(1 + len(rows), device=self.device, dtype=self._dtype)
        total, sums = both[0], both[1:]
        for batch in self._batches(rows):
            loss, token_losses = self._of_tokens(batch)
            distributed.backward(loss, self.model)
            total += loss.detach()
            sums.index_add_(0, batch.examples, token_losses.detach().to(self._dtype))
        distributed.add_up_gradients(self.model)
        distributed.add_up(both)
        return total, sums

    @torch.no_grad()
    def of_examples(self, rows: Sequence[Tokens]) -> list[float]:
        """Mean target-token loss of each example by a forward pass alone."""
        sums = torch.zeros(len(rows), device=self.device, dtype=self._dtype)
        for batch in self._batches(rows):
            sums.index_add_(0, batch.examples, self._of_tokens(batch)[1].to(self._dtype))
        return means(distributed.add_up(sums), rows)

    def _batches(self, rows: Sequence[Tokens]) -> Iterator[TargetPass]:
        share, padded = (distributed.rank(), distributed.size()), self.path != "packed"
        return make_passes(rows, self.loss_group, self.token_budget, self.model, share, self.mixed, padded)

    def _of_tokens(self, batch: TargetPass) -> tuple[Tensor, Tensor]:
        """The share of a pass in the step's loss, and the losses of its target tokens."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            return target_losses(self.model, batch)


def means(sums: Tensor, rows: Sequence[Tokens]) -> list[float]:
    """Mean target-token loss of each example from its sum."""
    return (sums.cpu() / torch.tensor([row.targets for row in rows])).tolist()


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
    rows: Sequence[Tokens], group: int, budget: int, model, share=(0, 1), mixed: bool = False, padded: bool = False
) -> Iterator[TargetPass]:
    """The passes of one step. budget: tokens of a pass, about.  share: whose rows, as (process, processes)."""
    device, weights = model.device, loss_weights(rows, group)
    exact, lengths = np.float64 if model.dtype == torch.float64 else np.float32, [len(row.ids) for row in rows]
    if padded:
        parts = deal_out(lengths, budget, *share)
    else:
        ranked = sorted(range(len(rows)), key=lambda i: (-lengths[i], i))
        budget = min(budget, _CPU_TOKENS_MIXED if mixed else _CPU_TOKENS) if device.type == "cpu" else budget
        parts = split_evenly(rows, ranked[share[0] :: share[1]], budget)
    for part in parts:
        members = [rows[i] for i in part]
        counts = np.array([row.targets for row in members], dtype=np.int64)
        yield TargetPass(
            rows=_padded(members, device) if padded else _packed(members, model),
            targets=on_device(np.array([i for row in members for i in row.ids[row.start :]], dtype=np.int64), device),
            weights=on_device(np.repeat(np.array([weights[i] for i in part], dtype=exact), counts), device),
            examples=on_device(np.repeat(np.array(part, dtype=np.int64), counts), device),
        )


def _packed(members: Sequence[Tokens], model) -> Packed:
    inputs = [Row(row.ids[:-1], wanted=range(row.start - 1, len(row.ids) - 1)) for row in members]
    return pack(inputs, model.device, _attention_dtype(model.device, model.dtype), _FULLEST, _varies(model))


def _padded(members: Sequence[Tokens], device) -> Padded:
    # padding stands behind a row, where no earlier token sees it: any id that every model has will do; no row is one token
    ids = np.zeros((max(len(members), 1), max([len(row.ids) for row in members], default=1)), dtype=np.int64)
    for line, row in zip(ids, members, strict=False):
        line[: len(row.ids)] = row.ids
    places = [(r, c) for r, row in enumerate(members) for c in range(row.start - 1, len(row.ids) - 1)]
    return Padded(*(on_device(array, device) for array in (ids, *np.array(places, dtype=np.int64).reshape(-1, 2).T)))


def _attention_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """What attention is computed in: fp32 on a processor, whose kernel goes backward faster in it than in half precision."""
    return torch.promote_types(dtype, torch.float32) if device.type == "cpu" else dtype


def _varies(model) -> bool:
    """Whether the variable-length kernel runs: half precision on a GPU that has it."""
    half = model.device.type == "cuda" and model.dtype in (torch.float16, torch.bfloat16)
    return half and torch.cuda.get_device_capability(model.device)[0] >= 8


class _TrainingPass(Pass):
    """A pass of rows without prefixes, through which gradients flow."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, tail: bool = False) -> Tensor:
        # one dtype for the kernels: under autocast the rotary embedding leaves query and key alone in fp32
        exact = _attention_dtype(query.device, query.dtype)
        q, k, v = (tokens_first(x).to(exact) for x in (query, key, value))  # [q, heads, d], [t, heads, d] twice
        reads = self.packed.tail if tail else self.packed.body
        if isinstance(reads, Ends):
            q, k, v = (x.contiguous() for x in (q, k, v))
            # causal from the right: the queries of the tail are the last of their rows
            grouped = {"enable_gqa": True} if _SAYS_GROUPED else {}
            attended = varlen.varlen_attn(q, k, v, *reads, scale=scale, window_size=(-1, 0), **grouped)  # [q, heads, d]
            return attended.unsqueeze(0)
        outs = [out.flatten(0, 1) for out, _ in attend_blocks(q, k, v, reads, scale)]  # [b x m, heads, d]
        return torch.cat(outs)[reads.home].unsqueeze(0).to(query.dtype)  # [1, q, heads, d]


def target_losses(model, batch: TargetPass) -> tuple[Tensor, Tensor]:
    """(weighted sum of the losses, through which gradients flow; token losses [w], in nats)."""
    if isinstance(batch.rows, Padded):
        logits = _padded_logits(model, batch.rows)  # [w, vocabulary]
    else:
        with packed_attention(model):
            hidden = wanted_states(model, _TrainingPass(batch.rows, []))  # [w, hidden size]
        head = model.get_output_embeddings().weight  # [vocabulary, hidden size]
        if torch.is_grad_enabled():
            return _WeightedLosses.apply(hidden, head, batch.targets, batch.weights)
        logits = hidden @ head.T  # [w, vocabulary]
    losses = cross_entropy(upcast(logits), batch.targets, reduction="none")  # [w]
    return (losses * batch.weights).sum(), losses


def _padded_logits(model, batch: Padded) -> Tensor:
    """Logits [w, vocabulary] of the places in a padded batch that predict a target."""
    begin_row(model)
    if not keeps_logits(type(model)):
        return model(input_ids=batch.ids, use_cache=False).logits[batch.rows, batch.columns]
    asked, columns = batch.columns.unique(return_inverse=True)  # [c], [w]
    output = model(input_ids=batch.ids, use_cache=False, logits_to_keep=asked)
    return output.logits[batch.rows, columns]  # from [b, c, vocabulary]


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
