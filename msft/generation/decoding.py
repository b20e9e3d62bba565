"""Greedy decoding of many items: a plan that is made once, one pass over prompts and drafts, then token by token.

The draft of an item is checked by the pass over its prompt: the longest prefix of it that greedy decoding agrees with
is taken, and decoding goes on from the first token that differs. What comes out is exactly greedy decoding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from msft.generation.prefixes import shared_prefixes
from msft.packing.attention import Layers, Pass, partial, prefix_layers, tokens_first, wanted_logits
from msft.packing.rows import Packed, Row, pack, runs

# tokens of a pass at most: on a processor what a layer works on stays in its caches, on a device it fits its memory
PASS_TOKENS = {"cpu": 1024, "other": 32768}
_FIRST_ROOM, _ROOM = 2, 32  # places behind a row's tokens at first, and that its cache grows by
_FEW = 16  # rows that are joined to one group


@dataclass(frozen=True)
class Item:
    """One sequence to decode: prompt, draft, and the function that says of the tokens so far whether they are all."""

    prompt: list[int]
    draft: list[int]
    finished: Callable[[list[int]], bool]


@dataclass(frozen=True)
class Batches:
    """All that a decoding needs and that does not depend on the weights.

    prefixes: tokens of each shared prefix; batches: (item numbers, their passes' tensors).
    """

    items: Sequence[Item]
    shared: list[int]
    prefix_of: list[int | None]
    prefixes: list[list[int]]
    batches: list[tuple[list[int], Packed]]


def make_batches(items: Sequence[Item], batch_size: int, model) -> Batches:
    """Prefixes and passes of items to decode."""
    shared, prefix_of, prefixes = [0] * len(items), [None] * len(items), []
    order: list[int] = []
    groups = shared_prefixes([item.prompt for item in items], [len(item.prompt) - 1 for item in items])
    for length, members in groups:
        if length:
            for i in members:
                shared[i], prefix_of[i] = length, len(prefixes)
            prefixes.append(items[members[0]].prompt[:length])
        order += sorted(members, key=lambda i: (-len(items[i].prompt) - len(items[i].draft), items[i].prompt))
    rows = []
    for i in order:
        own = items[i].prompt[shared[i] :]
        tokens = own + items[i].draft[:-1]
        rows.append(Row(tokens, shared[i], prefix_of[i], range(len(own) - 1, len(tokens))))
    batches = [
        (order[first:last], pack(rows[first:last], model.device, model.dtype))
        for first, last in chunks([len(row.tokens) for row in rows], batch_size, model.device)
    ]
    return Batches(items, shared, prefix_of, prefixes, batches)


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


def decode(model, planned: Batches, batch_size: int, pause: Callable[[], None]) -> list[list[int]]:
    """The tokens that greedy decoding gives each item.

    pause: called before every pass.
    """
    outs: list[list[int]] = [[] for _ in planned.items]
    prefixes = all_prefixes(model, planned.prefixes, pause)
    waiting, count = [], 0
    for members, packed in planned.batches:
        pause()
        current = Pass(packed, prefixes)
        choices = wanted_logits(model, current).argmax(-1).tolist()
        live, used = [], 0
        for row, i in enumerate(members):
            draft = planned.items[i].draft
            given = choices[used : used + max(len(draft), 1)]
            used += len(given)
            if not _accept(planned.items[i], outs[i], given, draft):
                live.append(row)
        if live:
            waiting.append(_taken_out(current, members, live, outs, planned))
            count += len(live)
        if count >= batch_size:
            _step_by_step(model, planned, outs, waiting, prefixes, pause)
            waiting, count = [], 0
    _step_by_step(model, planned, outs, waiting, prefixes, pause)
    return outs


def all_prefixes(model, prefixes: Sequence[list[int]], pause: Callable[[], None]) -> list[Layers]:
    """Keys and values of all prefixes."""
    found: list[Layers] = []
    for first, last in chunks([len(tokens) for tokens in prefixes], len(prefixes), model.device):
        pause()
        found += prefix_layers(model, prefixes[first:last])
    return found


def _accept(item: Item, out: list[int], choices: Sequence[int], proposed: Sequence[int]) -> bool:
    """Takes greedy choices while the proposals before them were right; says whether the item is finished."""
    for k, token in enumerate(choices):
        out.append(token)
        if item.finished(out):
            return True
        if k >= len(proposed) or token != proposed[k]:
            return False
    return False


@dataclass
class _Group:
    """Items of one pass, hence of similar length, that go on token by token.

    layers: keys and values [rows, places, heads, d] of their own tokens; nothing behind `filled` places is read.
    """

    members: list[int]
    filled: list[int]
    layers: Layers

    @property
    def room(self) -> int:
        """Places a row."""
        return next(iter(self.layers.values()))[0].shape[1]

    def left(self, rows: list[int]) -> "_Group":
        """The group of these rows alone."""
        if len(rows) == len(self.members):
            return self
        layers = {n: (k[rows], v[rows]) for n, (k, v) in self.layers.items()}
        return _Group([self.members[row] for row in rows], [self.filled[row] for row in rows], layers)

    def widened(self, places: int) -> "_Group":
        """The group with room for so many places a row, at least."""
        more = places - self.room
        if more <= 0:
            return self
        pad = (0, 0, 0, 0, 0, more)
        layers = {n: tuple(torch.nn.functional.pad(x, pad) for x in pair) for n, pair in self.layers.items()}
        return _Group(self.members, self.filled, layers)


def _taken_out(current: Pass, members: list[int], rows: list[int], outs, planned: Batches) -> _Group:
    """Items of a pass that are not finished, with copies of their keys and values."""
    packed = current.packed
    items = [members[row] for row in rows]
    # what lies behind an item's accepted tokens belongs to refused drafts
    filled = [len(planned.items[i].prompt) - planned.shared[i] + len(outs[i]) - 1 for i in items]
    starts = torch.tensor([packed.starts[row] for row in rows], device=packed.ids.device)
    lengths = torch.tensor(filled, device=packed.ids.device)
    # most items need one token more or two: an answer's last one and the end
    columns = torch.arange(max(filled) + _FIRST_ROOM, device=packed.ids.device)
    places = starts[:, None] + torch.minimum(columns, lengths[:, None] - 1)
    layers = {n: tuple(tokens_first(x)[places] for x in pair) for n, pair in current.kept.items()}
    return _Group(items, filled, layers)


def _joined(groups: Sequence[_Group]) -> list[_Group]:
    """Neighbouring groups of few rows as one: a kernel for a handful of rows costs as much as for many."""
    found: list[_Group] = []
    for group in groups:
        if found and len(found[-1].members) + len(group.members) <= _FEW:
            places = max(found[-1].room, group.room)
            a, b = found.pop().widened(places), group.widened(places)
            layers = {n: tuple(map(torch.cat, zip(a.layers[n], b.layers[n], strict=True))) for n in a.layers}
            group = _Group(a.members + b.members, a.filled + b.filled, layers)
        found.append(group)
    return found


class _Step(Pass):
    """A pass over one new token of every row, whose own earlier tokens are in caches that are written in place.

    ids: [r] the tokens, behind: [r] tokens of each row's prefix, both one group behind the other.
    """

    def __init__(self, prefixes, groups: Sequence[_Group], ids: Tensor, behind: Tensor, segments, dtype):
        device, self.segments, self.reads, first = ids.device, segments, [], 0
        places = torch.tensor([n for group in groups for n in group.filled], device=device)
        super().__init__(Packed(ids[None], (places + behind)[None], torch.arange(len(ids), device=device)), prefixes)
        for group in groups:
            last, end = first + len(group.members), max(group.filled) + 1
            own = places[first:last]
            seen = torch.arange(end, device=device) <= own[:, None]
            mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill(~seen, -torch.inf)
            self.reads.append((group, first, last, torch.arange(last - first, device=device), own, mask[:, None, None]))
            first = last

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, tail: bool = False) -> Tensor:
        """As `Pass.attend`; here all tokens are wanted."""
        query, key, value = (tokens_first(x) for x in (query, key, value))
        outs, sums = [], []
        for group, first, last, rows, places, mask in self.reads:
            keys, values = group.layers[layer]
            keys[rows, places], values[rows, places] = key[first:last], value[first:last]
            end = mask.shape[-1]
            out, lse = partial(query[first:last, None], keys[:, :end], values[:, :end], mask, False, scale)
            outs.append(out[:, 0])
            sums.append(lse[:, 0])
        return self.with_prefix(layer, query, torch.cat(outs), torch.cat(sums), self.segments, scale).unsqueeze(0)


def _step_by_step(model, planned: Batches, outs, groups: Sequence[_Group], prefixes, pause) -> None:
    """Greedy decoding, a token a pass, of all items that wait."""
    device, items = model.device, planned.items
    while groups:
        pause()
        members = [i for group in groups for i in group.members]
        ids = torch.tensor([outs[i][-1] for i in members], device=device)
        behind = torch.tensor([planned.shared[i] for i in members], device=device)
        segments = runs([planned.prefix_of[i] for i in members], [1] * len(members))
        step = _Step(prefixes, groups, ids, behind, segments, model.dtype)
        choices = iter(wanted_logits(model, step).argmax(-1).tolist())
        left = []
        for group in groups:
            taken = [next(choices) for _ in group.members]
            live = [
                row for row, i in enumerate(group.members) if not _accept(items[i], outs[i], taken[row : row + 1], [])
            ]
            if live:
                rest = group.left(live)
                rest.filled = [n + 1 for n in rest.filled]
                left.append(rest.widened(rest.room + _ROOM) if max(rest.filled) >= rest.room else rest)
        groups = _joined(left) if len(left) > 1 else left
