"""IES: how many training examples sat out, by epoch and sub-dataset, and the compute that this saves (Fig. 13)."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from msft.errors import RunError
from msft.results.flops import TRAIN
from paper_figures import data, findings, reported_numbers
from paper_figures.reported_numbers import model_label
from paper_figures.style import colour, even_columns, legend, panels, pretty, say, width_of

ALL = "all"  # stands among the sub-datasets for the whole mixture


def needs(page) -> dict:
    """{model: RunConfig} of IES for every model of the profile."""
    return {model: page.config("ies", model=model) for model in page.models}


def sat_out(run) -> pd.DataFrame:
    """One row an epoch and sub-dataset, ALL first: epoch (the one sat out), task, n (training examples), and of these the
    percentages resting (sat this epoch out), ever (sat out at least once so far), back (did, but trained later again).

    Examples are numbered in mixture order over the train splits, which tells their sub-dataset; where the sizes of the
    splits do not add up to the examples of the run, the rows of ALL stand alone.
    Raises RunError for a run that did not note who sat out.
    """
    notes = [note for e in run.journal if e["kind"] == "roll_out" for note in e["result"].get("notes", [])]
    if not notes or "sat_out" not in notes[0]:
        method = run.config.method
        raise RunError(
            f"the {method} run has no note of examples that sat out; give a finished run of ies, 1 epoch or more"
        )
    total = notes[0]["of"]
    sizes = {task: counts["train"] for task, counts in run.about["mixture"]["sub_datasets"].items()}
    owners = np.repeat(list(sizes), list(sizes.values()))
    members = {ALL: np.ones(total, dtype=bool)}
    if len(owners) == total:
        members |= {task: owners == task for task in sizes}
    ever, back, rows = np.zeros(total, dtype=bool), np.zeros(total, dtype=bool), []
    for note in notes:
        now = np.zeros(total, dtype=bool)
        now[note["sat_out"]] = True
        back |= ever & ~now
        ever |= now
        for task, mask in members.items():
            shares = {"resting": now, "ever": ever, "back": back}
            shares = {name: 100 * state[mask].mean() for name, state in shares.items()}
            rows.append({"epoch": note["epoch"], "task": task, "n": int(mask.sum()), **shares})
    return pd.DataFrame(rows)


def by_model(runs) -> pd.DataFrame:
    """The rows of `sat_out` of {model: run}, with the column model (the paper's name of it)."""
    return pd.concat([sat_out(run).assign(model=model_label(name)) for name, run in runs.items()], ignore_index=True)


CURVES_CAPTION = (
    "Training examples that IES left out (percent of all examples of the mixture) by epoch: at least once so far (line) and in the "
    "epoch itself (bars). ±: 95 % interval over the models."
)


def curves(table: pd.DataFrame, axes=None):
    """Fig. 13: percent of the examples that have sat out so far (line) and that sit the epoch out (bars), a panel a model.

    table: as `by_model` gives it.  axes: a flat array, made where absent. Returns it.
    """
    rows = table[table.task == ALL]
    models = list(rows.model.unique())
    if axes is None:
        axes = panels(len(models), "epoch", "examples that sat out (%)", 1.3, 3)
    # where nobody sat out the axis still has a scale to read the 0 from
    top = 1.12 * max(rows.ever.max(), 1.0)
    for axis, model in zip(axes, models, strict=True):
        epochs = rows[rows.model == model]
        axis.bar(epochs.epoch, epochs.resting, width=0.6, color=colour("ies"), alpha=0.4, lw=0)
        axis.plot(epochs.epoch, epochs.ever, color=colour("ies"), marker="o", ms=2, lw=0.9)
        axis.set_title(model)
        axis.set_ylim(-0.02 * top, top)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles = [
        Line2D([], [], color=colour("ies"), marker="o", ms=2, lw=0.9, label="at least once so far"),
        Patch(color=colour("ies"), alpha=0.4, lw=0, label="in this epoch"),
    ]
    legend(axes[0].figure, handles)
    last = rows.groupby("model", sort=False).ever.last()
    return say(
        axes,
        f"IES has let {findings.mean(last)} % of the examples sit out at least once by the end (mean of {_models(last)})",
    )


def _models(values) -> str:
    return f"{len(values)} model{'s' * (len(values) > 1)}"


HEAT_MAPS_CAPTION = (
    "Examples that have sat out at least once so far (percent of the sub-dataset's training examples) by epoch; all panels share the "
    "colour scale."
)


def heat_maps(table: pd.DataFrame, axes=None):
    """Percent of each sub-dataset's examples that have sat out so far, by epoch, a panel a model on one colour scale.

    table: as `by_model` gives it; rows of ALL are the last line.  axes: a flat array, made where absent. Returns it.
    """
    models = list(table.model.unique())
    names = [task for task in table.task.unique() if task != ALL] + [ALL]
    if axes is None:
        columns = even_columns(len(models), 3)
        lines = -(-len(models) // columns)
        size = (width_of(columns), lines * (0.13 * len(names) + 0.25) + 0.25)
        figure, axes = plt.subplots(lines, columns, figsize=size, sharey=True, squeeze=False, layout="constrained")
        for spare in axes.ravel()[len(models) :]:
            spare.set_visible(False)
        figure.supxlabel("epoch")
        axes = axes.ravel()[: len(models)]
    # the scale of a mixture without exclusions ends at 1 %
    highest, shades = max(table.ever.max(), 1.0), sns.light_palette(colour("ies"), as_cmap=True)
    for axis, model in zip(axes, models, strict=True):
        wide = table[table.model == model].pivot(index="task", columns="epoch", values="ever").reindex(names)
        image = axis.imshow(wide, aspect="auto", cmap=shades, vmin=0, vmax=highest, interpolation="nearest")
        axis.axhline(len(names) - 1.5, color="0.3", lw=0.7)
        step = -(-len(wide.columns) // 4)  # labels stay apart
        axis.set_xticks(range(0, len(wide.columns), step), wide.columns[::step])
        axis.set_yticks(range(len(names)), ["all sub-datasets" if name == ALL else pretty(name) for name in names])
        axis.set_title(model)
        axis.grid(visible=False)
    bar = axes[0].figure.colorbar(image, ax=list(axes), pad=0.02, aspect=25)
    bar.set_label("sat out so far (%)")
    last = table[(table.epoch == table.epoch.max()) & (table.task != ALL)].groupby("task").ever.mean()
    if last.empty:
        return axes
    least, most = last.idxmin(), last.idxmax()
    return say(
        axes,
        f"IES lets {last[least]:.0f} % ({pretty(least)}) to {last[most]:.0f} % ({pretty(most)}) of a sub-dataset's examples sit out at "
        f"least once (mean of {_models(models)})",
    )


def saved(run) -> float:
    """Percent of the FLOPs, evaluation included, of the same run without exclusions that its exclusions saved.

    Counted as Table 7 does: an example that sits out costs nothing in place of a training pass (6 N D).
    """
    tokens = sum(entry["result"]["forward_tokens"] for entry in run.journal if entry["kind"] == "roll_out")
    spared = TRAIN * run.result["parameters"] * tokens
    return 100 * spared / (data.without_forward_passes(run)["total"] + spared)


SUMMARY_CAPTION = (
    "IES on each model: its threshold, examples of the mixture, the first epoch that one of them sat out, the percentage that sat out "
    "at least once and that trained again after it, the percentage of all passes over an example that were skipped, and the FLOPs "
    "saved, the forward passes of those that sit out not counted, as a percentage of the same run without exclusions (evaluation "
    "included)."
)


def summary(table: pd.DataFrame, runs) -> pd.DataFrame:
    """One row a model: threshold, examples, first epoch that one sat out, percent of them that sat out at least once and that trained
    again after it, percent of all passes skipped, percent of FLOPs saved.

    table: as `by_model` gives it of runs.
    """
    spared, rows = {model_label(name): saved(run) for name, run in runs.items()}, {}
    thresholds = {model_label(name): run.config.params["delta"] for name, run in runs.items()}
    for model, epochs in table[table.task == ALL].groupby("model", sort=False):
        last, first = epochs.iloc[-1], epochs[epochs.resting > 0].epoch
        rows[model] = {
            "threshold (nats)": f"{thresholds[model]:g}",
            "examples": last.n,
            "first epoch": str(first.min()) if len(first) else "–",
            "sat out at least once (%)": last.ever,
            "trained again after it (%)": last.back,
            "passes skipped (%)": epochs.resting.mean(),
            "FLOPs saved (%)": spared[model],
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


BY_SUB_DATASET_CAPTION = (
    "Examples that sat out at least once in the whole run (percent of the sub-dataset's training examples)."
)


def by_sub_dataset(table: pd.DataFrame) -> pd.DataFrame:
    """Percent of examples that sat out at least once over the whole run: one row a sub-dataset, ALL last, one column a
    model. table: as `by_model` gives it."""
    last = table[table.epoch == table.groupby("model").epoch.transform("max")]
    wide = last.pivot(index="task", columns="model", values="ever")
    names = [task for task in table.task.unique() if task != ALL]
    wide = wide.loc[[*names, ALL], list(table.model.unique())]
    return wide.rename(index={ALL: "all sub-datasets"}).rename_axis(index="sub-dataset", columns=None)


AGAINST_PAPER_CAPTION = (
    "FLOPs that the exclusions of IES save (percent of the FLOPs of the same training without exclusions): the paper's from SFT and "
    "IES in its Table 7, both of 10 epochs, here from the runs above. The mean has its 95 % t interval over "
    "the models; the FLOPs of one run are counted, not sampled." + reported_numbers.SCALE
)


def against_paper(runs) -> pd.DataFrame:
    """FLOPs that IES saves, of those of the same training without exclusions: the paper's from SFT and IES in its
    Table 7, for the mean of the models and each model that both have."""
    theirs = reported_numbers.table("table7").set_index("model")
    there = 100 * (1 - theirs["IES"] / theirs["SFT"])
    here = pd.Series({model_label(name): saved(run) for name, run in runs.items()})
    half = findings.half_width(here)
    span = [] if np.isnan(half) else [here.mean() - half, here.mean() + half]
    pairs = {"saved by IES, mean of the models": (there.drop("Average").mean(), here.mean(), *span)}
    pairs |= {f"saved by IES, {model}": (there[model], here[model]) for model in here.index if model in there.index}
    return reported_numbers.directions(pairs, unit="% of FLOPs")


def finding(table: pd.DataFrame, runs) -> str:
    """How many examples sat out and what that saves, beside the paper's saving. table: as `by_model` gives it of runs."""
    shown, here = summary(table, runs), against_paper(runs).iloc[0]
    ever, spared = shown["sat out at least once (%)"], shown["FLOPs saved (%)"]
    return (
        f"IES lets {findings.mean(ever)} % of the examples sit out at least once and saves "
        f"{findings.mean(spared)} % of the FLOPs (means and 95 % intervals over n = {len(shown)} "
        f"models, one run each). The paper's Table 7 implies {here['paper (% of FLOPs)']:.1f} %, from models, lengths and losses of "
        "another scale, on which the threshold depends."
    )
