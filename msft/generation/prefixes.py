"""The tokens that rows begin with together, found in the tokens themselves."""

from collections.abc import Sequence
from itertools import pairwise
from os.path import commonprefix

SHORTEST = 8  # tokens; below it, a shared prefix saves less than reading it apart costs
_COST = 32  # tokens that a prefix must save beyond itself to be worth a group of its own


def shared_prefixes(rows: Sequence[Sequence[int]]) -> list[tuple[list[int], list[int]]]:
    """Groups (tokens of the shared prefix, row numbers) in which the rows are fewest tokens in all.

    Every row keeps its last token for itself. Rows that share nothing are the last group, with an empty prefix. Groups
    and their rows come in the rows' sorted order, whatever order they come in.
    """
    order = sorted(range(len(rows)), key=rows.__getitem__)
    # the lexicographic neighbours share what any two rows share; -1 closes all at the end
    common = [*(len(commonprefix([rows[a], rows[b]])) for a, b in pairwise(order)), -1]
    nested = [(-1, [])]  # (tokens shared, best groupings of the parts), the longest beginning last
    for row, length in zip(order, common, strict=False):
        best = 0, [(0, [row])]
        while True:
            if length > nested[-1][0]:
                nested.append((length, []))
            nested[-1][1].append(best)
            if length == nested[-1][0]:
                break
            best = _best(rows, *nested.pop())
    groups = [group for _, part in nested[0][1] for group in part]
    alone = [row for length, members in groups for row in members if not length]
    shared = [(list(rows[members[0]][:length]), members) for length, members in groups if length]
    return [*shared, ([], alone)] if alone else shared


def _best(rows, length: int, parts):
    """(tokens saved, [(length of the prefix, rows)]): all parts under one prefix, or each as it is best by itself."""
    groups = [group for _, part in parts for group in part]
    members = [row for _, group in groups for row in group]
    length = min(length, *(len(rows[row]) - 1 for row in members))
    together = (len(members) - 1) * length - _COST if length >= SHORTEST else 0
    apart = sum(saved for saved, _ in parts)
    return (together, [(length, members)]) if together > 0 and together >= apart else (apart, groups)
