"""Seeds: SFT and mSFT of the focus model over the seeds of the profile, and what so few of them can tell (Table 6)."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator
from scipy import stats

from paper_figures import data, reported_numbers
from paper_figures.figures import main_results
from paper_figures.findings import DRAWS, Intervals, bootstrap, correct_at_best, item_differences, over_items
from paper_figures.style import COLUMN, colour, label, say, spread_out

METHODS = ("sft", "msft")
EVIDENCE = Path(__file__).parents[2] / "benchmarks" / "results"


def needs(page) -> dict:
    """{(method, seed): RunConfig} on the focus model."""
    return {(method, seed): page.config(method, seed=seed) for method in METHODS for seed in page.seeds}


def accuracies(runs) -> pd.DataFrame:
    """Mean accuracy in percent over the sub-datasets: one row a seed, one column a method."""
    table = pd.Series({key: 100 * data.at_best(run).mean() for key, run in runs.items()})
    return table.unstack(0)[list(METHODS)].rename_axis(index="seed", columns=None)


def paired_t(differences) -> tuple[float, float]:
    """(t, two-sided p) of the paired t test that the mean difference is 0; nan for fewer than two pairs, or equal ones.

    The paper does not name its test; this one gives its p of 0.023 from the accuracies that Table 6 prints.
    """
    values = np.asarray(differences, dtype=float)
    # equal differences leave no variance to test against; rounding must not stand in for it
    if len(values) < 2 or np.ptp(values) < 1e-9:
        return np.nan, np.nan
    result = stats.ttest_1samp(values, 0.0)
    return float(result.statistic), float(result.pvalue)


def least_difference(count: int, level: float = 0.05) -> float:
    """How many of its own sample standard deviations a mean difference over `count` seeds must reach for p < level."""
    return float(stats.t.ppf(1 - level / 2, count - 1) / np.sqrt(count))


TABLE6_CAPTION = (
    "Test accuracy (percent) on each seed, mean, sample standard deviation, gain over SFT (points) and two-sided p of the paired "
    "t test over the seeds."
)


def table6(scores: pd.DataFrame, theirs: pd.DataFrame | None = None) -> pd.DataFrame:
    """Table 6: accuracy in percent of each seed, mean, sample standard deviation, gain over SFT, p of the paired t test
    as text.

    scores: as `accuracies` gives it.  theirs: the paper's in the same form, in rows of their own.
    """
    rows = {}
    for source, table in (("", scores), (" (paper)", theirs)):
        for method, values in () if table is None else table.items():
            difference = values - table.sft
            p = paired_t(difference)[1]
            rows[label(method) + source] = {
                **{f"seed {seed}": value for seed, value in values.items()},
                "mean": values.mean(),
                "std": values.std(),
                "gain": np.nan if method == "sft" else difference.mean(),
                "p": "–" if np.isnan(p) else f"{p:.3f}",
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def reported() -> pd.DataFrame:
    """The accuracies of the paper's Table 6 with the columns of `accuracies`."""
    table = reported_numbers.table("table6").set_index("method")
    seeds = {name: int(name.removeprefix("seed_")) for name in table.columns if name.startswith("seed_")}
    scores = table[list(seeds)].rename(columns=seeds).T
    return scores.rename(columns={label(method): method for method in METHODS}).rename_axis(index="seed", columns=None)


def intervals(runs) -> Intervals:
    """Bootstrap intervals of the mean gain of mSFT over SFT: over test items, and over items and seeds."""
    return bootstrap(_differences(runs, dict.fromkeys(seed for _, seed in runs)))


def _differences(runs, seeds) -> dict[str, list[np.ndarray]]:
    pairs = ([correct_at_best(runs[method, seed]) for method in ("msft", "sft")] for seed in seeds)
    return item_differences(pairs)


SEED_PLOT_CAPTION = (
    "Left: test accuracy (percent, mean over the sub-datasets) under SFT and mSFT; a line joins a seed, a bar is a mean. Right: "
    "gain of mSFT over SFT (points) on each seed, and 95 % paired bootstrap intervals of its mean "
    f"({DRAWS:,} draws of test items within each sub-dataset, or of items and seeds)."
)


def seed_plot(scores: pd.DataFrame, intervals: Intervals, axes=None):
    """Left: each seed's accuracy under both methods, a line a seed, a bar for the mean; right: the gain of each seed
    with the mean and its bootstrap intervals.

    scores: as `accuracies` gives it.  axes: a pair of axes, made where absent. Returns them.
    """
    if axes is None:
        _, axes = plt.subplots(1, 2, figsize=(COLUMN, 1.7), width_ratios=(2, 3), layout="constrained")
    left, right = axes
    left.plot(range(len(METHODS)), scores.T, color="0.8", lw=0.8, zorder=1)
    for place, method in enumerate(METHODS):
        left.scatter([place] * len(scores), scores[method], color=colour(method), s=14, zorder=3)
        left.hlines(scores[method].mean(), place - 0.2, place + 0.2, color=colour(method), lw=1.8, zorder=2)
    # names at the right end, beside the last points
    heights = spread_out(scores["msft"], max(np.ptp(scores["msft"]) * 0.12, 0.05))
    for seed, value in zip(scores.index, heights, strict=True):
        left.text(len(METHODS) - 0.76, value, f"seed {seed}", va="center", color="0.3")
    left.set_xticks(range(len(METHODS)), [label(method) for method in METHODS])
    left.set_xlim(-0.4, len(METHODS) + 0.25)
    left.set_ylabel("test accuracy (%)")
    left.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    left.margins(y=0.12)
    gain = scores.msft - scores.sft
    rows = [("items", intervals.items), ("items\nand seeds", intervals.items_and_runs)]
    for place, (_, (low, high)) in enumerate(rows, 1):
        right.plot([low, high], [place] * 2, color=colour("msft"), lw=1.8, solid_capstyle="butt")
        right.plot(gain.mean(), place, "|", color=colour("msft"), ms=8, mew=1.4)
    right.scatter(gain, [0] * len(gain), color=colour("msft"), s=14, zorder=3)
    right.axvline(0, color=colour("sft"), lw=1)
    right.set_yticks(range(3), ["each seed", *(f"mean, {name}\ndrawn anew" for name, _ in rows)])
    right.set_ylim(2.6, -0.6)
    right.set_xlabel("gain over SFT (points)")
    for axis, lines in ((left, "x"), (right, "y")):
        axis.grid(axis=lines, visible=False)
    low, high = intervals.items_and_runs
    verdict = "" if low > 0 or high < 0 else ": cannot tell from 0"
    return say(
        axes,
        f"mSFT's gain over SFT is {gain.mean():+.2f} points over {len(gain)} seeds ({low:+.2f} to {high:+.2f}){verdict}",
    )


AGAINST_PAPER_CAPTION = (
    "Gain of mSFT over SFT (points) on each seed that both have, and the mean of the seeds of each side."
    + reported_numbers.told("test items and seeds for the mean, over the test items for one seed")
)


def against_paper(runs, intervals: Intervals) -> pd.DataFrame:
    """Mean gain over the seeds and each seed's own, the paper's and ours, by direction. intervals: as `intervals` does."""
    there, here = (table.msft - table.sft for table in (reported(), accuracies(runs)))
    pairs = {"mSFT over SFT, mean of the seeds": (there.mean(), here.mean(), *intervals.items_and_runs)}
    for seed in here.index.intersection(there.index):
        pairs[f"mSFT over SFT, seed {seed}"] = (there[seed], *over_items(_differences(runs, [seed])).span)
    return reported_numbers.directions(pairs)


MANY_SEEDS_CAPTION = (
    "Gain of mSFT over SFT (points) on confirmation items, on which nothing was chosen, paired over many more seeds: what `make "
    "evidence` left in benchmarks/results/evidence.json, on the machine that is named there. Beside it the paper's mean over its "
    "models, of one seed." + reported_numbers.told("the seeds (paired t)")
)


def evidence(page, name: str, theirs: float, where: str = "") -> dict[str, tuple]:
    """{comparison: (the paper's, ours, low, high)} of mSFT's gain on each base model in a result of `make evidence`.

    {} in another profile than its own, or where it is absent. theirs: the paper's gain.  where: words for the comparison.
    """
    path = EVIDENCE / f"{name}.json"
    if page.profile != "tiny" or not path.is_file():
        return {}
    found = pd.DataFrame(json.loads(path.read_text(encoding="utf-8"))["differences"])
    return {
        f"mSFT over SFT{where}, {row.model}, {row.n:.0f} seeds, fresh items": (theirs, row.mean, row.low, row.high)
        for row in found.query("method == 'mSFT' and items == 'confirmed'").itertuples()
    }


def many_seeds(page) -> pd.DataFrame | None:
    """The gain of each base model over many seeds by direction; None where there is none (see `evidence`)."""
    theirs = main_results.reported().query("group == @main_results.AVERAGE and model == @main_results.AVERAGE")
    theirs = theirs.set_index("method").accuracy
    pairs = evidence(page, "evidence", theirs.msft - theirs.sft)
    return reported_numbers.directions(pairs) if pairs else None


def finding(scores: pd.DataFrame, intervals: Intervals) -> str:
    """The mean gain with its interval over items and seeds, and what so few seeds can tell."""
    gain, (low, high) = scores.msft - scores.sft, intervals.items_and_runs
    count, p = len(gain), paired_t(gain)[1]
    test = "is not defined" if np.isnan(p) else f"gives p = {p:.3f}"
    return (
        f"mSFT is ahead of SFT on {(gain > 0).sum()} of n = {count} seeds, by {gain.mean():+.2f} points on average (95 % "
        f"interval over items and seeds {low:+.2f} to {high:+.2f}; the paired t test {test}). This proves little: "
        f"{count} equal signs come up by chance with probability {2 * 0.5**count:.2f}, p < 0.05 needs a mean of "
        f"{least_difference(count):.1f} standard deviations, and seeds change the order of the data alone."
    )
