"""mSFT: roll out, find the sub-dataset that over-fits first, roll back to its peak, drop it, go on (Algorithm 1).

The paper leaves open how ties are broken (here: mixture order) and whether the number of stages is bounded
(here: a cap, since a stage that drops nobody can recur).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msft.settings import setting


@dataclass(frozen=True)
class Params:
    """Settings of mSFT."""

    budget: float = setting(3.0, "budget C of a stage, epochs of its active mixture", low=0.25, high=1000, epochs=True)
    max_stages: int = setting(0, "stages at most; 0 stands for twice the number of sub-datasets", low=0, high=10**6)


def earliest_overfit(curve: Mapping[float, Mapping[str, float]], active: Sequence[str]) -> tuple[str, float] | None:
    """The active sub-dataset whose accuracy peaks first in a roll-out (Algorithm 1, lines 4 to 7).

    curve: {epoch: {sub-dataset: accuracy}}, the start point included.
    active: the sub-datasets that may be dropped, in mixture order, which breaks ties.
    Returns (sub-dataset, epoch of its earliest best accuracy), or None where the earliest peak is the
    roll-out's last evaluation: nobody has over-fitted yet.
    """
    epochs = sorted(curve)
    peaks = {task: max(epochs, key=lambda epoch: (curve[epoch][task], -epoch)) for task in active}
    first = min(active, key=lambda task: peaks[task])
    return None if peaks[first] == epochs[-1] else (first, peaks[first])


def run(trainer, params: Params) -> None:
    """Stages until every sub-dataset has been dropped at its own time."""
    active = list(trainer.tasks)
    max_stages = params.max_stages or 2 * len(active)
    while active and trainer.stage < max_stages:
        curve = trainer.roll_out(active, epochs=params.budget, keep=active)
        overfit = earliest_overfit(curve, active)
        if overfit is None:  # nobody peaked before the end: go on from there
            continue
        task, epoch = overfit
        trainer.roll_back(curve, epoch, dropped=task)
        active.remove(task)
