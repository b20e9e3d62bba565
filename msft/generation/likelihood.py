"""Log-likelihoods of continuations: one row a context, whose continuations branch off it without seeing each other."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch

from msft.generation.decoding import all_prefixes, chunks
from msft.generation.prefixes import shared_prefixes
from msft.packing.attention import Pass, wanted_logits
from msft.packing.rows import Row, grouped, pack

Pair = tuple[list[int], list[int]]  # tokens of a context and of a continuation


class _Tree(NamedTuple):
    """A context and its continuations as one row; reads: (pair, places among the wanted tokens, targets) of each."""

    row: Row
    reads: list[tuple[int, list[int], list[int]]]


def score(model, pairs: Sequence[Pair], batch_size: int, pause: Callable[[], None]) -> list[tuple[float, bool]]:
    """(log-likelihood, is greedy) of each pair's continuation. batch_size: pairs a pass, at least one context."""
    shares = _shares(pairs)
    groups = shared_prefixes([context for context, _ in shares])
    layers = all_prefixes(model, [prefix for prefix, _ in groups if prefix], pause)
    scores: dict[int, tuple[float, bool]] = {}
    for number, (prefix, members) in enumerate(groups):
        ranked = sorted((shares[i] for i in members), key=lambda share: (-len(share[0]), share[0]))
        start, number = len(prefix), number if prefix else None
        trees = [_tree(context[start:], start, number, {i: pairs[i][1] for i in some}) for context, some in ranked]
        most = max(1, batch_size // max(len(tree.reads) for tree in trees))
        for first, last in chunks([len(tree.row.tokens) for tree in trees], most, model.device):
            pause()
            current = Pass(pack([tree.row for tree in trees[first:last]], model.device, model.dtype), layers)
            scores.update(_read(wanted_logits(model, current), trees[first:last]))
    return [scores[i] for i in range(len(pairs))]


def _shares(pairs: Sequence[Pair]) -> list[tuple[tuple[int, ...], list[int]]]:
    """(context, pairs) of each row: the continuations of a context together, while they are no longer than it.

    A row sees itself whole: many continuations of a short context, as an empty one, would cost the square of their sum.
    """
    alike: dict[tuple[int, ...], list[int]] = {}
    for i, (context, _) in enumerate(pairs):
        alike.setdefault(tuple(context), []).append(i)

    def fits(row: list[int], i: int) -> bool:
        return sum(len(pairs[j][1]) for j in (*row, i)) <= len(pairs[i][0])

    return [(context, row) for context, members in alike.items() for row in grouped(members, fits)]


def _tree(trunk: Sequence[int], start: int, prefix: int | None, continuations: dict[int, list[int]]) -> _Tree:
    """The row of one context behind a prefix. continuations: pair -> tokens."""
    tokens, wanted, branches, reads = list(trunk), [len(trunk) - 1], [], []
    places: dict[tuple[int, ...], list[int]] = {(): [0]}  # among the wanted tokens, of equal inputs once
    for pair, continuation in continuations.items():
        inputs = tuple(continuation[:-1])  # its last token is predicted, never read
        if inputs not in places:
            first = len(tokens)
            tokens += inputs
            branches.append((first, len(tokens)))
            places[inputs] = [0, *range(len(wanted), len(wanted) + len(inputs))]
            wanted += range(first, len(tokens))
        reads.append((pair, places[inputs], continuation))
    return _Tree(Row(tokens, start, prefix, wanted, branches), reads)


def _read(logits: torch.Tensor, trees: Sequence[_Tree]) -> Iterator[tuple[int, tuple[float, bool]]]:
    """(pair, score) of all continuations of a pass from the logits [wanted, vocabulary] of its wanted tokens."""
    places, targets, sizes, pairs, offset = [], [], [], [], 0
    for tree in trees:
        for pair, where, continuation in tree.reads:
            pairs.append(pair)
            places += [offset + place for place in where]
            targets += continuation
            sizes.append(len(continuation))
        offset += len(tree.row.wanted)
    logits = logits.float()
    index, target = torch.tensor(places, device=logits.device), torch.tensor(targets, device=logits.device)  # [targets]
    log_probs = logits[index, target] - torch.logsumexp(logits, -1)[index]  # [targets]
    is_greedy = logits.argmax(-1)[index] == target  # [targets]
    for pair, p, g in zip(pairs, log_probs.cpu().split(sizes), is_greedy.cpu().split(sizes), strict=True):
        yield pair, (float(p.sum()), bool(g.all()))
