"""The first picture: who over-fits when, what mSFT does about it, and what it brings."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from paper_figures import data, findings
from paper_figures.style import COLUMN, SMALLEST, colour, label, legend, panels, pretty, say


def needs(page, seed: int = 0, budget: float = 3.0) -> dict:
    """SFT and mSFT of the focus model; seed 0 stands for the profile's first, budget is C in epochs."""
    return {
        "sft": page.config("sft", seed=seed),
        "msft": page.config("msft", seed=seed, params={"budget": budget}),
    }


COMPARISON_CAPTION = "Test accuracy (%) by group, before training and at the best checkpoint of SFT and mSFT, and the epoch of that checkpoint."


def comparison(sft, msft) -> pd.DataFrame:
    """Base, SFT and mSFT: accuracy in percent by group, and the best epoch (as in Table 2)."""
    groups = data.groups_of(sft)
    rows = {"Base": {**data.by_group(data.at_base(sft), groups), "Best epoch": np.nan}}
    for run in (sft, msft):
        scores = data.by_group(data.at_best(run), groups)
        rows[label(run.config.method)] = {**scores, "Best epoch": run.best.path_epoch}
    return pd.DataFrame(rows).T.rename_axis("Method")


FIRST_PICTURE_CAPTION = (
    "Test accuracy (%) against epoch of SFT and of mSFT. Top: the mean of all sub-datasets, the best checkpoint starred, its level a thin line; a "
    "pale line leads to one off the kept path. Below: each sub-dataset, in the order in which mSFT dropped them. A star is "
    "the peak under SFT, the dotted line and its number the epoch at which mSFT dropped the sub-dataset (at 0: before it "
    "trained on it); its line is pale from there on. The difference is between the best checkpoints, with the 95 % interval over "
    "the test items."
)


def first_picture(sft, msft):
    """The mean over all sub-datasets on top, each sub-dataset below, in the order in which mSFT dropped them.

    Returns the figure.
    """
    tasks = _by_drop(msft)
    columns = min(5, len(tasks))
    rows = -(-len(tasks) // columns)
    figure = plt.figure(figsize=(COLUMN, 1.6 + 0.75 * rows), layout="constrained")
    figure.get_layout_engine().set(wspace=0.04)
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[2.1, *[1] * rows])
    mean_curves(sft, msft, figure.add_subplot(grid[0, :]))
    axes = []
    for place in range(len(tasks)):
        shared = {"sharex": axes[0], "sharey": axes[0]} if axes else {}
        axes.append(figure.add_subplot(grid[1 + place // columns, place % columns], **shared))
        axes[-1].tick_params(labelleft=place % columns == 0, labelbottom=place + columns >= len(tasks))
    accuracy_curves(sft, msft, axes)
    figure.supxlabel("epoch (mSFT: along the kept path)")
    figure.supylabel("test accuracy (%)")
    peaks, gain = data.peaks(sft).peak_epoch, findings.difference([(msft, sft)])
    side = f"{abs(gain.points):.1f} points {'ahead of' if gain.points > 0 else 'behind'} SFT"
    verdict = f"{side} ({gain.low:+.1f} to {gain.high:+.1f}; one seed){'' if gain.is_shown else ', cannot tell from 0'}"
    return say(
        figure,
        f"{len(tasks)} sub-datasets peak between epochs {peaks.min():g} and {peaks.max():g} under SFT; mSFT, which drops "
        f"each at a peak of its own, is {verdict}",
    )


def mean_curves(sft, msft, ax=None):
    """Mean accuracy over all sub-datasets against epoch, with each run's best checkpoint starred. Returns the axes.

    Where the best of mSFT lies in a roll-out that was rolled back, a pale line leads to it.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(COLUMN, 1.5), layout="constrained")
    curves, end = (
        ((sft, sft.history), (msft, data.path(msft))),
        max(run.history.path_epoch.max() for run in (sft, msft)),
    )
    ahead = max((sft, msft), key=lambda run: run.best.accuracy)
    later = [rows[rows.path_epoch > 0.4 * end].groupby("path_epoch").accuracy.mean() for _, rows in curves]
    lowest, highest = (100 * value for value in pd.concat(later).agg(["min", "max"]))
    for run, rows in curves:
        shade, best = colour(run.config.method), run.result["best"]
        reached, accuracy = run.best.path_epoch, 100 * run.best.accuracy
        last = run.history[(run.history.stage == best["stage"]) & (run.history.epoch <= best["epoch"])]
        for part, style in ((last, {"lw": 1, "alpha": 0.4}), (rows, {"lw": 1.4})):
            mean = 100 * part.groupby("path_epoch").accuracy.mean()
            ax.plot(mean.index, mean, color=shade, **style)
        # the second star is the smaller one: both can be seen where they coincide
        size = 70 if run is sft else 50
        ax.scatter(reached, accuracy, marker="*", s=size, color=shade, zorder=3, edgecolor="white", lw=0.5)
        # a level line to the right edge shows how far apart the two end; the words stand clear of both curves
        ax.plot([reached, end], [accuracy] * 2, color=shade, lw=0.6, alpha=0.6)
        ax.annotate(
            f"{label(run.config.method)}: best {accuracy:.1f} % at epoch {reached:g}",
            (1, max(highest, accuracy) if run is ahead else min(lowest, accuracy)), (0, 2 if run is ahead else -3),
            xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
            va="bottom" if run is ahead else "top", color=shade, fontsize=6.5, fontweight="bold",
        )  # fmt: skip
    ax.set_xlim(0, end)
    ax.margins(y=0.2)
    ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.set_title("mean of all sub-datasets", loc="left")
    return ax


def accuracy_curves(sft, msft, axes=None):
    """Accuracy of each sub-dataset against epoch: SFT with its peak, mSFT along the kept path with its exclusion.

    The sub-datasets are in the order in which mSFT dropped them; from there on its line is pale.
    axes: a flat array with one axes a sub-dataset, made where absent. Returns it.
    """
    tasks = _by_drop(msft)
    if axes is None:
        axes = panels(len(tasks), "epoch (mSFT: along the kept path)", "test accuracy (%)")
    peaks = data.peaks(sft).set_index("task")
    path, dropped = data.path(msft), data.drops(msft)
    lines = {}
    for axis, task in zip(axes, tasks, strict=True):
        curve, peak = _curve(sft.history, task), peaks.loc[task]
        (lines["SFT"],) = axis.plot(curve.index, curve, color=colour("sft"), lw=0.8)
        lines["peak under SFT"] = axis.scatter(
            peak.peak_epoch, 100 * peak.peak, marker="*", s=32, color=colour("sft"), zorder=3, edgecolor="white", lw=0.4
        )
        lines |= _kept_and_dropped(axis, _curve(path, task), dropped.get(task))
        axis.set_title(pretty(task), pad=9, fontsize=SMALLEST)
        for side in (axis.xaxis, axis.yaxis):
            side.set_major_locator(MaxNLocator(2, steps=[1, 5, 10]))
        axis.margins(y=0.08)
    order = ["SFT", "peak under SFT", "mSFT", "dropped by mSFT", "no longer trained on it"]
    shown = [name for name in order if name in lines]
    legend(axes[0].figure, [lines[name] for name in shown], shown)
    return axes


def _curve(history: pd.DataFrame, task: str) -> pd.Series:
    """Accuracy in percent of a sub-dataset by path epoch."""
    return 100 * history[history.task == task].set_index("path_epoch").accuracy.sort_index()


def _kept_and_dropped(axis, curve: pd.Series, end: float | None) -> dict:
    """Draws mSFT's curve, pale from the epoch `end` of its exclusion on, which gets a line; returns {name: line}."""
    last = curve.index[-1] if end is None else end
    trained, after = curve[curve.index <= last], curve[curve.index >= last]
    (strong,) = axis.plot(trained.index, trained, color=colour("msft"), lw=1.2)
    (pale,) = axis.plot(after.index, after, color=colour("msft"), lw=0.8, alpha=0.4)
    lines = {"mSFT": strong, "no longer trained on it": pale}
    if end is not None:
        lines["dropped by mSFT"] = axis.axvline(end, color=colour("msft"), ls=":", lw=1)
        axis.annotate(
            f"{end:g}", (end, 1), (0, 1.5), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha="center", va="bottom", color=colour("msft"),
        )  # fmt: skip
    return lines


def _by_drop(msft) -> list[str]:
    """Sub-datasets in the order in which mSFT dropped them; those never dropped last."""
    dropped = data.drops(msft)
    return [*dropped, *(task for task in msft.history.task.unique() if task not in dropped)]


STAGE_TIMELINE_CAPTION = (
    "Epoch along the kept path until which mSFT trained each sub-dataset (top), and the roll-out of every stage (bottom): "
    "kept in colour, rolled back in grey, the arrow leads back. The dashed line is the best checkpoint."
)


def stage_timeline(msft, axes=None):
    """Which sub-dataset trained until when, and below it each stage's roll-out with the way back.

    axes: a pair of axes that share x, made where absent. Returns them.
    """
    stages, ordered = data.stages(msft), _by_drop(msft)
    until = dict.fromkeys(ordered, stages.kept_until.iloc[-1]) | data.drops(msft)
    if axes is None:
        heights = [len(ordered), max(len(stages), 4)]
        size = (COLUMN, 0.13 * sum(heights) + 0.75)
        _, axes = plt.subplots(2, 1, figsize=size, height_ratios=heights, sharex=True, layout="constrained")
    top, bottom = axes
    top.barh(range(len(ordered)), [until[t] for t in ordered], color=colour("msft"), height=0.7)
    for place, task in enumerate(ordered):
        if until[task] == 0:
            top.annotate("never", (0, place), (2, 0), textcoords="offset points", va="center")
    top.set_yticks(range(len(ordered)), [pretty(t) for t in ordered])
    top.invert_yaxis()
    top.set_title("trained until", loc="left")
    _roll_outs(stages, bottom)
    best = msft.best.path_epoch
    for axis in axes:
        axis.axvline(best, color="0.2", ls="--", lw=1)
        axis.grid(axis="y", visible=False)
    # above the bars, where no bar or label is
    where = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": "center"}
    top.annotate("best checkpoint", (best, 1), (0, 3), **where)
    trained, kept = (stages.end - stages.start).sum(), stages.kept_until.iloc[-1]
    return say(
        axes,
        f"mSFT drops {stages.dropped.notna().sum()} sub-datasets in {len(stages)} stages; it trains {trained:g} epochs of shrinking "
        f"mixtures and keeps {kept:g}",
    )


def _roll_outs(stages: pd.DataFrame, axis) -> None:
    """A line a stage: what was kept in colour, what was rolled back in grey, an arrow back with the name of the dropped."""
    for row in stages.itertuples():
        line = row.stage + 1
        axis.plot([row.start, row.end], [line] * 2, color="0.75", lw=2.4, solid_capstyle="butt")
        axis.plot([row.start, row.kept_until], [line] * 2, color=colour("msft"), lw=2.4, solid_capstyle="butt")
        if isinstance(row.dropped, str):
            arrow = {"arrowstyle": "->", "color": "0.35", "lw": 0.6, "mutation_scale": 6, "shrinkA": 0, "shrinkB": 0}
            axis.annotate("", (row.kept_until, line + 0.45), (row.end, line + 0.45), arrowprops=arrow)
    dropped = [f": {pretty(name)}" if isinstance(name, str) else "" for name in stages.dropped]
    axis.set_yticks(
        range(1, len(stages) + 1), [f"{stage + 1}{name}" for stage, name in zip(stages.stage, dropped, strict=True)]
    )
    axis.set_ylim(len(stages) + 0.9, 0.4)
    axis.set_ylabel("stage: dropped")
    axis.set_xlabel("epoch along the kept path")
    axis.set_title("grey: rolled out; orange: kept; arrow: rolled back", loc="left")
    axis.set_xlim(0, stages.end.max() * 1.02)


def finding(sft, msft) -> str:
    """Whether mSFT is ahead of SFT, and what one run each leaves open."""
    cost = msft.flops["total"] / sft.flops["total"]
    return (
        f"{findings.sentence(findings.difference([(msft, sft)]))} It took {cost:.2f} times the FLOPs of SFT, and one seed of "
        "a small mixture says little by itself: the README has more seeds."
    )
