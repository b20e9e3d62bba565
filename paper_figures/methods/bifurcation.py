"""The experiment of section 3.1: train until the first sub-dataset over-fits, then go on with it and without it.

Both branches begin at the same checkpoint, with a fresh optimizer each, and differ in the excluded sub-dataset alone.
The paper does not say how long the branches are; here `branch` epochs.
"""

from dataclasses import dataclass

from msft.methods.msft import earliest_overfit
from msft.settings import setting


@dataclass(frozen=True)
class Params:
    """Settings of the bifurcation."""

    budget: float = setting(
        3.0,
        "epochs on the full mixture in which the first over-fitting is looked for",
        low=0.25,
        high=1000,
        epochs=True,
    )
    branch: float = setting(7.0, "epochs of each branch", low=0.25, high=1000, epochs=True)


def run(trainer, params: Params) -> None:
    """Stages 0, 1, ...: full mixture until one over-fits; then the full branch, then the reduced one."""
    tasks = list(trainer.tasks)
    overfit = None
    while overfit is None:  # comes to an end: no accuracy can be at its highest after every roll-out for ever
        curve = trainer.roll_out(tasks, epochs=params.budget, keep=tasks)
        overfit = earliest_overfit(curve, tasks)
    first, epoch = overfit
    trainer.roll_back(curve, epoch, first=first)
    trainer.note("bifurcation", first=first)
    full = trainer.roll_out(tasks, epochs=params.branch, keep_start=True)
    trainer.roll_back(full, 0.0, branch="reduced")
    trainer.roll_out([task for task in tasks if task != first], epochs=params.branch)
