"""Consistency: how evenly a method does across benchmarks, and how often it is the best on one (Fig. 4)."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from paper_figures import data, findings, reported_numbers
from paper_figures.figures import main_results
from paper_figures.style import COLUMN, colour, label, say

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


def spread_halves(runs, draws: int = 2000) -> pd.Series:
    """Half of the 95 % interval of each method's mean spread: its test items drawn anew, every sub-dataset by itself."""
    rng, drawn = np.random.default_rng(0), {}
    for (_, method), run in runs.items():
        at = run.at_best
        scores = 100 * rng.binomial(at.n, at.accuracy, size=(draws, len(at))) / at.n.to_numpy()  # [draws, sub-datasets]
        drawn.setdefault(method, []).append(scores.std(axis=1, ddof=1))
    return pd.Series({method: 1.96 * np.mean(parts, axis=0).std() for method, parts in drawn.items()})


def gain_spread(table: pd.DataFrame) -> pd.DataFrame:
    """The same of the gains over SFT: 0 would be one gain shared by all sub-datasets."""
    return table.sub(table.sft, axis=0).drop(columns="sft").groupby("model", sort=False).std()


def share_of_first(table: pd.DataFrame, method: str) -> pd.Series:
    """A method's share of the first place on each model and sub-dataset: 1, 1/k in a tie of k, or 0."""
    # accuracies are counts over items: equal counts are equal numbers
    first = table.eq(table.max(axis=1), axis=0)
    return first[method] / first.sum(axis=1)


def first_places(table: pd.DataFrame) -> pd.DataFrame:
    """One row a method: shared (a tie of k gives each 1/k, so that the places add up to the comparisons), alone (first
    without a tie), and tied (first together with others), each a count over models and sub-datasets."""
    first = table.eq(table.max(axis=1), axis=0)
    winners = first.sum(axis=1)
    counts = {
        "shared": {method: share_of_first(table, method).sum() for method in table},
        "alone": first[winners == 1].sum(),
        "tied": first[winners > 1].sum(),
    }
    return pd.DataFrame(counts).rename_axis("method")


def place_intervals(table: pd.DataFrame, draws: int = findings.DRAWS) -> pd.DataFrame:
    """95 % bootstrap intervals (low, high) of each method's shared first places, over the pairs of model and sub-dataset."""
    drawn = np.random.default_rng(0).integers(len(table), size=(draws, len(table)))
    spans = {m: np.percentile(share_of_first(table, m).to_numpy()[drawn].sum(axis=1), [2.5, 97.5]) for m in table}
    return pd.DataFrame(spans, index=["low", "high"]).T


SUMMARY_CAPTION = (
    "Means over the models of accuracy and of the standard deviations across sub-datasets (of accuracy, and of the gain over "
    "SFT), and counts of first places on the pairs of model and sub-dataset."
)


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


PANELS_CAPTION = (
    "Left: sample standard deviation (points) of test accuracy across the sub-datasets, each model a point; bars are means over "
    "several models, with 95 % intervals over the test items. Right: first places on the pairs of model and sub-dataset, ties shared, with 95 % "
    "bootstrap intervals over the pairs; rings, where drawn, are the paper's."
)


def panels(table: pd.DataFrame, halves: pd.Series, theirs: dict[str, float] | None = None, axes=None):
    """Fig. 4: left the standard deviation across sub-datasets, each model a point; right the count of first places.

    table: as `scores` gives it.  halves: as `spread_halves` does.  theirs: {method: the paper's count}, drawn as rings.
    axes: a pair of axes, made where absent. Returns them.
    """
    deviations, places = spread(table), first_places(table)
    if axes is None:
        size = (COLUMN, main_results.row_height(deviations) * len(places) + 0.8)
        _, axes = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
    left, right = axes
    main_results.dots(left, deviations, halves=halves)
    left.set_xlabel("standard deviation of accuracy\nacross sub-datasets (points)")
    colours = [colour(method) for method in places.index]
    spans = place_intervals(table)
    whiskers = (places.shared - spans.low, spans.high - places.shared)
    right.barh(
        range(len(places)), places.shared, color=colours, height=0.6, xerr=whiskers, error_kw={"lw": 0.7}, ecolor="0.3"
    )
    for place, (value, end) in enumerate(zip(places.shared, spans.high, strict=True)):
        text = f"{value:.2f}".rstrip("0").rstrip(".")
        right.annotate(text, (end, place), (3, 0), textcoords="offset points", va="center")
    for method, count in (theirs or {}).items():
        right.plot(count, list(places.index).index(method), "o", mfc="none", mec="0.2", ms=6, mew=0.8, zorder=4)
    right.set_xlabel(f"first places of {len(table)}\n(ties shared)")
    right.grid(axis="y", visible=False)
    right.margins(x=0.2)
    main_results.key(left.figure, deviations.index, "count in the paper" if theirs else "")
    return say(axes, _title(table, halves))


def _title(table: pd.DataFrame, halves: pd.Series) -> str:
    rival = _rival(table)
    _, low, high = lead_over(table, rival)
    places = first_places(table).shared
    tell = "" if low > 0 or high < 0 else ", cannot tell which has more"
    first = f"mSFT has {places.msft:.1f} of {len(table)} first places ({label(rival)} {places[rival]:.1f}{tell})"
    even, half = wider(table, halves)
    told = "" if abs(even) > half else ", cannot tell from 0"
    return f"{first}; its accuracy spreads {abs(even):.1f} points {'more' if even > 0 else 'less'} across sub-datasets than SFT's{told}"


def _rival(table: pd.DataFrame) -> str:
    """The method with the most first places but mSFT."""
    return first_places(table).shared.drop("msft").idxmax()


def lead_over(table: pd.DataFrame, rival: str, draws: int = findings.DRAWS) -> tuple[float, float, float]:
    """First places of mSFT less those of another method in % of the pairs of model and sub-dataset, ties shared, and the
    ends of its 95 % bootstrap interval over these pairs."""
    lead = share_of_first(table, "msft") - share_of_first(table, rival)
    drawn = np.random.default_rng(0).integers(len(lead), size=(draws, len(lead)))
    low, high = np.percentile(100 * lead.to_numpy()[drawn].mean(axis=1), [2.5, 97.5])
    return 100 * lead.mean(), low, high


def reported_places() -> dict[str, float]:
    """The counts of first places that the paper's text names, out of COMPARISONS."""
    return {
        "msft": reported_numbers.claim("on which mSFT is first"),
        "ies": reported_numbers.claim("the same for IES"),
    }


AGAINST_PAPER_CAPTION = (
    f"First places of mSFT less those of IES in percent of all comparisons ({COMPARISONS} in the paper), ties shared; and the "
    "standard deviation of mSFT's accuracy across the sub-datasets less that of SFT's, mean of the models. The paper's text gives no "
    "deviation, but says that mSFT's is generally the lowest."
    + reported_numbers.told("the pairs of model and sub-dataset, and over the test items, these very runs")
)


def against_paper(table: pd.DataFrame, halves: pd.Series) -> pd.DataFrame:
    """First places of mSFT less those of IES, as a share of all comparisons in percent, and the spread of mSFT less that of
    SFT in points: the paper's and ours. halves: as `spread_halves` gives it."""
    theirs = reported_places()
    there = 100 * (theirs["msft"] - theirs["ies"]) / COMPARISONS
    (even, half), places = wider(table, halves), "first places of mSFT over those of IES (% of comparisons)"
    pairs = {places: (there, *lead_over(table, "ies"))}
    pairs["standard deviation of mSFT over that of SFT (points)"] = ("lower", even, even - half, even + half)
    return reported_numbers.directions(pairs, unit="in its unit")


def wider(table: pd.DataFrame, halves: pd.Series) -> tuple[float, float]:
    """Spread of mSFT less that of SFT, mean of the models, in points; half of its 95 % interval over the test items."""
    deviations = spread(table).mean()
    return deviations.msft - deviations.sft, float(np.hypot(halves.msft, halves.sft))


def finding(table: pd.DataFrame, draws: int = findings.DRAWS) -> str:
    """First places of mSFT against those of the method with the most, and whose deviation is the lowest."""
    places, deviations = first_places(table).shared, spread(table).mean()
    rivals = places.drop("msft")
    lead, low, high = lead_over(table, _rival(table), draws)
    return (
        f"mSFT has {places.msft:.2f} of {len(table)} first places and {findings.leaders(rivals)}, the most of the others, "
        f"{rivals.max():.2f}: a lead of {lead:+.0f} % of the pairs of model and sub-dataset (95 % interval "
        f"{low:+.0f} to {high:+.0f}, n = {len(table)} pairs, ties shared). The lowest standard deviation is that of "
        f"{findings.leaders(-deviations)} ({deviations.min():.1f} points, mSFT {deviations.msft:.1f}), which is no "
        "clean measure of consistency: it mixes how hard the sub-datasets are with how evenly a method does."
    )
