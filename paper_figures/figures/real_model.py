"""Peaks of a model by accuracy and by held-out loss: do they come back with another seed, and what do the methods bring?"""

import re
from itertools import cycle, product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator
from scipy import stats

from msft.errors import ConfigError
from paper_figures import data, findings
from paper_figures.findings import icc, icc_interval
from paper_figures.reported_numbers import model_label
from paper_figures.style import COLUMN, colour, label, legend, pretty, say

MEASURES = ("accuracy", "loss")
_MARKS = tuple(
    zip("osD^v", (colour("sft"), "#8cc4e3", "white", colour("sft"), "white"), strict=True)
)  # a seed each, then anew
# columns of a difference to SFT: mean, and the ends of its interval
POINTS = ["against SFT (points)", "from", "to"]
NATS = ["loss against SFT (nats)", "loss from", "loss to"]


def needs(page, methods: str = "sft msft sro_sft ies", seeds: int = 2) -> dict:
    """The methods, a text of their names, at the first seed or, as in "ies:40", at one of their own, and SFT and mSFT, if
    it is among them, at so many seeds. Raises ConfigError where the page has fewer.
    """
    if not 1 <= seeds <= len(page.seeds):
        mend = f"give 1 to {len(page.seeds)}, or name more: -p settings 'seed=20,30,40'"
        raise ConfigError(f"seeds = {seeds}: the page has {', '.join(map(str, page.seeds))}; {mend}")
    if wrong := [word for word in methods.split() if not re.fullmatch(r"[a-z_]+(:[1-9]\d*)?", word)]:
        raise ConfigError(f"methods: {wrong[0]!r} is neither a method's name nor, with a seed of its own, name:40")
    words = [word.partition(":") for word in methods.split()]
    own = [(method, int(seed or page.seeds[0])) for method, _, seed in words]
    runs = {(method, seed): page.config(method, seed=seed) for method, seed in own}
    repeated = ["sft", "msft"] if ("msft", page.seeds[0]) in runs else ["sft"]
    return runs | {(method, seed): page.config(method, seed=seed) for method in repeated for seed in page.seeds[:seeds]}


def sft_runs(runs) -> dict[int, object]:
    """{seed: SFT run}."""
    return {seed: run for (method, seed), run in runs.items() if method == "sft"}


METHODS_CAPTION = (
    "Mean test accuracy (%) over the sub-datasets before training and at each method's checkpoint, the held-out loss (nats a token) "
    "there, for both what lies above SFT (of a loss, below 0 is better) with the 95 % t interval over the sub-datasets, and the epoch "
    "of the checkpoint along the kept path; a run of another seed is compared with SFT of that seed. All of it can be had from the "
    "histories that lie beside this table."
)


def methods_table(runs) -> pd.DataFrame:
    """A row a run, and the model before training: accuracy (%), loss (nats), both against SFT of its seed with intervals;
    epoch."""
    first, rows = min(sft_runs(runs)), {}
    start = runs["sft", first].history.query("stage == 0 and epoch == 0")
    rows["before training"] = {
        "accuracy (%)": 100 * start.accuracy.mean(),
        "loss (nats)": start.loss.mean(),
        "epoch": 0.0,
    }
    for (method, seed), run in runs.items():
        row = rows[label(method) if seed == first else f"{label(method)} (seed {seed})"] = {
            "accuracy (%)": 100 * run.at_best.accuracy.mean(),
            "loss (nats)": run.at_best.loss.mean(),
            "epoch": run.best.path_epoch,
        }
        for columns, measure, scale in ((POINTS, "accuracy", 100), (NATS, "loss", 1)):
            if method != "sft":
                gain = scale * (data.at_best(run, measure) - data.at_best(runs["sft", seed], measure))
                half = findings.half_width(gain)
                row |= dict(zip(columns, gain.mean() + half * np.array([0, -1, 1]), strict=True))
    accuracies, losses = ["accuracy (%)", *POINTS], ["loss (nats)", *NATS]
    return (
        pd.DataFrame.from_dict(rows, orient="index")
        .reindex(columns=[*accuracies, *losses, "epoch"])
        .rename_axis("method")
    )


def optima(runs, measure: str) -> pd.DataFrame:
    """Optimal compute (epochs) under SFT: a row a sub-dataset, a column a seed; nan where a curve never moves."""
    curves = {seed: data.by_epoch(run, measure) for seed, run in sft_runs(runs).items()}
    return pd.DataFrame(
        {seed: data.optimum(of, measure).where(of.nunique() > 1) for seed, of in curves.items()}, dtype=float
    )


def agreement(optima: pd.DataFrame) -> tuple[float, float, float]:
    """ICC(1) of the optima over the seeds, of the sub-datasets that have one with every seed, and its 95 % interval."""
    known = optima.dropna()
    return icc(known), *icc_interval(known)


def headroom(run, measure: str) -> float:
    """What a stop for each sub-dataset would gain over one stop for all: points of accuracy, or nats of loss."""
    curves = data.by_epoch(run, measure)
    mean, each = curves.mean(axis=1), curves.max() if measure == "accuracy" else curves.min()
    one = mean.max() if measure == "accuracy" else mean.min()
    return abs(float(each.mean() - one))


OPTIMA_CAPTION = (
    "Optimal compute (epoch of the earliest highest test accuracy, and of the lowest held-out loss) of each sub-dataset under SFT, by "
    "seed, a dash where a curve never moves; the last rows: the intraclass correlation ICC(1) of the optima over the seeds (1: a property of the sub-dataset; 0: "
    "chance) with its 95 % interval, and the headroom, the mean of each sub-dataset's own best minus the best mean, in points and in nats."
)


def optima_table(runs) -> pd.DataFrame:
    """A row a sub-dataset, ICC and headroom last; a column a measure and seed."""
    columns = {}
    for measure, (seed, run) in product(MEASURES, sft_runs(runs).items()):
        found = optima(runs, measure)
        values = found[seed].rename(index=pretty)
        values["ICC over the seeds"], values["from"], values["to"] = agreement(found)
        values["headroom (points, nats)"] = headroom(run, measure)
        columns[f"by {measure}, seed {seed}"] = values
    return pd.DataFrame(columns).rename_axis("sub-dataset")


OPTIMA_PLOT_CAPTION = (
    "Optimal compute of each sub-dataset under SFT, a mark a seed, by test accuracy (left) and by held-out loss (right); the line "
    "joins the seeds. ICC: the intraclass correlation of the optima over the seeds (1: each sub-dataset has its own with every seed; 0: "
    "chance), with its 95 % interval."
)


def optima_plot(runs, axes=None):
    """The optima by both measures, a row a sub-dataset in the order of their losses' optima. Returns the two axes."""
    tables = {measure: optima(runs, measure) for measure in MEASURES}
    order = tables["loss"].mean(axis=1).sort_values(kind="stable").index
    if axes is None:
        size = (COLUMN, 0.19 * len(order) + 0.65)
        _, axes = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
    for axis, (measure, table) in zip(axes, tables.items(), strict=True):
        # above each other, since seeds that agree would hide each other
        shifts = np.linspace(-0.25, 0.25, len(table.columns)) if len(table.columns) > 1 else np.zeros(1)
        for place, task in enumerate(order):
            axis.plot(table.loc[task], place + shifts, color="0.75", lw=0.8, zorder=1)
        for seed, shift, (mark, shade) in zip(table, shifts, cycle(_MARKS), strict=False):
            axis.scatter(
                table[seed][order], np.arange(len(order)) + shift, marker=mark, s=10, color=shade,
                edgecolor=colour("sft"), lw=0.5, zorder=2, label=f"seed {seed}",
            )  # fmt: skip
        axis.set_title({"accuracy": "by test accuracy", "loss": "by held-out loss"}[measure])
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.set_xlim(left=-0.2)
        axis.grid(axis="y", visible=False)
    axes[0].figure.supxlabel("optimal compute (epoch)")
    axes[0].set_yticks(range(len(order)), map(pretty, order))
    axes[0].set_ylim(len(order) - 0.4, -0.6)
    handles, names = axes[0].get_legend_handles_labels()
    if len(names) > 1:
        legend(axes[0].figure, handles, names)
    spans = [f"{table.min().min():g} to {table.max().max():g} by {measure}" for measure, table in tables.items()]
    return say(axes, f"Sub-datasets are at their best at epochs {' and '.join(spans)}{_agreements(tables)}")


def _agreements(tables) -> str:
    values = {measure: np.round(agreement(table), 2) + 0.0 for measure, table in tables.items()}  # no -0.00
    if any(np.isnan(value) for value, *_ in values.values()):
        return ""
    spans = {
        measure: "" if np.isnan(low) else f", {low:.2f} to {high:.2f}" for measure, (_, low, high) in values.items()
    }
    said = [f"{value:.2f} ({measure}{spans[measure]})" for measure, (value, *_) in values.items()]
    return f"; ICC over seeds {', '.join(said)}"


def finding(runs, methods: pd.DataFrame) -> str:
    """What this model says of the paper's hypothesis, and what it cannot say.  methods: as `methods_table` gives it."""
    tables = {measure: optima(runs, measure) for measure in MEASURES}
    sft = sft_runs(runs)[min(sft_runs(runs))]
    name, last = model_label(sft.config.model), data.by_epoch(sft).index[-1]
    distinct = {measure: table.iloc[:, 0].nunique() for measure, table in tables.items()}
    at_end = int((tables["loss"].iloc[:, 0] == last).sum())
    points, nats = (_told(methods, columns, form) for columns, form in ((POINTS, "+.1f"), (NATS, "+.3f")))
    against = (
        f" Shown to differ from SFT (one run a method and seed, 95 % interval over the sub-datasets): in accuracy, {points}; in held-out loss, "
        f"{nats}."
    )
    return (
        f"With {name} the {len(tables['loss'])} sub-datasets are at their best at {distinct['accuracy']} different epochs by accuracy "
        f"and {distinct['loss']} by held-out loss ({at_end} at the last evaluation){_agreements(tables)}. One stop for all costs "
        f"{headroom(sft, 'accuracy'):.1f} points and {headroom(sft, 'loss'):.3f} nats against a stop for each."
        f"{against if points else ''}"
    )


def _told(methods: pd.DataFrame, columns: list[str], form: str) -> str:
    """The runs whose difference to SFT has an interval without 0; '' where there is none but SFT."""
    rows = methods[columns].dropna()
    if not len(rows):
        return ""
    shown = [
        f"{name} {mean:{form}}"
        for name, (mean, low, high) in zip(rows.index, rows.to_numpy(), strict=True)
        if low * high > 0
    ]
    return ", ".join(shown) if shown else "none of " + ", ".join(rows.index)


CHANCE_CAPTION = (
    "Test accuracy (%) of each sub-dataset before training, at SFT's checkpoint and at its own peak under SFT; what always giving the "
    "most frequent right answer of these test items reaches; and whether the peak's 95 % interval (Wilson) lies above that."
)


def most_frequent(run) -> pd.Series:
    """Accuracy (%) by sub-dataset of the one answer that is right most often; nan where answers are not checked."""
    sets = run.about["mixture"]["sub_datasets"]
    return pd.Series({task: 100 * facts.get("most_frequent", np.nan) for task, facts in sets.items()}, dtype=float)


def chance_table(run) -> pd.DataFrame:
    """A row a sub-dataset: before training, SFT's checkpoint, own peak, the most frequent answer (%), whether the peak
    is above that."""
    curves, items = data.by_epoch(run), run.history.drop_duplicates("task").set_index("task").n
    peak, blind = curves.max(), most_frequent(run)[curves.columns]
    right = (peak * items[peak.index] / 100).round().astype(int)
    low = [
        100 * stats.binomtest(k, n).proportion_ci(method="wilson").low
        for k, n in zip(right, items[peak.index], strict=True)
    ]
    columns = {
        "before (%)": curves.iloc[0],
        "SFT (%)": 100 * data.at_best(run)[peak.index],
        "peak (%)": peak,
        "most frequent answer (%)": blind,
        "above it": (pd.Series(low, peak.index) > blind).map({True: "yes", False: "not shown"}),
    }
    return pd.DataFrame(columns).rename(index=pretty).rename_axis("sub-dataset")
