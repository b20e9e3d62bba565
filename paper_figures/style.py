"""One house style: the same colour for a method everywhere, colour-blind palette, readable at column width."""

import re
import textwrap
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

_COLOURS = sns.color_palette("colorblind", 10)
METHODS = {
    "base": "Base",
    "sft": "SFT",
    "continual_sft": "Continual SFT",
    "dynamix_sft": "DynamixSFT",
    "ies": "IES",
    "sro_sft": "SRO SFT",
    "soft_sro_sft": "Soft SRO SFT",
    "msft": "mSFT",
}
COLOURS = {
    "base": "0.5",
    "sft": _COLOURS[0],
    "msft": _COLOURS[3],
    "continual_sft": _COLOURS[2],
    "dynamix_sft": _COLOURS[4],
    "ies": _COLOURS[1],
    "sro_sft": _COLOURS[5],
    "soft_sro_sft": _COLOURS[9],
}
WIDTH = 7.0  # inches, a page's text width
COLUMN = 4.4  # inches, for pictures that are cut out: their letters can still be read at a column's 8.5 cm
_FINDING = "finding"


def use_style() -> None:
    """Sets matplotlib and seaborn for every figure of the project."""
    sns.set_theme(style="ticks", context="paper", palette="colorblind")
    plt.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.dpi": 200,
            "font.size": 8,
            "axes.titlesize": 8.5,
            "axes.labelsize": 8,
            "xtick.labelsize": 7,
            "ytick.labelsize": 7,
            "legend.fontsize": 7.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "0.92",
            "grid.linewidth": 0.6,
            "pdf.fonttype": 42,
            # equal data give equal files
            "svg.hashsalt": "msft",
        }
    )


def label(method: str) -> str:
    """A method's name as the paper writes it."""
    return METHODS.get(method, method)


def colour(method: str):
    """A method's colour; methods of one's own get a neutral one."""
    return COLOURS.get(method, "0.25")


# the paper's names of its sub-datasets
_TASKS = {
    "aqua_rat": "AQUA-RAT",
    "arc_easy": "ARC-Easy",
    "boolq": "BoolQ",
    "commonsense_qa": "CommonsenseQA",
    "gsm8k": "GSM8K",
    "hellaswag": "HellaSwag",
    "medmcqa": "MedMCQA",
    "openbookqa": "OpenBookQA",
    "sciq": "SciQ",
    "winogrande": "Winogrande",
}


def pretty(task: str) -> str:
    """A sub-dataset's name for an axis, the paper's where it has one."""
    return _TASKS.get(task, task.replace("_", " "))


def signed(value: float, decimals: int | None = None) -> str:
    """A difference for a bar's end, with its sign; a plain 0 for none.  decimals: as many as it has by default."""
    text = f"{value:+g}" if decimals is None else f"{value:+.{decimals}f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text) else "0"


def spread_out(heights, least: float) -> np.ndarray:
    """Heights for labels in the order given: moved apart to `least` where two would overlap, around where they were."""
    heights = np.asarray(heights, dtype=float)
    order = np.argsort(heights, kind="stable")
    # groups of labels that touch: each is centred on the mean of its own
    groups: list[list[int]] = []
    for place in order:
        groups.append([place])
        while len(groups) > 1:
            low, high = (
                heights[group].mean() + side * least * (len(group) - 1) / 2
                for group, side in ((groups[-2], 1), (groups[-1], -1))
            )
            if high - low >= least:
                break
            groups[-2:] = [groups[-2] + groups[-1]]
    placed = np.empty(len(heights))
    for group in groups:
        placed[group] = heights[group].mean() + least * (np.arange(len(group)) - (len(group) - 1) / 2)
    return placed


def bar_panels(values: Mapping[str, pd.Series], xlabel: str, shade, bands: Mapping[str, float] | None = None):
    """Bars of {panel: values by name} on one x axis; panels with equal names have them in one order and once.

    bands: {panel: half of the grey band around 0 of it}.  Returns the axes, flat.
    """
    first = next(iter(values.values())).sort_values(ascending=False, kind="stable")
    equal = all(set(series.index) == set(first.index) for series in values.values())
    columns = even_columns(len(values), 3)
    rows, longest = -(-len(values) // columns), max(map(len, values.values()))
    size = (min(WIDTH, 2.6 * columns), (0.19 * longest + 0.55) * rows + 0.35)
    figure, grid = plt.subplots(
        rows, columns, figsize=size, sharex=True, sharey=equal, squeeze=False, layout="constrained"
    )
    for spare in grid.ravel()[len(values) :]:
        spare.set_visible(False)
    axes, reach = grid.ravel()[: len(values)], max(series.abs().max() for series in values.values())
    for axis, (title, series) in zip(axes, values.items(), strict=True):
        series = series[first.index] if equal else series.sort_values(ascending=False, kind="stable")
        drawn = axis.barh(range(len(series)), series, height=0.68, color=shade)
        axis.bar_label(drawn, [signed(v) if series.min() < 0 else f"{v:g}" for v in series], padding=2, fontsize=7)
        axis.axvline(0, color="0.2", lw=0.8)
        if bands and bands.get(title):
            axis.axvspan(-bands[title], bands[title], color="0.9", zorder=0)
        axis.set_yticks(range(len(series)), series.index)
        axis.set_ylim(len(series) - 0.4, -0.6)
        low = min(series.min() for series in values.values())
        axis.set_xlim(-1.3 * reach if low < 0 else 0, 1.3 * reach)
        axis.grid(axis="y", visible=False)
        axis.tick_params(axis="y", length=0)
        axis.set_title(title)
    figure.supxlabel(xlabel, fontsize=8)
    return axes


def panels(count: int, xlabel: str, ylabel: str, height: float = 1.5, columns: int = 5, same_y: bool = True):
    """A grid of `count` axes that share x and y, at most `columns` a row; returns them flat, in reading order.

    height: inches a row.  same_y: False where panels measure different things.  The labels with their units stand once for the whole figure.
    """
    columns = even_columns(count, columns)
    rows = -(-count // columns)
    size = (WIDTH if columns > 1 else COLUMN, height * rows + 0.6)
    figure, grid = plt.subplots(
        rows, columns, figsize=size, sharex=True, sharey=same_y, squeeze=False, layout="constrained"
    )
    for axis in grid.ravel()[count:]:
        axis.set_visible(False)
    for column in range(columns):
        # the last of a short column carries the numbers of the shared axis
        lowest = [row for row in range(rows) if row * columns + column < count][-1]
        grid[lowest, column].tick_params(labelbottom=True)
    figure.supxlabel(xlabel, fontsize=8)
    figure.supylabel(ylabel, fontsize=8)
    return grid.ravel()[:count]


def even_columns(count: int, most: int) -> int:
    """Panels a row, `most` or fewer, so that no panel is left alone in a row."""
    most = min(count, most)
    return next(
        (columns for columns in range(most, 1, -1) if count % columns == 0 or count % columns > columns / 2),
        most + 1 if count > most else most,
    )


def say(axes, finding: str):
    """Writes what a picture shows above it, one sentence made from its data; returns the axes. After its legends."""
    figure = figure_of(axes)
    # all is laid out without it; a legend would else move to the edge of the saved picture, over the sentence
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for legend in figure.legends:
        legend.set_bbox_to_anchor((0, 0, 1, 1), figure.transFigure)
    finding = re.sub(r"(?<!\w)-(?=\d)", "\N{MINUS SIGN}", finding)
    lines = len(textwrap.wrap(finding, int(15 * figure.get_figwidth()), break_on_hyphens=False))
    text = textwrap.fill(finding, -(-len(finding) // lines) + 7, break_on_hyphens=False)  # lines of about one length
    figure.text(0.01, 1.01, text, ha="left", va="bottom", fontsize=8.5, fontweight="bold", gid=_FINDING)
    return axes


def said(axes) -> str:
    """The sentence of `say`; '' for a picture without one."""
    return next((t.get_text().replace("\n", " ") for t in figure_of(axes).texts if t.get_gid() == _FINDING), "")


def figure_of(axes):
    """The figure of an axes, of an array or list of axes, or the figure itself."""
    while not hasattr(axes, "savefig"):
        axes = axes.figure if hasattr(axes, "figure") else axes[0]
    return axes
