"""Choosing the checkpoint on held-out items in place of the test items that are reported (not in the paper).

The paper chooses on the very items that it reports. Here the same runs choose on a validation set, where a method takes
its decisions on it too (the peaks of mSFT), and their test accuracy is only read.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from paper_figures import data
from paper_figures.figures import exclusions, seeds
from paper_figures.style import WIDTH, colour, label

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


def gains(runs, draws: int = seeds.DRAWS) -> pd.DataFrame:
    """What is left of each gain: every method over base, then every other over SFT.

    One row a comparison: method, over ('base' or 'sft'), test and validation (gain in points of test accuracy where that
    part chose both checkpoints), test_low to validation_high (95 % paired bootstrap over test items; nan over base),
    change (validation minus test, points) with low and high, remains (percent; nan where there is no gain to keep).
    """
    correct = {key: seeds.correct_at_best(run) for key, run in runs.items()}
    base = 100 * np.mean(list(data.at_base(runs["sft", "test"])))

    def minus(one, other):
        return {task: one[task] - other[task] for task in one}

    def interval(differences):
        return seeds.bootstrap({task: values[None] for task, values in differences.items()}, draws).items

    def mean(values):
        return 100 * float(np.mean([items.mean() for items in values.values()]))

    rows = []
    for over in ("base", "sft"):
        for method in METHODS if over == "base" else METHODS[1:]:
            row, parts = {"method": method, "over": over}, {}
            for part in PARTS:
                parts[part] = correct[method, part]
                if over == "sft":
                    parts[part] = minus(correct[method, part], correct["sft", part])
                    row[f"{part}_low"], row[f"{part}_high"] = interval(parts[part])
                row[part] = mean(parts[part]) - (base if over == "base" else 0.0)
            change = minus(parts["validation"], parts["test"])
            row["change"], (row["low"], row["high"]) = mean(change), interval(change)
            row["remains"] = 100 * row["validation"] / row["test"] if row["test"] > 0 else np.nan
            rows.append(row)
    return pd.DataFrame(rows)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """One row a method: test accuracy and Ep. under each choice, validation accuracy at the one it chose, how many
    evaluations there were to choose among. table: as `compare` gives it."""
    test, held = (table[table.part == part].set_index("method") for part in PARTS)
    columns = {
        "chosen on test (%)": test.accuracy,
        "Ep.": test.epoch,
        "among": test.evaluations,
        "chosen on validation (%)": held.accuracy,
        "Ep. (validation)": held.epoch,
        "among (validation)": held.evaluations,
        "validation accuracy there (%)": held.chosen_at,
        "standard error (points)": held.error,
    }
    return pd.DataFrame(columns).loc[list(table.method.unique())].rename(index=label)


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


def dumbbells(table: pd.DataFrame, axes=None):
    """Filled: chosen on test; open: on validation. Left: gain of each method over base; right: over SFT, with intervals.

    table: as `gains` gives it.  axes: a pair of axes, made where absent. Returns them.
    """
    if axes is None:
        _, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.4), sharey=True, layout="constrained")
    methods = list(table[table.over == "base"].method)
    for axis, over in zip(axes, ("base", "sft"), strict=True):
        for row in table[table.over == over].itertuples():
            place, shade = methods.index(row.method), colour(row.method)
            ends = {"test": (place - 0.14, shade), "validation": (place + 0.14, "white")}
            axis.plot([row.test, row.validation], [y for y, _ in ends.values()], color=shade, lw=1.2, zorder=1)
            for part, (y, face) in ends.items():
                if over == "sft":
                    low, high = getattr(row, f"{part}_low"), getattr(row, f"{part}_high")
                    axis.plot([low, high], [y, y], color=shade, lw=0.9, alpha=0.7, zorder=1)
                axis.plot(getattr(row, part), y, "o", color=shade, mfc=face, ms=6.5, mew=1.4, zorder=2)
        axis.set_xlabel(f"gain over {'the base model' if over == 'base' else label(over)} (points)")
        axis.grid(axis="y", visible=False)
        axis.margins(x=0.12)
    axes[1].axvline(0, color=colour("sft"), lw=1.2, zorder=0)
    axes[0].set_yticks(range(len(methods)), [label(method) for method in methods])
    axes[0].set_ylim(len(methods) - 0.5, -0.5)
    grey = {"color": "0.35", "ls": "", "marker": "o", "ms": 6.5, "mew": 1.4}
    handles = [
        Line2D([], [], label="chosen on the test items, as in the paper", **grey),
        Line2D([], [], label="chosen on validation items", mfc="white", **grey),
        Line2D([], [], color="0.35", lw=0.9, label="95 % interval over test items"),
    ]
    axes[0].figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
    return axes


def verdict(table: pd.DataFrame) -> str:
    """What remains of the gains, whoever wins. table: as `gains` gives it."""
    base, over = table[table.over == "base"].set_index("method"), table[table.over == "sft"].set_index("method")
    kept = [f"{label(m)} {row.remains:.0f} %" if row.test > 0 else f"{label(m)} had none" for m, row in base.iterrows()]
    row = over.loc["msft"]
    if not row.test > 0:
        share = "so that there was no gain to keep"
    else:
        share = f"so that {row.remains:.0f} % of it remains"
    inside = "holds" if row.low <= 0 <= row.high else "leaves out"
    first, held = (" and ".join(label(m) for m in base.index[base[part] == base[part].max()]) for part in PARTS)
    return (
        f"Of the gain over the base model there remains: {', '.join(kept)}. mSFT's gain over SFT is {row.test:+.1f} points "
        f"where both choose on test items and {row.validation:+.1f} where both choose on validation items, {share}; the "
        f"change of {row.change:+.1f} points has a 95 % interval of {row.low:+.1f} to {row.high:+.1f} over the test items, "
        f"which {inside} 0. First is {first} under test selection and {held} under held-out selection."
    )


def caution(table: pd.DataFrame, alike: list[str], items: int) -> str:
    """What one run a method and choice can tell.

    table: as `compare` gives it.  alike: as `trained_alike` gives it.  items: test items, all sub-datasets together.
    """
    counts = table[table.part == "test"].set_index("method").evaluations
    text = f"This is one seed and {items} test items. "
    if alike:
        text += (
            f"The two runs of {', '.join(label(m) for m in alike)} trained alike and differ in the chosen checkpoint alone, so "
            "test selection cannot lose to held-out selection there: only the size of the difference is a finding. "
        )
    if "msft" not in alike:
        text += (
            "mSFT decides what to drop on the same items, so its two runs are two different trainings: its difference mixes "
            "what selection flatters with how far two such trainings lie apart anyway, and a second seed may turn its sign. "
        )
    return text + (
        f"mSFT also chooses among {counts['msft']} evaluations, SFT among {counts['sft']}: the maximum of more noisy values "
        "is flattered more. The intervals draw test items anew and take the checkpoints as given; they hold neither the "
        "variation between seeds nor that of the validation items."
    )


def yardstick(runs, least: float = 5.0) -> str:
    """How far IES ends from SFT where it skipped hardly anything: a measure of how far two nearly alike trainings lie apart.

    Empty where IES skipped `least` percent of the passes or more, or where the two train for different numbers of epochs.
    """
    sft, ies = runs["sft", "test"], runs["ies", "test"]
    notes = exclusions.sat_out(ies)
    skipped = notes[notes.task == exclusions.ALL].resting.mean()
    if skipped >= least or sft.config.params["epochs"] != ies.config.params["epochs"]:
        return ""
    apart = 100 * (data.at_best(ies).mean() - data.at_best(sft).mean())
    return (
        f"A yardstick: IES skipped {skipped:.1f} % of the passes and is otherwise SFT, yet its chosen checkpoint lies "
        f"{apart:+.1f} points from SFT's. Two nearly alike trainings can lie that far apart here, and one seed cannot tell "
        "such a distance from the merit of a method."
    )
