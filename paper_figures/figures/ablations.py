"""Ablations: the two single roll-out searches against SFT and mSFT (Table 3)."""

import matplotlib.pyplot as plt
import pandas as pd

from paper_figures import data, reported_numbers
from paper_figures.figures import main_results
from paper_figures.figures.main_results import AVERAGE
from paper_figures.style import WIDTH, colour, label, pretty

METHODS = ("sft", "sro_sft", "soft_sro_sft", "msft")
_STEPS = (("sro_sft", "sft"), ("soft_sro_sft", "sft"), ("msft", "sft"), ("msft", "sro_sft"), ("msft", "soft_sro_sft"))


def needs(page) -> dict:
    """{(model, method): RunConfig}: Table 3 averages over the models of Table 2, as its SFT and mSFT rows show."""
    return main_results.needs(page, METHODS)


def measured(runs) -> pd.DataFrame:
    """The rows of `main_results.measured` over all sub-datasets: method, model, accuracy (percent), epoch."""
    table = main_results.measured(runs, base=False)
    return table[table.group == AVERAGE].reset_index(drop=True)


def reported() -> pd.DataFrame:
    """The paper's Table 3 with the columns of `measured`; it prints the average over its six models alone."""
    table = reported_numbers.table("table3").rename(columns={"accuracy_percent": "accuracy", "best_epoch": "epoch"})
    keys = {label(method): method for method in METHODS}
    return table.assign(method=table.method.map(keys), group=AVERAGE, model=AVERAGE)


def table3(table: pd.DataFrame, with_paper: bool = False) -> pd.DataFrame:
    """Table 3: accuracy in percent and 'Ep.', averaged over the models and of each.

    with_paper: with the paper's averages in two more columns.
    """
    wide = main_results.side_by_side(table).droplevel("Group")
    models = [name for name in wide.columns if not name.startswith(AVERAGE)]
    shown = wide[[AVERAGE, f"{AVERAGE} Ep.", *models]]
    if with_paper:
        theirs = reported().assign(method=lambda rows: rows.method.map(label)).set_index("method")
        shown.insert(2, f"{AVERAGE}, paper", theirs.accuracy)
        shown.insert(3, f"{AVERAGE} Ep., paper", theirs.epoch)
    return shown


def against_paper(table: pd.DataFrame) -> pd.DataFrame:
    """The differences between the ablation's steps, averaged over models: the paper's and ours, by direction."""
    there, here = (rows[rows.model == AVERAGE].set_index("method").accuracy for rows in (reported(), table))
    pairs = {f"{label(a)} over {label(b)}": (there[a] - there[b], here[a] - here[b]) for a, b in _STEPS}
    return reported_numbers.directions(pairs)


def drop_times(runs) -> pd.DataFrame:
    """One row a model and sub-dataset: when each search stops training it, in epochs of the training that is kept.

    sro_sft: its peak in the single roll-out.  msft: the path epoch of the roll-back that dropped it, nan where the
    search ended before.  best: the path epoch of mSFT's reported checkpoint.
    """
    rows = []
    for (model, method), run in runs.items():
        if method != "sro_sft":
            continue
        msft = runs[model, "msft"]
        note = next(entry["arguments"]["peaks"] for entry in run.journal if entry["kind"] == "note")
        dropped = data.stages(msft).dropna(subset="dropped").set_index("dropped").kept_until
        for task, peak in note.items():
            row = {"model": reported_numbers.model_label(model), "task": task, "sro_sft": peak}
            rows.append({**row, "msft": dropped.get(task, float("nan")), "best": msft.best.path_epoch})
    return pd.DataFrame(rows)


def drop_panels(table: pd.DataFrame, axes=None):
    """When a single roll-out and mSFT stop training each sub-dataset: one panel a model.

    table: as `drop_times` gives it.  axes: one axes a model, flat, made where absent. Returns them.
    """
    models, tasks = list(table.model.unique()), list(table.task.unique())
    if axes is None:
        columns = min(len(models), 3)
        rows = -(-len(models) // columns)
        size = (WIDTH if columns > 1 else WIDTH / 2, (0.19 * len(tasks) + 0.5) * rows + 0.7)
        _, grid = plt.subplots(
            rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
        )
        for axis in grid.ravel()[len(models) :]:
            axis.set_visible(False)
        axes = grid.ravel()[: len(models)]
        for axis in axes[-columns:]:
            # the last of a short column carries the numbers of the shared axis
            axis.tick_params(labelbottom=True)
    for axis, model in zip(axes, models, strict=True):
        rows = table[table.model == model].set_index("task").loc[tasks]
        places = range(len(tasks))
        axis.hlines(places, rows.sro_sft, rows.msft, color="0.8", lw=2, zorder=1)
        # a ring around the diamond: both can be seen where the two agree
        ring = {"s": 46, "facecolor": "white", "edgecolor": colour("sro_sft"), "linewidth": 1.6, "zorder": 2}
        axis.scatter(rows.sro_sft, places, label="SRO SFT: peak in one roll-out", **ring)
        axis.scatter(rows.msft, places, marker="D", s=14, color=colour("msft"), zorder=3, label="mSFT: dropped")
        axis.axvline(rows.best.iloc[0], color="0.3", ls="--", lw=1, label="mSFT: reported checkpoint")
        axis.set_title(model)
        axis.set_yticks(places, [pretty(task) for task in tasks])
        axis.set_ylim(len(tasks) - 0.4, -0.6)
        axis.grid(axis="y", visible=False)
    figure = axes[0].figure
    figure.supxlabel("epochs of the training that is kept", fontsize=8)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3 if len(models) > 1 else 1, frameon=False)
    return axes


def reading(table: pd.DataFrame) -> str:
    """How far the two searches are apart, from a table of `drop_times`."""
    known = table.dropna(subset="msft")
    shift = known.msft - known.sro_sft
    before = int((known.msft <= known.best).sum())
    return (
        f"mSFT drops {(shift < 0).sum()} of {len(table)} sub-datasets (over all models) earlier than SRO SFT, "
        f"{(shift > 0).sum()} later and {(shift == 0).sum()} at the same epoch; the two are {shift.abs().mean():.2f} epochs "
        f"apart on average. At the checkpoint that mSFT reports it had dropped {before} of them."
    )


def verdict(table: pd.DataFrame) -> str:
    """What the numbers say, whoever won."""
    wide = main_results.overall(table)
    gains = wide.sub(wide.sft, axis=0).drop(columns="sft")
    means = gains.mean().sort_values(ascending=False)
    order = ", ".join(f"{label(method)} {gain:+.1f}" for method, gain in means.items())
    ahead = int((wide.msft > wide[["sro_sft", "soft_sro_sft"]].max(axis=1)).sum())
    models = f"{len(wide)} model{'s' if len(wide) > 1 else ''}"
    return (
        f"Points over SFT, averaged over {models}: {order}. mSFT is ahead of both single roll-out searches on {ahead} "
        f"of {models}, with one seed each."
    )
