"""What a roll-out trains when: the order of examples, and what a method may hear and choose on the way.

A schedule is random access: `batch(epoch, step)` depends on nothing but its arguments and the schedule's state, so
a run that goes on in the middle of an epoch trains what it would have trained.
"""

from collections.abc import Sequence

import numpy as np

from msft.seeds import order


class Schedule:
    """Base: full passes over `indices`, shuffled every epoch. Methods override what they need."""

    hears = False  # whether `hear` wants the loss of every trained example
    saved: tuple[str, ...] = ()  # names of the arrays that a resumed run needs beside the notes

    def __init__(self):
        self.notes: list[dict] = []  # what the method's figure needs, one entry an event

    def start(self, trainer, active: Sequence[str]) -> None:
        """Called before the first step; the trainer's stage is set."""
        self.trainer, self.active = trainer, list(active)
        owners = np.array(trainer.owners, dtype=object)
        self.members = [np.flatnonzero(owners == task) for task in self.active]
        self.indices = np.sort(np.concatenate(self.members))
        self._orders: dict[int, np.ndarray] = {}  # of the newest epoch

    def examples(self, epoch: int) -> np.ndarray:
        """Indices of the examples of an epoch, in a fixed order that `batch` shuffles."""
        return self.indices

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            place = (self.trainer.config.seed, self.trainer.order_stage, epoch)
            self._orders = {epoch: order(*place, self.active, self.examples(epoch))}
        return self._orders[epoch]

    def steps(self, epoch: int) -> int:
        """Optimizer steps of an epoch, the last one partial."""
        return -(-len(self._order(epoch)) // self.trainer.config.batch_size)

    def batch(self, epoch: int, step: int) -> list[int]:
        """Indices of the examples of one step."""
        size = self.trainer.config.batch_size
        return self._order(epoch)[step * size : (step + 1) * size].tolist()

    def before_step(self, progress) -> None:
        """Called before every step."""

    def hear(self, indices: Sequence[int], losses: Sequence[float]) -> None:
        """Mean target-token losses of the examples of a step, before its update."""

    def end_epoch(self, progress) -> None:
        """Called after the last step of an epoch, before its evaluation."""

    def state(self) -> dict:
        """What a resumed run needs beyond the position: plain values, and numpy arrays, which are kept as tensors."""
        return {"notes": self.notes, **{name: getattr(self, name) for name in self.saved}}

    def load_state(self, state: dict) -> None:
        """Puts `state` back."""
        self.notes = state["notes"]
        for name in self.saved:
            setattr(self, name, np.array(state[name]))


class Passes(Schedule):
    """Full passes: every epoch has each active example once (SFT, mSFT)."""
