"""Consistency: how evenly a method does across benchmarks, and how often it is the best on one (Fig. 4)."""

import matplotlib.pyplot as plt
import pandas as pd

from paper_figures import data, reported_numbers
from paper_figures.figures import main_results
from paper_figures.style import WIDTH, colour, label

COMPARISONS = 60  # the paper's first places are out of 6 models x 10 benchmarks


def scores(runs) -> pd.DataFrame:
    """Accuracy in percent at the reported checkpoint: one row a model and sub-dataset, one column a method.

    runs: {(model, method): Run}, as `main_results.needs` names them.
    """
    columns = {}
    for (model, method), run in runs.items():
        columns.setdefault(method, []).append(pd.concat({reported_numbers.model_label(model): 100 * data.at_best(run)}))
    table = pd.DataFrame({method: pd.concat(parts) for method, parts in columns.items()})
    return table.rename_axis(["model", "task"])


def spread(table: pd.DataFrame) -> pd.DataFrame:
    """Sample standard deviation, in points, of a method's accuracy across sub-datasets: one row a model."""
    return table.groupby("model", sort=False).std()


def gain_spread(table: pd.DataFrame) -> pd.DataFrame:
    """The same of the gains over SFT: 0 would be one gain shared by all sub-datasets."""
    return table.sub(table.sft, axis=0).drop(columns="sft").groupby("model", sort=False).std()


def first_places(table: pd.DataFrame) -> pd.DataFrame:
    """One row a method: shared (a tie of k gives each 1/k, so that the places add up to the comparisons), alone (first
    without a tie), and tied (first together with others), each a count over models and sub-datasets."""
    # accuracies are counts over items: equal counts are equal numbers
    first = table.eq(table.max(axis=1), axis=0)
    winners = first.sum(axis=1)
    counts = {
        "shared": first.div(winners, axis=0).sum(),
        "alone": first[winners == 1].sum(),
        "tied": first[winners > 1].sum(),
    }
    return pd.DataFrame(counts).rename_axis("method")


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Both halves of Fig. 4 as numbers: one row a method."""
    places = first_places(table)
    shown = pd.DataFrame(
        {
            "mean accuracy (%)": table.groupby("model").mean().mean(),
            "std of accuracy (points)": spread(table).mean(),
            "std of gain over SFT (points)": gain_spread(table).mean(),
            "first places, ties shared": places.shared,
            "first alone": places.alone,
            "first in a tie": places.tied,
        }
    )
    return shown.loc[list(table.columns)].rename(label).rename_axis("Method")


def panels(table: pd.DataFrame, theirs: dict[str, float] | None = None, axes=None):
    """Fig. 4: left the standard deviation across sub-datasets, each model a point; right the count of first places.

    table: as `scores` gives it.  theirs: {method: the paper's count}, drawn as rings.
    axes: a pair of axes, made where absent. Returns them.
    """
    deviations, places = spread(table), first_places(table)
    if axes is None:
        size = (WIDTH, main_results.row_height(deviations) * len(places) + 1.0)
        _, axes = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
    left, right = axes
    main_results.dots(left, deviations)
    left.set_xlabel("standard deviation of accuracy\nacross sub-datasets (points)")
    colours = [colour(method) for method in places.index]
    bars = right.barh(range(len(places)), places.shared, color=colours, height=0.6)
    right.bar_label(bars, [f"{value:.2f}".rstrip("0").rstrip(".") for value in places.shared], fontsize=7, padding=6)
    for method, count in (theirs or {}).items():
        right.plot(count, list(places.index).index(method), "o", mfc="none", mec="0.2", ms=9, mew=1.0, zorder=4)
    right.set_xlabel(f"first places of {len(table)}\n(ties shared)")
    right.grid(axis="y", visible=False)
    right.margins(x=0.15)
    main_results.key(left.figure, deviations.index, "count in the paper" if theirs else "")
    return axes


def reported_places() -> dict[str, float]:
    """The counts of first places that the paper's text names, out of COMPARISONS."""
    return {
        "msft": reported_numbers.claim("on which mSFT is first"),
        "ies": reported_numbers.claim("the same for IES"),
    }


def against_paper(table: pd.DataFrame) -> pd.DataFrame:
    """First places of mSFT less those of IES, as a share of all comparisons in percent: the paper's and ours.

    The paper's text has no standard deviation, only that mSFT's is generally the lowest.
    """
    theirs, ours = reported_places(), first_places(table).shared
    pairs = {
        "first places of mSFT over those of IES": (
            100 * (theirs["msft"] - theirs["ies"]) / COMPARISONS,
            100 * (ours.msft - ours.ies) / len(table),
        )
    }
    return reported_numbers.directions(pairs, unit="% of comparisons")


def verdict(table: pd.DataFrame) -> str:
    """What the numbers say, whoever won."""
    deviations, places = spread(table), first_places(table)
    means, models = deviations.mean(), len(deviations)
    times = int((deviations.msft == deviations.min(axis=1)).sum())
    return (
        f"Averaged over {models} model{'s' if models > 1 else ''}, the lowest standard deviation across sub-datasets is "
        f"that of {_names(means, means.min())} ({means.min():.1f} points; mSFT {means.msft:.1f}, SFT {means.sft:.1f}); "
        f"mSFT's is the lowest on {times} of {models}. Most first places: {_names(places.shared, places.shared.max())} with "
        f"{places.shared.max():.2f} of {len(table)} (mSFT {places.shared.msft:.2f}, {places.alone.msft} of them alone). A "
        "deviation across sub-datasets mixes how hard they are with how evenly a method does."
    )


def _names(values: pd.Series, value: float) -> str:
    # equal up to the order of a sum
    return " and ".join(label(method) for method in values.index if abs(values[method] - value) < 1e-9)
