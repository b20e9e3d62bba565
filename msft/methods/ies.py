"""IES: an example whose loss has stopped bending sits out the next epoch (Yuan et al., 2025; appendix F.1 [4]).

D_i(t) = L_i(t) - 2 L_i(t-1) + L_i(t-2) over the mean target-token losses of epochs t; from the end of epoch 3 on,
examples with |D_i| < delta sit out the next epoch. Recomputed every epoch, so an example can return (the public code
for image classification also averages three values of D, which could not start before epoch 6). Those that sit out
get a forward pass at the epoch's end, which is counted.
"""

from dataclasses import dataclass

import numpy as np

from msft.schedules import Schedule
from msft.settings import setting


@dataclass(frozen=True)
class Params:
    """Settings of IES."""

    epochs: float = setting(10.0, "epochs over the whole mixture", low=0.25, high=1000, epochs=True)
    delta: float = setting(1e-3, "threshold of the second difference, in nats", low=0.0, high=1e6)


class InstanceStops(Schedule):
    """Full passes over the examples that do not sit out."""

    hears, saved = True, ("losses", "current", "out")

    def __init__(self, delta: float):
        super().__init__()
        self.delta = delta

    def start(self, trainer, active) -> None:
        """Before the first epoch nobody sits out."""
        super().start(trainer, active)
        count = len(trainer.owners)
        self.losses = np.empty((0, count))  # [up to 3, n] of the last epochs
        self.current, self.out = np.full(count, np.nan), np.zeros(count, dtype=bool)

    def examples(self, epoch: int) -> np.ndarray:
        """Those that do not sit this epoch out."""
        return self.indices[~self.out[self.indices]]

    def hear(self, indices, losses) -> None:
        """The loss of an example in the epoch that is under way."""
        self.current[indices] = losses

    def end_epoch(self, progress) -> None:
        """Losses of those that sat out, then who sits out next."""
        resting = self.indices[self.out[self.indices]]
        if len(resting):
            self.current[resting] = self.trainer.example_losses(resting)
            progress.forward_tokens += sum(len(self.trainer.rows[i].ids) for i in resting)
        self.notes.append({"epoch": len(self.notes) + 1, "sat_out": resting.tolist(), "of": len(self.indices)})
        self.losses = np.concatenate([self.losses[-2:], self.current[None]])
        if len(self.losses) == 3:
            self.out = np.abs(self.losses[2] - 2 * self.losses[1] + self.losses[0]) < self.delta


def run(trainer, params: Params) -> None:
    """One roll-out in which examples come and go."""
    trainer.roll_out(trainer.tasks, epochs=params.epochs, schedule=InstanceStops(params.delta))
