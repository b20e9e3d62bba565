"""The picture of runs under way, in a notebook: accuracy of every sub-dataset, drawn anew as evaluations come in.

from paper_figures.live import LiveFigure
run = msft.run(config, on_evaluation=LiveFigure())
"""

import io
import time

import numpy as np
from huggingface_hub.utils import is_notebook
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from msft.data.judges import PREFIX
from msft.results.history import comparable, drops, kept, own_scales, watched
from paper_figures.style import WIDTH, colour, label, pretty

_SHARE = 0.01  # of a run's time that drawing may take
_PALE, _COLUMNS = 0.3, 5


class LiveFigure:
    """A watcher (progress.py) that keeps one picture up to date; several runs of one mixture share it.

    Drawn at most every second, and so seldom that drawing takes a hundredth of the time; the end is always drawn.
    Outside of a notebook it shows nothing. What a notebook stores is one picture, the last.
    """

    def __init__(self):
        self.runs: dict[str, tuple] = {}  # {directory's name: (history, event)}
        self._handle, self._next = None, 0.0

    def __call__(self, history, event) -> None:
        """Takes an evaluation in, and draws where it is time."""
        self.runs[event.run] = history, event
        started = time.monotonic()
        if not is_notebook() or (started < self._next and not event.finished):
            return
        from IPython.display import Image, display

        data = io.BytesIO()
        self.draw().savefig(data, format="png", dpi=110)
        image = Image(data.getvalue(), alt="Accuracy of every sub-dataset against epoch, so far")
        if self._handle is None:
            self._handle = display(image, display_id=True)
        else:
            self._handle.update(image)
        ended = time.monotonic()
        self._next = ended + max(1.0, (ended - started) / _SHARE)

    def draw(self) -> Figure:
        """The mean on top, every sub-dataset below; what was rolled back is pale, a dropped sub-dataset is grey.

        Judges that are only watched come last; they and what has a scale of its own show the values that lm-eval gives.
        """
        histories = [history for history, _ in self.runs.values()]
        tasks = list(dict.fromkeys(task for history in histories for task in history.task))
        apart = set().union(*(own_scales(history) for history in histories))
        judges = list(dict.fromkeys(name for history in histories for name in watched(history)))
        panels, apart = [*tasks, *judges], apart.union(judges)
        columns = min(_COLUMNS, len(panels))
        rows = -(-len(panels) // columns)
        figure = Figure(figsize=(WIDTH, 2.3 + 1.15 * rows))
        height = figure.get_figheight()
        grid = figure.add_gridspec(
            rows + 1, columns, height_ratios=[1.5, *[1] * rows], hspace=0.5, wspace=0.3 if apart else 0.12,
            left=0.08, right=0.99, top=1 - 0.62 / height, bottom=0.42 / height,
        )  # fmt: skip
        top = figure.add_subplot(grid[0, :])
        self._mean(top)
        axes, in_percent = [], None
        for place, name in enumerate(panels):
            shared = {"sharex": axes[0]} if axes else {}
            axes.append(figure.add_subplot(grid[1 + place // columns, place % columns], **shared))
            if name not in apart and in_percent:
                axes[-1].sharey(in_percent)
            elif name not in apart:
                in_percent = axes[-1]
            is_left = place % columns == 0 or name in apart
            axes[-1].tick_params(labelleft=is_left, labelbottom=place + columns >= len(panels))
            if name in judges:
                self._watched(axes[-1], name)
            else:
                self._task(axes[-1], name, 1 if name in apart else 100)
        percents = [top, *(axis for axis, name in zip(axes, panels, strict=True) if name not in apart)]
        for axis in (top, *axes):
            axis.tick_params(labelsize=7)
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(False)
            axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axis.yaxis.set_major_locator(MaxNLocator(3, integer=axis in percents))
        for axis in (top, axes[0]):
            axis.set_xlim(left=0)
        figure.supxlabel("epoch (along the kept path)", fontsize=8, y=0.06 / height)
        figure.supylabel("test accuracy (%)", fontsize=8, x=0.005)
        shown = dict.fromkeys(event.method for _, event in self.runs.values())
        handles = [Line2D([], [], color=colour(method), lw=1.5, label=label(method)) for method in shown]
        handles.append(Line2D([], [], color="0.4", lw=1.5, alpha=_PALE, label="rolled back"))
        if any(history.stage.max() for history, _ in self.runs.values()):
            handles.append(Line2D([], [], color="0.4", ls=":", lw=1, label="a new stage; below: dropped here"))
        figure.legend(handles=handles, loc="upper right", ncols=len(handles), frameon=False, fontsize=7.5)
        return figure

    def _mean(self, axis) -> None:
        words = []
        for history, event in self.runs.values():
            shade = colour(event.method)
            counted = comparable(history)
            scale = 1 if own_scales(history).issuperset(counted.task) else 100
            right = counted.assign(accuracy=counted.accuracy * counted.n)
            means = right.groupby(["stage", "path_epoch"], as_index=False)[["accuracy", "n"]].sum()
            means["accuracy"] /= means.n  # of all items, as the best beside it
            _lines(axis, means, shade, scale=scale)
            best = event.best_path_epoch, scale * event.best_accuracy
            axis.scatter(*best, marker="*", s=70, color=shade, zorder=3, edgecolor="white", lw=0.6)
            for start in history.groupby("stage").path_epoch.min().iloc[1:]:
                axis.axvline(start, color=shade, ls=":", lw=0.8)
            state = "finished" if event.finished else f"stage {event.stage + 1}, epoch {event.path_epoch:g}"
            words.append(f"{label(event.method)}: {state}, best {best[1]:.1f} at {best[0]:g}")
        axis.set_title("all test items.  " + ";  ".join(words), loc="left", fontsize=8, y=1.0)

    def _watched(self, axis, label: str) -> None:
        for history, event in self.runs.values():
            if column := watched(history).get(label):
                rows = history.groupby(["stage", "path_epoch"], as_index=False)[column].first()
                _lines(axis, rows.rename(columns={column: "accuracy"}), colour(event.method), scale=1)
        axis.set_title(label.removeprefix(PREFIX) + ", watched", fontsize=6.5, y=1.0, pad=3)

    def _task(self, axis, task: str, scale: float) -> None:
        is_out = False
        for history, event in self.runs.values():
            shade, end = colour(event.method), drops(history).get(task)
            _lines(axis, history[history.task == task], shade, end, scale)
            if end is not None:
                axis.axvline(end, color=shade, ls=":", lw=1)
                is_out |= not event.finished
        axis.set_title(pretty(task), fontsize=8, y=1.0, pad=3, color="0.55" if is_out else "black")
        if is_out:
            axis.set_facecolor("0.95")


def _lines(axis, rows, shade, end: float | None = None, scale: float = 100) -> None:
    """The kept path, paler from `end` on, and very pale what each stage trained beyond its roll-back."""
    x, y, stage, on_path = (
        rows.path_epoch.to_numpy(),
        scale * rows.accuracy.to_numpy(),
        rows.stage.to_numpy(),
        kept(rows),
    )
    on_path = on_path.to_numpy()
    ends = len(x) if end is None else np.searchsorted(x[on_path], end, side="right")
    axis.plot(x[on_path][:ends], y[on_path][:ends], color=shade, lw=1.4)
    axis.plot(x[on_path][max(ends - 1, 0) :], y[on_path][max(ends - 1, 0) :], color=shade, lw=1.2, alpha=0.5)
    off = ~on_path
    off[:-1] |= off[1:] & (stage[1:] == stage[:-1])  # from the last kept point of its stage on
    breaks = np.flatnonzero(np.diff(stage)) + 1
    axis.plot(
        np.insert(x, breaks, np.nan),
        np.insert(np.where(off, y, np.nan), breaks, np.nan),
        color=shade,
        lw=1,
        alpha=_PALE,
    )
