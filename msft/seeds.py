"""The order of a run: pure functions of seed, stage, epoch and place, without torch."""

import hashlib
import math
import numbers
from collections.abc import Sequence

import numpy as np

from msft.errors import RunError


def order(seed: int, stage: int, epoch: int, active: Sequence[str], indices: np.ndarray) -> np.ndarray:
    """A permutation of example indices that depends on nothing but its arguments."""
    return generator(seed, stage, epoch, *active).permutation(indices)


def generator(*key: int | str) -> np.random.Generator:
    """A random generator that is a pure function of its key."""
    digest = hashlib.sha256("\x00".join(map(str, key)).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))


def quarter_ends(steps: int, evaluations: int) -> list[int]:
    """After which step of an epoch each evaluation comes; the last at the epoch's end."""
    return [math.ceil(steps * k / evaluations) for k in range(1, evaluations + 1)]


def intervals(epochs: float, per_epoch: int) -> int:
    """Evaluation intervals in a number of epochs. Raises RunError where they are no whole number."""
    is_number = isinstance(epochs, numbers.Real) and math.isfinite(epochs)
    wanted = round(epochs * per_epoch) if is_number else 0
    if wanted < 1 or not math.isclose(wanted, epochs * per_epoch):
        raise RunError(f"roll_out: {epochs!r} epochs is no multiple of 1/{per_epoch}, the evaluation interval")
    return wanted
