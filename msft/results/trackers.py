"""Trackers: a run's evaluations in TensorBoard and Weights & Biases, chosen by the setting `track`.

Each is a watcher (progress.py). Nothing of them is in a run's result: `pip install tensorboard wandb` when wanted.
"""

import contextlib
import math
import os
from collections.abc import Callable
from pathlib import Path

from msft.errors import RunError, check_installed
from msft.results.history import drops, own_scales, watched
from msft.store.curve import overall


def _names(track: str | None) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in track.split(","))) if track else []


def check(track: str | None) -> None:
    """Raises ConfigError where a library is missing; loads none."""
    check_installed(f"track={track!r}", *_names(track))  # each tracker has the name of its library


def opened(track: str | None, directory: Path, config, closing: contextlib.ExitStack) -> list[Callable]:
    """Watchers of a run, closed with `closing`, which go on with a run. Raises RunError where W&B does not start."""
    return [_TRACKERS[name](directory, config, closing) for name in _names(track)]


def _measured(history, event) -> dict[str, float]:
    """{name: value} of the evaluation that an event tells of."""
    here = history[(history.stage == event.stage) & (history.epoch == event.epoch)]
    values = {f"accuracy/{row.task}": row.accuracy for row in here.itertuples()}
    of_tasks = here.set_index("task")[["accuracy", "n"]].to_dict()
    values["accuracy/mean"] = overall(of_tasks["accuracy"], of_tasks["n"], own_scales(here))  # as the best beside it
    values |= {f"watched/{label}": here[column].iloc[0] for label, column in watched(history).items()}
    values |= {f"loss/{row.task}": row.loss for row in here.itertuples()}
    values |= {"best/accuracy": event.best_accuracy, "best/path_epoch": event.best_path_epoch}
    values |= {"stage": event.stage, "path_epoch": event.path_epoch, "active": int(here.active.sum())}
    loss = here.train_loss.iloc[0]
    return values if math.isnan(loss) else {**values, "train_loss": loss}


def _dropped(history) -> str:
    return ", ".join(f"{task} at epoch {epoch:g}" for task, epoch in drops(history).items()) or "none"


def _tensorboard(directory: Path, config, closing: contextlib.ExitStack) -> Callable:
    """Event files in <run>/tensorboard, one run a stage, so that roll-outs from one checkpoint lie over each other; the step
    is the path epoch in thousandths."""
    from torch.utils.tensorboard import SummaryWriter

    writers = {}

    def watch(history, event) -> None:
        step = round(1000 * event.path_epoch)
        if event.stage not in writers:
            folder = directory / "tensorboard" / f"stage{event.stage:02}"
            # what a killed process wrote from here on comes again
            writers[event.stage] = closing.enter_context(SummaryWriter(str(folder), purge_step=step))
            writers[event.stage].add_text("dropped", _dropped(history), step)
        writer = writers[event.stage]
        if event.finished:
            writer.add_text("best", f"{event.best_accuracy:.1%} at epoch {event.best_path_epoch:g}", step)
        else:
            for name, value in _measured(history, event).items():
                writer.add_scalar(name, value, step)
        writer.flush()

    return watch


def _wandb(directory: Path, config, closing: contextlib.ExitStack) -> Callable:
    """A run of Weights & Biases with the name of the run's directory; the step is the number of the evaluation, over all
    stages, and `path_epoch` is there to draw against. WANDB_PROJECT and WANDB_MODE are heeded."""
    import wandb

    settings = {"project": os.environ.get("WANDB_PROJECT", "msft"), "dir": str(directory), "resume": "allow"}
    try:
        run = wandb.init(id=directory.name[-64:], name=directory.name, config=config.to_dict(), **settings)
    except Exception as error:  # its errors have no common base over its versions
        way = "Run `wandb login`, or set WANDB_MODE=offline"
        raise RunError(f"track='wandb': it does not start: {error}. {way}") from error
    closing.push(lambda kind, *_: run.finish(exit_code=0 if kind is None else 1))

    def watch(history, event) -> None:
        if event.finished:
            run.summary.update({"final/accuracy": event.best_accuracy, "final/path_epoch": event.best_path_epoch})
            return
        step = len(history[["stage", "epoch"]].drop_duplicates()) - 1
        if step >= run.step:  # what a killed process told before stands
            run.log(_measured(history, event), step=step)
        run.summary["dropped"] = _dropped(history)

    return watch


_TRACKERS = {"tensorboard": _tensorboard, "wandb": _wandb}
