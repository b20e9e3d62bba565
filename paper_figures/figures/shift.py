"""Shift of the optimal compute: what leaving the first over-fitted sub-dataset out does to the others (Fig. 3)."""

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.ticker import MaxNLocator

from paper_figures import data, findings
from paper_figures.style import WIDTH, colour, panels, pretty

METHODS = Path(__file__).parents[1] / "methods"
BRANCHES = {"full": "full mixture", "reduced": "without the first over-fitted one"}
_COLOURS = {"full": colour("sft"), "reduced": colour("msft")}


def needs(page) -> dict:
    """The bifurcation of the focus model, and SFT at each seed: how far peaks move by chance alone."""
    params = {"budget": page.config("msft").params["budget"], "branch": page.branch}
    runs = {"bifurcation": page.config("bifurcation", params=params, methods_dir=str(METHODS))}
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


def shifts(run) -> pd.DataFrame:
    """One row a remaining sub-dataset: full, reduced (optimal compute in epochs since the fork), shift, at_end.

    shift: reduced minus full (section 3.1).  at_end: whether a peak is at its branch's last evaluation, so that it
    may lie later.  The optimal compute is the earliest best evaluation, the fork itself (0) included.
    """
    rows = branches(run)
    rows = rows[rows.task != fork(run).first].sort_values("epoch", kind="stable")
    best = rows.loc[rows.groupby(["task", "branch"]).accuracy.idxmax()]
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


def by_chance(sft_runs) -> float | None:
    """Mean distance in epochs between the peaks of a sub-dataset in two SFT runs that differ in the seed alone.

    None for fewer than two runs.
    """
    peaks = [data.peaks(run).set_index("task").peak_epoch for run in sft_runs]
    pairs = [(a - b).abs().mean() for a, b in combinations(peaks, 2)]
    return sum(pairs) / len(pairs) if pairs else None


SHIFT_PLOT_CAPTION = (
    "Optimal compute (epoch of the earliest best test accuracy, counted from the fork) of each other sub-dataset on the full "
    "mixture and without the first to over-fit, and the shift between the two (reduced minus full, in epochs). Both branches "
    "begin at the same checkpoint."
)


def shift_plot(run, axes=None):
    """Optimal compute of each remaining sub-dataset in both branches, and the shift between them (Fig. 3).

    axes: a pair of axes that share y, made where absent. Returns them.
    """
    table = shifts(run).sort_values("shift", kind="stable")
    places = range(len(table))
    if axes is None:
        size = (WIDTH, 0.24 * len(table) + 1.2)
        _, axes = plt.subplots(1, 2, figsize=size, sharey=True, width_ratios=(3, 2), layout="constrained")
    left, right = axes
    left.hlines(places, table.full, table.reduced, color="0.8", lw=2.5, zorder=1)
    # a ring around the diamond: both can be seen where nothing moved
    ring = {"s": 46, "facecolor": "white", "edgecolor": _COLOURS["full"], "linewidth": 1.6}
    left.scatter(table.full, places, marker="o", label=BRANCHES["full"], zorder=2, **ring)
    left.scatter(
        table.reduced, places, marker="D", s=16, color=_COLOURS["reduced"], label=BRANCHES["reduced"], zorder=3
    )
    left.set_yticks(places, [pretty(task) for task in table.index])
    longest = branches(run).epoch.max()
    left.set_xlim(-0.05 * longest, 1.05 * longest)
    left.set_xlabel("optimal compute (epochs since the fork)")
    right.barh(places, table["shift"], color=["0.45" if value < 0 else "0.7" for value in table["shift"]], height=0.6)
    right.axvline(0, color="0.2", lw=0.8)
    signed = [f"{value:+g}".replace("-", "\N{MINUS SIGN}") if value else "0" for value in table["shift"]]
    right.bar_label(right.containers[0], signed, padding=3, fontsize=7)
    right.set_xlabel("shift (epochs, reduced minus full)")
    right.tick_params(axis="y", length=0)
    reach = max(table["shift"].abs().max(), 0.25) * 1.45
    right.set_xlim(-reach, reach)
    for axis in axes:
        axis.grid(axis="y", visible=False)
        axis.set_ylim(len(table) - 0.4, -0.6)
    left.figure.legend(loc="outside upper center", ncols=2, frameon=False, handletextpad=0.3)
    return axes


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
    return axes


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
