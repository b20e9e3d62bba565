"""The picture in a model card: every sub-dataset along the path that the run kept, and where it was dropped."""

import math
from pathlib import Path

from msft.data.metrics import LABELS
from msft.results.history import kept, own_scales
from msft.results.run import Run

_COLUMNS, _KEPT, _LEFT = 3, "#d55e00", "#f3c5a7"  # a colour-blind palette's vermilion, and its pale


def draw(run: Run, path: Path) -> None:
    """Writes a PNG with a panel a sub-dataset: strong where it trained, pale after it was dropped (dotted line)."""
    from matplotlib.figure import Figure  # no global state: a caller's own figures and backend stay as they are

    history = run.history[kept(run.history)]
    tasks, dropped, metrics, apart = list(history.task.unique()), run.dropped, run.metrics, own_scales(history)
    rows = math.ceil(len(tasks) / _COLUMNS)
    figure = Figure(figsize=(3 * _COLUMNS, 1.8 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, _COLUMNS, sharex=True, squeeze=False).flat
    for axes, task in zip(panels, tasks, strict=False):
        curve, end, scale = history[history.task == task], dropped[task], 1 if task in apart else 100
        axes.plot(curve.path_epoch, scale * curve.accuracy, color=_LEFT, linewidth=1.5)
        trained = curve if end is None else curve[curve.path_epoch <= end]
        axes.plot(trained.path_epoch, scale * trained.accuracy, color=_KEPT, linewidth=1.5)
        if end is not None:
            axes.axvline(end, color="0.5", linewidth=1, linestyle=":")
        axes.set_title(task, fontsize=9, parse_math=False)
        axes.set_ylabel(LABELS.get(metrics[task], metrics[task]) + (" (%)" if scale == 100 else ""), fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in list(panels):
        axes.set_axis_off()
    for axes in figure.axes[:: _COLUMNS if rows > 1 else 1][-1:]:
        axes.set_xlabel("epoch", fontsize=8)
    figure.savefig(path, dpi=120, metadata={"Software": None})
