"""The first picture: who over-fits when, what mSFT does about it, and what it brings."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from paper_figures import data
from paper_figures.style import WIDTH, colour, label, panels, pretty


def comparison(sft, msft) -> pd.DataFrame:
    """Base, SFT and mSFT: accuracy in percent by group, and the best epoch (as in Table 2)."""
    groups = data.groups_of(sft)
    rows = {"Base": {**data.by_group(data.at_base(sft), groups), "Best epoch": np.nan}}
    for run in (sft, msft):
        scores = data.by_group(data.at_best(run), groups)
        rows[label(run.config.method)] = {**scores, "Best epoch": run.best.path_epoch}
    return pd.DataFrame(rows).T.rename_axis("Method")


def accuracy_curves(sft, msft, axes=None):
    """Accuracy of each sub-dataset against epoch: SFT with its peak, mSFT along the kept path with its exclusion.

    axes: a flat array with one axes a sub-dataset, made where absent. Returns it.
    """
    tasks = list(sft.history.task.unique())
    if axes is None:
        axes = panels(len(tasks), "epoch", "test accuracy (%)", 1.55)
    peaks = data.peaks(sft).set_index("task")
    path, dropped = data.path(msft), data.stages(msft).dropna(subset="dropped").set_index("dropped").kept_until
    lines = {}
    for axis, task in zip(axes, tasks, strict=False):
        for method, rows in (("sft", sft.history), ("msft", path)):
            rows = rows[rows.task == task].sort_values("path_epoch")
            (lines[label(method)],) = axis.plot(rows.path_epoch, 100 * rows.accuracy, color=colour(method), lw=1.3)
        peak = peaks.loc[task]
        lines["peak under SFT"] = axis.scatter(
            peak.peak_epoch, 100 * peak.peak, marker="*", s=60, color=colour("sft"), zorder=3, edgecolor="white", lw=0.6
        )
        if task in dropped:
            lines["dropped by mSFT"] = axis.axvline(dropped[task], color=colour("msft"), ls=":", lw=1.1)
        axis.set_title(pretty(task))
        axis.margins(y=0.12)
    axes[0].figure.legend(
        lines.values(), lines.keys(), loc="outside upper center", ncols=len(lines), frameon=False, handlelength=1.6
    )
    return axes


def stage_timeline(msft, axes=None):
    """Which sub-dataset trained until when, and below it each stage's roll-out with the way back.

    axes: a pair of axes that share x, made where absent. Returns them.
    """
    stages, tasks = data.stages(msft), list(msft.history.task.unique())
    end = stages.kept_until.iloc[-1]
    until = dict.fromkeys(tasks, end) | dict(
        stages.dropna(subset="dropped")[["dropped", "kept_until"]].itertuples(index=False)
    )
    ordered = sorted(tasks, key=lambda task: until[task])
    if axes is None:
        heights = [len(tasks), max(len(stages), 4)]
        _, axes = plt.subplots(
            2,
            1,
            figsize=(WIDTH, 0.19 * sum(heights) + 1.1),
            height_ratios=heights,
            sharex=True,
            layout="constrained",
        )
    top, bottom = axes
    top.barh(range(len(ordered)), [until[t] for t in ordered], color=colour("msft"), alpha=0.75, height=0.7)
    top.set_yticks(range(len(ordered)), [pretty(t) for t in ordered])
    top.invert_yaxis()
    top.set_title("trained until", loc="left")
    for row in stages.itertuples():
        bottom.plot([row.start, row.end], [row.stage + 1] * 2, color="0.75", lw=3, solid_capstyle="butt")
        bottom.plot([row.start, row.kept_until], [row.stage + 1] * 2, color=colour("msft"), lw=3, solid_capstyle="butt")
        if row.dropped is not None and isinstance(row.dropped, str):
            bottom.annotate(
                "",
                (row.kept_until, row.stage + 1.42),
                (row.end, row.stage + 1.42),
                arrowprops={"arrowstyle": "->", "color": "0.35", "lw": 0.8},
            )
            bottom.text(
                row.end + 0.06,
                row.stage + 1.05,
                f"drops {pretty(row.dropped)}",
                va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
                fontsize=6.5,
                color="0.25",
            )
    best = msft.best.path_epoch
    for axis in axes:
        axis.axvline(best, color="0.2", ls="--", lw=1)
        axis.grid(axis="y", visible=False)
    # above the bars, where no bar or label is
    top.annotate("best", (best, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=7)
    bottom.set_yticks(range(1, len(stages) + 1))
    bottom.set_ylim(len(stages) + 0.9, 0.4)
    bottom.set_ylabel("stage")
    bottom.set_xlabel("epoch along the kept path")
    bottom.set_title("rolled out (grey), kept (colour), rolled back (arrow)", loc="left")
    bottom.set_xlim(0, stages.end.max() * 1.16)
    return axes


def verdict(sft, msft) -> str:
    """What the numbers say, whoever won."""
    gain = 100 * (data.at_best(msft).mean() - data.at_best(sft).mean())
    cost = msft.flops["total"] / sft.flops["total"]
    word = "ahead of" if gain > 0 else "behind" if gain < 0 else "level with"
    by = f" by {abs(gain):.2f} points" if gain else ""
    return (
        f"On this mixture and seed mSFT is {word} SFT{by}, with {cost:.2f} times its FLOPs. One seed of a small "
        "mixture says little by itself: the calibration table in the README has five."
    )
