"""The tokens that rows begin with together, found in the tokens themselves."""

from collections.abc import Sequence

import numpy as np

SHORTEST = 8  # tokens; below it, a shared prefix saves less than reading it apart costs
_DEEPEST = 100  # nested prefixes that are looked at
_COST = 32  # tokens that a prefix must save beyond itself to be worth a group of its own


def shared_prefixes(rows: Sequence[Sequence[int]], most: Sequence[int]) -> list[tuple[int, list[int]]]:
    """Groups (length of the shared prefix, row numbers) in which the rows are fewest tokens in all.

    most: tokens that a row can give to a prefix.  Rows that share nothing are one group with the length 0. Groups and
    their rows come in the rows' sorted order, whatever order they are given in.
    """
    order = sorted(range(len(rows)), key=rows.__getitem__)
    ids = [np.asarray(rows[i]) for i in order]
    # the lexicographic neighbours share what any two rows share
    common = [_common(a, b) for a, b in zip(ids, ids[1:], strict=False)]
    limits = [most[i] for i in order]
    alone, groups = [], []
    for first, last, length in _best(common, limits, 0, len(order))[1]:
        if length:
            groups.append((length, order[first:last]))
        else:
            alone += order[first:last]
    return [*groups, (0, alone)] if alone else groups


def _common(a: np.ndarray, b: np.ndarray) -> int:
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n


def _best(common: list[int], most: list[int], first: int, last: int, depth: int = 0):
    """(tokens saved, [(first, last, length of the prefix)]) of the best grouping of sorted rows first..last."""
    if last - first < 2:
        return 0, [(first, last, 0)]
    between = common[first : last - 1]
    shared = min(between)
    length = min(shared, min(most[first:last]))
    saved = (last - first - 1) * length - _COST if length >= SHORTEST else 0
    whole = saved, [(first, last, length if saved > 0 else 0)]
    # what follows the shared tokens can save no more than this; rows of ever longer beginnings are not followed for ever
    if saved >= 0.8 * (sum(between) - _COST) or depth == _DEEPEST:
        return whole
    cuts = [first, *(first + i + 1 for i, n in enumerate(between) if n == shared), last]
    parts = [_best(common, most, a, b, depth + 1) for a, b in zip(cuts, cuts[1:], strict=False)]
    apart = sum(part[0] for part in parts)
    return (apart, [group for part in parts for group in part[1]]) if apart > saved else whole
