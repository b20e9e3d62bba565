"""Soft SRO SFT: one roll-out finds every peak, a second training from the base samples each in proportion to it.

Algorithm 3 and appendix F.1 [6]. The paper's weight formula was lost; here w_i = c_i / mean(c), which gives the
totals of Table 7. An epoch has round(w_i n_i) examples of i: full passes and a seeded remainder. Without any peak
all weights are 1.
"""

from dataclasses import dataclass

import numpy as np

from msft.schedules import Schedule
from msft.seeds import generator
from msft.settings import setting


@dataclass(frozen=True)
class Params:
    """Settings of Soft SRO SFT."""

    epochs: float = setting(10.0, "epochs of the search and of the training", low=0.25, high=1000, epochs=True)


class WeightedPasses(Schedule):
    """Epochs with round(w_i n_i) examples of each sub-dataset i."""

    def __init__(self, weights: dict[str, float]):
        super().__init__()
        self.weights = weights

    def examples(self, epoch: int) -> np.ndarray:
        """Full passes over each sub-dataset, then a seeded part of one."""
        trainer, drawn = self.trainer, []
        for task, indices in zip(self.active, self.members, strict=True):
            full, rest = divmod(round(self.weights[task] * len(indices)), len(indices))
            part = generator(trainer.config.seed, "remainder", trainer.order_stage, epoch, task)
            drawn += [indices] * full + [np.sort(part.choice(indices, rest, replace=False))]
        return np.concatenate(drawn)


def run(trainer, params: Params) -> None:
    """Search, then train with the sampling weights that the search found."""
    search = trainer.search(params.epochs)
    peaks = {task: search.peak(task) for task in trainer.tasks}
    mean = sum(peaks.values()) / len(peaks)
    weights = {task: peak / mean if mean else 1.0 for task, peak in peaks.items()}
    trainer.note("weights", peaks=peaks, weights=weights)
    trainer.restart(search)
    trainer.roll_out(trainer.tasks, epochs=params.epochs, schedule=WeightedPasses(weights))
