"""FLOPs of every method and model (Table 7, appendix F), and what its numbers imply."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from msft.launch.grid import read_grid
from msft.results.flops import FORWARD, LOOK_AHEAD, TRAIN
from paper_figures import cost, data, findings, reported_numbers
from paper_figures.figures.scale import unit_of
from paper_figures.style import COLUMN, colour, label, legend, say

METHODS = ("sft", "continual_sft", "dynamix_sft", "ies", "sro_sft", "soft_sro_sft", "msft")
PARTS = ("train", "look_ahead", "evaluate")
AVERAGE = "Average"
OTHER_N = 1.18e9  # of the first OLMo 1B: with it Table 7's row of OLMo 2 1B has lengths like the others'
WITH_PASSES = "IES, with forward passes"


def needs(page) -> dict:
    """{(model, method): RunConfig}, and (model, "msft", C) for mSFT at the lowest budget of the profile, on the models
    for which Table 7 has C=1, else on the focus."""
    wanted = {(model, method): page.config(method, model=model) for model in page.models for method in METHODS}
    reported = reported_numbers.table("table7").set_index("model")["mSFT (C=1)"].dropna()
    cheap = [model for model in page.models if reported_numbers.model_label(model) in reported.index]
    lowest = {"budget": min(page.budgets)}
    for model in cheap or [page.focus]:
        wanted[model, "msft", lowest["budget"]] = page.config("msft", model=model, varied=lowest)
    return wanted


def _name(run) -> str:
    method = run.config.method
    return f"{label(method)} (C={run.config.params['budget']:g})" if method == "msft" else label(method)


def measured(runs) -> pd.DataFrame:
    """One row a run: model (the paper's name), method, name (as Table 7 has it), train, look_ahead, evaluate, total
    (FLOPs), ratio (total over that of SFT of the same model).

    IES is counted twice: as Table 7 does, where examples that sit out cost nothing, and with the forward passes that
    tell which of them return.
    """
    rows = {}
    for key, run in runs.items():
        model, method = reported_numbers.model_label(key[0]), run.config.method
        counts = {_name(run): run.flops}
        if method == "ies":
            counts = {_name(run): data.without_forward_passes(run), WITH_PASSES: run.flops}
        for name, flops in counts.items():
            rows[model, name] = {"model": model, "method": method, "name": name, **flops}
    table = pd.DataFrame(rows.values())
    sft = table[table.method == "sft"].set_index("model").total
    return table.assign(ratio=table.total / table.model.map(sft))


def reported() -> pd.DataFrame:
    """Table 7 with the columns model, name, total (FLOPs), ratio; no average row."""
    wide = reported_numbers.table("table7").set_index("model").drop(AVERAGE)
    tidy = (1e15 * wide).rename_axis(columns="name").stack().rename("total").dropna().reset_index()
    return tidy.assign(ratio=tidy.total / tidy.model.map(1e15 * wide["SFT"]))


def _order(names) -> list[str]:
    """Names in the order of the methods, mSFT by its budget."""
    place = {label(method): i for i, method in enumerate(METHODS)}
    place[WITH_PASSES] = place[label("ies")] + 0.5
    names = dict.fromkeys(names)
    return sorted(
        names, key=lambda n: (place.get(n.split(" (C=")[0], 99), float(n[:-1].split("C=")[-1] if "C=" in n else 0))
    )


TABLE7_CAPTION = (
    "Training, look-ahead and evaluation compute of a run by model and method; the unit stands in the first column. IES as Table 7 "
    "counts it (an example that sits out costs nothing), and with the forward passes that it really takes."
)


def table7(table: pd.DataFrame, theirs: pd.DataFrame | None = None) -> pd.DataFrame:
    """Table 7: total compute, rows are models and their average, columns are methods; its unit names the rows.

    theirs: the reported numbers, put below each row of ours.  A column that lacks a model has no average.
    """
    divisor, unit = unit_of(table.total.max())
    names = _order(table.name)

    def wide(rows):
        shown = rows.pivot(index="model", columns="name", values="total").reindex(index=models, columns=names)
        shown.loc[AVERAGE] = shown.mean(skipna=False)
        return shown / divisor

    models = list(table.model.unique())
    if theirs is None:
        return wide(table).rename_axis(index=f"model ({unit})", columns=None)
    both = pd.concat({"here": wide(table), "paper": wide(theirs)}, names=["source"]).swaplevel()
    rows = [(model, source) for model in [*models, AVERAGE] for source in ("here", "paper")]
    return both.loc[rows].rename_axis(index=[f"model ({unit})", "source"], columns=None)


RATIOS_CAPTION = (
    "Compute over that of SFT on the same model: mean, lowest and highest of the paper's models, and each model here. Ratios "
    "have no scale, but they depend on how long the evaluated answers are beside the training examples."
)


def ratios(table: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Compute over that of SFT of the same model, which has no scale: the paper's mean and range, ours by model."""
    paper = theirs.groupby("name").ratio
    ours = table.pivot(index="name", columns="model", values="ratio")[list(table.model.unique())]
    names = _order([*table.name, *theirs.name])
    columns = {"paper, mean": paper.mean(), "paper, lowest": paper.min(), "paper, highest": paper.max()}
    shown = pd.concat([pd.DataFrame(columns), ours.add_prefix("here, ")], axis=1)
    return shown.reindex(names).rename_axis(index="method", columns=None)


def look_ahead_share(run) -> float:
    """Look-ahead FLOPs over the training part of SFT that the settings of a DynamixSFT run imply, were all examples
    equally long: 8 tokens' worth a look-ahead token against 6 a trained one."""
    params = run.config.params
    sizes = [counts["train"] for counts in run.about["mixture"]["sub_datasets"].values()]
    seen = params["updates"] * sum(min(params["look_ahead_batch"], size) for size in sizes)
    return LOOK_AHEAD * seen / (TRAIN * sum(sizes) * params["epochs"])


IDENTITIES_CAPTION = (
    "Identities of Table 7, in the paper and measured here. The second row is what the settings imply when all examples are "
    "equally long; for the paper, look-ahead batches of 128 over 10 epochs of 18,000 examples."
)


def identities(runs) -> pd.DataFrame:
    """One row an identity of Table 7: the paper's value, then for each model what its settings imply (the look-ahead
    alone) and what was measured."""
    theirs, claim = reported(), reported_numbers.claim("look-ahead overhead") / 100
    soft = theirs[theirs.name == label("soft_sro_sft")].ratio
    overhead, twice = {"paper": f"{claim:.3f}"}, {"paper": f"{soft.min():.2f} to {soft.max():.2f}"}
    implied = {"paper": f"{look_ahead_of_paper():.3f}"}
    for model in dict.fromkeys(key[0] for key in runs):
        name, sft = f"here, {reported_numbers.model_label(model)}", runs[model, "sft"].flops
        dynamix = runs[model, "dynamix_sft"]
        overhead[name] = f"{(dynamix.flops['total'] - sft['total']) / sft['train']:.3f}"
        implied[name] = f"{look_ahead_share(dynamix):.3f}"
        twice[name] = f"{runs[model, 'soft_sro_sft'].flops['total'] / sft['total']:.2f}"
    rows = {
        "(DynamixSFT - SFT) / training of SFT": overhead,
        "the same, from the settings alone": implied,
        "Soft SRO SFT / SFT": twice,
    }
    return pd.DataFrame(rows).T.rename_axis(index="identity")


def look_ahead_of_paper(batch: int = 128, epochs: float = 10, sub_datasets: int = 10, examples: int = 18_000) -> float:
    """The same share at the paper's settings: 100 look-aheads at `batch` examples a sub-dataset."""
    return LOOK_AHEAD * 100 * batch * sub_datasets / (TRAIN * examples * epochs)


IMPLIED_LENGTHS_CAPTION = (
    "What the paper's Table 7 implies: the training and evaluation parts of SFT, the tokens of a training example and of an "
    "evaluated item, and Continual SFT as reported beside two ways of counting its evaluations. Parameters as the model cards "
    "state them; nothing here is measured."
)


def implied_lengths() -> pd.DataFrame:
    """One row a model of Table 7: SFT's training and evaluation parts (PFLOPs), and the tokens of a training example and
    of an evaluated item that they imply.

    The training part is DynamixSFT's surplus over the stated overhead; parameters as the model cards state them;
    18,000 examples for 10 epochs, 40 evaluations of 2,000 items.  The last three columns (PFLOPs): what Table 7 reports for
    Continual SFT, and what two ways of counting its evaluations give.
    """
    wide = reported_numbers.table("table7").set_index("model").drop(AVERAGE)
    parameters = pd.Series({reported_numbers.model_label(name): value for name, value in cost.PARAMETERS.items()})
    train = (wide["DynamixSFT"] - wide["SFT"]) / (reported_numbers.claim("look-ahead overhead") / 100)
    evaluate, parameters = wide["SFT"] - train, parameters[wide.index]
    columns = {
        "training of SFT (PFLOPs)": train,
        "evaluation of SFT (PFLOPs)": evaluate,
        "tokens a training example": 1e15 * train / (TRAIN * parameters * 18_000 * 10),
        "tokens an evaluated item": 1e15 * evaluate / (FORWARD * parameters * 2_000 * 40),
        # ten stages of 3 epochs on a tenth each: 0.3 of SFT's training and three times its 40 evaluations, or a third
        # of a third of those where only the sub-dataset that is trained counts (and the other nine once a stage)
        "Continual SFT, reported": wide["Continual SFT"],
        "if all ten are evaluated": 0.3 * train + 3 * evaluate,
        "if those not trained count once": 0.3 * train + (0.3 + 90 / 400) * evaluate,
    }
    table = pd.DataFrame(columns)
    other = table.loc[["OLMo 2 1B"]].rename(index={"OLMo 2 1B": f"OLMo 2 1B, if N = {OTHER_N:g}"})
    lengths = [name for name in table if name.startswith("tokens")]
    other[lengths] *= parameters["OLMo 2 1B"] / OTHER_N
    return pd.concat([table, other])


LIMITS_CAPTION = (
    "What two columns of Table 7 can be at the tokens that it implies itself (PFLOPs): IES as reported, the least that it can cost when "
    "examples that sit out cost nothing or a forward pass, all of them from epoch 4 on; and mSFT (C=3) as reported beside the least "
    "that ten stages of 3 epochs can cost, the longest sub-dataset dropped first. Nothing here is measured."
)


def limits() -> pd.DataFrame:
    """One row a model of Table 7: IES and mSFT (C=3) as reported (PFLOPs), and the least that they can have cost."""
    wide, parts = reported_numbers.table("table7").set_index("model").drop(AVERAGE), implied_lengths().loc[:"Qwen3 8B"]
    train, evaluate = parts["training of SFT (PFLOPs)"], parts["evaluation of SFT (PFLOPs)"]
    ours = [run for run in read_grid("paper").runs if run.method == "msft"]
    least = cost.against_table7(ours)
    columns = {
        "IES, reported": wide["IES"],
        "least, sitting out is free": 0.3 * train + evaluate,
        "least, with forward passes": (0.3 + 0.7 * FORWARD / TRAIN) * train + evaluate,
        "mSFT (C=3), reported": wide["mSFT (C=3)"],
        "least, longest dropped first": least[least.method == "mSFT (C=3)"].set_index("model")["from"],
    }
    return pd.DataFrame(columns).loc[wide.index].rename_axis("model")


PANELS_CAPTION = (
    "Left: compute of one run of each method on the first model, counted from the tokens really trained and evaluated (appendix "
    "F). Right: over the compute of SFT on the same model, a dot for each model here and a ring for each in the paper."
)


def panels(table: pd.DataFrame, theirs: pd.DataFrame, focus: str, axes=None):
    """Left: compute of each method on one model by its parts. Right: over SFT's, a dot a model, paper's as rings.

    focus: the model of the left panel, by the paper's name.  Returns the pair of axes.
    """
    if axes is None:
        _, axes = plt.subplots(1, 2, figsize=(COLUMN, 2.5), sharey=True, layout="constrained")
    left, right = axes
    names = _order(table.name)
    handles = _parts(left, table[table.model == focus].set_index("name"), names)
    left.set_title(focus)
    handles += _over_sft(right, table, theirs[theirs.name.isin(names)], names)
    legend(left.figure, handles)
    for axis in axes:
        axis.grid(axis="y", visible=False)
    return say((left, right), _title(table, theirs))


def _title(table: pd.DataFrame, theirs: pd.DataFrame) -> str:
    by_name, paper = table.groupby("name").ratio, theirs.groupby("name").ratio.mean()
    names = [name for name in _order(table.name) if name.startswith("mSFT")]
    words = []
    for name in names:
        ours, theirs_too = by_name.get_group(name), f"; the paper {paper[name]:.2f}" if name in paper else ""
        value = findings.mean(ours, 2) if len(ours) > 1 else f"{ours.iloc[0]:.2f}"
        models = f"{len(ours)} model{'s' * (len(ours) > 1)}"
        what = " times" if words else " times SFT's compute"
        words.append(f"{value}{what} at {name[len('mSFT (') : -1].replace('=', ' = ')} ({models}{theirs_too})")
    return f"mSFT takes {' and '.join(words)}"


def _parts(axis, rows: pd.DataFrame, names: list[str]) -> list:
    """Bars of training, look-ahead and evaluation of one model, a line a name; returns the legend's handles."""
    divisor, unit = unit_of(rows.total.max())
    places, start = [names.index(name) for name in rows.index], np.zeros(len(rows))
    shades = {"train": 1.0, "look_ahead": 0.65, "evaluate": 0.35}
    for part in PARTS:
        values = rows[part].to_numpy() / divisor
        if values.any():
            # mixed with white rather than transparent, so that no grid is seen through them
            shown = [1 - shades[part] * (1 - np.array(_rgb(method))) for method in rows.method]
            axis.barh(places, values, left=start, height=0.65, color=shown)
        start += values
    axis.set_yticks(range(len(names)), [name.replace(", ", ",\n") for name in names])
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlabel(f"compute of a run ({unit})")
    words = zip(PARTS, ("training", "look-ahead", "evaluation"), strict=True)
    return [plt.Rectangle((0, 0), 1, 1, color="0.2", alpha=shades[part], lw=0, label=word) for part, word in words]


def _over_sft(axis, table: pd.DataFrame, theirs: pd.DataFrame, names: list[str]) -> list:
    """Ratios to SFT, a dot a model and a ring for each of the paper's; returns the legend's handles."""
    ring = {"mfc": "none", "mec": "0.35", "mew": 0.6, "ms": 2.8}
    for name, rows in table[table.name != label("sft")].groupby("name", sort=False):
        shade = colour(rows.method.iloc[0])
        axis.plot(rows.ratio, np.full(len(rows), names.index(name) - 0.12), "o", color=shade, ms=3, alpha=0.8)
    for name, rows in theirs[theirs.name != label("sft")].groupby("name"):
        axis.plot(rows.ratio, np.full(len(rows), names.index(name) + 0.14), "o", **ring)
    axis.axvline(1, color=colour("sft"), lw=1)
    axis.tick_params(labelleft=False)
    axis.set_xlabel("compute (times SFT's)")
    axis.set_title("every model")
    return [
        plt.Line2D([], [], color="0.2", marker="o", ls="", ms=3, label="here"),
        plt.Line2D([], [], marker="o", ls="", label="paper", **ring),
        plt.Line2D([], [], color=colour("sft"), lw=1, label="SFT"),
    ]


def _rgb(method: str):
    from matplotlib.colors import to_rgb

    return to_rgb(colour(method))


def finding(table: pd.DataFrame, theirs: pd.DataFrame) -> str:
    """Each method's compute over SFT's, here and in the paper, and who is on another side of SFT than there."""
    by_name, paper = table.groupby("name").ratio, theirs.groupby("name").ratio.mean()
    names = [name for name in _order(table.name) if name in paper.index and name != label("sft")]
    ratios = {name: by_name.get_group(name) for name in names}
    parts = [f"{name} {findings.mean(here, 2)} ({paper[name]:.2f})" for name, here in ratios.items()]
    other = [name for name, here in ratios.items() if (here.mean() > 1) != (paper[name] > 1)]
    return (
        f"Compute over SFT's, mean and 95 % interval over n = {table.model.nunique()} models (in the paper): {', '.join(parts)}. On "
        f"the other side of SFT than in the paper: {', '.join(other) or 'none'}; a ratio depends on how long evaluated answers are "
        "beside training examples, and with tiny models so does its distance to the paper's."
    )
