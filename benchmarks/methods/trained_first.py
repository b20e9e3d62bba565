"""mSFT that drops nobody at the start point of a stage: who is best there stays in, and is trained on."""

from msft.methods.msft import Params, earliest_overfit  # noqa: F401, the same settings


def run(trainer, params: Params) -> None:
    """mSFT's stages, in which only those that got better can be dropped."""
    active = list(trainer.tasks)
    max_stages = params.max_stages or 2 * len(active)
    while active and trainer.stage < max_stages:
        curve = trainer.roll_out(active, epochs=params.budget, keep=active)
        better = [task for task in active if earliest_overfit(curve, [task]) != (task, 0.0)]
        overfit = earliest_overfit(curve, better) if better else None
        if overfit is None:
            continue
        task, epoch = overfit
        trainer.roll_back(curve, epoch, dropped=task)
        active.remove(task)
