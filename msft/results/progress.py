"""What a run shows while it works: a bar in a terminal or a notebook, plain lines elsewhere, and what watchers hear.

A watcher is a function of the history so far (a DataFrame as `Run.history`) and an Event: a callback of the user's own,
the live figure of a notebook (paper_figures/live.py), a tracker (track.py).
"""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from tqdm.auto import tqdm

from msft.results.history import history_rows


@dataclasses.dataclass(frozen=True)
class Event:
    """What a watcher hears beside the history: an evaluation, or the end of the run.

    run: name of the run's directory.  stage: number of the roll-out.  epoch: within it.  path_epoch: the paper's Ep.
    best_accuracy, best_path_epoch: of the best checkpoint so far.  finished: whether the run is done.
    """

    run: str
    method: str
    stage: int
    epoch: float
    path_epoch: float
    best_accuracy: float
    best_path_epoch: float
    finished: bool = False


def in_notebook() -> bool:
    """Whether this is a Jupyter kernel, where tqdm.auto draws its widget."""
    shell = sys.modules.get("IPython")
    kernel = shell.get_ipython() if shell else None
    return kernel is not None and hasattr(kernel, "kernel")


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class RunProgress:
    """Progress of one run over its stages.

    directory, method: what watchers are told of the run.
    """

    def __init__(
        self, name: str, shown: bool = True, directory: str = "", method: str = "", watchers: Sequence[Callable] = ()
    ):
        self.name, self.shown, self.started = name, shown, time.monotonic()
        self.directory, self.method, self.watchers = directory, method, list(watchers)
        self._rolled_out: list[Mapping] = []
        self.bars = shown and (in_notebook() or sys.stderr.isatty())

    def rolled_out(self, active: Sequence[str], result: Mapping) -> None:
        """A roll-out is done, now or in a process before this one."""
        self._rolled_out.append({"kind": "roll_out", "arguments": {"active": active}, "result": result})

    def tell(self, active: Sequence[str], result: Mapping, best, finished: bool = False) -> None:
        """Tells the watchers of the last point of a roll-out that is under way, or of the run's end.

        result: stage, offset and points, as a journal's.  best: has the accuracy and path_epoch of the best checkpoint.
        """
        if not self.watchers:
            return
        import pandas as pd

        here = [] if finished else [{"kind": "roll_out", "arguments": {"active": active}, "result": result}]
        history = pd.DataFrame(history_rows([*self._rolled_out, *here])).astype({"train_loss": float})
        epoch = result["points"][-1]["epoch"]
        place = (result["stage"], epoch, result["offset"] + epoch)
        event = Event(self.directory, self.method, *place, best.accuracy, best.path_epoch, finished)
        for watcher in self.watchers:
            watcher(history, event)

    def finished(self, best) -> None:
        """The run is done."""
        last = self._rolled_out[-1]
        self.tell(last["arguments"]["active"], last["result"], best, finished=True)

    @contextlib.contextmanager
    def stage(
        self, number: int, active: Sequence[str], tasks: Sequence[str], evaluations: int, done: int, offset, points
    ):
        """A stage with so many evaluations to come; yields what `step` and `evaluated` are called on.

        offset: path epoch that it starts from.  points: its evaluations so far; more come into the same list.
        """
        stage = StageProgress(self, number, active, tasks, evaluations, done, offset, points)
        try:
            yield stage
        finally:
            stage.close()


def show_end(run, watchers: Sequence[Callable]) -> None:
    """Tells watchers of a run that was finished before (records.Run)."""
    shown = RunProgress(run.directory.name, False, run.directory.name, run.config.method, watchers)
    if watchers:
        for entry in run.journal:
            if entry["kind"] in ("roll_out", "search"):
                shown.rolled_out(entry["arguments"]["active"], entry["result"])
        shown.finished(run.best)


class StageProgress:
    """One stage: which sub-datasets are active, the accuracy so far, the time left in the stage."""

    def __init__(self, run: RunProgress, number: int, active, tasks, evaluations: int, done: int, offset, points):
        self.run, self.done, self.evaluations, self.active = run, done, evaluations, active
        self.result = {"stage": number, "offset": offset, "points": points}
        self.started, self.first = time.monotonic(), done
        self.label = f"stage {number + 1}, {len(active)}/{len(tasks)} active"
        gone = [task for task in tasks if task not in active]
        if run.shown and not run.bars and done == 0:
            dropped = f"; dropped: {', '.join(gone)}" if gone else ""
            print(f"{run.name}: {self.label}{dropped}", file=sys.stderr, flush=True)
        self.bar = (
            tqdm(total=evaluations, initial=done, desc=f"{run.name} {self.label}", unit="evaluation", leave=False)
            if run.bars
            else None
        )

    def step(self) -> None:
        """One optimizer step is done."""

    def evaluated(self, best) -> None:
        """One evaluation is done, the last of the points; the start point of a stage is not counted."""
        self.run.tell(self.active, self.result, best)
        point = self.result["points"][-1]
        path_epoch = self.result["offset"] + point["epoch"]
        here = sum(point["accuracy"].values()) / len(point["accuracy"])
        text = f"epoch {path_epoch:.2f}, accuracy {here:.1%}, best {best.accuracy:.1%} at {best.path_epoch:.2f}"
        counted = point["epoch"] > 0
        self.done += counted
        if self.bar is not None:
            self.bar.update(int(counted))
            self.bar.set_postfix_str(text)
        elif self.run.shown and counted and (self.done % 4 == 0 or self.done == self.evaluations):
            spent = time.monotonic() - self.started
            left = spent / max(self.done - self.first, 1) * (self.evaluations - self.done)
            print(f"{self.run.name}: {self.label}, {text}, {clock(left)} left in it", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Takes the bar away."""
        if self.bar is not None:
            self.bar.close()
