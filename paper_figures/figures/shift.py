"""Shift of the optimal compute: what leaving the first over-fitted sub-dataset out does to the others (Fig. 3, 12)."""

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from paper_figures import data, findings, reported_numbers
from paper_figures.reported_numbers import model_label
from paper_figures.style import bar_panels, colour, legend, panels, pretty, say

METHODS = Path(__file__).parents[1] / "methods"
# SFT of the full mixture has SFT's colour; what is no method of the paper has none of theirs
_COLOURS = {"full": colour("sft"), "reduced": "0.3"}


def needs(page) -> dict:
    """The bifurcation of every model, and SFT of the focus model at each seed: how far peaks move by chance alone."""
    own = {
        "params": {"budget": page.config("msft").params["budget"], "branch": page.branch},
        "methods_dir": str(METHODS),
    }
    models = dict.fromkeys([page.example, *page.models])
    runs = {("bifurcation", model): page.config("bifurcation", model=model, **own) for model in models}
    return runs | {("sft", seed): page.config("sft", seed=seed) for seed in page.seeds}


@dataclass(frozen=True)
class Fork:
    """Where a bifurcation forked: the first over-fitted sub-dataset, and the path epoch of its peak."""

    first: str
    epoch: float


def fork(run) -> Fork:
    """The fork of a bifurcation run, read off its journal."""
    first = next(entry["arguments"]["first"] for entry in run.journal if entry["kind"] == "note")
    return Fork(first, float(branches(run).path_epoch.min()))


def branches(run) -> pd.DataFrame:
    """The history of the two branches: branch ('full', 'reduced') and epoch (since the fork) beside its columns."""
    history = run.history
    full, reduced = sorted(history.stage.unique())[-2:]
    names = {full: "full", reduced: "reduced"}
    return history[history.stage.isin(names)].assign(branch=lambda rows: rows.stage.map(names))


def shifts(run, measure: str = "accuracy") -> pd.DataFrame:
    """One row a remaining sub-dataset: full, reduced (optimal compute in epochs since the fork), shift, at_end.

    shift: reduced minus full (section 3.1).  at_end: whether a peak is at its branch's last evaluation, so that it
    may lie later.  The optimal compute is the earliest best evaluation, by accuracy or by held-out loss, the fork
    itself (0) included.
    """
    rows = branches(run)
    rows = rows[rows.task != fork(run).first].sort_values("epoch", kind="stable")
    best = rows.loc[data.optimum(rows.groupby(["task", "branch"])[measure], measure)]
    table = best.pivot(index="task", columns="branch", values="epoch").loc[rows.task.unique(), ["full", "reduced"]]
    table = table.assign(shift=table.reduced - table.full, at_end=(table == rows.epoch.max()).any(axis=1))
    return table.rename_axis(index="sub-dataset", columns=None)


SHIFT_TABLE_CAPTION = (
    "Optimal compute in epochs since the fork on the full and on the reduced mixture, the shift between them, the accuracy (%) "
    "at both peaks, and whether a peak is at the end of its branch."
)


def shift_table(run) -> pd.DataFrame:
    """The shifts with the accuracy (%) at both peaks."""
    table, rows = shifts(run), branches(run)
    best = 100 * rows.groupby(["task", "branch"]).accuracy.max().unstack().loc[table.index]
    columns = {
        "full (epochs)": table.full,
        "reduced (epochs)": table.reduced,
        "shift (epochs)": table["shift"],
        "peak, full (%)": best.full,
        "peak, reduced (%)": best.reduced,
        "at a branch's end": table.at_end.map({True: "yes", False: "no"}),
    }
    return pd.DataFrame(columns).rename_axis("sub-dataset")


BY_MODEL_CAPTION = (
    "The bifurcation of every model: the sub-dataset that over-fits first, its peak's epoch, how many of the others' optimal stopping "
    "points move, and the mean absolute shift in epochs, beside it where there are seeds the mean distance between the peaks of two SFT "
    "runs of the model that differ in the seed alone, each with half of its 95 % interval over sub-datasets; the last row is the paper's."
)


def by_model(runs, sft_runs=()) -> pd.DataFrame:
    """A row a model and the paper's: who over-fits first and when, how many peaks move, mean |shift| and what another
    seed does, each with half of its interval.

    runs: {model: bifurcation run}.  sft_runs: as by_chance has them.
    """
    rows = {}
    for model, run in runs.items():
        where = fork(run)
        rows[model_label(model)] = (
            pretty(where.first),
            where.epoch,
            shifts(run)["shift"].abs(),
            by_chance(run, sft_runs),
        )
    rows["the paper, Qwen3 8B"] = "ARC-Easy", 0.25, reported_shifts().abs(), None
    table = {}
    for name, (first, epoch, sizes, chance) in rows.items():
        seeds = [np.nan, np.nan] if chance is None else [chance.mean(), findings.half_width(chance)]
        moved = f"{(sizes > 0).sum()} of {len(sizes)}"
        table[name] = [first, epoch, moved, sizes.mean(), findings.half_width(sizes), *seeds]
    columns = ["first to over-fit", "at epoch", "peaks that move", "mean |shift|", "half of the interval"]
    columns += ["another seed", "half of its interval"]
    return pd.DataFrame.from_dict(table, orient="index", columns=columns).rename_axis("model")


def by_chance(run, sft_runs, measure: str = "accuracy") -> pd.Series | None:
    """Distance in epochs between the optima of a sub-dataset in two SFT runs that differ in the seed alone.

    A mean over the pairs of SFT runs that have the model of a bifurcation run, for its remaining sub-datasets and within
    the epochs of its branches, to be compared with its shifts.  None for fewer than two such runs.
    """
    own = [sft for sft in sft_runs if sft.config.model == run.config.model]
    epochs, tasks = branches(run).path_epoch, shifts(run, measure).index
    optima = [data.optimum(data.by_epoch(sft, measure).loc[epochs.min() : epochs.max(), tasks], measure) for sft in own]
    pairs = [(a - b).abs() for a, b in combinations(optima, 2)]
    return sum(pairs) / len(pairs) if pairs else None


def verdict(sizes: pd.Series, chance: pd.Series) -> str:
    """Whether absolute shifts are larger or smaller than what another seed does: by the 95 % interval of the mean difference."""
    apart = sizes - chance
    is_shown = abs(apart.mean()) > findings.half_width(apart)
    return (
        "cannot tell which is larger"
        if not is_shown
        else "the shift is larger"
        if apart.mean() > 0
        else "the shift is smaller"
    )


SHIFT_BARS_CAPTION = (
    "Shift of the optimal compute (epoch of the earliest best test accuracy) of each other sub-dataset when the first to over-fit is "
    "left out: reduced minus full mixture, in epochs, both branches from one checkpoint on. Above each panel the mean of the absolute "
    "shifts; ±: 95 % interval over the sub-datasets. Grey band: shifts smaller than the mean distance of the peaks of SFT runs that "
    "differ in the seed alone, of the same sub-datasets within the same epochs; drawn for models that were trained with several seeds."
)
LOSS_SHIFT_CAPTION = SHIFT_BARS_CAPTION.replace("best test accuracy", "lowest held-out loss").replace(
    "distance of the peaks", "distance of the lowest losses"
)


def at_the_base_model(runs, sft_runs) -> str:
    """What a caption adds where the first to over-fit was dropped at epoch 0, so that the fork is the base model itself."""
    told = ""
    for model, run in runs.items():
        where = fork(run)
        if where.epoch > 0:
            continue
        told += (
            f" {pretty(where.first)} counts as the first to over-fit with {model_label(model)} since no evaluation of the first "
            "roll-out is above the base model's: it is dropped at epoch 0, and the fork is the base model"
        )
        same = [sft for sft in sft_runs if (sft.config.model, sft.config.seed) == (run.config.model, run.config.seed)]
        if same:
            told += f"; in the whole SFT run it peaks at epoch {data.optimum(data.by_epoch(same[0]))[where.first]:g}"
        told += "."
    return told


def reported_shifts() -> pd.Series:
    """The shifts of the paper's Fig. 3 by sub-dataset, in epochs."""
    return reported_numbers.table("fig3").set_index("sub_dataset").shift_of_optimal_compute_epochs


def shift_bars(runs, sft_runs, with_paper: bool = True, measure: str = "accuracy"):
    """Fig. 3 and 12: the shift of each remaining sub-dataset, a panel a model, and the paper's beside. Returns the axes.

    runs: {model: bifurcation run}.  sft_runs: SFT runs of any of the models that differ in the seed alone.
    """
    shown, bands, moves, seeds = {}, {}, [], []
    for model, run in runs.items():
        values, chance, name = shifts(run, measure)["shift"], by_chance(run, sft_runs, measure), model_label(model)
        title = f"{name},\nwithout {pretty(fork(run).first)}\nmean |shift| {values.abs().mean():.2f}"
        shown[title] = values.rename(index=pretty)
        moves.append(f"{findings.mean(values.abs(), 2)} epochs ({name})")
        if chance is not None:
            bands[title] = chance.mean()
            of = f" ({name})" * (len(runs) > 1)
            seeds.append(
                f"; another seed moves them by {findings.mean(chance, 2)}{of}: {verdict(values.abs(), chance)}"
            )
    if with_paper:
        theirs = reported_shifts()
        shown[f"the paper,\nwithout ARC-Easy\nmean |shift| {theirs.abs().mean():.2f}"] = theirs
    axes = bar_panels(shown, "shift of the optimal compute (epochs)", "0.45", bands)
    if bands:
        key = Patch(color="0.9", label="less than another seed alone moves them")
        legend(axes[0].figure, [key])
    what = {"accuracy": "peaks", "loss": "lowest losses"}[measure]
    beside = "".join(seeds) or "; no other seeds to tell this from chance"
    return say(axes, f"Without one sub-dataset the others' {what} move by {', '.join(moves)}{beside}")


BRANCH_CURVES_CAPTION = (
    "Test accuracy (%) of each remaining sub-dataset along both branches, the peak of each starred. ±: 95 % interval over the "
    "sub-datasets."
)


def branch_curves(run, axes=None):
    """Accuracy of each remaining sub-dataset along both branches, the peaks starred: what the shifts are read from.

    axes: a flat array with one axes a remaining sub-dataset, made where absent. Returns it.
    """
    rows, table = branches(run), shifts(run)
    names = {"full": "full mixture", "reduced": f"without {pretty(fork(run).first)}"}
    if axes is None:
        axes = panels(len(table), "epochs since the fork", "test accuracy (%)")
    for axis, task in zip(axes, table.index, strict=True):
        for branch, name in names.items():
            curve = rows[(rows.task == task) & (rows.branch == branch)].set_index("epoch").accuracy.sort_index() * 100
            axis.plot(curve.index, curve, color=_COLOURS[branch], lw=1, label=name)
            peak = table.loc[task, branch]
            # the second star is the smaller one: both can be seen where they coincide
            size = 90 if branch == "full" else 24
            axis.scatter(
                peak, curve[peak], marker="*", s=size, color=_COLOURS[branch], zorder=3, edgecolor="white", lw=0.4,
                label=f"peak, {name}",
            )  # fmt: skip
        axis.set_title(pretty(task))
        axis.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        axis.margins(y=0.12)
    legend(axes[0].figure, *axes[0].get_legend_handles_labels())
    ends = 100 * rows[rows.task != fork(run).first].groupby(["branch", "task"]).accuracy.max().unstack(0)
    gain = ends.reduced - ends.full
    tell = "" if abs(gain.mean()) > findings.half_width(gain) else " (cannot tell from 0)"
    without = f"Without {pretty(fork(run).first)} the others' highest accuracies change by"
    return say(axes, f"{without} {findings.mean(gain, signed=True)} points{tell}")


def finding(run, sft_runs) -> str:
    """How far the peaks moved, and how far another seed moves them."""
    table, where, chance = shifts(run), fork(run), by_chance(run, sft_runs)
    sizes = table["shift"].abs()
    text = (
        f"Without {pretty(where.first)}, the first to over-fit (epoch {where.epoch:g}), {(sizes > 0).sum()} of the other "
        f"{len(table)} optimal stopping points move, by {findings.mean(sizes, 2)} epochs (mean absolute shift and 95 % interval "
        f"over sub-datasets; n = 1 run; {table.at_end.sum()} have a peak at the end of a branch)."
    )
    if chance is None:
        return f"{text} It falls short of telling this from chance: there is one seed of SFT."
    return (
        f"{text} Under plain SFT another seed alone moves the same peaks by {findings.mean(chance, 2)} epochs within as many "
        f"epochs: {verdict(sizes, chance)}."
    )
