"""The tokens that items share, and a cache of keys and values that grows in place."""

from collections.abc import Sequence

import torch
from transformers.cache_utils import DynamicLayer

_SHORTEST_PREFIX = 8  # tokens; below it, a shared prefix saves less than its own forward pass costs


def shared_length(rows: Sequence[Sequence[int]], spare: Sequence[int]) -> int:
    """Length of the tokens that all rows begin with, each keeping at least 1 + spare tokens of its own."""
    low, high = min(rows), max(rows)  # the lexicographic extremes share what all share
    most = min(len(row) - 1 - extra for row, extra in zip(rows, spare, strict=True))
    same = 0
    for a, b in zip(low, high, strict=False):
        if a != b:
            break
        same += 1
    shared = max(min(same, most), 0)
    return shared if shared >= _SHORTEST_PREFIX and len(rows) > 1 else 0


def by_prefix(rows: Sequence[Sequence[int]], sizes: Sequence[int]) -> list[list[int]]:
    """Row numbers grouped so that each group begins with the same tokens."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(tuple(row[:_SHORTEST_PREFIX]), []).append(i)
    return list(groups.values())


def widen(tensor: torch.Tensor, length: int) -> torch.Tensor:
    """[b, heads, t, d] with zeros behind, up to `length` places; masked places are never read."""
    return torch.nn.functional.pad(tensor, (0, 0, 0, length - tensor.shape[2]))


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer with room behind them, so that a new token is written, not the whole copied."""

    room = 32  # tokens added at a time

    def __init__(self, keys: torch.Tensor, values: torch.Tensor):
        super().__init__()
        self.lazy_initialization(keys, values)
        self.length = keys.shape[2]
        self._keys, self._values = keys, values
        self.keys, self.values = keys, values

    def update(self, key_states, value_states, *args, **kwargs):
        """Appends [b, heads, t, d]; returns all keys and values so far."""
        end = self.length + key_states.shape[2]
        if end > self._keys.shape[2]:
            self._keys = widen(self._keys, end + self.room)
            self._values = widen(self._values, end + self.room)
        self._keys[:, :, self.length : end] = key_states
        self._values[:, :, self.length : end] = value_states
        self.length = end
        self.keys, self.values = self._keys[:, :, :end], self._values[:, :, :end]
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps some rows, room included."""
        self._keys, self._values = self._keys[indices], self._values[indices]
        self.keys, self.values = self._keys[:, :, : self.length], self._values[:, :, : self.length]
