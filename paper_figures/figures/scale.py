"""Mixtures of several sizes (Fig. 5) on the focus model, and the compute budget C of mSFT (Fig. 6) (section 4.4)."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from msft.errors import ConfigError
from msft.results.flops import FORWARD, TRAIN
from paper_figures import data, findings, reported_numbers
from paper_figures.style import COLUMN, SMALLEST, colour, label, legend, say, signed

# section 4.4 compares mSFT with SFT and with IES, its strongest baseline
METHODS = ("sft", "ies", "msft")
CLAIM = "three data-set scales"  # part of the paper's words in text_claims.csv
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
    """{("mixture", mixture, method): RunConfig} on the focus model, {("budget", model, C or "sft"): RunConfig} of Fig. 6.

    budgets: text with the C of the sweep in epochs; "" stands for the profile's.
    """
    sweep = read_budgets(budgets) if budgets else page.budgets
    # a mixture of one's own stands in for every size and is needed once
    mixtures = dict.fromkeys(page.mixtures.values())
    wanted = {("mixture", name, method): page.config(method, mixture=name) for name in mixtures for method in METHODS}
    for model in page.swept:
        wanted["budget", model, "sft"] = page.config("sft", model=model)
        wanted |= {("budget", model, c): page.config("msft", model=model, varied={"budget": c}) for c in sweep}
    return wanted


def by_mixture(runs) -> pd.DataFrame:
    """One row a mixture and method: sub_datasets (count), mixture, method, accuracy (percent, mean over sub-datasets),
    error (standard error in points), gain (points over SFT), low and high (its 95 % interval over the test items), epoch
    (of the best checkpoint), flops."""
    rows = []
    for key, run in runs.items():
        if key[0] != "mixture":
            continue
        accuracy, gain = data.at_best(run), findings.difference([(run, runs["mixture", key[1], "sft"])])
        rows.append(
            {
                "sub_datasets": len(accuracy),
                "mixture": key[1],
                "method": key[2],
                "accuracy": 100 * accuracy.mean(),
                "error": data.standard_error(run),
                "gain": gain.points,
                "low": gain.low,
                "high": gain.high,
                "epoch": run.best.path_epoch,
                "flops": run.flops["total"],
            }
        )
    table = pd.DataFrame(rows)
    order = {method: place for place, method in enumerate(METHODS)}
    return table.sort_values(
        ["sub_datasets", "mixture", "method"], key=lambda c: c.map(order) if c.name == "method" else c
    ).reset_index(drop=True)


def without_exclusion(run) -> float:
    """FLOPs of an mSFT run's stages had none of them left a sub-dataset out: what its roll-outs alone would have cost.

    An epoch of the full mixture has the tokens that the first stage, which trains it, had in one; every evaluation
    counts all sub-datasets.
    """
    stages = [entry for entry in run.journal if entry["kind"] == "roll_out"]
    epochs = [entry["result"]["points"][-1]["epoch"] for entry in stages]
    trained = stages[0]["result"]["trained_tokens"] / epochs[0] * sum(epochs)
    points = [point for entry in stages for point in entry["result"]["points"] if not point["reused"]]
    evaluated = sum(tokens for point in points for tokens in point["tokens"].values())
    return run.result["parameters"] * (TRAIN * trained + FORWARD * evaluated)


def by_budget(runs) -> pd.DataFrame:
    """Fig. 6, one row a budget C: means over the models of overhead, savings and net (FLOPs over SFT), sft (FLOPs of
    SFT), gain, low and high (points over SFT with its 95 % interval over the test items), and models (count).

    overhead: what the stages cost had nothing been excluded, less SFT.  net: what they did cost, less SFT.
    savings: the difference, what the exclusions spare.
    """
    sft = {key[1]: run for key, run in runs.items() if key[0] == "budget" and key[2] == "sft"}
    rows: dict[float, dict] = {}
    for key, run in runs.items():
        if key[0] == "budget" and key[2] != "sft":
            # the settings of a run say what its C was: a setting of the user's may have overruled the sweep
            rows.setdefault(run.config.params["budget"], {})[key[1]] = run
    table = []
    for budget, swept in sorted(rows.items()):
        spent = {model: sft[model].flops["total"] for model in swept}
        net = np.mean([run.flops["total"] - spent[model] for model, run in swept.items()])
        overhead = np.mean([without_exclusion(run) - spent[model] for model, run in swept.items()])
        gain = findings.difference([(run, sft[model]) for model, run in swept.items()])
        row = {"budget": budget, "overhead": overhead, "savings": net - overhead, "net": net}
        row |= {"sft": np.mean(list(spent.values())), "gain": gain.points, "low": gain.low, "high": gain.high}
        table.append({**row, "models": len(swept)})
    return pd.DataFrame(table)


def reported_budgets() -> pd.DataFrame:
    """The paper's Fig. 6 with the columns of `by_budget`; no intervals; SFT is the mean of the four models in Table 7."""
    table = reported_numbers.table("fig6")
    table.columns = ["budget", "overhead", "savings", "net", "gain"]
    flops = reported_numbers.table("table7").set_index("model").drop("Average").dropna()
    table[["overhead", "savings", "net"]] *= 1e15
    return table.assign(sft=1e15 * flops["SFT"].mean(), low=np.nan, high=np.nan, models=len(flops))


def unit_of(flops) -> tuple[float, str]:
    """(divisor, name) of the unit that FLOPs read best in: PFLOPs, TFLOPs, GFLOPs or FLOPs."""
    return next((unit for unit in _UNITS if np.max(flops) >= unit[0]), _UNITS[-1])


MIXTURE_PANELS_CAPTION = (
    "Test accuracy at each method's best checkpoint (left, percent, mean over sub-datasets) and the gain over SFT (right, points) by "
    "number of sub-datasets in the mixture; whiskers: 95 % intervals over the test items. Dash-dotted: mSFT's mean gain over the three "
    "mixtures in the paper, one larger model."
)


def mixture_panels(table: pd.DataFrame, axes=None):
    """Fig. 5: accuracy of each method by size of the mixture, and the gain over SFT.

    table: as by_mixture gives it.  axes: a pair of axes, made where absent. Returns them.
    """
    if axes is None:
        _, axes = plt.subplots(1, 2, figsize=(COLUMN, 1.75), layout="constrained")
    left, right = axes
    sizes = table[["sub_datasets", "mixture"]].drop_duplicates()
    names = list(sizes.mixture)
    methods = [method for method in METHODS if method in set(table.method)]
    for place, method in enumerate(methods):
        rows = table[table.method == method].set_index("mixture").loc[names]
        x = np.arange(len(names)) + 0.3 * (place - (len(methods) - 1) / 2)
        look = {"color": colour(method), "label": label(method), "fmt": "o", "ms": 3, "capsize": 1.5, "lw": 0.8}
        left.errorbar(x, rows.accuracy, yerr=1.96 * rows.error, **look)
        if method == "sft":
            continue
        whiskers = (rows.gain - rows.low, rows.high - rows.gain)
        right.errorbar(x, rows.gain, yerr=whiskers, **look)
        for at, top, gain in zip(x, rows.high, rows.gain, strict=True):
            # in the method's colour, for the next method's may stand close
            where = {"textcoords": "offset points", "ha": "center", "color": colour(method)}
            right.annotate(signed(gain, 1), (at, max(top, 0)), (0, 2.5), **where)
    right.axhline(0, color=colour("sft"), lw=1)
    theirs = reported_numbers.claim(CLAIM)
    paper = right.axhline(
        theirs, color="0.35", ls="-.", lw=0.8, zorder=0, label=f"the paper's mean for mSFT, {signed(theirs)}"
    )
    right.margins(y=0.1)
    right.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    left.set_ylabel("test accuracy (%)")
    right.set_ylabel("gain over SFT (points)")
    for axis in axes:
        axis.set_xticks(range(len(names)), sizes.sub_datasets)
        axis.set_xlabel("sub-datasets of the mixture")
        axis.set_xlim(-0.55, len(names) - 0.45)
        axis.grid(axis="x", visible=False)
    handles = [*left.get_legend_handles_labels()[0], paper]
    legend(left.figure, handles)
    ours = table[table.method == "msft"]
    shown = ((ours.low > 0) | (ours.high < 0)).sum()
    gains = [f"{signed(row.gain, 1)} with {row.sub_datasets}" for row in ours.itertuples()]
    verdicts = {len(ours): "each interval leaves out 0", 0: "cannot tell any from 0"}
    verdict = verdicts.get(shown, f"{shown} of {len(ours)} intervals leave out 0")
    gains[0] = gains[0].replace(" with", " points over SFT with") + " sub-datasets"
    return say(axes, f"With one seed mSFT gains {', '.join(gains)}; {verdict}")


BUDGET_PANELS_CAPTION = (
    "mSFT by its compute budget C in epochs. Top: gain over SFT in points of test accuracy (whiskers, and in the title: 95 % interval over "
    "the test items). Bottom: compute over SFT, as a share of SFT's own; the numbers at the bars are the compute itself. Roll-out overhead: the "
    "same stages with nothing excluded, less SFT; savings: what the exclusions spare; net: their sum. All are means over the models."
)
# greys, since these parts are no methods; the net is what mSFT itself takes
_PARTS = {"overhead": ("roll-out overhead", "0.35"), "savings": ("savings from exclusion", "0.75")}
_PARTS |= {"net": ("net", colour("msft"))}


def budget_panels(table: pd.DataFrame, theirs: pd.DataFrame, here: str = "here"):
    """Fig. 6: gain (line) and compute over SFT (bars) by C, ours left and the paper's right, on the same axes.

    table: as by_budget gives it.  theirs: as reported_budgets does.  here: what the left column is called. Returns the axes.
    """
    size = (COLUMN, 2.9)
    _, axes = plt.subplots(2, 2, figsize=size, sharex=True, sharey="row", height_ratios=(2, 3), layout="constrained")
    columns = {here: table, "the paper, four models": theirs}
    every = sorted({*table.budget, *theirs.budget})
    for column, (title, rows) in enumerate(columns.items()):
        top, bottom = axes[:, column]
        x = np.array([every.index(budget) for budget in rows.budget])
        whiskers = None if rows.low.isna().all() else (rows.gain - rows.low, rows.high - rows.gain)
        top.errorbar(x, rows.gain, yerr=whiskers, fmt="o-", color=colour("msft"), ms=3, lw=1, capsize=1.5)
        rises = np.append(np.diff(rows.gain), -1) > 0
        for place, gain, is_rising in zip(x, rows.gain, rises, strict=True):
            # on the side that the line leaves free
            where = {"textcoords": "offset points", "va": "top" if is_rising else "bottom"}
            top.annotate(signed(gain, 1), (place, gain), (3, -2 if is_rising else 2), **where)
        divisor, unit = unit_of(rows.sft.max())
        for number, (part, (words, shade)) in enumerate(_PARTS.items()):
            bars = bottom.bar(
                x + 0.31 * (number - 1), 100 * rows[part] / rows.sft, width=0.29, color=shade, label=words
            )
            labels = [signed(value, 1 if abs(value) < 10 else 0) for value in rows[part] / divisor]
            texts = bottom.bar_label(bars, labels, padding=1)
            for text, below in zip(texts, rows.net < 0, strict=True) if part == "savings" else ():
                # clear of the net's: to the left, and wholly beside it where the net's number is there too
                text.set(ha="right", position=(2 if below else 5, text.xyann[1]))
            for text, value in zip(texts, rows[part], strict=True) if part == "net" else ():
                # clear of the next overhead's bar, or of the number of the savings
                text.set(position=(-3 if value > 0 else 4, text.xyann[1]))
        for axis in (top, bottom):
            axis.axhline(0, color=colour("sft"), lw=1)
            axis.grid(axis="x", visible=False)
            axis.margins(y=0.15)
        top.set_title(f"{title}")
        bottom.set_title(f"at the bars: {unit}", fontsize=SMALLEST)
        bottom.set_xticks(range(len(every)), [f"{budget:g}" for budget in every])
        bottom.set_xlabel("compute budget C (epochs)")
    axes[0, 0].set_ylabel("gain over SFT\n(points)")
    axes[1, 0].set_ylabel("compute over SFT\n(% of SFT's)")
    legend(axes[0, 0].figure, *bottom.get_legend_handles_labels(), place="lower")
    return say(axes, _budget_title(table))


def _budget_title(table: pd.DataFrame) -> str:
    cheapest = table.iloc[0]
    gains, spans = [], []
    for row in table.itertuples():
        open_ = "" if row.low > 0 or row.high < 0 else " (cannot tell from 0)"
        gains.append(f"{signed(row.gain, 1)}{'' if gains else ' points over SFT'} at C = {row.budget:g}{open_}")
        spans.append(f"{signed(row.low, 1)} to {signed(row.high, 1)}")
    share = 100 * cheapest.net / cheapest.sft
    cost = f"C = {cheapest.budget:g} takes {abs(share):.0f} % {'less' if share < 0 else 'more'} compute than SFT"
    return f"With one seed mSFT gains {', '.join(gains)}; 95 % intervals {', '.join(spans)}; {cost}"


MIXTURE_TABLE_CAPTION = (
    "Accuracy at the best checkpoint in percent, its standard error and the gain over SFT in points, the epoch of that checkpoint "
    "and the compute of the whole run, by mixture and method."
)
BUDGET_TABLE_CAPTION = (
    "Fig. 6 as numbers, ours and the paper's: compute over SFT by its parts and as a percentage of SFT's, the gain over SFT in points "
    "with its 95 % interval, and the models behind each mean. The unit of ours stands in the first column; the paper's is PFLOPs."
)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table of by_mixture with the names, units and rows that a reader expects."""
    divisor, unit = unit_of(table.flops)
    shown = table.assign(method=table.method.map(label), flops=table.flops / divisor)
    shown = shown.rename(columns={"sub_datasets": "sub-datasets"}).set_index(["sub-datasets", "mixture", "method"])
    names = {"accuracy": "accuracy (%)", "error": "standard error", "gain": "gain over SFT", "epoch": "best epoch"}
    return shown.drop(columns=["low", "high"]).rename(columns={**names, "flops": unit})


def budget_table(table: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """The parts of Fig. 6 by C, ours and the paper's: see BUDGET_TABLE_CAPTION."""
    unit, rows = unit_of(table.sft.max())[1], {}
    for source, side in (("here", table), ("paper", theirs)):
        divisor = unit_of(side.sft.max())[0]
        for row in side.itertuples():
            cells = {part: getattr(row, part) / divisor for part in _PARTS}
            cells |= {"net (% of SFT)": 100 * row.net / row.sft, "gain (points)": row.gain}
            rows[f"C = {row.budget:g}", source] = {**cells, "low": row.low, "high": row.high, "models": row.models}
    shown = pd.DataFrame.from_dict(rows, orient="index").sort_index(kind="stable")
    return shown.rename_axis(index=[f"C (here: {unit})", "source"])


AGAINST_PAPER_CAPTION = (
    "What section 4.4 of the paper reports and what was measured here, in points of accuracy. The paper's gain over the mixtures is "
    "of one model, its gains by C are means of four; here of the models named below."
    + reported_numbers.told("the test items, these very runs")
)


def mean_gain(runs) -> tuple[float, float, float]:
    """mSFT's gain over SFT in points, a mean over the mixtures, with its 95 % interval over the test items.

    A sub-dataset of several mixtures has the same items in each: they are drawn once for all.
    """
    mixtures, summed = [key[1] for key in runs if key[0] == "mixture" and key[2] == "msft"], {}
    for name in mixtures:
        pair = (findings.correct_at_best(runs["mixture", name, method]) for method in ("msft", "sft"))
        differences = findings.item_differences([tuple(pair)])
        for task, (values,) in differences.items():
            key = task, len(values)
            summed[key] = summed.get(key, 0) + values / (len(differences) * len(mixtures))
    # over_items divides by the number of sub-datasets, which these shares already have
    return findings.over_items({key: [len(summed) * values] for key, values in summed.items()}).span


def against_paper(runs, budgets: pd.DataFrame) -> pd.DataFrame:
    """The claims of section 4.4 (I) and (II) beside what was measured here. budgets: as by_budget gives it of runs.

    The paper prints a difference of accuracies as '%', read here as points as in its Table 2.
    """
    claim = reported_numbers.claim(CLAIM)
    pairs = {"mSFT over SFT, mean over the mixtures": (claim, *mean_gain(runs))}
    for row in reported_budgets().itertuples():
        for ours in budgets[budgets.budget == row.budget].itertuples():
            pairs[f"mSFT with C={row.budget:g} over SFT"] = (row.gain, ours.gain, ours.low, ours.high)
    theirs = reported_budgets().set_index("budget").gain
    if len(both := sorted(set(theirs.index) & set(budgets.budget))) > 1:  # does C matter?
        least, most = both[0], both[-1]
        models = [key[1] for key in runs if key[0] == "budget" and key[2] == "sft"]
        gain = findings.difference([(runs["budget", m, most], runs["budget", m, least]) for m in models])
        reported = theirs[most] - theirs[least]
        pairs[f"mSFT with C={most:g} over C={least:g}"] = (reported, gain.points, gain.low, gain.high)
    return reported_numbers.directions(pairs)


def finding(mixtures: pd.DataFrame, budgets: pd.DataFrame) -> str:
    """The gain of mSFT over SFT for each mixture and each C, with intervals, and how many of them are shown.

    mixtures, budgets: as by_mixture and by_budget give them.
    """
    ours = mixtures[mixtures.method == "msft"]
    sizes = [f"{_span(row)} with {row.sub_datasets} sub-datasets" for row in ours.itertuples()]
    swept = [f"{_span(row)} at C={row.budget:g}" for row in budgets.itertuples()]
    shown = sum(row.low > 0 or row.high < 0 for row in [*ours.itertuples(), *budgets.itertuples()])
    count = int(budgets.models.max())
    return (
        f"Over SFT mSFT gains {', '.join(sizes)}, and by budget {', '.join(swept)} (points with 95 % intervals over the test items, "
        f"one pair of runs a mixture, and a mean of n = {count} model{'s' * (count > 1)} a budget). {shown} of these "
        f"{len(sizes) + len(swept)} gains are shown to differ from 0. It falls short of a rule: all are of one seed, and the best of a "
        "sweep is chosen after the fact."
    )


def _span(row) -> str:
    return f"{row.gain:+.1f} ({row.low:+.1f} to {row.high:+.1f})"
