"""Continual SFT: the sub-datasets one after the other, each up to its own early stop (Scialom et al., 2022).

The paper is silent on the order (here: mixture order), on the optimizer between sub-datasets (here: fresh for each)
and on which model is reported (here: the last one, with the mean of the peaks as its epoch).
"""

from dataclasses import dataclass

from msft.settings import setting


@dataclass(frozen=True)
class Params:
    """Settings of Continual SFT."""

    budget: float = setting(3.0, "epochs a sub-dataset at most (C)", low=0.25, high=1000, epochs=True)


def run(trainer, params: Params) -> None:
    """Each sub-dataset from where the one before left, back to its own best point."""
    peaks = {}
    for task in trainer.tasks:
        curve = trainer.roll_out([task], epochs=params.budget, keep=[task], candidate=False)
        peaks[task] = curve.peak(task)
        trainer.roll_back(curve, peaks[task], task=task)
    trainer.note("peaks", peaks=peaks)
    trainer.report(path_epoch=sum(peaks.values()) / len(peaks))
