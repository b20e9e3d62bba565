"""Greedy decoding of many items: batches made once, one pass over prompts and drafts, then token by token.

The draft of an item is checked by the pass over its prompt: the longest prefix of it that greedy decoding agrees with
is taken, and decoding goes on from the first token that differs, with further drafts where the text may repeat another
(drafts.py). What comes out is exactly greedy decoding.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from msft.generation.drafts import Repeats
from msft.generation.prefixes import shared_prefixes
from msft.packing.attention import Layers, Pass, partial, prefix_layers, tokens_first, wanted_logits
from msft.packing.rows import Packed, Row, pack, prefix_segments

# tokens of a pass at most: on a processor what a layer works on stays in its caches, on a device it fits its memory
PASS_TOKENS = {"cpu": 1024, "other": 32768}
_ROOM = 32  # places that the cache of a row grows by
_FEW = 16  # rows that are joined to one group
_SOME = 1024  # rows of logits at a time in full precision
_NONE = -100  # what torch's cross entropy leaves out


class Item(NamedTuple):
    """One sequence to decode: prompt, draft, and the function that says of the tokens so far whether they are all.

    limit: tokens at most.  gold: how many tokens of the draft the loss is asked of, from the first on.
    """

    prompt: list[int]
    draft: list[int]
    finished: Callable[[list[int]], bool]
    limit: int
    gold: int = 0


class Batch(NamedTuple):
    """Items of one pass over prompts and drafts: their numbers, their rows, and the tensors of the rows.

    targets: [w] the token whose loss is asked at each wanted place, or _NONE; None where no loss is asked.
    """

    numbers: list[int]
    rows: list[Row]
    packed: Packed
    targets: Tensor | None


class Batches(NamedTuple):
    """All that a decoding needs and that does not depend on the weights. prefixes: tokens of each shared prefix.

    former: the tokens that each item was given at the last decoding; empty before the first.
    """

    items: Sequence[Item]
    prefixes: list[list[int]]
    batches: list[Batch]
    former: list[list[int]]


def make_batches(items: Sequence[Item], batch_size: int, model) -> Batches:
    """Prefixes and passes of items to decode."""
    groups = shared_prefixes([item.prompt for item in items])
    order, rows = [], []
    for number, (prefix, members) in enumerate(groups):
        for i in sorted(members, key=lambda i: (-len(items[i].prompt) - len(items[i].draft), items[i].prompt)):
            rest = items[i].prompt[len(prefix) :]
            tokens = rest + items[i].draft[:-1]
            order.append(i)
            rows.append(Row(tokens, len(prefix), number if prefix else None, range(len(rest) - 1, len(tokens))))
    cuts = chunks([len(row.tokens) for row in rows], batch_size, model.device)
    batches = []
    for a, b in cuts:
        targets = _targets(items, order[a:b], rows[a:b], model.device)
        batches.append(Batch(order[a:b], rows[a:b], pack(rows[a:b], model.device, model.dtype), targets))
    return Batches(items, [prefix for prefix, _ in groups if prefix], batches, [[] for _ in items])


def _targets(items: Sequence[Item], numbers: Sequence[int], rows: Sequence[Row], device) -> Tensor | None:
    targets = []
    for i, row in zip(numbers, rows, strict=True):
        gold = items[i].draft[: items[i].gold]
        targets += gold + [_NONE] * (len(row.wanted) - len(gold))
    return torch.tensor(targets, device=device) if set(targets) != {_NONE} else None


def chunks(sizes: Sequence[int], batch_size: int, device: torch.device) -> list[tuple[int, int]]:
    """(first, last) of consecutive rows: at most batch_size of them, and PASS_TOKENS tokens, in a pass."""
    most = PASS_TOKENS["cpu" if device.type == "cpu" else "other"]
    cuts, tokens = [0], 0
    for i, size in enumerate(sizes):
        if i > cuts[-1] and (i - cuts[-1] == batch_size or tokens + size > most):
            cuts.append(i)
            tokens = 0
        tokens += size
    return list(zip(cuts, [*cuts[1:], len(sizes)], strict=True)) if sizes else []


def decode(
    model, batches: Batches, batch_size: int, pause: Callable[[], None]
) -> tuple[list[list[int]], dict[int, float]]:
    """(the tokens that greedy decoding gives each item, {item: summed loss of its gold tokens, in nats}).

    pause: called before every pass.
    """
    outs: list[list[int]] = [[] for _ in batches.items]
    losses: dict[int, float] = {}
    prefixes = all_prefixes(model, batches.prefixes, pause)
    waiting: list[_Group] = []
    for batch in batches.batches:
        pause()
        current = Pass(batch.packed, prefixes)
        logits = wanted_logits(model, current)  # [w, vocabulary]
        losses |= _gold_losses(logits, batch)
        choices = iter(logits.argmax(-1).tolist())
        texts = [
            _Text(batches.items[i], row, outs[i], batches.former[i])
            for i, row in zip(batch.numbers, batch.rows, strict=True)
        ]
        is_live = [not text.accept(list(islice(choices, len(text.row.wanted))), text.item.draft) for text in texts]
        if any(is_live):
            waiting.append(_taken_out(current, texts, [n for n, live in enumerate(is_live) if live]))
        if sum(len(group.texts) for group in waiting) >= batch_size:
            waiting = _step_by_step(model, waiting, prefixes, pause, batch_size // 2)
    _step_by_step(model, waiting, prefixes, pause)
    batches.former[:] = outs
    return outs, losses


def _gold_losses(logits: Tensor, batch: Batch) -> dict[int, float]:
    """{item: summed loss} of a pass from the logits [w, vocabulary] of its wanted tokens."""
    if batch.targets is None:
        return {}
    exact, losses = torch.promote_types(logits.dtype, torch.float32), []
    for some, targets in zip(logits.split(_SOME), batch.targets.split(_SOME), strict=True):
        losses.append(cross_entropy(some.to(exact), targets, reduction="none"))  # 0 where nothing is asked
    losses = torch.cat(losses).cpu()  # [w]
    sums = [float(part.sum()) for part in losses.split([len(row.wanted) for row in batch.rows])]
    return dict(zip(batch.numbers, sums, strict=True))


def all_prefixes(model, prefixes: Sequence[list[int]], pause: Callable[[], None]) -> list[Layers]:
    """Keys and values of all prefixes."""
    layers: list[Layers] = []
    for first, last in chunks([len(tokens) for tokens in prefixes], len(prefixes), model.device):
        pause()
        layers += prefix_layers(model, prefixes[first:last])
    return layers


@dataclass(frozen=True)
class _Text:
    """An item on its way: its row of the first pass, the tokens that it has so far, and those of the last decoding."""

    item: Item
    row: Row
    out: list[int]
    former: list[int]

    @functools.cached_property
    def repeats(self) -> Repeats:
        """What it may repeat."""
        return Repeats(self.item.prompt, self.item.draft, self.former)

    def go_on(self) -> list[int]:
        """The newest token, and a draft of those behind it."""
        return [self.out[-1], *self.repeats.draft(self.out, self.item.limit - len(self.out) - 1)]

    @property
    def cached(self) -> int:
        """Tokens of its row whose keys and values count: all but the newest; a refused draft stands behind them."""
        return len(self.item.prompt) - self.row.start + len(self.out) - 1

    def accept(self, choices: Sequence[int], draft: Sequence[int] = ()) -> bool:
        """Takes greedy choices while the draft before them was right; says whether the item is finished."""
        for k, token in enumerate(choices):
            self.out.append(token)
            if self.item.finished(self.out):
                return True
            if k >= len(draft) or token != draft[k]:
                return False
        return False

    def check(self, choices: Sequence[int], draft: Sequence[int]) -> bool:
        """As `accept`, for a draft of `go_on`."""
        before = len(self.out)
        is_finished = self.accept(choices, draft)
        self.repeats.learn(len(draft), len(self.out) - before - 1)
        return is_finished


@dataclass(frozen=True)
class _Group:
    """Texts of one pass, hence of similar length, that go on token by token.

    layers: keys and values [rows, places, heads, dim] of their rows; nothing behind a text's cached tokens is read.
    """

    texts: list[_Text]
    layers: Layers

    @property
    def room(self) -> int:
        """Places a row."""
        return next(iter(self.layers.values()))[0].shape[1]

    def left(self, rows: list[int]) -> "_Group":
        """The group of these rows alone."""
        if len(rows) == len(self.texts):
            return self
        return _Group([self.texts[row] for row in rows], {n: (k[rows], v[rows]) for n, (k, v) in self.layers.items()})

    def with_places_for(self, tokens: Sequence[list[int]]) -> "_Group":
        """The group with room for these tokens of its rows."""
        needed = max(text.cached + len(some) for text, some in zip(self.texts, tokens, strict=True))
        return self if needed <= self.room else self.widened(needed + _ROOM)

    def widened(self, places: int) -> "_Group":
        """The group with room for so many places a row, at least."""
        more = places - self.room
        if more <= 0:
            return self
        return _Group(
            self.texts, {n: tuple(pad(x, (0, 0, 0, 0, 0, more)) for x in kv) for n, kv in self.layers.items()}
        )


def _taken_out(current: Pass, texts: list[_Text], rows: list[int]) -> _Group:
    """The rows of a pass that are not finished, with copies of their keys and values."""
    device, live = current.packed.ids.device, [texts[row] for row in rows]
    starts = torch.tensor([current.packed.starts[row] for row in rows], device=device)  # [rows]
    lengths = torch.tensor([text.cached for text in live], device=device)  # [rows]
    # most items need these tokens and one more: the end
    columns = torch.arange(max(text.cached + len(text.go_on()) for text in live) + 1, device=device)  # [places]
    places = starts[:, None] + torch.minimum(columns, lengths[:, None] - 1)  # [rows, places]
    return _Group(live, {n: tuple(tokens_first(x)[places] for x in kv) for n, kv in current.kept.items()})


def _joined(groups: Sequence[_Group]) -> list[_Group]:
    """Neighbouring groups of few rows as one: a kernel for a handful of rows costs as much as for many."""
    joined: list[_Group] = []
    for group in groups:
        if joined and len(joined[-1].texts) + len(group.texts) <= _FEW:
            places = max(joined[-1].room, group.room)
            a, b = joined.pop().widened(places), group.widened(places)
            layers = {n: tuple(map(torch.cat, zip(a.layers[n], b.layers[n], strict=True))) for n in a.layers}
            group = _Group(a.texts + b.texts, layers)
        joined.append(group)
    return joined


class _Step(Pass):
    """A pass over the newest tokens of every text, one group behind the other; caches are written in place."""

    def __init__(self, model, prefixes: Sequence[Layers], groups: Sequence[_Group], tokens: Sequence[list[int]]):
        device, texts = model.device, [text for group in groups for text in group.texts]
        sizes = [len(some) for some in tokens]
        ids = torch.tensor([token for some in tokens for token in some], device=device)  # [t]
        counts = torch.tensor(sizes, device=device)  # [rows]
        cached = torch.tensor([text.cached for text in texts], device=device)  # [rows]
        before = torch.tensor([text.row.start for text in texts], device=device)  # [rows]
        firsts = counts.cumsum(0) - counts  # [rows]
        columns = torch.arange(len(ids), device=device) - firsts.repeat_interleave(counts)  # [t]
        places = cached.repeat_interleave(counts) + columns  # [t]
        positions = places + before.repeat_interleave(counts)  # [t]
        super().__init__(Packed(ids[None], positions[None], torch.arange(len(ids), device=device)), prefixes)
        self.segments = prefix_segments([text.row.prefix for text in texts], sizes)
        self.reads, first, row = [], 0, 0
        for group in groups:
            some = slice(row, row + len(group.texts))
            last, most = first + sum(sizes[some]), max(sizes[some])
            asked = torch.arange(most, device=device).minimum(
                counts[some, None] - 1
            )  # [b, m] columns, the last repeated
            seen = cached[some, None] + asked  # [b, m]
            end = max(text.cached + size for text, size in zip(group.texts, sizes[some], strict=True))
            is_seen = torch.arange(end, device=device) <= seen[..., None]  # [b, m, end]
            mask = torch.zeros(is_seen.shape, dtype=model.dtype, device=device).masked_fill(~is_seen, -torch.inf)
            own = torch.arange(len(group.texts), device=device).repeat_interleave(counts[some])  # [tokens of the group]
            home = own * most + columns[first:last]  # [tokens of the group]
            self.reads.append(
                (group, first, last, own, places[first:last], firsts[some, None] + asked, home, mask[:, None])
            )
            first, row = last, some.stop

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, tail: bool = False) -> Tensor:
        """As `Pass.attend`; here all tokens are wanted."""
        query, key, value = (tokens_first(x) for x in (query, key, value))  # [t, heads, d]
        outs, sums = [], []
        for group, first, last, own, places, queries, home, mask in self.reads:
            keys, values = group.layers[layer]  # [b, places, heads, d]
            keys[own, places], values[own, places] = key[first:last], value[first:last]
            end = mask.shape[-1]
            out, lse = partial(query[queries], keys[:, :end], values[:, :end], mask, False, scale)
            outs.append(out.flatten(0, 1)[home])  # [tokens of the group, heads, d]
            sums.append(lse.flatten(0, 1)[home])  # [tokens of the group, heads]
        return self.with_prefix(layer, query, torch.cat(outs), torch.cat(sums), self.segments, scale).unsqueeze(0)


def _step_by_step(
    model, groups: list[_Group], prefixes: Sequence[Layers], pause: Callable[[], None], few: int = 0
) -> list[_Group]:
    """Greedy decoding of all texts that wait, a pass over them at a time, until few are left."""
    while sum(len(group.texts) for group in groups) > few:
        pause()
        tokens = [[text.go_on() for text in group.texts] for group in groups]
        groups = [group.with_places_for(some) for group, some in zip(groups, tokens, strict=True)]
        step = _Step(model, prefixes, groups, [one for some in tokens for one in some])
        choices = iter(wanted_logits(model, step).argmax(-1).tolist())
        rest = []
        for group, some in zip(groups, tokens, strict=True):
            live = [
                row
                for row, (text, (_, *draft)) in enumerate(zip(group.texts, some, strict=True))
                if not text.check(list(islice(choices, 1 + len(draft))), draft)
            ]
            if live:
                rest.append(group.left(live))
        groups = _joined(rest) if len(rest) > 1 else rest
    return groups
