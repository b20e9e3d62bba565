"""What a run shows while it works: a bar in a terminal or a notebook, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Sequence

from tqdm.auto import tqdm


def _in_notebook() -> bool:
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
    """Progress of one run over its stages."""

    def __init__(self, name: str, shown: bool = True):
        self.name, self.shown, self.started = name, shown, time.monotonic()
        self.bars = shown and (_in_notebook() or sys.stderr.isatty())

    @contextlib.contextmanager
    def stage(self, number: int, active: Sequence[str], tasks: Sequence[str], evaluations: int, done: int):
        """A stage with so many evaluations to come; yields what `step` and `evaluated` are called on."""
        stage = StageProgress(self, number, active, tasks, evaluations, done)
        try:
            yield stage
        finally:
            stage.close()


class StageProgress:
    """One stage: which sub-datasets are active, the accuracy so far, the time left in the stage."""

    def __init__(self, run: RunProgress, number: int, active, tasks, evaluations: int, done: int):
        self.run, self.done, self.evaluations = run, done, evaluations
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

    def evaluated(self, path_epoch: float, point: dict, best) -> None:
        """One evaluation is done; the start point of a stage is not counted."""
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
