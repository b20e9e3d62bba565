"""Heterogeneous over-fitting: when each sub-dataset is best under SFT, and what one stop costs (Fig. 2, 10, 11)."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import MaxNLocator

from paper_figures import data, findings, reported_numbers
from paper_figures.reported_numbers import model_label
from paper_figures.style import COLUMN, SMALLEST, bar_panels, colour, legend, panels, pretty, say, spread_out

MIXTURE = "Overall Mixture"  # the paper's name of the mean over all sub-datasets
# ten colours for the paper's ten sub-datasets; the palette's yellow and light pink are too pale for a line, and its tan is
# not told from orange and green
_LINES = [shade for place, shade in enumerate(sns.color_palette("colorblind", 10)) if place not in (5, 6, 8)]
_LINES += ["#332288", "#882255", "#661100"]


def needs(page) -> dict:
    """SFT of every model."""
    return {model: page.config("sft", model=model) for model in page.models}


def file_name(model: str) -> str:
    """A model's name as part of a file's name: its last part, without characters that LaTeX cannot include."""
    return model.rstrip("/").split("/")[-1].replace(".", "_").lower()


ONE_PANEL_CAPTION = (
    "Test accuracy (%) of each sub-dataset (thin) and of their mean (thick) against epoch under SFT. Stars: the earliest highest "
    "value of each; dashed line: that of the mean, SFT's one stop."
)


def one_panel(run, ax=None):
    """Fig. 2a: all sub-datasets and their mean in one panel, a star at each peak, a line at the mixture's. Returns the axes."""
    if ax is None:
        _, ax = plt.subplots(figsize=(COLUMN, 2.5), layout="constrained")
    wide = 100 * run.history.pivot(index="epoch", columns="task", values="accuracy")[run.history.task.unique()]
    lines = {pretty(task): wide[task] for task in wide} | {"mixture": wide.mean(axis=1)}
    least = 0.05 * (wide.max().max() - wide.min().min())
    heights = spread_out([line.iloc[-1] for line in lines.values()], least)
    peaks = [(line.idxmax(), line.max()) for line in lines.values()]
    for place, ((name, line), height) in enumerate(zip(lines.items(), heights, strict=True)):
        is_mixture = name == "mixture"
        shade = "black" if is_mixture else _LINES[place % len(_LINES)]
        look = {"lw": 1.8, "zorder": 4} if is_mixture else {"lw": 0.8, "ls": "--" if place >= len(_LINES) else "-"}
        ax.plot(line.index, line, color=shade, **look)
        # the star below is the larger one: both can be seen where they coincide
        size = 48 * 3.5 ** peaks[place + 1 :].count(peaks[place])
        ax.scatter(*peaks[place], marker="*", s=size, color=shade, zorder=5, edgecolor="white", lw=0.4, clip_on=False)
        end = line.index[-1]
        ax.annotate(
            f"{name} ({line.idxmax():g})", (end, line.iloc[-1]), (1.06 * end, height), va="center",
            color="black" if is_mixture else "0.2", fontweight="bold" if is_mixture else None, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": shade, "lw": 0.9, "shrinkA": 0, "shrinkB": 1, "relpos": (0, 0.5)},
        )  # fmt: skip
    ax.axvline(run.best.path_epoch, color="black", ls="--", lw=0.8, zorder=1)
    ax.set_xlim(0, end)
    ax.set(xlabel="epoch (in brackets: that of the peak)", ylabel="test accuracy (%)")
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return say(ax, _title(run))


def _title(run) -> str:
    peaks = data.peaks(run).peak_epoch
    return f"{len(peaks)} sub-datasets peak between epochs {peaks.min():g} and {peaks.max():g}; the mixture at {run.best.path_epoch:g}"


def one_stop(run, measure: str = "accuracy") -> float:
    """The epoch of the best mean over the sub-datasets: where SFT has to stop for all."""
    return (
        run.best.path_epoch
        if measure == "accuracy"
        else data.optimum(data.by_epoch(run, measure).mean(axis=1), measure)
    )


def distances(run, measure: str = "accuracy") -> pd.Series:
    """Epochs between the optimum of each sub-dataset, by its name for a reader, and that of the mixture."""
    optima = data.optimum(data.by_epoch(run, measure), measure)
    return (optima - one_stop(run, measure)).abs().rename(index=pretty)


def reported_distances() -> pd.Series:
    """The same as the paper's Fig. 2 has it, for Qwen3 8B."""
    return reported_numbers.table("fig2").set_index("sub_dataset").distance_from_mixture_peak.drop(MIXTURE)


_OVER = " ±: 95 % interval over the sub-datasets."
DISTANCES_CAPTION = (
    "Distance in epochs between the peak of each sub-dataset and that of the mixture under SFT; their mean above each panel and as a line."
    + _OVER
)
LOSS_DISTANCES_CAPTION = DISTANCES_CAPTION.replace("the peak of", "the lowest held-out loss of").replace(
    "that of the mixture", "that of their mean"
)


def distance_bars(runs: Mapping[str, object], with_paper: bool = True, measure: str = "accuracy"):
    """Fig. 2b: how far each optimum lies from the mixture's, a panel a model, and the paper's beside. Returns the axes."""
    ours = {model_label(model): distances(run, measure) for model, run in runs.items()}
    theirs = {"the paper, Qwen3 8B": reported_distances()} if with_paper else {}
    shown = {f"{name}\nmean {values.mean():.2f} (dashed)": values for name, values in (ours | theirs).items()}
    what = {"accuracy": "peak", "loss": "lowest loss"}[measure]
    axes = bar_panels(shown, f"distance from the mixture's {what} (epochs)", colour("sft"))
    for axis, values in zip(axes, shown.values(), strict=True):
        axis.axvline(values.mean(), color="0.4", ls="--", lw=0.8, zorder=1.5)
    words = [f"{findings.mean(values, 2)} epochs ({name})" for name, values in ours.items()]
    beside = f"; in the paper {reported_distances().mean():.2f}" if with_paper else ""
    start, end = {
        "accuracy": ("sub-datasets peak", "'s peak"),
        "loss": ("the losses of sub-datasets are lowest", "'s"),
    }[measure]
    return say(axes, f"On average {start} {' and '.join(words)} from the mixture{end}{beside}")


CURVES_CAPTION = (
    "Test accuracy (%) of each sub-dataset against epoch under SFT. The star and the number in the title are the epoch of the "
    "best accuracy, the dashed line is the epoch of the best mean over all." + _OVER
)
LOSS_CURVES_CAPTION = (
    "Held-out loss (nats a token of the gold answers) of each sub-dataset against epoch under SFT, each on an axis of its own. "
    "The star and the number in the title are the epoch of the lowest loss, the dashed line is that of the lowest mean over all. The model before training may lie above the axis."
    + _OVER
)


def curves(run, axes=None, measure: str = "accuracy"):
    """Accuracy or loss of each sub-dataset against epoch under SFT: its optimum starred, what follows it pale.

    The dashed line is the epoch of the best mean, the one stop that SFT has for all.
    axes: a flat array with one axes a sub-dataset, made where absent. Returns it.
    """
    table, stop, handles = data.by_epoch(run, measure), one_stop(run, measure), {}
    best = data.optimum(table, measure)
    what, ylabel = {
        "accuracy": ("peak", "test accuracy (%)"),
        "loss": ("lowest loss", "held-out loss (nats a token)"),
    }[measure]
    if axes is None:
        axes = panels(len(best), "epoch", ylabel, share="xy" if measure == "accuracy" else "x")
    for axis, (task, curve) in zip(axes, table.items(), strict=True):
        after, before = curve[curve.index >= best[task]], curve[curve.index <= best[task]]
        (handles[f"up to the {what}"],) = axis.plot(before.index, before, color=colour("sft"), lw=1.1)
        (handles["after it"],) = axis.plot(after.index, after, color=colour("sft"), lw=1, alpha=0.4)
        handles[f"{what} (its epoch in the title)"] = axis.scatter(
            best[task], curve[best[task]], marker="*", s=42, color=colour("sft"), zorder=3, edgecolor="white", lw=0.4
        )
        handles["best mean of all, SFT's one stop"] = axis.axvline(stop, color="0.3", ls="--", lw=0.7, zorder=1)
        axis.set_title(f"{pretty(task)}: {best[task]:g}")
        if measure == "loss":  # the first steps' fall would flatten all that follows
            axis.set_ylim(min(curve) - 0.15 * (top := max(curve[1:])), 1.15 * top)
        axis.xaxis.set_major_locator(MaxNLocator(3, integer=True, steps=[1, 2, 5, 10]))
        axis.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        axis.margins(y=0.14)
    legend(axes[0].figure, handles.values(), handles.keys())
    cost = pd.Series({task: abs(curve[stop] - curve[best[task]]) for task, curve in table.items()})
    words = {"accuracy": f"{findings.mean(cost)} points below their own peaks"}
    words["loss"] = f"{findings.mean(cost, 2)} nats above their own lowest losses"
    return say(axes, f"One stop for all leaves the sub-datasets {words[measure]}")


PEAK_TABLE_CAPTION = (
    "Peak epoch of each sub-dataset under SFT, its distance from the mixture's (beside the paper's where it has the sub-dataset), "
    "the earliest epoch within one standard error of the peak, accuracy (%) at the peak and at the last epoch, and the points below the peak at the last epoch and at the best checkpoint of the mean."
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
        "from the mixture's": (table.peak_epoch - run.best.path_epoch).abs(),
        "paper, from the mixture's": reported_distances().reindex(table.index.map(pretty)).to_numpy(),
        "earliest within 1 s.e.": pd.Series(near)[table.index],
        "peak (%)": 100 * table.peak,
        "last (%)": 100 * table["last"],
        "loss after the peak (points)": 100 * table.loss_after_peak,
        "loss at the best mean (points)": 100 * (table.peak - data.at_best(run)[table.index]),
    }
    return pd.DataFrame(columns).dropna(axis=1, how="all").rename_axis("sub-dataset")


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
    """Peak epoch under SFT, a row a model and a column a sub-dataset."""
    rows = {model_label(model): data.peaks(run).set_index("task").peak_epoch for model, run in runs.items()}
    return pd.DataFrame(rows).T.rename_axis(index="model", columns=None)


COMPUTE_MAP_CAPTION = (
    "Optimal compute (epoch of the earliest best test accuracy under SFT) of each sub-dataset and model. How far apart: the latest less "
    "the earliest of the models." + _OVER
)


def compute_map(runs: Mapping[str, object], ax=None):
    """Optimal compute of each sub-dataset and model as a heat map with its numbers. Returns the axes."""
    table = optimal_compute(runs)
    if ax is None:
        _, ax = plt.subplots(figsize=(COLUMN, 0.19 * len(table.columns) + 0.5), layout="constrained")
    longest = max(run.history.epoch.max() for run in runs.values())
    sns.heatmap(
        table.rename(columns=pretty).T, ax=ax, cmap="YlGnBu", vmin=0, vmax=longest, annot=True, fmt="g",
        annot_kws={"size": SMALLEST}, linewidths=1, cbar_kws={"label": "optimal compute (epoch)", "pad": 0.02},
    )  # fmt: skip
    ax.set(xlabel="", ylabel="")
    ax.tick_params(axis="both", length=0)
    ax.tick_params(axis="y", rotation=0)
    many = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if len(table) > 4 else {"rotation": 0}
    ax.set_xticks(ax.get_xticks(), table.index, **many)
    ax.grid(visible=False)
    spans = findings.mean(table.max() - table.min())
    between = f"; on the same sub-dataset the {len(table)} models lie {spans} epochs apart" * (len(table) > 1)
    return say(ax, f"Optimal compute lies between epochs {table.min().min():g} and {table.max().max():g}{between}")


def finding(run) -> str:
    """How far apart the peaks lie that SFT has to serve with one stop, and what noise does to what that costs."""
    table, items = peak_table(run), int(run.history.drop_duplicates("task").n.sum())
    peaks, cost = table["peak epoch"], table["loss at the best mean (points)"]
    at_end = int((peaks == run.history.epoch.max()).sum())
    later = f", and {at_end} of the peaks stand at the last evaluation and may lie later" if at_end else ""
    return (
        f"With {model_label(run.config.model)} the {len(peaks)} sub-datasets peak between epochs {peaks.min():g} and "
        f"{peaks.max():g}, and SFT's one stop leaves them {findings.mean(cost)} points below "
        f"their own peaks (mean and 95 % interval over sub-datasets, n = 1 run, {items} test items). It falls short of a clean "
        f"measurement: a peak is the highest of many noisy evaluations, which overstates this loss{later}."
    )
