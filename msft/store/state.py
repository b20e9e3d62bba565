"""What the trainer must remember to go on, and whether it may: the place in a roll-out, the best, a sound loss."""

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from msft.errors import RunError
from msft.store.curve import overall


@dataclasses.dataclass
class Progress:
    """Where a roll-out is; with the weights and the optimizer, all that going on needs."""

    epoch: int = 0
    step: int = 0
    evaluations: int = 0
    points: list[dict] = dataclasses.field(default_factory=list)
    losses: list[float] = dataclasses.field(default_factory=list)
    task_losses: dict[str, list] = dataclasses.field(default_factory=dict)
    holders: dict[str, list] = dataclasses.field(default_factory=dict)
    trained_tokens: int = 0
    forward_tokens: int = 0
    look_ahead_tokens: int = 0
    schedule: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Best:
    """The best overall checkpoint so far (strictly higher wins) and where it was found."""

    selection: float = -1e9  # below every score; JSON has no infinity
    accuracy: float = 0.0
    stage: int = 0
    epoch: float = 0.0
    path_epoch: float = 0.0


def measured(test: Mapping, selection: Mapping, metric: str, watched: Mapping) -> dict[str, dict]:
    """What an evaluated point holds of its scores, by sub-dataset; the last two where they say anything.

    test, selection, watched: {sub-dataset or label: evaluation.Scores} of the test set, of what decisions are taken on, and
    of what none is.  metric: "accuracy" or "loss". In `selection` higher is better: a loss, or a judge's value of which a
    lower one is better, stands there with a minus.
    """
    apart = [task for task, score in test.items() if score.on_own_scale]
    signs = {task: 1 if metric == "accuracy" and score.higher_is_better else -1 for task, score in selection.items()}
    return {
        "selection": {task: signs[task] * getattr(score, metric) for task, score in selection.items()},
        "selected_from": {task: score.n for task, score in selection.items()},
        "accuracy": {task: score.accuracy for task, score in test.items()},
        "loss": {task: score.loss for task, score in test.items() if score.loss is not None},
        "n": {task: score.n for task, score in test.items()},
        "tokens": {task: score.tokens for task, score in test.items()},
        **({"on_own_scale": apart} if apart else {}),
        **({"watched": {label: score.accuracy for label, score in watched.items()}} if watched else {}),
    }


def best_of(point: dict, stage: int, path_epoch: float) -> Best:
    """An evaluated point as a candidate for the best checkpoint."""
    apart = point.get("on_own_scale", ())
    selection = overall(point["selection"], point["selected_from"], apart)  # a validation set may have other sizes
    return Best(selection, overall(point["accuracy"], point["n"], apart), stage, point["epoch"], path_epoch)


def read_losses(progress: Progress, steps: Sequence[tuple], owners: Sequence[str], rows: Sequence, stage: int) -> None:
    """Adds the losses of steps, read from the device in one go, to `losses` and `task_losses` of a progress.

    steps: (step, example indices, loss [], summed token losses of the examples [n]) each.  owners, rows: sub-dataset and
    tokens of every example. Raises RunError that names stage, step and sub-datasets where a loss is NaN or infinite.
    """
    losses = torch.stack([loss for _, _, loss, _ in steps]).tolist() if steps else []
    progress.losses += losses
    sums = torch.cat([sums for _, _, _, sums in steps]).tolist() if steps else []
    for i, value in zip((i for _, indices, _, _ in steps for i in indices), sums, strict=True):
        total, tokens = progress.task_losses.get(owners[i], (0.0, 0))
        progress.task_losses[owners[i]] = [total + value, tokens + rows[i].targets]
    for (step, indices, _, sums), loss in zip(steps, losses, strict=True):
        if not math.isfinite(loss):
            wrong = [i for i, value in zip(indices, sums.tolist(), strict=True) if not math.isfinite(value)]
            names = list(dict.fromkeys(owners[i] for i in wrong or indices))
            what = f"the loss is not finite in stage {stage}, step {step} of its epoch, in {', '.join(names)}"
            raise RunError(f"{what}; the last saved state is kept. Try a lower learning_rate, or precision fp32")


_ARRAY = "schedule."  # begins the names of a schedule's arrays among the saved tensors


def pack_progress(progress: Progress) -> tuple[dict, dict[str, torch.Tensor]]:
    """(plain values, tensors) of a roll-out that goes on from here: copies of its progress."""
    arrays = {name: value for name, value in progress.schedule.items() if isinstance(value, np.ndarray)}
    values = {name: value for name, value in progress.schedule.items() if name not in arrays}
    plain = dataclasses.asdict(dataclasses.replace(progress, schedule=values))
    return plain, {_ARRAY + name: torch.tensor(array) for name, array in arrays.items()}


def unpack_progress(plain: Mapping, tensors: dict[str, torch.Tensor]) -> Progress:
    """The progress of `pack_progress`; takes its tensors out of those given."""
    # a copy: going on must not change the state that the journal holds
    progress = Progress(**copy.deepcopy(plain))
    arrays = [name for name in tensors if name.startswith(_ARRAY)]
    progress.schedule |= {name.removeprefix(_ARRAY): tensors.pop(name).numpy() for name in arrays}
    return progress
