"""Greedy decoding of many items: batches made once, one pass over prompts and drafts, then token by token.

Once a text has left its draft, others are tried where it may repeat another text (drafts.py).
"""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from msft.generation.prefixes import shared_prefixes
from msft.generation.steps import Group, Item, Text, step_by_step, taken_out
from msft.packing.attention import Layers, Pass, prefix_layers, wanted_logits
from msft.packing.rows import Packed, Row, grouped, pack, upcast

# tokens of a pass at most: on a processor what a layer works on stays in its caches, on a device it fits its memory
PASS_TOKENS = {"cpu": 1024, "other": 32768}
_SOME = 1024  # rows of logits at a time in full precision
_NONE = -100  # what torch's cross entropy leaves out


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

    former: the tokens that each item was given at the last decoding; empty before the first, and in half precision on a
    processor (decode).
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
    batches = []
    for a, b in chunks([len(row.tokens) for row in rows], batch_size, model.device):
        targets = _targets(items, order[a:b], rows[a:b], model.device)
        batches.append(Batch(order[a:b], rows[a:b], pack(rows[a:b], model.device, model.dtype), targets))
    return Batches(items, [prefix for prefix, _ in groups if prefix], batches, [[] for _ in items])


def _targets(items: Sequence[Item], numbers: Sequence[int], rows: Sequence[Row], device) -> Tensor | None:
    targets = []
    for i, row in zip(numbers, rows, strict=True):
        gold = items[i].draft[: items[i].gold]
        targets += gold + [_NONE] * (len(row.wanted) - len(gold))
    return torch.tensor(targets, device=device) if set(targets) != {_NONE} else None


def pass_tokens(device: torch.device) -> int:
    """Tokens of a pass at most."""
    return PASS_TOKENS["cpu" if device.type == "cpu" else "other"]


def chunks(sizes: Sequence[int], batch_size: int, device: torch.device) -> list[tuple[int, int]]:
    """(first, last) of consecutive rows: at most batch_size of them, and PASS_TOKENS tokens, in a pass."""
    most = pass_tokens(device)

    def fits(rows: list[int], i: int) -> bool:
        return len(rows) < batch_size and sum(sizes[rows[0] : i + 1]) <= most

    return [(rows[0], rows[-1] + 1) for rows in grouped(range(len(sizes)), fits)]


def decode(
    model, batches: Batches, batch_size: int, pause: Callable[[], None]
) -> tuple[list[list[int]], dict[int, float]]:
    """(greedy tokens of each item, {item: summed loss of its gold tokens, in nats}); pause: called before a pass."""
    outs: list[list[int]] = [[] for _ in batches.items]
    losses: dict[int, float] = {}
    prefixes, most = all_prefixes(model, batches.prefixes, pause), pass_tokens(model.device)
    waiting: list[Group] = []
    for batch in batches.batches:
        pause()
        current = Pass(batch.packed, prefixes)
        logits = wanted_logits(model, current)  # [w, vocabulary]
        losses |= _gold_losses(logits, batch)
        choices = iter(logits.argmax(-1).tolist())
        numbered = zip(batch.numbers, batch.rows, strict=True)
        texts = [Text(batches.items[i], row, outs[i], batches.former[i]) for i, row in numbered]
        is_live = [not text.accept(list(islice(choices, len(text.row.wanted))), text.item.draft) for text in texts]
        if any(is_live):
            waiting.append(taken_out(current, texts, [n for n, live in enumerate(is_live) if live]))
        if sum(len(group.texts) for group in waiting) >= batch_size:
            waiting = step_by_step(model, waiting, prefixes, most, pause, batch_size // 2)
    step_by_step(model, waiting, prefixes, most, pause)
    if model.device.type != "cpu" or model.dtype in (torch.float32, torch.float64):
        batches.former[:] = outs
    # else the passes' shapes show in the rounding: answers come from the weights alone, before and after a kill
    return outs, losses


def _gold_losses(logits: Tensor, batch: Batch) -> dict[int, float]:
    """{item: summed loss} of a pass from the logits [w, vocabulary] of its wanted tokens."""
    if batch.targets is None:
        return {}
    pairs = zip(logits.split(_SOME), batch.targets.split(_SOME), strict=True)
    # 0 where nothing is asked
    losses = torch.cat([cross_entropy(upcast(some), targets, reduction="none") for some, targets in pairs]).cpu()  # [w]
    sums = [float(part.sum()) for part in losses.split([len(row.wanted) for row in batch.rows])]
    return dict(zip(batch.numbers, sums, strict=True))


def all_prefixes(model, prefixes: Sequence[list[int]], pause: Callable[[], None]) -> list[Layers]:
    """Keys and values of all prefixes."""
    layers: list[Layers] = []
    for first, last in chunks([len(tokens) for tokens in prefixes], len(prefixes), model.device):
        pause()
        layers += prefix_layers(model, prefixes[first:last])
    return layers
