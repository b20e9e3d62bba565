"""Texts that go on behind their first pass: a pass over the newest tokens of all of them at a time."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from msft.generation.drafts import Repeats
from msft.packing.attention import Layers, Pass, partial, tokens_first, wanted_logits
from msft.packing.rows import Packed, Row, moved, prefix_segments

_FIRST_ROOM, _ROOM = 2, 32  # places behind a row's tokens at first, and that its cache grows by
_UNEVEN = 4  # tokens of a row in a step against their mean
_FEW = 16  # rows that are joined to one group
_FREE = 6  # tokens of a step that take as long as one: the weights are read once for all of them


class Item(NamedTuple):
    """One sequence to decode: prompt, draft, and the function that says of the tokens so far whether they are all.

    limit: tokens at most.  gold: how many tokens of the draft the loss is asked of, from the first on.
    """

    prompt: list[int]
    draft: list[int]
    finished: Callable[[list[int]], bool]
    limit: int
    gold: int = 0


@dataclass(frozen=True)
class Text:
    """An item on its way: its row of the first pass, the tokens that it has so far, and those of the last decoding."""

    item: Item
    row: Row
    out: list[int]
    former: list[int]

    @functools.cached_property
    def repeats(self) -> Repeats:
        """What it may repeat."""
        return Repeats(self.item.prompt, self.item.draft, self.former)

    def go_on(self, most: int, free: int) -> list[int]:
        """The newest token and a draft of those behind it: `most` tokens at most, of which `free` cost nothing."""
        left = self.item.limit - len(self.out)
        return [self.out[-1], *self.repeats.draft(self.out, min(most, left) - 1, max(free - 1, 0))]

    @property
    def cached(self) -> int:
        """Tokens of its row whose keys and values count: all but the newest; a refused draft stands behind them."""
        return len(self.item.prompt) - self.row.start + len(self.out) - 1

    def accept(self, choices: Sequence[int], draft: Sequence[int]) -> bool:
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
class Group:
    """Texts of one pass, hence of similar length, that go on together.

    layers: keys and values [rows, heads, places, dim] of their rows; nothing behind a text's cached tokens is read.
    """

    texts: list[Text]
    layers: Layers

    @property
    def room(self) -> int:
        """Places a row."""
        return next(iter(self.layers.values()))[0].shape[2]

    def left(self, rows: list[int]) -> "Group":
        """The group of these rows alone."""
        if len(rows) == len(self.texts):
            return self
        return Group([self.texts[row] for row in rows], {n: (k[rows], v[rows]) for n, (k, v) in self.layers.items()})

    def go_on(self, most: int, free: int) -> list[list[int]]:
        """Tokens of each text in a step; those far longer than most are cut, for attention pads them to the longest."""
        tokens = [text.go_on(most, free) for text in self.texts]
        longest = _UNEVEN * -(-sum(map(len, tokens)) // len(tokens))
        return [some[:longest] for some in tokens]

    def with_places_for(self, tokens: Sequence[list[int]]) -> "Group":
        """The group with room for these tokens of its rows."""
        needed = max(text.cached + len(some) for text, some in zip(self.texts, tokens, strict=True))
        return self if needed <= self.room else self.widened(needed + _ROOM)

    def widened(self, places: int) -> "Group":
        """The group with room for so many places a row, at least."""
        more = places - self.room
        if more <= 0:
            return self
        return Group(self.texts, {n: tuple(pad(x, (0, 0, 0, more)) for x in kv) for n, kv in self.layers.items()})


def taken_out(current: Pass, texts: list[Text], rows: list[int]) -> Group:
    """The rows of a pass that are not finished, with copies of their keys and values."""
    device, live = current.packed.ids.device, [texts[row] for row in rows]
    starts = torch.tensor([current.packed.starts[row] for row in rows], device=device)  # [rows]
    lengths = torch.tensor([text.cached for text in live], device=device)  # [rows]
    # most items need one token more or two, an answer's last one and the end, or as many as at the last decoding
    needed = max(max(text.cached, text.cached + len(text.former) - len(text.out)) for text in live) + _FIRST_ROOM
    columns = torch.arange(needed, device=device)  # [places]
    places = starts[:, None] + torch.minimum(columns, lengths[:, None] - 1)  # [rows, places]
    # a row's keys of one head lie together, which reads them fastest
    kept = current.kept.items()
    return Group(live, {n: tuple(x[0, :, places].transpose(0, 1).contiguous() for x in kv) for n, kv in kept})


def _joined(groups: Sequence[Group]) -> list[Group]:
    """Neighbouring groups of few rows as one: a kernel for a handful of rows costs as much as for many."""
    joined: list[Group] = []
    for group in groups:
        if joined and len(joined[-1].texts) + len(group.texts) <= _FEW:
            places = max(joined[-1].room, group.room)
            a, b = joined.pop().widened(places), group.widened(places)
            layers = {n: tuple(map(torch.cat, zip(a.layers[n], b.layers[n], strict=True))) for n in a.layers}
            group = Group(a.texts + b.texts, layers)
        joined.append(group)
    return joined


class _Read(NamedTuple):
    """What the tokens of a group read. tokens: where they stand in the pass.  at: where their keys are written, rows and
    places.  queries: [b, m] places among the tokens of the pass; mask: [b, 1, m, n], added to the scores; home: the
    place of each token among the b x m."""

    group: Group
    tokens: slice
    at: tuple[Tensor, slice, Tensor]
    queries: Tensor
    mask: Tensor
    home: Tensor


class _Step(Pass):
    """A pass over the newest tokens of every text, one group behind the other; caches are written in place."""

    def __init__(self, model, prefixes: Sequence[Layers], groups: Sequence[Group], tokens: Sequence[list[int]]):
        device, texts = model.device, [text for group in groups for text in group.texts]
        counts = np.array([len(some) for some in tokens])  # [rows]
        cached = np.array([text.cached for text in texts])  # [rows]
        before = np.array([text.row.start for text in texts])  # [rows]
        firsts = counts.cumsum() - counts  # [rows] the place of each row's first token
        row = np.repeat(np.arange(len(texts)), counts)  # [t]
        columns = np.arange(len(row)) - firsts[row]  # [t]
        places = cached[row] + columns  # [t]
        ids = np.concatenate(tokens)  # [t]
        inputs = moved([ids[None], (places + before[row])[None], np.arange(len(row))], device)
        super().__init__(Packed(*inputs), prefixes)
        self.segments = prefix_segments([text.row.prefix for text in texts], counts.tolist())
        self.reads, last = [], 0
        for group in groups:
            rows = slice(last, last + len(group.texts))
            span = slice(firsts[rows.start], firsts[rows.start] + counts[rows].sum())
            most, end = counts[rows].max(), int((cached + counts)[rows].max())
            # of rows with fewer tokens the last one is asked again
            asked = np.minimum(np.arange(most), counts[rows, None] - 1)  # [b, m]
            owner = row[span] - rows.start  # [t of the group]
            home = owner * most + columns[span]  # [t of the group]
            arrays = owner, places[span], firsts[rows, None] + asked, cached[rows, None] + asked, home
            owner, written, queries, seen, home = moved(arrays, device)
            is_seen = torch.arange(end, device=device) <= seen[..., None]  # [b, m, end]
            mask = torch.zeros(is_seen.shape, dtype=model.dtype, device=device).masked_fill(~is_seen, -torch.inf)
            at = owner, slice(None), written
            self.reads.append(_Read(group, span, at, queries, mask[:, None], home))
            last = rows.stop

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, tail: bool = False) -> Tensor:
        """As `Pass.attend`; here all tokens are wanted."""
        query, key, value = (tokens_first(x) for x in (query, key, value))  # [t, heads, d]
        outs, sums = [], []
        for group, tokens, at, queries, mask, home in self.reads:
            keys, values = group.layers[layer]  # [b, heads, places, d]
            keys[at], values[at] = key[tokens], value[tokens]
            near = (states[:, :, : mask.shape[-1]].transpose(1, 2) for states in (keys, values))  # [b, end, heads, d]
            out, lse = partial(query[queries], *near, mask, False, scale)
            outs.append(out.flatten(0, 1)[home])  # [tokens of the group, heads, d]
            sums.append(lse.flatten(0, 1)[home])  # [tokens of the group, heads]
        return self.with_prefix(layer, query, torch.cat(outs), torch.cat(sums), self.segments, scale).unsqueeze(0)


def step_by_step(
    model, groups: list[Group], prefixes: Sequence[Layers], most: int, pause: Callable[[], None], few: int = 0
) -> list[Group]:
    """Greedy decoding of all texts that wait, a pass over `most` tokens of them at a time, until few texts are left."""
    while sum(len(group.texts) for group in groups) > few:
        pause()
        live = sum(len(group.texts) for group in groups)
        tokens = [group.go_on(max(1, most // live), _FREE // live) for group in groups]
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
