"""One house style: the same colour for a method everywhere, colour-blind palette, readable at column width."""

import matplotlib.pyplot as plt
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


def use_style() -> None:
    """Sets matplotlib and seaborn for every figure of the project."""
    sns.set_theme(style="ticks", context="paper", palette="colorblind")
    plt.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.dpi": 200,
            "savefig.bbox": "tight",
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


def pretty(task: str) -> str:
    """A sub-dataset's name for an axis."""
    return task.replace("_", " ")


def panels(count: int, xlabel: str, ylabel: str, height: float = 1.5, columns: int = 5):
    """A grid of `count` axes on one x axis, `columns` a row; returns them flat, in reading order.

    height: inches a row.  The labels with their units stand once for the whole figure.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(WIDTH, height * rows + 0.6), sharex=True, squeeze=False, layout="constrained"
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


def figure_of(axes):
    """The figure of an axes, of an array or list of axes, or the figure itself."""
    while not hasattr(axes, "savefig"):
        axes = axes.figure if hasattr(axes, "figure") else axes[0]
    return axes
