"""Choosing the checkpoint on held-out items in place of the test items that are reported (not in the paper).

The paper chooses on the very items that it reports. Here the same runs choose on a validation set, where a method takes
its decisions on it too (the peaks of mSFT), and their test accuracy is only read.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from paper_figures import data, findings
from paper_figures.style import COLUMN, colour, label, legend, say

# methods that report their best checkpoint; Continual SFT reports its last
METHODS = ("sft", "dynamix_sft", "ies", "msft")
PARTS = ("test", "validation")


def needs(page) -> dict:
    """{(method, part): RunConfig} on the focus model, its first seed, chosen on 'test' and on 'validation'."""
    return {(method, part): page.config(method, select_on=part) for method in METHODS for part in PARTS}


def compare(runs) -> pd.DataFrame:
    """One row a method and part: method, part (that chose), accuracy (percent, test items, at the chosen checkpoint),
    error (its standard error in points), chosen_at (percent, on the items that chose), epoch (Ep.), evaluations (distinct
    checkpoints to choose among), base (percent), gain (points over base)."""
    rows = []
    for (method, part), run in runs.items():
        base, accuracy = 100 * data.at_base(run).mean(), 100 * data.at_best(run).mean()
        points = [p for e in run.journal if e["kind"] in ("roll_out", "search") for p in e["result"]["points"]]
        rows.append(
            {
                "method": method,
                "part": part,
                "accuracy": accuracy,
                "error": data.standard_error(run),
                "chosen_at": 100 * run.result["best"]["selection"],
                "epoch": run.best.path_epoch,
                "evaluations": sum(not point["reused"] for point in points),
                "base": base,
                "gain": accuracy - base,
            }
        )
    return pd.DataFrame(rows)


def trained_alike(runs) -> list[str]:
    """Methods whose two runs have the same test accuracies at every evaluation: what they chose on changed the choice of
    the checkpoint alone."""
    alike = []
    for method in METHODS:
        one, other = (runs[method, part].history[["stage", "epoch", "task", "accuracy"]] for part in PARTS)
        if one.equals(other):
            alike.append(method)
    return alike


def gains(runs, draws: int = findings.DRAWS) -> pd.DataFrame:
    """What is left of each gain: every method over base, then every other over SFT.

    One row a comparison: method, over ('base' or 'sft'), test and validation (gain in points of test accuracy where that
    part chose both checkpoints), test_low to validation_high (95 % paired bootstrap over test items), change (validation
    minus test, points) with low and high, remains (percent; nan where no gain is shown that could be kept).
    """
    correct = {key: findings.correct_at_best(run) for key, run in runs.items()}
    base = findings.correct_at_base(runs["sft", "test"])

    def minus(one, other):
        return {task: one[task] - other[task] for task in one}

    def interval(differences):
        return findings.bootstrap({task: [values] for task, values in differences.items()}, draws).items

    def mean(values):
        return 100 * float(np.mean([items.mean() for items in values.values()]))

    rows = []
    for over in ("base", "sft"):
        for method in METHODS if over == "base" else METHODS[1:]:
            row, parts = {"method": method, "over": over}, {}
            for part in PARTS:
                parts[part] = minus(correct[method, part], base if over == "base" else correct["sft", part])
                row[part], (row[f"{part}_low"], row[f"{part}_high"]) = mean(parts[part]), interval(parts[part])
            change = minus(parts["validation"], parts["test"])
            row["change"], (row["low"], row["high"]) = mean(change), interval(change)
            row["remains"] = 100 * row["validation"] / row["test"] if row["test_low"] > 0 else np.nan
            rows.append(row)
    return pd.DataFrame(rows)


READABLE_CAPTION = (
    "Test accuracy at the checkpoint that each part chose, its epoch (Ep.), the number of evaluations to choose among, the validation "
    "accuracy at the checkpoint chosen on it, and the standard error of its test accuracy."
)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """One row a method: test accuracy and Ep. under each choice, validation accuracy at the one it chose, how many
    evaluations there were to choose among. table: as `compare` gives it."""
    test, validation = (table[table.part == part].set_index("method") for part in PARTS)
    columns = {
        "chosen on test (%)": test.accuracy,
        "Ep.": test.epoch,
        "among": test.evaluations,
        "chosen on validation (%)": validation.accuracy,
        "Ep. (validation)": validation.epoch,
        "among (validation)": validation.evaluations,
        "validation accuracy there (%)": validation.chosen_at,
        "standard error (points)": validation.error,
    }
    return pd.DataFrame(columns).loc[list(table.method.unique())].rename(index=label)


REMAINS_CAPTION = (
    "Gain in test accuracy under each choice of the checkpoint, its change with a 95 % paired bootstrap interval over the test items, "
    "and the percentage of the gain that remains (a dash where none is shown on the test items, negative where it turns into a loss)."
)


def remains(table: pd.DataFrame) -> pd.DataFrame:
    """`gains` with the names and units that a reader expects, the interval of the change as text."""
    names = [f"{label(row.method)} over {label(row.over)}" for row in table.itertuples()]
    columns = {
        "chosen on test (points)": table.test,
        "chosen on validation (points)": table.validation,
        "change (points)": table.change,
        "95 % interval of the change": [f"{row.low:+.1f} to {row.high:+.1f}" for row in table.itertuples()],
        "remains (%)": table.remains,
    }
    return pd.DataFrame(columns).set_axis(names).rename_axis("gain")


DUMBBELLS_CAPTION = (
    "Gain in test accuracy (points, mean over the sub-datasets), over the base model (left) and over SFT (right), where the checkpoint "
    "is chosen on the test items (filled) and on validation items (open); lines: 95 % paired bootstrap intervals over the test items."
)


def dumbbells(table: pd.DataFrame, axes=None):
    """Filled: chosen on test; open: on validation. Left: gain of each method over base; right: over SFT; both with intervals.

    table: as `gains` gives it.  axes: a pair of axes, made where absent. Returns them.
    """
    if axes is None:
        _, axes = plt.subplots(1, 2, figsize=(COLUMN, 1.8), sharey=True, layout="constrained")
    methods = list(table[table.over == "base"].method)
    for axis, over in zip(axes, ("base", "sft"), strict=True):
        for row in table[table.over == over].itertuples():
            place, shade = methods.index(row.method), colour(row.method)
            ends = {"test": (place - 0.14, shade), "validation": (place + 0.14, "white")}
            axis.plot([row.test, row.validation], [y for y, _ in ends.values()], color=shade, lw=0.9, zorder=1)
            for part, (y, face) in ends.items():
                ends_of = getattr(row, f"{part}_low"), getattr(row, f"{part}_high")
                axis.plot(ends_of, [y, y], color=shade, lw=0.7, alpha=0.7, zorder=1)
                axis.plot(getattr(row, part), y, "o", color=shade, mfc=face, ms=4, mew=1, zorder=2)
        axis.set_xlabel(f"gain over {'the base model' if over == 'base' else label(over)}\n(points)")
        axis.grid(axis="y", visible=False)
        axis.margins(x=0.12)
    zero = axes[1].axvline(0, color=colour("sft"), lw=1, zorder=1.6, label="SFT")
    axes[0].set_yticks(range(len(methods)), [label(method) for method in methods])
    axes[0].set_ylim(len(methods) - 0.5, -0.5)
    grey = {"color": "0.35", "ls": "", "marker": "o", "ms": 4, "mew": 1}
    handles = [
        Line2D([], [], label="chosen on test items, as in the paper", **grey),
        Line2D([], [], label="chosen on validation items", mfc="white", **grey),
        Line2D([], [], color="0.35", lw=0.7, label="95 % interval"),
        zero,
    ]
    legend(axes[0].figure, handles)
    row = table[(table.over == "sft") & (table.method == "msft")].iloc[0]
    verdict = "" if row.low > 0 or row.high < 0 else "; cannot tell whether it changes"
    return say(
        axes,
        f"mSFT's gain over SFT: {row.test:+.1f} points chosen on test items, {row.validation:+.1f} chosen on validation items{verdict}",
    )


def finding(table: pd.DataFrame, alike: list[str]) -> str:
    """What held-out selection leaves of mSFT's gain over SFT. table: as `gains`, alike: as `trained_alike` gives it."""
    row = table[(table.over == "sft") & (table.method == "msft")].iloc[0]
    inside = "holds" if row.low <= 0 <= row.high else "leaves out"
    mixed = (
        ""
        if "msft" in alike
        else "mSFT's two runs are two trainings, so that its change is not one of selection alone, and "
    )
    return (
        f"mSFT's gain over SFT is {row.test:+.1f} points where both choose on test items and {row.validation:+.1f} where both choose "
        f"on validation items, a change of {row.change:+.1f} (95 % interval over test items {row.low:+.1f} to {row.high:+.1f}, which "
        f"{inside} 0; n = 1 run a method and choice). It falls short of a verdict: {mixed}the interval holds neither the variation "
        "between seeds nor that of the validation items."
    )
