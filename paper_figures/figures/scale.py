"""Mixtures of several sizes (Fig. 5) and the compute budget C of mSFT (Fig. 6), on the focus model (section 4.4)."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from msft.errors import ConfigError
from paper_figures import data, findings, reported_numbers
from paper_figures.figures.granularity import signed
from paper_figures.style import WIDTH, colour, label

# section 4.4 compares mSFT with SFT and with IES, its strongest baseline
METHODS = ("sft", "ies", "msft")
_UNITS = ((1e15, "PFLOPs"), (1e12, "TFLOPs"), (1e9, "GFLOPs"), (1.0, "FLOPs"))


def read_budgets(text: str) -> list[float]:
    """The budgets C of a text like "1, 2, 3", in epochs. Raises ConfigError for what is no positive number."""
    try:
        budgets = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        budgets = []
    if not budgets or not all(np.isfinite(budget) and budget > 0 for budget in budgets):
        raise ConfigError(f"budgets: {text!r} is no list of epochs; give positive numbers such as '1, 2, 3'")
    return budgets


def needs(page, budgets: str = "") -> dict:
    """{("mixture", mixture, method) or ("budget", C): RunConfig}, all on the focus model.

    budgets: text with the C of the sweep in epochs; "" stands for the profile's.
    """
    sweep = read_budgets(budgets) if budgets else page.budgets
    # a mixture of one's own stands in for every size and is needed once
    mixtures = dict.fromkeys(page.mixtures.values())
    wanted = {("mixture", name, method): page.config(method, mixture=name) for name in mixtures for method in METHODS}
    wanted["budget", "sft"] = page.config("sft")
    return wanted | {("budget", c): page.config("msft", params={"budget": c}) for c in sweep}


def by_mixture(runs) -> pd.DataFrame:
    """One row a mixture and method: sub_datasets (count), mixture, method, accuracy (percent, mean over sub-datasets),
    error (standard error in points), gain (points over SFT), epoch (of the best checkpoint), flops."""
    rows = []
    for key, run in runs.items():
        if key[0] != "mixture":
            continue
        accuracy = data.at_best(run)
        rows.append(
            {
                "sub_datasets": len(accuracy),
                "mixture": key[1],
                "method": key[2],
                "accuracy": 100 * accuracy.mean(),
                "error": data.standard_error(run),
                "epoch": run.best.path_epoch,
                "flops": run.flops["total"],
            }
        )
    table = pd.DataFrame(rows)
    sft = table[table.method == "sft"].set_index("mixture").accuracy
    table.insert(5, "gain", table.accuracy - table.mixture.map(sft))
    order = {method: place for place, method in enumerate(METHODS)}
    return table.sort_values(
        ["sub_datasets", "mixture", "method"], key=lambda c: c.map(order) if c.name == "method" else c
    ).reset_index(drop=True)


def by_budget(runs) -> pd.DataFrame:
    """The reference SFT, then one row a budget of mSFT: method, budget (C in epochs, nan for SFT), accuracy (percent),
    error (standard error in points), gain (points over SFT), epoch (of the best checkpoint), flops, flops_to_sft."""
    rows, sft = [], runs["budget", "sft"]
    # the settings of a run say what its C was: a setting of the user's may have overruled the sweep
    swept = {run.config.params["budget"]: run for key, run in runs.items() if key[0] == "budget" and key[1] != "sft"}
    for budget, run in [(np.nan, sft), *sorted(swept.items())]:
        rows.append(
            {
                "method": run.config.method,
                "budget": budget,
                "accuracy": 100 * data.at_best(run).mean(),
                "error": data.standard_error(run),
                "gain": 100 * (data.at_best(run).mean() - data.at_best(sft).mean()),
                "epoch": run.best.path_epoch,
                "flops": run.flops["total"],
                "flops_to_sft": run.flops["total"] / sft.flops["total"],
            }
        )
    return pd.DataFrame(rows)


def unit_of(flops) -> tuple[float, str]:
    """(divisor, name) of the unit that FLOPs read best in: PFLOPs, TFLOPs, GFLOPs or FLOPs."""
    return next((unit for unit in _UNITS if np.max(flops) >= unit[0]), _UNITS[-1])


MIXTURE_PANELS_CAPTION = (
    "Test accuracy at each method's best checkpoint (left, percent, mean over sub-datasets, whiskers: standard error over the "
    "test items) and the gain over SFT (right, points) by number of sub-datasets in the mixture."
)


def mixture_panels(table: pd.DataFrame, axes=None):
    """Fig. 5: accuracy of each method by size of the mixture, and the gain over SFT.

    table: as by_mixture gives it.  axes: a pair of axes, made where absent. Returns them.
    """
    if axes is None:
        _, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.5), layout="constrained")
    left, right = axes
    sizes = table[["sub_datasets", "mixture"]].drop_duplicates()
    names = list(sizes.mixture)
    methods = [method for method in METHODS if method in set(table.method)]
    for place, method in enumerate(methods):
        rows = table[table.method == method].set_index("mixture").loc[names]
        x = np.arange(len(names)) + 0.2 * (place - (len(methods) - 1) / 2)
        look = {"color": colour(method), "label": label(method)}
        left.errorbar(x, rows.accuracy, yerr=rows.error, fmt="o", ms=5, capsize=2, lw=1, **look)
    others = [method for method in methods if method != "sft"]
    for place, method in enumerate(others):
        rows = table[table.method == method].set_index("mixture").loc[names]
        x = np.arange(len(names)) + 0.36 * (place - (len(others) - 1) / 2)
        bars = right.bar(x, rows.gain, width=0.32, color=colour(method))
        right.bar_label(bars, fmt=signed, fontsize=7, padding=2)
    right.axhline(0, color=colour("sft"), lw=1.2)
    right.margins(y=0.2)
    left.set_ylabel("test accuracy (%)")
    right.set_ylabel("gain over SFT (points)")
    for axis in axes:
        axis.set_xticks(range(len(names)), sizes.sub_datasets)
        axis.set_xlim(-0.6, len(names) - 0.4)
        axis.set_xlabel("sub-datasets in the mixture")
        axis.grid(axis="x", visible=False)
    left.figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=len(methods), frameon=False)
    return axes


BUDGET_PANELS_CAPTION = (
    "Test accuracy (left, percent, whiskers and band: standard error over the test items) and training plus evaluation compute by "
    "appendix F (right) of mSFT against its compute budget C in epochs, with SFT for reference."
)


def budget_panels(table: pd.DataFrame, axes=None):
    """Fig. 6: accuracy and FLOPs of mSFT against its compute budget C, with SFT as the reference line.

    table: as by_budget gives it.  axes: a pair of axes, made where absent. Returns them.
    """
    if axes is None:
        _, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.4), layout="constrained")
    sft, swept = table[table.method == "sft"].iloc[0], table[table.method == "msft"]
    divisor, unit = unit_of(table.flops)
    left, right = axes
    look = {"color": colour("msft"), "marker": "o", "ms": 4.5, "lw": 1.3, "label": label("msft")}
    left.errorbar(swept.budget, swept.accuracy, yerr=swept.error, capsize=2, **look)
    left.axhspan(sft.accuracy - sft.error, sft.accuracy + sft.error, color=colour("sft"), alpha=0.15, lw=0)
    right.plot(swept.budget, swept.flops / divisor, **look)
    for axis, level in ((left, sft.accuracy), (right, sft.flops / divisor)):
        axis.axhline(level, color=colour("sft"), ls="--", lw=1.3, label=label("sft"))
        axis.set_xticks(swept.budget, [f"{budget:g}" for budget in swept.budget])
        axis.set_xlabel("compute budget C (epochs)")
        axis.margins(x=0.08, y=0.12)
        axis.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    left.set_ylabel("test accuracy (%)")
    right.set_ylabel(f"total compute ({unit})")
    right.set_ylim(bottom=0)
    left.figure.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return axes


MIXTURE_TABLE_CAPTION = (
    "Accuracy at the best checkpoint in percent, its standard error and the gain over SFT in points, the epoch of that checkpoint "
    "and the compute of the whole run, by mixture and method."
)
BUDGET_TABLE_CAPTION = (
    "Accuracy at the best checkpoint in percent, its standard error and the gain over SFT in points, the epoch of that checkpoint, "
    "the compute of the whole run, and how many times that of SFT it is, by compute budget C."
)


def readable(table: pd.DataFrame, model: str = "") -> pd.DataFrame:
    """A table of by_mixture or by_budget with the names, units and rows that a reader expects.

    model: beside its sweep stands the compute that Table 7 reports for it, where it is a model of the paper.
    """
    divisor, unit = unit_of(table.flops)
    shown = table.assign(method=table.method.map(label), flops=table.flops / divisor)
    if "budget" in table:
        is_swept = table.budget.notna()
        shown["method"] = shown.method.where(~is_swept, shown.method + table.budget.map(" (C={:g})".format))
        shown = shown.drop(columns="budget").set_index("method")
        theirs = reported_numbers.table("table7").set_index("model")
        if reported_numbers.model_label(model) in theirs.index:
            shown["paper (PFLOPs)"] = theirs.loc[reported_numbers.model_label(model)].reindex(shown.index)
    else:
        shown = shown.rename(columns={"sub_datasets": "sub-datasets"}).set_index(["sub-datasets", "mixture", "method"])
    names = {"accuracy": "accuracy (%)", "error": "standard error", "gain": "gain over SFT", "epoch": "best epoch"}
    return shown.rename(columns={**names, "flops": unit, "flops_to_sft": "FLOPs / SFT"})


AGAINST_PAPER_CAPTION = (
    "What section 4.4 and Table 7 of the paper report and what was measured here: differences of accuracy in points, saved compute "
    "in percent of SFT's (that of the four models for which Table 7 has C=1)." + reported_numbers.SCALE
)


def against_paper(mixtures: pd.DataFrame, budgets: pd.DataFrame) -> pd.DataFrame:
    """The claims of section 4.4 (I) and (II) beside what was measured here.

    The paper prints a difference of accuracies as '%', read here as points as in its Table 2. FLOPs are compared as
    the share of SFT's that mSFT saves at C=1, the paper's from the models of its Table 7 that have C=1.
    """
    gains = mixtures[mixtures.method == "msft"].gain
    pairs = {"mSFT over SFT, mean over the mixtures": (reported_numbers.claim("three data-set scales"), gains.mean())}
    smallest = budgets[budgets.budget == 1.0]
    if len(smallest):
        pairs["mSFT with C=1 over SFT"] = (reported_numbers.claim("mSFT over SFT at C=1"), smallest.gain.iloc[0])
        theirs = reported_numbers.table("table7").set_index("model").drop("Average").dropna()
        saved = 100 * (1 - theirs["mSFT (C=1)"].sum() / theirs["SFT"].sum())
        pairs["FLOPs that C=1 saves, of SFT's"] = (saved, 100 * (1 - smallest.flops_to_sft.iloc[0]))
    return reported_numbers.directions(pairs, unit="points or %")


def finding(runs) -> str:
    """The gain of mSFT over SFT for each mixture and each C, with intervals, and how many of them are shown."""
    mixtures = {key[1]: runs[key] for key in runs if key[0] == "mixture" and key[2] == "msft"}
    gains = {name: findings.difference([(run, runs["mixture", name, "sft"])]) for name, run in mixtures.items()}
    swept = {run.config.params["budget"]: run for key, run in runs.items() if key[0] == "budget" and key[1] != "sft"}
    by_budget = {c: findings.difference([(run, runs["budget", "sft"])]) for c, run in sorted(swept.items())}
    sizes = {name: f"{run.history.task.nunique()} sub-datasets" for name, run in mixtures.items()}
    shown = sum(gain.is_shown for gain in [*gains.values(), *by_budget.values()])
    return (
        f"Over SFT mSFT gains {', '.join(f'{_span(gain)} with {sizes[name]}' for name, gain in gains.items())}, and by budget "
        f"{', '.join(f'{_span(gain)} at C={c:g}' for c, gain in by_budget.items())} (points with 95 % intervals over the test "
        f"items, n = 1 pair of runs each). It falls short of a rule: {shown} of {len(gains) + len(by_budget)} intervals leave "
        "out 0, and the best of a sweep is chosen after the fact."
    )


def _span(gain: findings.Difference) -> str:
    return f"{gain.points:+.1f} ({gain.low:+.1f} to {gain.high:+.1f})"
