"""Seeds: SFT and mSFT of the focus model over the seeds of the profile, and what so few of them can tell (Table 6)."""

from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats

from paper_figures import data, reported_numbers
from paper_figures.style import WIDTH, colour, label

METHODS = ("sft", "msft")
DRAWS = 10_000


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


@dataclass(frozen=True)
class Intervals:
    """95 % bootstrap intervals (low, high), in points, of the mean gain of mSFT over SFT."""

    items: tuple[float, float]  # test items drawn anew, these very runs
    items_and_seeds: tuple[float, float]  # seeds drawn anew too


def item_differences(runs) -> dict[str, np.ndarray]:
    """{sub-dataset: [seeds, items]} of mSFT's minus SFT's correctness (-1, 0 or 1) at their reported checkpoints."""
    correct = {key: correct_at_best(run) for key, run in runs.items()}
    seeds = list(dict.fromkeys(seed for _, seed in runs))
    tasks = next(iter(correct.values()))
    return {t: np.array([correct["msft", s][t] - correct["sft", s][t] for s in seeds]) for t in tasks}


def correct_at_best(run) -> dict[str, np.ndarray]:
    """{sub-dataset: [items] of 0 and 1}: which test items a run's reported checkpoint gets right."""
    best, outputs = run.result["best"], run.outputs
    rows = outputs[(outputs.stage == best["stage"]) & (outputs.epoch == best["epoch"]) & (outputs.part == "test")]
    grouped = rows.sort_values("item", kind="stable").groupby("task", sort=False)
    return {task: rows.correct.to_numpy(dtype=int) for task, rows in grouped}


def bootstrap(differences: dict[str, np.ndarray], draws: int = DRAWS, seed: int = 0) -> Intervals:
    """Paired bootstrap of the mean gain.

    differences: {sub-dataset: [seeds, items]}.  Items are drawn with replacement within each sub-dataset, the same ones
    for both methods and every seed, since these share their test items; then, for the second interval, seeds.
    """
    rng = np.random.default_rng(seed)
    gains = 0.0  # [draws, seeds], in points
    for values in differences.values():
        seeds, items = values.shape
        counts = rng.multinomial(items, np.full(items, 1 / items), size=draws)
        gains = gains + 100 * counts @ values.T / items / len(differences)
    picked = rng.integers(seeds, size=gains.shape)
    resampled = np.take_along_axis(gains, picked, axis=1)
    return Intervals(*(tuple(np.percentile(g.mean(axis=1), [2.5, 97.5]).tolist()) for g in (gains, resampled)))


def seed_plot(scores: pd.DataFrame, intervals: Intervals, axes=None):
    """Left: each seed's accuracy under both methods, a line a seed, a bar for the mean; right: the gain of each seed
    with the mean and its bootstrap intervals.

    scores: as `accuracies` gives it.  axes: a pair of axes, made where absent. Returns them.
    """
    if axes is None:
        _, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.5), width_ratios=(2, 3), layout="constrained")
    left, right = axes
    left.plot(range(len(METHODS)), scores.T, color="0.8", lw=1, zorder=1)
    for place, method in enumerate(METHODS):
        left.scatter([place] * len(scores), scores[method], color=colour(method), s=26, zorder=3)
        left.hlines(scores[method].mean(), place - 0.2, place + 0.2, color=colour(method), lw=2.5, zorder=2)
    # names at the right end, beside the last points
    for seed, value in _spread_out(scores["msft"]).items():
        left.text(len(METHODS) - 0.76, value, f"seed {seed}", va="center", fontsize=7, color="0.3")
    left.set_xticks(range(len(METHODS)), [label(method) for method in METHODS])
    left.set_xlim(-0.45, len(METHODS) - 0.2)
    left.set_ylabel("test accuracy (%)")
    left.margins(y=0.12)
    gain = scores.msft - scores.sft
    rows = [("items", intervals.items), ("items and seeds", intervals.items_and_seeds)]
    for place, (_, (low, high)) in enumerate(rows, 1):
        right.plot([low, high], [place] * 2, color=colour("msft"), lw=2.5, solid_capstyle="butt")
        right.plot(gain.mean(), place, "|", color=colour("msft"), ms=11, mew=2)
    right.scatter(gain, [0] * len(gain), color=colour("msft"), s=26, zorder=3)
    right.axvline(0, color=colour("sft"), lw=1.2)
    right.set_yticks(range(3), ["each seed", *(f"mean, drawing\n{name} anew" for name, _ in rows)])
    right.set_ylim(2.6, -0.6)
    right.set_xlabel("gain of mSFT over SFT (points)")
    for axis, lines in ((left, "x"), (right, "y")):
        axis.grid(axis=lines, visible=False)
    return axes


def _spread_out(values: pd.Series) -> pd.Series:
    """Heights for labels: the values, moved up where two would overlap."""
    least, heights = max(np.ptp(values) * 0.12, 0.05), values.sort_values()
    for place in range(1, len(heights)):
        heights.iloc[place] = max(heights.iloc[place], heights.iloc[place - 1] + least)
    return heights


def against_paper(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean gain over the seeds and each seed's own, the paper's and ours, by direction."""
    theirs = reported()
    there, here = (table.msft - table.sft for table in (theirs, scores))
    pairs = {"mSFT over SFT, mean of the seeds": (there.mean(), here.mean())}
    pairs |= {f"mSFT over SFT, seed {seed}": (there[seed], here[seed]) for seed in here.index if seed in there.index}
    return reported_numbers.directions(pairs)


def verdict(scores: pd.DataFrame, intervals: Intervals) -> str:
    """What the numbers say, whoever won, and what so few seeds can tell."""
    gain = scores.msft - scores.sft
    count, p = len(gain), paired_t(gain)[1]
    ahead = int((gain > 0).sum())
    test = "is not defined" if np.isnan(p) else f"gives p = {p:.3f}"
    held = [low > 0 or high < 0 for low, high in (intervals.items, intervals.items_and_seeds)]
    return (
        f"mSFT is ahead of SFT on {ahead} of {count} seeds, by {gain.mean():+.2f} points on average (standard deviation "
        f"of the differences {gain.std():.2f}); the paired t test {test}. The 95 % bootstrap interval of the mean gain is "
        f"{intervals.items[0]:+.2f} to {intervals.items[1]:+.2f} over test items, which "
        f"{'leaves out' if held[0] else 'holds'} 0, and {intervals.items_and_seeds[0]:+.2f} to "
        f"{intervals.items_and_seeds[1]:+.2f} over items and seeds, which {'leaves out' if held[1] else 'holds'} 0."
    )


def caution(count: int) -> str:
    """What `count` seeds can and cannot tell."""
    return (
        f"With {count} seeds the mean difference must reach {least_difference(count):.1f} of its own standard deviations "
        f"for p < 0.05, the test has to assume normal differences, and {count} equal signs come up by chance alone with "
        f"probability {2 * 0.5**count:.2f}. Seeds change the order of the data alone: neither the data nor the base model "
        "varies. A bootstrap over so few seeds tends to be too narrow. Where a checkpoint is chosen on the test items, as "
        "in the paper, every method profits, and mSFT chooses among more checkpoints."
    )
