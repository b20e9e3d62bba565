"""One house style: the same colour for a method everywhere, colour-blind palette, drawn at the size of print.

A picture is as wide as a column or as two of them, and its letters have their size there: nothing is scaled.
"""

import re
import textwrap
from collections.abc import Mapping
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.font_manager import FontProperties
from matplotlib.patheffects import withStroke
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

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
# the palette's orange and tan are too like mSFT's vermilion, and its green like grey to eyes without red or green
COLOURS = {
    "base": "0.5",
    "sft": _COLOURS[0],
    "msft": _COLOURS[3],
    "continual_sft": "#00664f",
    "dynamix_sft": _COLOURS[4],
    "ies": "#332288",
    "sro_sft": "#ccaa00",
    "soft_sro_sft": _COLOURS[9],
}
COLUMN = 8.5 / 2.54  # inches, a column of a paper, half of a slide, a telephone
WIDTH = 17.5 / 2.54  # inches, both columns: for pictures of many panels
SMALLEST = 6  # points, of the smallest letters
_FINDING, _FINDING_SIZES = "finding", {"bold": 7, "normal": 6.5}
_TICKS = {"major.size": 2, "major.width": 0.6, "major.pad": 2, "minor.size": 1.2, "minor.width": 0.5}


def use_style() -> None:
    """Sets matplotlib and seaborn for every figure of the project."""
    sns.set_theme(style="ticks", context="paper", palette="colorblind")
    plt.rcParams.update(
        {
            "figure.dpi": 200,
            "savefig.dpi": 300,
            "font.size": SMALLEST,
            "xtick.labelsize": SMALLEST,
            "ytick.labelsize": SMALLEST,
            "legend.fontsize": SMALLEST,
            "axes.titlesize": 6.5,
            "axes.labelsize": 6.5,
            "figure.labelsize": 6.5,
            "axes.titlepad": 3,
            "axes.labelpad": 2,
            "axes.linewidth": 0.6,
            "lines.linewidth": 1,
            **{f"{axis}tick.{key}": value for axis in "xy" for key, value in _TICKS.items()},
            "legend.frameon": False,
            "legend.handlelength": 1.6,
            "legend.handletextpad": 0.5,
            "legend.columnspacing": 1.2,
            "legend.labelspacing": 0.3,
            "legend.borderpad": 0.2,
            "figure.constrained_layout.h_pad": 0.03,
            "figure.constrained_layout.w_pad": 0.03,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "0.92",
            "grid.linewidth": 0.5,
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
    size = (width_of(columns, 2), (0.135 * longest + 0.42) * rows + 0.2)
    figure, grid = plt.subplots(
        rows, columns, figsize=size, sharex=True, sharey=equal, squeeze=False, layout="constrained"
    )
    for spare in grid.ravel()[len(values) :]:
        spare.set_visible(False)
    axes, reach = grid.ravel()[: len(values)], max(series.abs().max() for series in values.values())
    for axis, (title, series) in zip(axes, values.items(), strict=True):
        series = series[first.index] if equal else series.sort_values(ascending=False, kind="stable")
        drawn = axis.barh(range(len(series)), series, height=0.68, color=shade)
        numbers = [signed(v) if series.min() < 0 else f"{v:g}" for v in series]
        for text in axis.bar_label(drawn, numbers, padding=1.5):
            # numbers have no descenders, and lines give way to them
            text.set(va="center_baseline", path_effects=[withStroke(linewidth=2, foreground="white")])
        axis.axvline(0, color="0.2", lw=0.6)
        if bands and bands.get(title):
            axis.axvspan(-bands[title], bands[title], color="0.9", zorder=0)
        axis.set_yticks(range(len(series)), series.index)
        axis.set_ylim(len(series) - 0.4, -0.6)
        low = min(series.min() for series in values.values())
        # room for the longest bar's number, beside the names too
        axis.set_xlim(*(reach * np.array([-1.9, 1.9] if low < 0 else [0, 1.3])))
        axis.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axis.grid(axis="y", visible=False)
        axis.tick_params(axis="y", length=0)
        axis.set_title(title)
    figure.supxlabel(xlabel)
    return axes


def panels(count: int, xlabel: str, ylabel: str, height: float = 1.15, columns: int = 5, share: str = "xy"):
    """A grid of `count` axes that share x and y, at most `columns` a row; returns them flat, in reading order.

    height: inches a row.  share: "x" or "y" where the panels differ in the other.  The labels with their units stand once for the whole figure.
    """
    columns = even_columns(count, columns)
    rows = -(-count // columns)
    size = (width_of(columns), height * rows + 0.45)
    figure, grid = plt.subplots(
        rows, columns, figsize=size, sharex="x" in share, sharey="y" in share, squeeze=False, layout="constrained"
    )
    for axis in grid.ravel()[count:]:
        axis.set_visible(False)
    for column in range(columns):
        # the last of a short column carries the numbers of the shared axis
        lowest = [row for row in range(rows) if row * columns + column < count][-1]
        grid[lowest, column].tick_params(labelbottom=True)
    figure.supxlabel(xlabel)
    figure.supylabel(ylabel)
    return grid.ravel()[:count]


def even_columns(count: int, most: int) -> int:
    """Panels a row, `most` or fewer, so that no panel is left alone in a row."""
    most = min(count, most)
    return next(
        (columns for columns in range(most, 1, -1) if count % columns == 0 or count % columns > columns / 2),
        most + 1 if count > most else most,
    )


def width_of(columns: int, most: int = 3) -> float:
    """Inches: a column's width for `most` panels a row or fewer, else both columns'."""
    return COLUMN if columns <= most else WIDTH


def legend(figure, handles, names=None, place: str = "upper"):
    """The key of a figure, above its panels or below ("lower"), in as few even rows as its width holds; returns it."""
    names = [handle.get_label() for handle in handles] if names is None else list(names)
    for rows in range(1, len(names) + 1):
        key = figure.legend(list(handles), names, loc=f"outside {place} center", ncols=-(-len(names) // rows))
        if rows == len(names) or key.get_window_extent().width <= figure.bbox.width:
            return key
        key.remove()


def say(axes, finding: str):
    """Writes what a picture shows above it, made from its data; returns the axes. After its legends.

    What follows the first semicolon outside brackets stands below in plain letters.
    """
    figure = figure_of(axes)
    # all is laid out without it; a legend would else move to the edge of the saved picture, over the sentence
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for key in figure.legends:
        key.set_bbox_to_anchor((0, 0, 1, 1), figure.transFigure)
    drawn = Bbox.union([axis.get_position() for axis in figure.axes if axis.get_visible()])
    for text in figure.texts:  # the common labels, beside the panels rather than the whole with its key
        if text.get_text() == figure.get_supylabel():
            text.set_y((drawn.y0 + drawn.y1) / 2)
        elif text.get_text() == figure.get_supxlabel():
            text.set_x((drawn.x0 + drawn.x1) / 2)
    finding = re.sub(r"(?<!\w)-(?=\d)", "\N{MINUS SIGN}", finding)
    first, more = re.match(r"((?:\([^)]*\)|[^(;])*);?(.*)", finding).groups()
    edge = 0.04  # inches
    x, y = edge / figure.get_figwidth(), 1 + edge / figure.get_figheight()
    for part, weight in ((more, "normal"), (first, "bold")) if more else ((first, "bold"),):  # from below
        lines = wrapped(part.strip(), 72 * 0.92 * figure.get_figwidth(), weight)
        text = figure.text(x, y, lines, va="bottom", fontsize=_FINDING_SIZES[weight], fontweight=weight, gid=_FINDING)
        y += (text.get_window_extent().height / figure.dpi + edge / 2) / figure.get_figheight()
    return axes


def wrapped(text: str, width: float, weight: str = "bold") -> str:
    """A finding in as few lines as `width` points hold, all of about one length; a number keeps its unit."""
    text = re.sub(r" ([=±]) |(?<=\d) (%)", lambda m: m[0].replace(" ", "\N{NO-BREAK SPACE}"), text)
    splits = [
        textwrap.wrap(text, letters, break_on_hyphens=False, break_long_words=False)
        for letters in range(len(text), 0, -1)
    ]
    narrow = [lines for lines in splits if all(_points(line, weight) <= width for line in lines)] or splits
    fewest = min(map(len, narrow))
    return "\n".join([lines for lines in narrow if len(lines) == fewest][-1])


@cache
def _points(line: str, weight: str) -> float:
    font = FontProperties(size=_FINDING_SIZES[weight], weight=weight)
    return text_to_path.get_text_width_height_descent(line, font, False)[0]


def said(axes) -> str:
    """The sentence of `say`; '' for a picture without one."""
    parts = [" ".join(text.get_text().split()) for text in figure_of(axes).texts if text.get_gid() == _FINDING]
    return "; ".join(reversed(parts))


def figure_of(axes):
    """The figure of an axes, of an array or list of axes, or the figure itself."""
    while not hasattr(axes, "savefig"):
        axes = axes.figure if hasattr(axes, "figure") else axes[0]
    return axes
