"""Packed rows: the tokens of all rows of a forward pass behind one another in one sequence [1, t], without padding."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_FULLEST = 1.5  # the longest row of a block against its shortest: bounds what padding costs in attention


@dataclass(frozen=True)
class Row:
    """One row of a pass.

    tokens: its own tokens.  start: position of the first one, behind prefix and past.  prefix: number of the prefix
    that it reads, or None.  wanted: columns of tokens whose hidden state is asked for, ascending.
    branches: (first, last) columns of continuations that follow the same trunk and do not see each other.
    """

    tokens: Sequence[int]
    start: int = 0
    prefix: int | None = None
    wanted: Sequence[int] = ()
    branches: Sequence[tuple[int, int]] = ()


class Block(NamedTuple):
    """b rows of similar length, m query and n key tokens each; mask: [b, 1, m, n], added to the scores, or None for causal
    attention (m = n)."""

    b: int
    m: int
    n: int
    mask: Tensor | None


class Reads(NamedTuple):
    """What a set of query tokens attends to: segments (first, last, prefix) of them, and blocks of rows.

    queries, keys: [sum of b x m], [sum of b x n] places among the tokens, one block behind the other; home: [q] the place
    of each query token in the blocks' outputs.
    """

    segments: list[tuple[int, int, int]]
    blocks: list[Block]
    queries: Tensor
    keys: Tensor
    home: Tensor


class Ends(NamedTuple):
    """The same for the variable-length kernel: where each row's queries and keys end [rows + 1], and the most of a row.

    It needs rows without prefixes and branches, whose query tokens are their last ones.
    """

    queries: Tensor
    keys: Tensor
    most_queries: int
    most_keys: int


@dataclass(frozen=True)
class Packed:
    """The tensors of one pass over rows: a pure function of the rows, so it can be kept from one pass to the next.

    ids, positions: [1, t]; wanted: [w] places of the hidden states that are asked for; starts: place of each row.
    body: what all tokens attend to.  tail: what the wanted tokens attend to; the last layer runs for them alone.
    """

    ids: Tensor
    positions: Tensor
    wanted: Tensor
    starts: Sequence[int] = ()
    lengths: Sequence[int] = ()
    body: Reads | Ends | None = None
    tail: Reads | Ends | None = None


def pack(rows: Sequence[Row], device, dtype: torch.dtype, fullest: float = _FULLEST, with_ends: bool = False) -> Packed:
    """The tensors of a pass; rows with the same prefix stand next to each other.

    dtype: of the model.  fullest: the longest row of a block against its shortest.  with_ends: Ends instead of Reads.
    """
    lengths = np.array([len(row.tokens) for row in rows])
    starts = np.cumsum(lengths) - lengths
    wanted = [np.asarray(row.wanted, dtype=np.int64) for row in rows]  # columns of each row
    if with_ends:
        body, tail = _ends(lengths, np.array([len(columns) for columns in wanted]), device)
    else:
        whole = [np.arange(n) for n in lengths]
        body, tail = (_reads(rows, columns, lengths, starts, device, dtype, fullest) for columns in (whole, wanted))
    places = np.concatenate([start + columns for start, columns in zip(starts, wanted, strict=True)])
    return Packed(
        ids=on_device(np.concatenate([np.asarray(row.tokens, dtype=np.int64) for row in rows])[None], device),  # [1, t]
        positions=on_device(np.concatenate([row.start + _depths(row) for row in rows])[None], device),  # [1, t]
        wanted=on_device(places, device),  # [w]
        starts=starts.tolist(),
        lengths=lengths.tolist(),
        body=body,
        tail=tail,
    )


def on_device(array: np.ndarray, device) -> Tensor:
    """An array as a tensor of a device; on a GPU the copy from pinned memory waits for nothing."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def moved(arrays: Sequence[np.ndarray], device) -> list[Tensor]:
    """Arrays of whole numbers as tensors of a device, all in one copy."""
    whole = on_device(np.concatenate([array.ravel() for array in arrays]), device)
    parts = whole.split([array.size for array in arrays])
    return [part.view(array.shape) for part, array in zip(parts, arrays, strict=True)]


def upcast(logits: Tensor) -> Tensor:
    """Logits of half precision in fp32; others as they are."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _depths(row: Row) -> np.ndarray:
    """Tokens before each token, those of other branches not counted."""
    depths = np.arange(len(row.tokens))
    for first, last in row.branches:
        depths[first:last] -= first - row.branches[0][0]
    return depths


def _ends(lengths: np.ndarray, counts: np.ndarray, device) -> tuple[Ends, Ends]:
    """For all tokens of rows, `lengths` a row, and for their last ones, `counts` a row."""
    ends = (np.concatenate([[0], np.cumsum(n)]).astype(np.int32) for n in (lengths, counts))
    keys, queries = (on_device(end, device) for end in ends)  # [rows + 1]
    most_keys, most_queries = int(lengths.max()), int(counts.max())
    return Ends(keys, keys, most_keys, most_keys), Ends(queries, keys, most_queries, most_keys)


def _reads(rows, columns, lengths, starts, device, dtype, fullest) -> Reads:
    """What the tokens at `columns` of each row attend to."""
    counts = np.array([len(c) for c in columns])
    firsts = np.cumsum(counts) - counts
    segments = prefix_segments([row.prefix for row in rows], counts.tolist())
    blocks, places, home, used = [], ([], []), np.zeros(counts.sum(), dtype=np.int64), 0
    for members in _alike(lengths, counts, fullest):
        m, n = counts[members].max(), lengths[members].max()
        of_row = np.array([np.pad(columns[r], (0, m - counts[r]), mode="edge") for r in members])  # [b, m]
        queries = firsts[members, None] + np.minimum(np.arange(m), counts[members, None] - 1)  # [b, m]
        keys = starts[members, None] + np.minimum(np.arange(n), lengths[members, None] - 1)  # [b, n]
        is_causal = m == n and not any(rows[r].branches for r in members) and (counts == lengths)[members].all()
        mask = None if is_causal else _mask([rows[r] for r in members], of_row, n).to(device, dtype)  # [b, 1, m, n]
        blocks.append(Block(len(members), int(m), int(n), mask))
        for indices, some in zip(places, (queries, keys), strict=True):
            indices.append(some.ravel())
        for b, r in enumerate(members):
            home[firsts[r] : firsts[r] + counts[r]] = used + b * m + np.arange(counts[r])
        used += len(members) * m
    of_blocks = (np.concatenate([np.zeros(0, dtype=np.int64), *indices]) for indices in places)
    return Reads(segments, blocks, *(on_device(indices, device) for indices in of_blocks), on_device(home, device))


def grouped(numbers: Iterable[int], joins: Callable[[list[int], int], bool]) -> list[list[int]]:
    """Numbers in groups, in their order: each joins the group before it where it may, or begins one."""
    groups: list[list[int]] = []
    for number in numbers:
        if groups and joins(groups[-1], number):
            groups[-1].append(number)
        else:
            groups.append([number])
    return groups


def prefix_segments(prefixes: Sequence[int | None], counts: Sequence[int]) -> list[tuple[int, int, int]]:
    """(first, last, prefix) of neighbouring tokens that read the same prefix, `counts` tokens a row."""
    segments, end = [], 0
    for prefix, neighbours in groupby(zip(prefixes, counts, strict=True), key=itemgetter(0)):
        start, end = end, end + sum(count for _, count in neighbours)
        if prefix is not None and start < end:
            segments.append((start, end, prefix))
    return segments


def _alike(lengths: np.ndarray, counts: np.ndarray, fullest: float) -> list[list[int]]:
    """Rows in groups of similar length, the longest first; rows without queries are left out."""
    ranked = [r for r in np.argsort(-lengths, kind="stable").tolist() if counts[r]]
    return grouped(ranked, lambda group, r: lengths[group[0]] <= fullest * lengths[r])


def _mask(rows: Sequence[Row], columns: np.ndarray, n: int) -> Tensor:
    """[b, 1, m, n]: 0 where the token at a column of its row sees another, else -inf."""
    seen = torch.from_numpy(np.arange(n)[None, None] <= columns[:, :, None])  # [b, m, n]
    for b, row in enumerate(rows):
        for first, last in row.branches:
            inside = torch.from_numpy((columns[b] >= first) & (columns[b] < last))  # [m]
            # a branch sees the trunk and itself
            seen[b, inside, row.branches[0][0] : first] = False
    return torch.zeros(seen.shape).masked_fill(~seen, -torch.inf).unsqueeze(1)
