"""What a run shows while it works: a bar in a terminal or a notebook, plain lines elsewhere, and what watchers hear.

A watcher is a function of the history so far (a DataFrame as `Run.history`) and an Event: a callback of the user's own,
the live figure of a notebook (paper_figures/live.py), a tracker (trackers.py).
"""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import pandas as pd
from huggingface_hub.utils import is_notebook
from tqdm.auto import tqdm

from msft.paths import is_mixture_file
from msft.results.history import history_rows, roll_outs
from msft.store.curve import overall

MINUTE = 60.0  # seconds between two plain lines that only say how far a run is
clock = tqdm.format_interval  # seconds as 1:02:03 or 02:03


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


def say_left_out(mixture) -> None:
    """Says what of a mixture is not used, and why."""
    for sub in mixture:
        for reason, count in sub.left_out.items():
            print(f"{sub.name}: {count} left out: {reason}", file=sys.stderr)


def say_choice(config, mixture) -> None:
    """Says what decides in a mixture of one's own where it has validation items."""
    if any(sub.validation for sub in mixture) and is_mixture_file(config.mixture):
        bare = [sub.name for sub in mixture if not sub.validation and not sub.judge]
        lacking = f"; without validation items: {', '.join(bare)}" if bare else ""
        print(f"peaks and the best checkpoint are chosen on the {config.select_on} items{lacking}", file=sys.stderr)


class RunProgress:
    """Progress of one run: its stage, which sub-datasets are active, what is done now, the accuracy so far, the time left.
    directory: its name, which is shown without its hash."""

    def __init__(self, directory: str, shown: bool = True, method: str = "", watchers: Sequence[Callable] = ()):
        self.directory, self.name, self.shown = directory, directory.rsplit("-", 1)[0], shown
        self.method, self.watchers = method, list(watchers)
        self._rolled_out: list[Mapping] = []
        self.bars = shown and (is_notebook() or sys.stderr.isatty())
        self._took = {"step": (0.0, 0), "evaluation": (0.0, 0)}  # seconds of all, how many
        self._label, self._said = "", -MINUTE  # of the stage that is under way; when the last line was said

    def say(self, text: str, always: bool = True) -> None:
        """Prints a plain line where no bar is drawn; always: even where the last one is less than a minute old."""
        now = time.monotonic()
        if self.shown and not self.bars and (always or now >= self._said + MINUTE):
            print(f"{self.name}: {text}", file=sys.stderr, flush=True)
            self._said = now

    def rolled_out(self, active: Sequence[str], result: Mapping) -> None:
        """A roll-out is done, now or in a process before this one."""
        self._rolled_out.append({"kind": "roll_out", "arguments": {"active": active}, "result": result})

    def tell(self, entries: Sequence[Mapping], best, finished: bool = False) -> None:
        """Tells the watchers of the last point of the last roll-out (entries as a journal's), or of the run's end."""
        if not self.watchers:
            return
        result, history = entries[-1]["result"], pd.DataFrame(history_rows(entries)).astype({"train_loss": float})
        epoch = result["points"][-1]["epoch"]
        place = (result["stage"], epoch, result["offset"] + epoch)
        event = Event(self.directory, self.method, *place, best.accuracy, best.path_epoch, finished)
        for watcher in self.watchers:
            watcher(history, event)

    @contextlib.contextmanager
    def stage(self, number: int, active, tasks, evaluations: int, offset, points) -> Iterator["RunProgress"]:
        """Within it a stage is under way. evaluations: those to come behind the start point.  offset: its path epoch.
        points: its evaluations so far, the start point among them; more come into the same list."""
        self._done, self._evaluations = max(len(points) - 1, 0), evaluations
        self.result = {"stage": number, "offset": offset, "points": points}
        self._under_way = {"kind": "roll_out", "arguments": {"active": active}, "result": self.result}
        self._since, self._doing, self._text, self._steps_left = time.monotonic(), "", "", None
        self._label = f"stage {number + 1}, {len(active)}/{len(tasks)} active"
        gone = [task for task in tasks if task not in active]
        if not self._done:
            self.say(self._label + (f"; not trained in it: {', '.join(gone)}" if gone else ""))
        looks = {"desc": f"{self.name} {self._label}", "unit": "evaluation", "leave": False, "miniters": 0}
        self.bar = tqdm(total=evaluations, initial=self._done, **looks) if self.bars else None
        try:
            yield self
        finally:
            self._label = ""
            if self.bar is not None:
                self.bar.close()

    def step(self, number: int, steps: int, epochs: float, saving: bool) -> None:
        """A step of an epoch's is done. epochs: of the stage from this one on.  saving: whether a state is written."""
        self._count("step")
        self._steps_left = epochs * steps - number
        self._doing = f"step {number} of {steps}" + (", saving" if saving else "")
        self._show(always=self._took["step"][1] == 1)

    def evaluating(self) -> None:
        """An evaluation begins."""
        is_base = not (self.result["points"] or self.result["stage"])
        self._doing = "base evaluation" if is_base else f"evaluation {self._done + 1} of {self._evaluations}"
        self._since = time.monotonic()
        self._show(always=is_base)

    def beat(self) -> None:
        """Called within an evaluation: shows how far the run is, a plain line a minute."""
        if self._label:
            self._show()

    def evaluated(self, best) -> None:
        """One evaluation is done, the last of the points; the start point of a stage is not counted."""
        self.tell([*self._rolled_out, self._under_way], best)
        point = self.result["points"][-1]
        apart = point.get("on_own_scale", ())
        here = overall(point["accuracy"], point["n"], apart)  # as the best beside it
        form = ".4g" if set(point["accuracy"]) <= set(apart) else ".1%"
        self._text = f"epoch {self.result['offset'] + point['epoch']:.2f}, accuracy {here:{form}}, "
        self._text += f"best {best.accuracy:{form}} at {best.path_epoch:.2f}"
        counted = point["epoch"] > 0
        self._done += counted
        if not point["reused"]:
            self._count("evaluation")
        if self.bar is not None:
            self.bar.update(int(counted))
            self._show()
        elif counted and (self._done % 4 == 0 or self._done == self._evaluations):
            self.say(f"{self._label}, {self._text}{self._left}")

    def _count(self, what: str) -> None:
        now = time.monotonic()
        seconds, count = self._took[what]
        self._took[what], self._since = (seconds + now - self._since, count + 1), now

    @property
    def _left(self) -> str:
        """The time left in the stage, by what steps and evaluations took so far; '' before the first step."""
        if self._steps_left is None:
            return ""
        (stepping, steps), (evaluating, evaluations) = self._took["step"], self._took["evaluation"]
        left = self._steps_left * stepping / steps + (self._evaluations - self._done) * evaluating / max(evaluations, 1)
        # where a run goes on in the midst of a stage, no evaluation was seen yet
        return f", {'' if evaluations else 'more than '}{clock(left)} left in it"

    def _show(self, always: bool = False) -> None:
        if self.bar is None:
            self.say(f"{self._label}, {self._doing}{self._left}", always)
        else:
            self.bar.set_postfix_str(f"{self._doing}{self._left}, {self._text}".rstrip(", "), refresh=False)
            self.bar.update(0)


def show_end(run, watchers: Sequence[Callable]) -> None:
    """Tells watchers that a run (run.Run) is finished."""
    if watchers:
        shown = RunProgress(run.directory.name, False, run.config.method, watchers)
        shown.tell(roll_outs(run.journal), run.best, finished=True)
