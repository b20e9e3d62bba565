"""Shift of the optimal compute: what leaving the first over-fitted sub-dataset out does to the others (Fig. 3, 12)."""

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pandas as pd
from matplotlib.ticker import MaxNLocator

from paper_figures import data, findings, reported_numbers
from paper_figures.reported_numbers import model_label
from paper_figures.style import bar_panels, colour, panels, pretty, say

METHODS = Path(__file__).parents[1] / "methods"
BRANCHES = {"full": "full mixture", "reduced": "without the first over-fitted one"}
_COLOURS = {"full": colour("sft"), "reduced": colour("msft")}


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
    "points move, and the mean absolute shift in epochs with half of its 95 % interval over sub-datasets; the last row is the paper's."
)


def by_model(runs) -> pd.DataFrame:
    """A row a model and the paper's: who over-fits first and when, how many peaks move, mean |shift|, half of its interval.

    runs: {model: bifurcation run}.
    """
    rows = {}
    for model, run in runs.items():
        where = fork(run)
        rows[model_label(model)] = [pretty(where.first), where.epoch, shifts(run)["shift"].abs()]
    rows["the paper, Qwen3 8B"] = ["ARC-Easy", 0.25, reported_shifts().abs()]
    table = {
        name: [first, epoch, f"{(sizes > 0).sum()} of {len(sizes)}", sizes.mean(), findings.half_width(sizes)]
        for name, (first, epoch, sizes) in rows.items()
    }
    columns = ["first to over-fit", "at epoch", "peaks that move", "mean |shift|", "half of the interval"]
    return pd.DataFrame.from_dict(table, orient="index", columns=columns).rename_axis("model")


def by_chance(sft_runs, measure: str = "accuracy") -> float | None:
    """Mean distance in epochs between the optima of a sub-dataset in two SFT runs that differ in the seed alone.

    None for fewer than two runs.
    """
    optima = [data.optimum(data.by_epoch(run, measure), measure) for run in sft_runs]
    pairs = [(a - b).abs().mean() for a, b in combinations(optima, 2)]
    return sum(pairs) / len(pairs) if pairs else None


SHIFT_BARS_CAPTION = (
    "Shift of the optimal compute (epoch of the earliest best test accuracy) of each other sub-dataset when the first to over-fit is "
    "left out: reduced minus full mixture, in epochs, both branches from one checkpoint on. Above each panel the mean of the absolute "
    "shifts; grey: shifts smaller than the mean distance of the peaks of SFT runs of the focus model that differ in the seed alone."
)
LOSS_SHIFT_CAPTION = SHIFT_BARS_CAPTION.replace("best test accuracy", "lowest held-out loss").replace(
    "of the peaks", "of these"
)


def reported_shifts() -> pd.Series:
    """The shifts of the paper's Fig. 3 by sub-dataset, in epochs."""
    return reported_numbers.table("fig3").set_index("sub_dataset").shift_of_optimal_compute_epochs


def shift_bars(runs, sft_runs, with_paper: bool = True, measure: str = "accuracy"):
    """Fig. 3 and 12: the shift of each remaining sub-dataset, a panel a model, and the paper's beside. Returns the axes.

    runs: {model: bifurcation run}.  sft_runs: SFT runs that differ in the seed alone.
    """
    shown, chance, told = {}, by_chance(sft_runs, measure), []
    for model, run in runs.items():
        values = shifts(run, measure)["shift"].rename(index=pretty)
        name = model_label(model)
        shown[f"{name}, without {pretty(fork(run).first)}\nmean |shift| {values.abs().mean():.2f}"] = values
        told.append(f"{findings.mean(values.abs(), 2)} epochs ({name})")
    verdict = _verdict([shifts(run, measure)["shift"].abs() for run in runs.values()], chance)
    bands = dict.fromkeys(shown, chance or 0.0)
    if with_paper:
        theirs = reported_shifts()
        shown[f"the paper, without ARC-Easy\nmean |shift| {theirs.abs().mean():.2f}"] = theirs
    axes = bar_panels(shown, "shift of the optimal compute (epochs)", colour("msft"), bands)
    what = {"accuracy": "peaks", "loss": "lowest losses"}[measure]
    return say(axes, f"One sub-dataset less moves the other {what} by {', '.join(told)}{verdict}")


def _verdict(sizes: list[pd.Series], chance: float | None) -> str:
    """How many of the mean absolute shifts are shown to be larger than what another seed does."""
    if chance is None:
        return ""
    shown = sum(values.mean() - findings.half_width(values) > chance for values in sizes)
    word = "more than" if shown == len(sizes) else f"on {shown} of {len(sizes)} shown to be more than" if shown else ""
    return f"; {word or 'cannot be told from'} {'' if word else 'the '}{chance:.2f} that another seed does"


BRANCH_CURVES_CAPTION = "Test accuracy (%) of each remaining sub-dataset along both branches, the peak of each starred."


def branch_curves(run, axes=None):
    """Accuracy of each remaining sub-dataset along both branches, the peaks starred: what the shifts are read from.

    axes: a flat array with one axes a remaining sub-dataset, made where absent. Returns it.
    """
    rows, table = branches(run), shifts(run)
    if axes is None:
        axes = panels(len(table), "epochs since the fork", "test accuracy (%)", 1.45)
    for axis, task in zip(axes, table.index, strict=True):
        for branch, name in BRANCHES.items():
            curve = rows[(rows.task == task) & (rows.branch == branch)].set_index("epoch").accuracy.sort_index() * 100
            axis.plot(curve.index, curve, color=_COLOURS[branch], lw=1.2, label=name)
            peak = table.loc[task, branch]
            axis.scatter(
                peak, curve[peak], marker="*", s=65, color=_COLOURS[branch], zorder=3, edgecolor="white", lw=0.6
            )
        axis.set_title(pretty(task))
        axis.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        axis.margins(y=0.12)
    handles, labels = axes[0].get_legend_handles_labels()
    axes[0].figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    ends = 100 * rows[rows.task != fork(run).first].groupby(["branch", "task"]).accuracy.max().unstack(0)
    gain = findings.mean(ends.reduced - ends.full, signed=True)
    return say(axes, f"Without {pretty(fork(run).first)} the highest accuracy of each other changes by {gain} points")


def finding(run, sft_runs) -> str:
    """How far the peaks moved, and how far another seed moves them."""
    table, where, chance = shifts(run), fork(run), by_chance(sft_runs)
    sizes = table["shift"].abs()
    moved, error = (sizes > 0).sum(), findings.half_width(sizes)
    text = (
        f"Without {pretty(where.first)}, the first to over-fit (epoch {where.epoch:g}), {moved} of the other {len(table)} "
        f"optimal stopping points move, by {findings.mean(sizes, 2)} epochs (mean absolute shift and 95 % interval over "
        f"sub-datasets; n = 1 run; {table.at_end.sum()} have a peak at the end of a branch)."
    )
    if chance is None:
        return f"{text} It falls short of telling this from chance: there is one seed of SFT."
    verdict = "is larger" if sizes.mean() - error > chance else "is not shown to be larger"
    return f"{text} Under plain SFT another seed alone moves a peak by {chance:.2f} epochs: the shift {verdict}."
