"""Main results: accuracy of six methods by group of sub-datasets and model (Table 2), and the settings (Tables 1, 5)."""

from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from paper_figures import data, findings, reported_numbers
from paper_figures.style import COLUMN, colour, label, legend, say, signed
from paper_figures.style import METHODS as LABELS

METHODS = ("base", "sft", "continual_sft", "dynamix_sft", "ies", "msft")
TRAINED = METHODS[1:]
AVERAGE = "Average"  # over groups' sub-datasets, and over models
_MARKERS = "osD^vPX*"


def needs(page, methods=TRAINED) -> dict:
    """{(model, method): RunConfig}: every method on every model of the profile."""
    return {(model, method): page.config(method, model=model) for model in page.models for method in methods}


def measured(runs, base: bool = True) -> pd.DataFrame:
    """One row a group, method and model: group, method, model (the paper's names), accuracy (percent), epoch (the
    paper's Ep. of the reported checkpoint), error (standard error over the test items of all groups, in points).

    runs: {(model, method): Run}.  The group and the model 'Average' are means over the sub-datasets and over the
    models.  base: with rows of the method 'base', the model before training, which has no epoch.
    """
    rows = []
    for (model, method), run in runs.items():
        scores = {method: (data.at_best(run), run.best.path_epoch, data.standard_error(run))}
        if base and method == "sft":
            scores["base"] = (data.at_base(run), np.nan, np.nan)
        for name, (accuracy, epoch, error) in scores.items():
            for group, value in data.by_group(accuracy, data.groups_of(run)).items():
                row = {"group": group, "method": name, "model": reported_numbers.model_label(model)}
                rows.append({**row, "accuracy": value, "epoch": epoch, "error": error})
    table = pd.DataFrame(rows)
    columns = {"accuracy": "mean", "epoch": "mean", "error": lambda e: np.sqrt((e**2).sum(skipna=False)) / len(e)}
    means = table.groupby(["group", "method"], sort=False).agg(columns).reset_index()
    return pd.concat([table, means.assign(model=AVERAGE)])[table.columns].reset_index(drop=True)


def reported() -> pd.DataFrame:
    """The paper's Table 2 with the columns of `measured`."""
    keys = {name: method for method, name in LABELS.items()}
    table = reported_numbers.table("table2")
    table = table.rename(columns={"accuracy_percent": "accuracy", "best_epoch": "epoch"})
    return table.assign(method=table.method.map(keys))[["group", "method", "model", "accuracy", "epoch"]]


def comparable(table: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """The rows of the paper for the groups, methods and models of `table`; no average of models where one lacks."""
    known = set(theirs.model)
    theirs = theirs[theirs.group.isin(table.group) & theirs.method.isin(table.method) & theirs.model.isin(table.model)]
    return theirs if known == set(table.model) else theirs[theirs.model != AVERAGE]


SIDE_BY_SIDE_CAPTION = (
    "Test accuracy (percent) by group of sub-datasets, method and model, and the epoch of the reported checkpoint (Ep.; for "
    "Continual SFT the mean of the sub-datasets' peaks); last, the average less that of SFT in points."
)


def side_by_side(table: pd.DataFrame, theirs: pd.DataFrame | None = None) -> pd.DataFrame:
    """Table 2: rows by group and method, for each model its accuracy in percent and its 'Ep.', and the average over SFT's.

    table: as `measured` gives it.  theirs: the paper's numbers in the same form, put below each row of ours.
    """
    rows, keys = table.assign(source="here"), ["group", "method"]
    if theirs is not None:
        rows, keys = pd.concat([rows, comparable(table, theirs).assign(source="paper")]), [*keys, "source"]
    wide = rows.pivot(index=keys, columns="model", values=["accuracy", "epoch"])
    order = {name: i for i, name in enumerate([*dict.fromkeys(table.group), *_methods(table), "here", "paper"])}
    wide = wide.sort_index(key=lambda level: level.map(order))
    columns = {}
    for model in dict.fromkeys(table.model):
        columns |= {model: wide["accuracy", model], f"{model} Ep.": wide["epoch", model]}
    if (AVERAGE, "sft") in {(AVERAGE, key[1]) for key in wide.index}:
        average = wide["accuracy", AVERAGE]
        sft = average.xs("sft", level="method")
        beside = average.index.droplevel("method")
        columns[f"{AVERAGE} over SFT"] = average - sft.reindex(beside).to_numpy()
    shown = pd.DataFrame(columns).rename(index=LABELS, level="method")
    return shown.rename_axis(index=[key.capitalize() for key in keys])


def _methods(table: pd.DataFrame) -> list[str]:
    return [method for method in LABELS if method in set(table.method)]


def overall(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy in percent over all sub-datasets: one row a model, one column a method; no average row."""
    rows = table[(table.group == AVERAGE) & (table.model != AVERAGE)]
    wide = rows.pivot(index="model", columns="method", values="accuracy")
    return wide.loc[rows.model.unique(), _methods(table)]


AGAINST_PAPER_CAPTION = (
    "Mean difference in test accuracy (points) between mSFT and each other method, and between mSFT and SFT in each group, over "
    "the models of each side." + reported_numbers.told("the test items, these very runs")
)


def against_paper(runs, theirs: pd.DataFrame) -> pd.DataFrame:
    """mSFT minus each method over all sub-datasets, and minus SFT in each group, averaged over models: the paper's and
    ours, compared by direction. theirs: as `reported` gives it."""
    there = theirs[theirs.model == AVERAGE].set_index(["group", "method"]).accuracy
    correct = {key: findings.correct_at_best(run) for key, run in runs.items()}
    correct |= {(m, "base"): findings.correct_at_base(run) for (m, method), run in runs.items() if method == "sft"}
    models, pairs = list(dict.fromkeys(model for model, _ in runs)), {}

    def add(what, group, method, tasks):
        differences = findings.item_differences((correct[m, "msft"], correct[m, method]) for m in models)
        ours = findings.over_items({task: differences[task] for task in tasks or differences})
        pairs[what] = (there[group, "msft"] - there[group, method], *ours.span)

    for method in LABELS:
        if method != "msft" and (models[0], method) in correct:
            add(f"mSFT over {label(method)}", AVERAGE, method, None)
    for group, tasks in data.groups_of(runs[models[0], "sft"]).items():
        if group in set(theirs.group):
            add(f"mSFT over SFT, {group}", group, "sft", tasks)
    return reported_numbers.directions(pairs)


GROUP_GAINS_CAPTION = (
    "Test accuracy less that of SFT in each group of sub-datasets (points), here with its 95 % interval over the test items, "
    "these very runs; all groups: whether a gain is shown in every one of them (no: in one a loss is)."
)


def group_gains(runs, theirs: pd.DataFrame) -> pd.DataFrame:
    """What each method gains over SFT in each group and in all, the mean over models; theirs: as `reported` gives it."""
    correct = {key: findings.correct_at_best(run) for key, run in runs.items()}
    models, rows = list(dict.fromkeys(model for model, _ in runs)), {}
    groups = data.groups_of(runs[models[0], "sft"])
    there = theirs[theirs.model == AVERAGE].pivot(index="method", columns="group", values="accuracy")
    there = there.sub(there.loc["sft"]).reindex(index=list(LABELS), columns=list(groups))
    for method in (m for m in LABELS if m != "sft" and (models[0], m) in correct):
        items = findings.item_differences((correct[m, method], correct[m, "sft"]) for m in models)
        gains = {group: findings.over_items({t: items[t] for t in groups[group]}) for group in groups}
        row = rows[label(method)] = {}
        for group, gain in gains.items():
            row[group] = f"{gain.points:+.1f} ({gain.low:+.1f} to {gain.high:+.1f})"
            row[f"{group}, paper"] = there.at[method, group]
        is_lost, is_gained = any(g.high < 0 for g in gains.values()), all(g.low > 0 for g in gains.values())
        row["all groups"] = "no" if is_lost else "yes" if is_gained else "cannot tell"
        least = there.loc[method].min()  # of the groups that the paper has
        row["all groups, paper"] = "–" if np.isnan(least) else "yes" if least > 0 else "no"
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def row_height(table: pd.DataFrame) -> float:
    """Inches that a row of `dots` needs for the models that stand above each other in it."""
    return 0.19 + 0.02 * len(table)


def dots(axis, table: pd.DataFrame, theirs: pd.Series | None = None, halves: pd.Series | None = None):
    """Draws one row a method: each model a point, their mean a bar in the method's colour; returns the axis.

    table: one row a model, one column a method.  theirs: the paper's mean of each method, drawn as a ring.
    halves: half of the interval of each mean.  The axis is that of the methods that contest; a point far from them all
    stands at its edge, with an arrow and its value.
    """
    methods = list(table.columns)
    far, low = _far(table)
    # the models of a row stand a little apart, so that equal values stay apart too
    offsets = np.linspace(-0.22, 0.22, len(table)) if len(table) > 1 else [0.0]
    for place, method in enumerate(methods):
        look = {"color": colour(method), "s": 13, "zorder": 3, "edgecolor": "white", "lw": 0.3}
        mean = table[method].mean()
        if np.isnan(mean):
            continue
        if method in far and table[method].max() < low:
            axis.annotate(
                f"\N{LEFTWARDS ARROW} {mean:.1f}".replace("-", "\N{MINUS SIGN}"), (0.01, place), va="center",
                xycoords=("axes fraction", "data"), color=colour(method), bbox={"facecolor": "white", "lw": 0, "pad": 0.4},
            )  # fmt: skip
            continue
        for offset, marker, value in zip(offsets, cycle(_MARKERS), table[method], strict=False):
            axis.scatter(max(value, low), place + offset, marker=marker if value >= low else "<", **look)
        if len(table) > 1 and mean >= low:
            axis.plot([mean] * 2, [place - 0.38, place + 0.38], color=colour(method), lw=1.5)
        if halves is not None and np.isfinite(halves.get(method, np.nan)):
            ends = np.clip([mean - halves[method], mean + halves[method]], low, None)
            axis.plot(ends, [place + 0.38] * 2, color=colour(method), lw=0.8, solid_capstyle="butt")
        if theirs is not None and method in theirs:
            axis.plot(theirs[method], place, "o", mfc="none", mec="0.2", ms=6, mew=0.8, zorder=4)
    axis.set_yticks(range(len(methods)), [label(method) for method in methods])
    axis.set_ylim(len(methods) - 0.45, -0.55)
    axis.grid(axis="y", visible=False)
    axis.margins(x=0.08)
    if far:
        axis.set_xlim(left=low - 0.03 * (table.max().max() - low))
    return axis


def _far(table: pd.DataFrame) -> tuple[list[str], float]:
    """(methods whose mean lies so far below the others' that they would hide the contest, least value of the axis)."""
    means = table.mean()
    middle = means.median()
    far = means.index[means < middle - 5 * max((means - middle).abs().median(), 1.0)]
    far = [method for method in far if method != "sft"]  # it is what all are compared with
    near = table.drop(columns=far)
    # room for an arrow and its value below the lowest of the others
    return far, near.min().min() - 0.4 * (near.max().max() - near.min().min()) if far else -np.inf


def key(figure, models, ring: str = "") -> None:
    """The legend of `dots` above a figure: a marker a model, the bar of the mean, the line of an interval, and what a ring stands for."""
    grey = {"color": "0.35", "ls": ""}
    marks = [plt.Line2D([], [], marker=m, ms=3.2, **grey) for m, _ in zip(cycle(_MARKERS), models, strict=False)]
    names = list(models)
    if len(names) > 1:
        marks.append(plt.Line2D([], [], marker="|", ms=6, mew=1.5, **grey))
        names.append("mean of the models")
    marks.append(plt.Line2D([], [], color="0.35", lw=0.8))
    names.append("95 % interval")
    if ring:
        marks.append(plt.Line2D([], [], marker="o", ms=6, mfc="none", **grey))
        names.append(ring)
    legend(figure, marks, names)


BY_METHOD_CAPTION = (
    "Test accuracy (percent, mean over the sub-datasets) at the reported checkpoint of each method and model, and its gain over "
    "SFT of the same model (points); bars are means over several models, the lines below them 95 % intervals over the test items, rings, where drawn, "
    "the paper's. Methods far below the others stand at the edge, with an arrow and their mean."
)


def gains(runs) -> dict[str, findings.Difference]:
    """{method: its mean difference from SFT over the models, with the interval over the test items}."""
    methods = [method for method in dict.fromkeys(method for _, method in runs) if method != "sft"]
    models = dict.fromkeys(model for model, _ in runs)
    return {m: findings.difference([(runs[model, m], runs[model, "sft"]) for model in models]) for m in methods}


def by_method(table: pd.DataFrame, over_sft: dict, theirs: pd.DataFrame | None = None, axes=None, more: str = ""):
    """Accuracy over all sub-datasets of each method and model, and beside it the gain over SFT.

    table: as `measured` gives it.  over_sft: as `gains` does.  theirs: the paper's, whose means are drawn as rings where
    `table` has all of its models.  axes: a pair of axes, made where absent.  more: goes on with the title. Returns the axes.
    """
    wide = overall(table)
    if axes is None:
        size = (COLUMN, row_height(wide) * len(wide.columns) + 0.7)
        _, axes = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
    means = None
    if theirs is not None:
        theirs = comparable(table, theirs)
        theirs = theirs[(theirs.group == AVERAGE) & (theirs.model == AVERAGE)]
        means = theirs.set_index("method").accuracy if len(theirs) else None
    apart = wide.sub(wide.sft, axis=0)
    apart[[method for method in ("base", "sft") if method in apart]] = np.nan  # their rows stay empty
    errors = table[(table.group == AVERAGE) & (table.model == AVERAGE)].set_index("method").error
    dots(axes[0], wide, means, 1.96 * errors)
    halves = pd.Series({method: (gain.high - gain.low) / 2 for method, gain in over_sft.items()})
    dots(axes[1], apart, None if means is None else means - means.sft, halves)
    axes[1].axvline(0, color=colour("sft"), lw=1)
    axes[0].set_xlabel("test accuracy (%)")
    axes[1].set_xlabel("gain over SFT (points)")
    key(axes[0].figure, wide.index, "" if means is None else "mean in the paper")
    return say(axes, _title(over_sft) + more)


def _title(over_sft: dict) -> str:
    """Who is shown to differ from SFT, the methods in the order of their gains."""
    ordered = sorted(over_sft.items(), key=lambda pair: -pair[1].points)
    words = [f"{label(method)} {signed(gain.points, 1)}" for method, gain in ordered if gain.is_shown]
    open_ = [label(method) for method, gain in ordered if not gain.is_shown]
    shown = (
        f"With one seed, shown to differ from SFT: {', '.join(words)} points"
        if words
        else "With one seed, no method is shown to differ from SFT"
    )
    return shown + (f"; cannot tell for {', '.join(open_)}" if open_ else "")


ALLOCATION_CAPTION = (
    "Allocation of the SFT compute in released models, as the paper states it: the same number of epochs for every sub-dataset "
    "of a mixture, or of a stage. Nothing here is measured."
)


def allocation() -> pd.DataFrame:
    """Table 1: how released models share out their SFT compute, as the paper states it; nothing here is measured."""
    table = reported_numbers.table("table1")
    return table.rename(columns=str.capitalize).set_index("Model")


SETTINGS_CAPTION = "Settings of the paper and of the runs of this page, as each run's own record has them."


def settings(runs) -> pd.DataFrame:
    """Table 5 and the settings of single methods: the paper's value, that of the runs, whether they are the same.

    runs: {key: Run}. A value is read from each run's own record; several are listed where runs differ.
    """
    rows = []
    for row in reported_numbers.table("table5").itertuples():
        values = sorted({_number(v) for run in runs.values() for v in _values(run, row.name)}, key=_order)
        same = {_number(row.value)} == set(values)
        here = ", ".join(_text(v) for v in values) or "–"
        rows.append([row.setting, _text(_number(row.value)), here, "yes" if same else "no", row.source])
    return pd.DataFrame(rows, columns=["setting", "paper", "here", "same", "source"]).set_index("setting")


def _values(run, name) -> list:
    """A run's values of a row of Table 5: a setting, 'method.parameter', or the sizes of its sub-datasets."""
    config = run.config
    if pd.isna(name):
        return ["constant"]  # the package has no other schedule
    if name == "sub_dataset_size":
        return [part["train"] for part in run.about["mixture"]["sub_datasets"].values()]
    if "." in name:
        method, parameter = name.split(".")
        return [config.params[parameter]] if config.method == method else []
    return [getattr(config, name)]


def _order(value) -> tuple:
    return isinstance(value, str), value


def _number(value):
    try:
        return float(value)
    except ValueError:
        return value


def _text(value) -> str:
    return f"{value:g}" if isinstance(value, float) else value


def finding(runs, table: pd.DataFrame) -> str:
    """Whether mSFT is ahead of SFT over all models, and who has the highest mean. table: as `measured` gives it."""
    models = dict.fromkeys(model for model, _ in runs)
    gain = findings.difference([(runs[model, "msft"], runs[model, "sft"]) for model in models])
    means = overall(table).drop(columns="base", errors="ignore").mean()
    return (
        f"{findings.sentence(gain)} The highest mean over the models is that of {findings.leaders(means)} ({means.max():.1f} %"
        f"{'' if means.msft == means.max() else f', mSFT {means.msft:.1f} %'}); one seed a method and model does not rank methods that "
        "are close, and says nothing of other seeds (notebook 10)."
    )
