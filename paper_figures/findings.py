"""A difference between two methods with its interval and its n, and the sentence that says it, whoever wins."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from paper_figures import data
from paper_figures.style import label

DRAWS = 10_000  # of the bootstrap


@dataclass(frozen=True)
class Intervals:
    """95 % bootstrap intervals (low, high), in points, of a mean difference in test accuracy."""

    items: tuple[float, float]  # test items drawn anew, these very runs
    items_and_runs: tuple[float, float]  # pairs of runs drawn anew too


@dataclass(frozen=True)
class Difference:
    """A mean difference in test accuracy over pairs of runs, with the interval over the test items they share."""

    points: float
    low: float
    high: float
    pairs: int
    items: int

    @property
    def is_shown(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0

    @property
    def span(self) -> tuple[float, float, float]:
        """(points, low, high)."""
        return self.points, self.low, self.high


def correct_at_best(run) -> dict[str, np.ndarray]:
    """{sub-dataset: [items] of 0 and 1}: which test items a run's reported checkpoint gets right."""
    best = run.result["best"]
    # Continual SFT may end where its last sub-dataset began
    return _correct(run, *data.evaluated_at(run, best["stage"], best["epoch"]))


def correct_at_base(run) -> dict[str, np.ndarray]:
    """The same of the model before training."""
    return _correct(run, 0, 0.0)


def _correct(run, stage: int, epoch: float) -> dict[str, np.ndarray]:
    answers = run.answers(stage, epoch)
    grouped = answers[answers.part == "test"].sort_values("item", kind="stable").groupby("task", sort=False)
    return {task: rows.correct.to_numpy(dtype=int) for task, rows in grouped}


def item_differences(pairs: Iterable[tuple]) -> dict[str, list[np.ndarray]]:
    """{sub-dataset: a pair's [items] of -1, 0 or 1}: correctness of the first of a pair minus that of the second.

    pairs: two answers as `correct_at_best` or `correct_at_base` gives them, those of a pair on the same test items.
    """
    pairs = list(pairs)
    return {task: [one[task] - other[task] for one, other in pairs] for task in pairs[0][0]}


def bootstrap(differences: dict[str, list[np.ndarray]], draws: int = DRAWS, seed: int = 0) -> Intervals:
    """Paired bootstrap of the mean difference.

    differences: as `item_differences` gives it.  Items are drawn with replacement within each sub-dataset, the same ones
    for both runs of a pair and for all pairs with as many items, since these share them; then, for the second interval,
    pairs.
    """
    rng = np.random.default_rng(seed)
    pairs = len(next(iter(differences.values())))
    gains = np.zeros((draws, pairs))  # in points
    for rows in differences.values():
        counts: dict[int, np.ndarray] = {}  # items -> how often a draw has each, [draws, items]
        for pair, values in enumerate(rows):
            items = len(values)
            if items not in counts:
                counts[items] = rng.multinomial(items, np.full(items, 1 / items), size=draws)
            gains[:, pair] += 100 * counts[items] @ values / items / len(differences)
    picked = rng.integers(pairs, size=gains.shape)
    resampled = np.take_along_axis(gains, picked, axis=1)
    return Intervals(*(tuple(np.percentile(g.mean(axis=1), [2.5, 97.5]).tolist()) for g in (gains, resampled)))


def difference(pairs: Iterable[tuple], draws: int = DRAWS) -> Difference:
    """The mean over pairs of runs of the first's accuracy minus the second's, over all sub-datasets alike."""
    return over_items(item_differences((correct_at_best(one), correct_at_best(other)) for one, other in pairs), draws)


def over_items(differences: dict[str, list[np.ndarray]], draws: int = DRAWS) -> Difference:
    """The mean difference with its interval over the test items. differences: as `item_differences` gives it."""
    low, high = bootstrap(differences, draws).items
    points = 100 * float(np.mean([values.mean() for rows in differences.values() for values in rows]))
    first = [rows[0] for rows in differences.values()]
    return Difference(points, low, high, len(next(iter(differences.values()))), sum(len(values) for values in first))


def sentence(gain: Difference, subject: str = "mSFT", other: str = "SFT") -> str:
    """The finding, whichever side it is on; whether the interval holds 0 is said too."""
    side = "ahead of" if gain.points > 0 else "behind" if gain.points < 0 else "level with"
    by = f" by {abs(gain.points):.1f} points" if gain.points else ""
    shown = "leaves out 0" if gain.is_shown else "holds 0, so that neither is shown to be better"
    return (
        f"{subject} is {side} {other}{by} (n = {gain.pairs} pair{'s' * (gain.pairs > 1)} of runs, {gain.items} test items; "
        f"the 95 % interval over items, {gain.low:+.1f} to {gain.high:+.1f}, {shown})."
    )


def leaders(values) -> str:
    """The names of the methods that are highest in a Series by method, all that tie."""
    return " and ".join(label(method) for method in values.index[np.isclose(values, values.max())])


def mean(values, decimals: int = 1, signed: bool = False) -> str:
    """The mean of values as text with half of its 95 % t interval, which fewer than two values do not have."""
    form = f"{'+' if signed else ''}.{decimals}f"
    half = half_width(values)
    return f"{np.mean(values):{form}}" + (" (no interval)" if np.isnan(half) else f" ± {half:.{decimals}f}")


def half_width(values) -> float:
    """Half of the 95 % t interval of the mean of independent values; nan for fewer than two."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return np.nan
    return float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))


def icc(values: pd.DataFrame) -> float:
    """One-way intraclass correlation ICC(1) of [sub-datasets, seeds]: the share of the variance that the sub-datasets
    explain; nan for one seed, or for values that are all the same."""
    seeds = values.shape[1]
    between = seeds * values.mean(axis=1).var(ddof=1)
    within = values.var(axis=1, ddof=1).mean()
    total = between + (seeds - 1) * within
    return float((between - within) / total) if total else np.nan


def icc_interval(values: pd.DataFrame) -> tuple[float, float]:
    """95 % interval of `icc` by the F distribution (Shrout and Fleiss, 1979); nan where there is no ICC or it is 1."""
    (sets, seeds), value = values.shape, icc(values)
    if np.isnan(value) or value == 1:
        return np.nan, np.nan
    ratio = (1 + (seeds - 1) * value) / (1 - value)  # of the mean squares between and within
    between, within = sets - 1, sets * (seeds - 1)
    ends = ratio / stats.f.ppf(0.975, between, within), ratio * stats.f.ppf(0.975, within, between)
    low, high = ((end - 1) / (end + seeds - 1) for end in ends)
    return float(low), float(high)
