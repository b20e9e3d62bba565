"""Greedy decoding of many items: a plan that is made once, one pass over prompts and drafts, then token by token.

The draft of an item is checked by the pass over its prompt: the longest prefix of it that greedy decoding agrees with
is taken, and decoding goes on from the first token that differs. What comes out is exactly greedy decoding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from msft.attention import Layers, Pass, partial, prefix_layers, tokens_first, wanted_logits
from msft.packed import Packed, Row, pack, runs
from msft.prefix import shared_prefixes

# tokens of a pass at most: on a processor what a layer works on stays in its caches, on a device it fits its memory
PASS_TOKENS = {"cpu": 1024, "other": 32768}
_ROOM = 32  # places that the cache grows by at a time


@dataclass(frozen=True)
class Item:
    """One sequence to decode: prompt, draft, and the function that says of the tokens so far whether they are all."""

    prompt: list[int]
    draft: list[int]
    finished: Callable[[list[int]], bool]


@dataclass(frozen=True)
class Plan:
    """All that a decoding needs and that does not depend on the weights.

    prefixes: tokens of each shared prefix; batches: (item numbers, their passes' tensors).
    """

    items: Sequence[Item]
    shared: list[int]
    prefix_of: list[int | None]
    prefixes: list[list[int]]
    batches: list[tuple[list[int], Packed]]


def make_plan(items: Sequence[Item], batch_size: int, model) -> Plan:
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
    return Plan(items, shared, prefix_of, prefixes, batches)


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


def decode(model, plan: Plan, batch_size: int, plain: bool, pause: Callable[[], None]) -> list[list[int]]:
    """The tokens that greedy decoding gives each item.

    plain: whether logits are the output embedding of the hidden states.  pause: called before every pass.
    """
    outs: list[list[int]] = [[] for _ in plan.items]
    prefixes = all_prefixes(model, plan.prefixes, pause)
    waiting, count = [], 0
    for members, packed in plan.batches:
        pause()
        current = Pass(packed, prefixes)
        choices = wanted_logits(model, current, plain).argmax(-1).tolist()
        live, used = [], 0
        for row, i in enumerate(members):
            draft = plan.items[i].draft
            given = choices[used : used + max(len(draft), 1)]
            used += len(given)
            if not _accept(plan.items[i], outs[i], given, draft):
                live.append(row)
        if live:
            waiting.append(_taken_out(current, members, live, outs, plan))
            count += len(live)
        if count >= batch_size:
            _step_by_step(model, plan, outs, waiting, prefixes, plain, pause)
            waiting, count = [], 0
    _step_by_step(model, plan, outs, waiting, prefixes, plain, pause)
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
class _Waiting:
    """Items that go on token by token. layers: keys and values [rows, places, heads, d] of their own tokens."""

    members: list[int]
    filled: list[int]
    layers: Layers


def _taken_out(current: Pass, members: list[int], rows: list[int], outs, plan: Plan) -> _Waiting:
    """Items of a pass that are not finished, with copies of their keys and values."""
    packed = current.packed
    items = [members[row] for row in rows]
    # what lies behind an item's accepted tokens belongs to refused drafts
    filled = [len(plan.items[i].prompt) - plan.shared[i] + len(outs[i]) - 1 for i in items]
    starts = torch.tensor([packed.starts[row] for row in rows], device=packed.ids.device)
    lengths = torch.tensor(filled, device=packed.ids.device)
    columns = torch.arange(max(filled), device=packed.ids.device)
    places = starts[:, None] + torch.minimum(columns, lengths[:, None] - 1)
    layers = {n: tuple(tokens_first(x)[places] for x in pair) for n, pair in current.kept.items()}
    return _Waiting(items, filled, layers)


class _Step(Pass):
    """A pass over one new token of every row, whose own earlier tokens are in a cache that is written in place.

    ids, places: [r] the tokens and their places in the cache; behind: [r] tokens of each row's prefix.
    """

    def __init__(
        self, prefixes, layers: Layers, ids: Tensor, places: Tensor, behind: Tensor, segments, end: int, dtype
    ):
        rows = torch.arange(len(ids), device=ids.device)
        super().__init__(Packed(ids[None], (places + behind)[None], rows), prefixes)
        self.layers, self.rows, self.places, self.segments, self.end = layers, rows, places, segments, end
        seen = torch.arange(end, device=ids.device) <= places[:, None]
        mask = torch.zeros(seen.shape, dtype=dtype, device=ids.device).masked_fill(~seen, -torch.inf)
        self.mask = mask[:, None, None]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, tail: bool = False) -> Tensor:
        """As `Pass.attend`; here all tokens are wanted."""
        keys, values = self.layers[layer]
        keys[self.rows, self.places], values[self.rows, self.places] = tokens_first(key), tokens_first(value)
        query = tokens_first(query)
        own = (query[:, None], keys[:, : self.end], values[:, : self.end])
        out, lse = partial(*own, self.mask, False, scale)
        return self.with_prefix(layer, query, out[:, 0], lse[:, 0], self.segments, scale).unsqueeze(0)


def _step_by_step(model, plan: Plan, outs, waiting: Sequence[_Waiting], prefixes, plain: bool, pause) -> None:
    """Greedy decoding, a token a pass, of all items that wait."""
    if not waiting:
        return
    device, items = model.device, plan.items
    members = [i for group in waiting for i in group.members]
    filled = [n for group in waiting for n in group.filled]
    room = max(filled) + _ROOM
    layers = {
        n: tuple(torch.cat([_widen(group.layers[n][x], room) for group in waiting]) for x in (0, 1))
        for n in waiting[0].layers
    }
    while True:
        pause()
        ids = torch.tensor([outs[i][-1] for i in members], device=device)
        places = torch.tensor(filled, device=device)
        behind = torch.tensor([plan.shared[i] for i in members], device=device)
        segments = runs([plan.prefix_of[i] for i in members], [1] * len(members))
        step = _Step(prefixes, layers, ids, places, behind, segments, max(filled) + 1, model.dtype)
        choices = wanted_logits(model, step, plain).argmax(-1).tolist()
        live = [row for row, i in enumerate(members) if not _accept(items[i], outs[i], choices[row : row + 1], [])]
        if not live:
            return
        members, filled = [members[row] for row in live], [filled[row] + 1 for row in live]
        if len(live) < len(choices):
            index = torch.tensor(live, device=device)
            layers = {n: (k[index], v[index]) for n, (k, v) in layers.items()}
        if max(filled) >= room:
            room += _ROOM
            layers = {n: (_widen(k, room), _widen(v, room)) for n, (k, v) in layers.items()}


def _widen(states: Tensor, places: int) -> Tensor:
    """[rows, n, heads, d] with zeros behind, up to `places`; they are masked until they are written."""
    return torch.nn.functional.pad(states, (0, 0, 0, 0, 0, places - states.shape[1]))
