"""mSFT in which the start point of a stage does not count: nobody is dropped without having been trained in it."""

from msft.methods.msft import Params, earliest_overfit  # noqa: F401, the same settings


def run(trainer, params: Params) -> None:
    """mSFT's stages, with peaks looked for among the evaluations after a step alone."""
    active = list(trainer.tasks)
    max_stages = params.max_stages or 2 * len(active)
    while active and trainer.stage < max_stages:
        curve = trainer.roll_out(active, epochs=params.budget, keep=active)
        overfit = earliest_overfit({epoch: curve[epoch] for epoch in curve if epoch}, active)
        if overfit is None:
            continue
        task, epoch = overfit
        trainer.roll_back(curve, epoch, dropped=task)
        active.remove(task)
