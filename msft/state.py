"""What the trainer must remember to go on, and whether it may: the place in a roll-out, the best, a sound loss."""

import dataclasses
import math
from collections.abc import Sequence

import torch

from msft.curve import overall
from msft.errors import RunError


class Interrupted(RunError):
    """The run was told to stop; its state is saved."""


@dataclasses.dataclass
class Progress:
    """Where a roll-out is; with the weights and the optimizer, all that going on needs."""

    epoch: int = 0
    step: int = 0
    evaluations: int = 0
    points: list[dict] = dataclasses.field(default_factory=list)
    losses: list[float] = dataclasses.field(default_factory=list)
    holders: dict[str, list] = dataclasses.field(default_factory=dict)
    peaks: dict[str, str] = dataclasses.field(default_factory=dict)
    trained_tokens: int = 0
    forward_tokens: int = 0
    look_ahead_tokens: int = 0
    schedule: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Best:
    """The best overall checkpoint so far (strictly higher wins) and where it was found."""

    selection: float = -1.0
    accuracy: float = 0.0
    stage: int = 0
    epoch: float = 0.0
    path_epoch: float = 0.0


def best_of(point: dict, stage: int, path_epoch: float) -> Best:
    """An evaluated point as a candidate for the best checkpoint."""
    # a validation set may have other sizes than the test set
    selection = overall(point["selection"], point["selected_from"])
    return Best(selection, overall(point["accuracy"], point["n"]), stage, point["epoch"], path_epoch)


def check_finite(losses: Sequence[torch.Tensor], heard: Sequence[tuple], owners: Sequence[str], stage: int) -> None:
    """Raises RunError that names stage, step and sub-datasets where a loss is NaN or infinite.

    losses: one scalar a step.  heard: (step, example indices, their summed losses [n]) a step.
    Looked at in one go before anything is saved, so that no step waits for the device.
    """
    if not losses or bool(torch.isfinite(torch.stack(list(losses))).all()):
        return
    for step, indices, sums in heard:
        wrong = [i for i, value in zip(indices, sums.tolist(), strict=True) if not math.isfinite(value)]
        if wrong or not math.isfinite(float(sums.sum())):
            names = list(dict.fromkeys(owners[i] for i in wrong or indices))
            raise RunError(
                f"the loss is not finite in stage {stage}, step {step} of its epoch, in {', '.join(names)}; the last saved "
                "state is kept. Try a lower learning_rate, or precision fp32"
            )
