"""Training loss of SFT and of mSFT along the path that it kept (Fig. 9, 14, 15)."""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from paper_figures import data, findings
from paper_figures.reported_numbers import model_label
from paper_figures.style import colour, label, panels

METHODS = ("sft", "msft")


def needs(page) -> dict:
    """{(model, method): RunConfig} of SFT and mSFT for every model of the profile and its focus."""
    models = dict.fromkeys([page.focus, *page.models])
    return {(model, method): page.config(method, model=model) for model in models for method in METHODS}


def curve(run) -> pd.DataFrame:
    """Training loss along the path of the kept weights: stage, path_epoch, train_loss (nats).

    A loss is the mean over the optimizer steps between two evaluations and stands at the second of them. It covers
    what was trained there: after an exclusion the mixture is another, so part of a change is one of composition.
    """
    rows = data.path(run).drop_duplicates(["stage", "epoch"]).dropna(subset="train_loss")
    return rows[["stage", "path_epoch", "train_loss"]].sort_values("path_epoch", kind="stable").reset_index(drop=True)


def branch_to_best(run) -> pd.DataFrame:
    """The losses from the kept path to the best checkpoint: path_epoch, train_loss (nats), the last row is the best.

    The best checkpoint may lie in a part of a roll-out that was rolled back; the rows then begin where the kept path
    leaves it. Empty where the base model is the best, which no training came before.
    """
    best, stages = run.result["best"], data.stages(run).set_index("stage")
    rows = run.history[run.history.stage == best["stage"]].drop_duplicates("epoch").dropna(subset="train_loss")
    rows = rows[rows.epoch <= best["epoch"]]
    left = rows[rows.path_epoch > stages.kept_until[best["stage"]]]
    kept = curve(run)
    before = kept[kept.path_epoch <= stages.kept_until[best["stage"]]].tail(1)
    branch = pd.concat([before, left]) if len(left) else rows.tail(1)
    return branch[["path_epoch", "train_loss"]].reset_index(drop=True)


PANELS_CAPTION = (
    "Training loss in nats (logarithmic, mean since the evaluation before) of SFT and of mSFT along its kept path against epochs; "
    "stars: best checkpoints, a thin dashed line leads to one in a part that was rolled back; ticks below: exclusions."
)


def panels_of(runs, models, axes=None):
    """Training loss against epoch, one panel a model: SFT and mSFT, a star at each best checkpoint, a tick for every
    exclusion, a thin line where the best checkpoint lies off the kept path.

    runs: {(model, method): run}.  models: those to draw.  axes: a flat array, made where absent. Returns it.
    """
    models = list(models)
    if axes is None:
        columns, height = (len(models) if len(models) < 4 else 3), (2.4 if len(models) == 1 else 1.9)
        axes = panels(len(models), "epoch (mSFT: along the kept path)", "training loss (nats)", height, columns)
    for axis, model in zip(axes, models, strict=False):
        for method in METHODS:
            _losses(axis, runs[model, method], method)
        excluded = exclusions(runs[model, "msft"])
        axis.vlines(excluded, 0, 0.06, transform=axis.get_xaxis_transform(), color=colour("msft"), lw=1.2)
        # the first epoch takes the loss down by an order of magnitude; what follows needs a logarithm to be seen
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.set_title(model_label(model))
        axis.set_xlim(left=-0.015 * axis.get_xlim()[1])  # an exclusion at the very start is seen too
    marks = {"color": "0.2", "ls": "none"}
    handles = [Line2D([], [], color=colour(method), lw=1.4, label=label(method)) for method in METHODS]
    handles += [
        Line2D([], [], marker="*", ms=8, label="best checkpoint", **marks),
        Line2D([], [], color="0.2", lw=0.8, ls=(0, (2, 1)), label="to a best checkpoint off the kept path"),
        Line2D([], [], marker="|", ms=7, mew=1.2, label="exclusion", **{**marks, "color": colour("msft")}),
    ]
    axes[0].figure.legend(handles=handles, loc="outside upper center", ncols=5, frameon=False, handlelength=1.6)
    return axes


def _losses(axis, run, method: str) -> None:
    """The losses of one run, the way to its best checkpoint and a star there."""
    rows, best = curve(run), branch_to_best(run)
    axis.plot(rows.path_epoch, rows.train_loss, color=colour(method), lw=1.4)
    axis.plot(best.path_epoch, best.train_loss, color=colour(method), lw=0.8, ls=(0, (2, 1)))
    # both may be best at one point: the larger star of SFT stays visible below
    size = {"s": 150, "lw": 0.5} if method == "sft" else {"s": 45, "lw": 0}
    end = best.tail(1)
    axis.scatter(end.path_epoch, end.train_loss, marker="*", color=colour(method), edgecolor="white", zorder=3, **size)


def exclusions(msft) -> list[float]:
    """Path epochs at which mSFT dropped a sub-dataset, in order."""
    return list(data.drops(msft).values())


COMPARE_CAPTION = (
    "Training loss of mSFT against SFT at the same epochs: the epoch of the first exclusion, the intervals compared behind it, the "
    "share in which mSFT is lower, the mean difference mSFT minus SFT, and the losses of the intervals that end at the best "
    "checkpoints, in nats."
)


def compare(runs) -> pd.DataFrame:
    """SFT and mSFT at the same epochs after the first exclusion, one row a model.

    Until the first exclusion both train the same batches, and the losses are equal. Columns: first exclusion (epoch),
    compared (evaluation intervals that both have after it), mSFT lower (percent of them), difference (mean of mSFT
    minus SFT, nats), and the loss of the interval that ends at each best checkpoint.
    """
    rows = {}
    for model in dict.fromkeys(model for model, _ in runs):
        sft, msft = runs[model, "sft"], runs[model, "msft"]
        both = curve(sft).merge(curve(msft), on="path_epoch", suffixes=("_sft", "_msft"))
        first = min(exclusions(msft), default=np.inf)
        both = both[both.path_epoch > first]
        difference = both.train_loss_msft - both.train_loss_sft
        row = {"first exclusion": first if np.isfinite(first) else np.nan, "compared": len(both)}
        row |= {"mSFT lower (%)": 100 * (difference < 0).mean() if len(both) else np.nan}
        row |= {"difference (nats)": difference.mean()}
        for method in METHODS:
            best = branch_to_best(runs[model, method]).train_loss
            row[f"at the best of {label(method)}"] = best.iloc[-1] if len(best) else np.nan
        rows[model_label(model)] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


def finding(table: pd.DataFrame) -> str:
    """On how many models mSFT has the lower training loss, and by how much. table: as compare gives it."""
    differences = table["difference (nats)"].dropna()
    if differences.empty:
        return "No model has epochs after a first exclusion that both runs have, so that there is nothing to compare."
    return (
        f"After the first exclusion mSFT's training loss is the lower one on {(differences < 0).sum()} of n = {len(differences)} "
        f"models, by {findings.mean(differences, 3, signed=True)} nats on average (mSFT minus SFT, 95 % "
        "interval over models, one run each). It falls short of a like-for-like comparison: after an exclusion mSFT trains on "
        "another mixture with a fresh optimizer."
    )
