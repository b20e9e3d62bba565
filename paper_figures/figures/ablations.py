"""Ablations: the two single roll-out searches against SFT and mSFT (Table 3)."""

import matplotlib.pyplot as plt
import pandas as pd

from paper_figures import data, findings, reported_numbers
from paper_figures.figures import main_results
from paper_figures.figures.main_results import AVERAGE
from paper_figures.style import colour, even_columns, label, legend, pretty, say, signed, width_of

METHODS = ("sft", "sro_sft", "soft_sro_sft", "msft")
_STEPS = (("sro_sft", "sft"), ("soft_sro_sft", "sft"), ("msft", "sft"), ("msft", "sro_sft"), ("msft", "soft_sro_sft"))


def needs(page) -> dict:
    """{(model, method): RunConfig}: Table 3 averages over the models of Table 2, as its SFT and mSFT rows show."""
    return main_results.needs(page, METHODS)


BY_METHOD_CAPTION = (
    "Test accuracy (percent, mean over the sub-datasets) at the best checkpoint of SFT, both single roll-out searches and mSFT, "
    "and the gain over SFT of the same model (points); bars are means over several models with 95 % intervals over the test items."
)


def picture(runs, table: pd.DataFrame):
    """Accuracy of each method and its gain over SFT; the title tells mSFT from the single searches too. Returns the axes.

    table: as `measured` gives it.
    """
    models, shown, open_ = dict.fromkeys(model for model, _ in runs), [], []
    for other in ("sro_sft", "soft_sro_sft"):
        gain = findings.difference([(runs[model, "msft"], runs[model, other]) for model in models])
        if gain.is_shown:
            shown.append(f"{abs(gain.points):.1f} points {'ahead of' if gain.points > 0 else 'behind'} {label(other)}")
        else:
            open_.append(f"{label(other)} ({signed(gain.points, 1)})")
    more = f"; mSFT is {' and '.join(shown)}" if shown else ""
    more += f"; cannot tell mSFT from {' or '.join(open_)}" if open_ else ""
    return main_results.by_method(table, main_results.gains(runs), more=more)


def measured(runs) -> pd.DataFrame:
    """The rows of `main_results.measured` over all sub-datasets: method, model, accuracy (percent), epoch."""
    table = main_results.measured(runs, base=False)
    return table[table.group == AVERAGE].reset_index(drop=True)


def reported() -> pd.DataFrame:
    """The paper's Table 3 with the columns of `measured`; it prints the average over its six models alone."""
    table = reported_numbers.table("table3").rename(columns={"accuracy_percent": "accuracy", "best_epoch": "epoch"})
    keys = {label(method): method for method in METHODS}
    return table.assign(method=table.method.map(keys), group=AVERAGE, model=AVERAGE)


TABLE3_CAPTION = (
    "Test accuracy (percent) and epoch of the best checkpoint (Ep.; for the single roll-out searches that of their second "
    "training): mean over the models and each model."
)


def table3(table: pd.DataFrame, with_paper: bool = False) -> pd.DataFrame:
    """Table 3: accuracy in percent and 'Ep.', averaged over the models and of each.

    with_paper: with the paper's averages in two more columns.
    """
    wide = main_results.side_by_side(table).droplevel("Group")
    models = [name for name in wide.columns if not name.startswith(AVERAGE)]
    shown = wide[[AVERAGE, f"{AVERAGE} Ep.", *models, f"{AVERAGE} over SFT"]]
    if with_paper:
        theirs = reported().assign(method=lambda rows: rows.method.map(label)).set_index("method")
        shown.insert(2, f"{AVERAGE}, paper", theirs.accuracy)
        shown.insert(3, f"{AVERAGE} Ep., paper", theirs.epoch)
    return shown


AGAINST_PAPER_CAPTION = (
    "Differences in mean test accuracy (points) over the models of each side."
    + reported_numbers.told("the test items, these very runs")
)


def against_paper(runs) -> pd.DataFrame:
    """The differences between the ablation's steps, averaged over models: the paper's and ours, by direction."""
    there, models = reported().set_index("method").accuracy, dict.fromkeys(model for model, _ in runs)
    pairs = {}
    for one, other in _STEPS:
        ours = findings.difference([(runs[model, one], runs[model, other]) for model in models])
        pairs[f"{label(one)} over {label(other)}"] = (there[one] - there[other], *ours.span)
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


DROP_PANELS_CAPTION = (
    "Epoch at which a sub-dataset is dropped: by SRO SFT at its peak in one roll-out on all sub-datasets (rings), by mSFT at its "
    "peak in the stage that dropped it (diamonds, along the kept path); the dashed line is the checkpoint that mSFT reports."
)


def drop_panels(table: pd.DataFrame, axes=None):
    """When a single roll-out and mSFT stop training each sub-dataset: one panel a model.

    table: as `drop_times` gives it.  axes: one axes a model, flat, made where absent. Returns them.
    """
    models, tasks = list(table.model.unique()), list(table.task.unique())
    if axes is None:
        columns = even_columns(len(models), 3)
        rows = -(-len(models) // columns)
        size = (width_of(columns), (0.135 * len(tasks) + 0.25) * rows + 0.45)
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
        axis.hlines(places, rows.sro_sft, rows.msft, color="0.8", lw=1.5, zorder=1)
        # a ring around the diamond: both can be seen where the two agree
        ring = {"s": 22, "facecolor": "white", "edgecolor": colour("sro_sft"), "linewidth": 1.1, "zorder": 2}
        axis.scatter(rows.sro_sft, places, label="SRO SFT: peak in one roll-out", **ring)
        axis.scatter(rows.msft, places, marker="D", s=6, color=colour("msft"), zorder=3, label="mSFT: dropped")
        axis.axvline(rows.best.iloc[0], color="0.3", ls="--", lw=0.8, label="mSFT: reported checkpoint")
        axis.set_title(model)
        axis.set_yticks(places, [pretty(task) for task in tasks])
        axis.set_ylim(len(tasks) - 0.4, -0.6)
        axis.grid(axis="y", visible=False)
    figure = axes[0].figure
    figure.supxlabel("epochs of the training that is kept")
    legend(figure, *axes[0].get_legend_handles_labels())
    apart = (table.msft - table.sro_sft).dropna().abs()
    return say(
        axes,
        f"The single search and mSFT drop a sub-dataset {findings.mean(apart)} epochs apart ({len(apart)} pairs of model and sub-dataset)",
    )


def finding(runs, times: pd.DataFrame) -> str:
    """Whether searching anew beats the single search, and how far apart the two drop. times: as `drop_times` gives it."""
    models = dict.fromkeys(model for model, _ in runs)
    gain = findings.difference([(runs[model, "msft"], runs[model, "sro_sft"]) for model in models])
    apart = (times.msft - times.sro_sft).dropna().abs()
    return (
        f"{findings.sentence(gain, 'mSFT', 'SRO SFT')} The two drop a sub-dataset {findings.mean(apart, 2)} "
        f"epochs apart (n = {len(apart)} of {len(times)} that both drop), but one seed a method "
        "and model cannot say whether that is the search or chance."
    )
