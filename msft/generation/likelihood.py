"""Log-likelihoods of continuations: one row a context, whose continuations branch off it without seeing each other."""

from collections.abc import Callable, Sequence

import torch

from msft.generation.decoding import all_prefixes, chunks
from msft.generation.prefixes import shared_prefixes
from msft.packing.attention import Pass, wanted_logits
from msft.packing.rows import Row, pack

Pair = tuple[list[int], list[int]]  # tokens of a context and of a continuation


def score(model, pairs: Sequence[Pair], batch_size: int, pause: Callable[[], None]):
    """(log-likelihood, is greedy) of each pair's continuation. batch_size: pairs a pass, at least one context."""
    shares = _shares(pairs)
    items = [context for context, _ in shares]
    groups = shared_prefixes(items, [len(context) - 1 for context in items])
    prefixes = [list(items[members[0]][:length]) for length, members in groups]
    layers = all_prefixes(model, [tokens for tokens in prefixes if tokens], pause)
    scores: list[tuple[float, bool]] = [(0.0, False)] * len(pairs)
    number = 0
    for length, members in groups:
        ranked = sorted(members, key=lambda c: (-len(items[c]), items[c]))
        trees = [_tree(items[c][length:], [(i, pairs[i][1]) for i in shares[c][1]]) for c in ranked]
        prefix = number if length else None
        rows = [Row(tokens, length, prefix, wanted, branches) for tokens, wanted, branches, _ in trees]
        number += bool(length)
        sizes = [len(row.tokens) for row in rows]
        most = max(1, batch_size // max(len(shares[c][1]) for c in ranked))
        for first, last in chunks(sizes, most, model.device):
            pause()
            current = Pass(pack(rows[first:last], model.device, model.dtype), layers)
            logits = wanted_logits(model, current)
            for i, found in _read(logits, trees[first:last]):
                scores[i] = found
    return scores


def _shares(pairs: Sequence[Pair]) -> list[tuple[tuple[int, ...], list[int]]]:
    """(context, pairs) of each row: the continuations of a context together, while they are no longer than it.

    A row sees itself whole: many continuations of a short context, as an empty one, would cost the square of their sum.
    """
    shares: dict[tuple[int, ...], list[list[int]]] = {}
    tokens: dict[tuple[int, ...], int] = {}
    for i, (context, continuation) in enumerate(pairs):
        key = tuple(context)
        if key not in shares or tokens[key] + len(continuation) > len(key):
            shares.setdefault(key, []).append([])
            tokens[key] = 0
        shares[key][-1].append(i)
        tokens[key] += len(continuation)
    return [(context, row) for context, rows in shares.items() for row in rows]


def _tree(trunk: Sequence[int], continuations: Sequence[tuple[int, list[int]]]):
    """(tokens, wanted columns, branches, [(pair, places among the wanted, targets)]) of one context."""
    tokens, wanted, branches, reads = list(trunk), [len(trunk) - 1], [], []
    known: dict[tuple[int, ...], list[int]] = {(): []}
    for pair, continuation in continuations:
        inputs = tuple(continuation[:-1])  # its last token is predicted, never read
        if inputs not in known:
            first = len(tokens)
            tokens += inputs
            branches.append((first, len(tokens)))
            known[inputs] = list(range(len(wanted), len(wanted) + len(inputs)))
            wanted += range(first, len(tokens))
        reads.append((pair, [0, *known[inputs]], continuation))
    return tokens, wanted, branches, reads


def _read(logits: torch.Tensor, trees) -> list[tuple[int, tuple[float, bool]]]:
    """(pair, score) of all continuations of a pass from the logits [w, vocabulary] of its wanted tokens."""
    places, targets, sizes, pairs, offset = [], [], [], [], 0
    for _, wanted, _, reads in trees:
        for pair, where, continuation in reads:
            pairs.append(pair)
            places += [offset + place for place in where]
            targets += continuation
            sizes.append(len(continuation))
        offset += len(wanted)
    logits = logits.float()
    index, target = torch.tensor(places, device=logits.device), torch.tensor(targets, device=logits.device)
    log_probs = logits[index, target] - torch.logsumexp(logits, -1)[index]
    greedy = logits.argmax(-1)[index] == target
    parts = zip(pairs, log_probs.cpu().split(sizes), greedy.cpu().split(sizes), strict=True)
    return [(pair, (float(p.sum()), bool(g.all()))) for pair, p, g in parts]
