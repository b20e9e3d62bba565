"""Heterogeneous over-fitting: when each sub-dataset is best under SFT, and what one stop for all costs (Fig. 2)."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import MaxNLocator

from paper_figures import data, findings
from paper_figures.reported_numbers import model_label
from paper_figures.style import WIDTH, colour, panels, pretty


def needs(page) -> dict:
    """SFT of every model."""
    return {model: page.config("sft", model=model) for model in page.models}


def file_name(model: str) -> str:
    """A model's name as part of a file's name: its last part, without characters that LaTeX cannot include."""
    return model.rstrip("/").split("/")[-1].replace(".", "_").lower()


CURVES_CAPTION = (
    "Test accuracy (%) of each sub-dataset against epoch under SFT. The star and the number in the title are the epoch of the "
    "best accuracy, the dashed line is the epoch of the best mean over all."
)


def curves(run, axes=None):
    """Accuracy of each sub-dataset against epoch under SFT: its peak starred, what follows the peak pale.

    The dashed line is the epoch of the run's best checkpoint, the one stop that SFT has for all.
    axes: a flat array with one axes a sub-dataset, made where absent. Returns it.
    """
    table = data.peaks(run).set_index("task")
    if axes is None:
        axes = panels(len(table), "epoch", "test accuracy (%)", 1.5)
    handles = {}
    for axis, (task, row) in zip(axes, table.iterrows(), strict=True):
        curve = 100 * run.history[run.history.task == task].set_index("epoch").accuracy.sort_index()
        after = curve[curve.index >= row.peak_epoch]
        before = curve[curve.index <= row.peak_epoch]
        (handles["up to the peak"],) = axis.plot(before.index, before, color=colour("sft"), lw=1.4)
        (handles["after it"],) = axis.plot(after.index, after, color=colour("sft"), lw=1.2, alpha=0.4)
        handles["peak (its epoch in the title)"] = axis.scatter(
            row.peak_epoch, 100 * row.peak, marker="*", s=75, color=colour("ies"), zorder=3, edgecolor="white", lw=0.6
        )
        handles["best mean of all, SFT's one stop"] = axis.axvline(
            run.best.path_epoch, color="0.3", ls="--", lw=0.9, zorder=1
        )
        axis.set_title(f"{pretty(task)}: {row.peak_epoch:g}")
        axis.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        axis.margins(y=0.14)
    axes[0].figure.legend(
        handles.values(), handles.keys(), loc="outside upper center", ncols=len(handles), frameon=False
    )
    return axes


PEAK_TABLE_CAPTION = (
    "Peak epoch of each sub-dataset under SFT, the earliest epoch within one standard error of the peak, accuracy (%) at the "
    "peak and at the last epoch, and the points below the peak at the last epoch and at the best checkpoint of the mean."
)


def peak_table(run) -> pd.DataFrame:
    """A row a sub-dataset: peak epoch, peak and last accuracy (%), loss after the peak (points), and how sharp it is.

    'earliest within 1 s.e.': the first epoch whose accuracy is within one binomial standard error of the peak's.
    """
    table = data.peaks(run).set_index("task")
    items = run.history.drop_duplicates("task").set_index("task").n
    margin = np.sqrt(table.peak * (1 - table.peak) / items[table.index])
    near = {}
    for task, curve in run.history.sort_values("epoch", kind="stable").groupby("task"):
        near[task] = curve[curve.accuracy >= table.peak[task] - margin[task]].epoch.iloc[0]
    columns = {
        "peak epoch": table.peak_epoch,
        "earliest within 1 s.e.": pd.Series(near)[table.index],
        "peak (%)": 100 * table.peak,
        "last (%)": 100 * table["last"],
        "loss after the peak (points)": 100 * table.loss_after_peak,
        "loss at the best mean (points)": 100 * (table.peak - data.at_best(run)[table.index]),
    }
    return pd.DataFrame(columns).rename_axis("sub-dataset")


SPREAD_CAPTION = (
    "How far the optimal compute of the sub-datasets lies apart under SFT, by model: distinct peak epochs, earliest, latest, "
    "standard deviation, sub-datasets at their best at the last evaluation, the epoch of the best mean, and the mean distance "
    "in points from each sub-dataset's own peak there."
)


def spread(runs: Mapping[str, object]) -> pd.DataFrame:
    """A row a model: how far the peaks of its sub-datasets lie apart under SFT, and what one stop for all costs.

    'at the end': sub-datasets whose peak is the last evaluation, so that they may not have over-fitted yet.
    'cost of one stop (points)': mean over sub-datasets of the peak's accuracy minus that at the best checkpoint.
    """
    rows = {}
    for model, run in runs.items():
        table, epochs = peak_table(run), run.history.epoch
        peaks = table["peak epoch"]
        rows[model_label(model)] = {
            "sub-datasets": len(peaks),
            "distinct peaks": peaks.nunique(),
            "earliest": peaks.min(),
            "latest": peaks.max(),
            "standard deviation (epochs)": peaks.std(ddof=0),
            "at the end": int((peaks == epochs.max()).sum()),
            "best mean at": run.best.path_epoch,
            "cost of one stop (points)": table["loss at the best mean (points)"].mean(),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


def optimal_compute(runs: Mapping[str, object]) -> pd.DataFrame:
    """Peak epoch under SFT, a row a model and a column a sub-dataset (Fig. 12)."""
    rows = {model_label(model): data.peaks(run).set_index("task").peak_epoch for model, run in runs.items()}
    return pd.DataFrame(rows).T.rename_axis(index="model", columns=None)


COMPUTE_MAP_CAPTION = (
    "Optimal compute (epoch of the earliest best test accuracy under SFT) of each sub-dataset and model."
)


def compute_map(runs: Mapping[str, object], ax=None):
    """Optimal compute of each sub-dataset and model as a heat map with its numbers. Returns the axes."""
    table = optimal_compute(runs)
    if ax is None:
        size = (WIDTH, 0.32 * len(table) + 1.3)
        _, ax = plt.subplots(figsize=size, layout="constrained")
    longest = max(run.history.epoch.max() for run in runs.values())
    sns.heatmap(
        table.rename(columns=pretty), ax=ax, cmap="YlGnBu", vmin=0, vmax=longest, annot=True, fmt="g",
        annot_kws={"size": 7.5}, linewidths=1.5, cbar_kws={"label": "optimal compute\n(epoch)", "pad": 0.02},
    )  # fmt: skip
    ax.set(xlabel="", ylabel="")
    ax.tick_params(axis="both", length=0)
    ax.tick_params(axis="y", rotation=0)
    ax.tick_params(axis="x", rotation=35)
    plt.setp(ax.get_xticklabels(), ha="right", rotation_mode="anchor")
    ax.grid(visible=False)
    return ax


def finding(run) -> str:
    """How many different peaks SFT has to serve with one stop, and what noise does to that number."""
    table, items = peak_table(run), int(run.history.drop_duplicates("task").n.sum())
    peaks, cost = table["peak epoch"], table["loss at the best mean (points)"]
    at_end = int((peaks == run.history.epoch.max()).sum())
    return (
        f"With {model_label(run.config.model)} the {len(peaks)} sub-datasets peak at {peaks.nunique()} different epochs, "
        f"{peaks.min():g} to {peaks.max():g}, and SFT's one stop leaves them {findings.mean(cost)} points below "
        f"their own peaks (mean and 95 % interval over sub-datasets, n = 1 run, {items} test items). It falls short of a clean "
        f"measurement: a peak is the highest of many noisy evaluations, which overstates this loss, and {at_end} of the peaks "
        "stand at the last evaluation and may lie later."
    )
