"""Training loss of SFT and mSFT on the sub-datasets that both still train (Fig. 9, 14, 15)."""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from paper_figures import data, findings, reported_numbers
from paper_figures.reported_numbers import model_label
from paper_figures.style import colour, label, legend, panels, say

METHODS = ("sft", "msft")


def needs(page) -> dict:
    """{(model, method): RunConfig} of SFT and mSFT for every model of the profile and its example."""
    models = dict.fromkeys([page.example, *page.models])
    return {(model, method): page.config(method, model=model) for model in models for method in METHODS}


def losses(sft, msft) -> pd.DataFrame:
    """One row an epoch and sub-dataset that both train there: path_epoch, task, sft and msft (nats).

    mSFT stands along the path of the weights that it kept. A loss is the mean over the sub-dataset's target tokens that were
    trained since the evaluation before. Empty for runs that did not note it.
    """
    ours = data.path(msft)
    ours = ours[ours.active].sort_values("path_epoch", kind="stable")
    both = ours.merge(sft.history, on=["path_epoch", "task"], suffixes=("_msft", "_sft"))
    both = both.rename(columns={"task_train_loss_msft": "msft", "task_train_loss_sft": "sft"})
    return both[["path_epoch", "task", "sft", "msft"]].dropna().reset_index(drop=True)


PANELS_CAPTION = (
    "Training loss in nats (logarithmic, mean since the evaluation before) of SFT and of mSFT along its kept path against epochs: at "
    "each epoch the mean over the sub-datasets that mSFT still trains there, for both alike. Ticks below: exclusions. In brackets in the "
    "title: 95 % interval over the sub-datasets, after the first exclusion."
)


def panels_of(runs, models, axes=None):
    """Training loss against epoch, one panel a model: SFT and mSFT on the same sub-datasets, a tick for every exclusion.

    runs: {(model, method): run}.  models: those to draw.  axes: a flat array, made where absent. Returns it.
    """
    models = list(models)
    if axes is None:
        axes = panels(
            len(models),
            "epoch (mSFT: along the kept path)",
            "training loss (nats a token)",
            1.7 if len(models) == 1 else 1.3,
            3,
        )
    for axis, model in zip(axes, models, strict=True):
        msft = runs[model, "msft"]
        means = losses(runs[model, "sft"], msft).groupby("path_epoch")[list(METHODS)].mean()
        for method in METHODS:
            axis.plot(means.index, means[method], color=colour(method), lw=1.1)
        axis.vlines(exclusions(msft), 0, 0.06, transform=axis.get_xaxis_transform(), color=colour("msft"), lw=0.9)
        # the first epoch takes the loss down by an order of magnitude; what follows needs a logarithm to be seen
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axis.set_title(model_label(model))
        axis.set_xlim(left=-0.015 * axis.get_xlim()[1])  # an exclusion at the very start is seen too
    handles = [Line2D([], [], color=colour(method), label=label(method)) for method in METHODS]
    marker = {"color": colour("msft"), "ls": "none", "marker": "|", "ms": 5, "mew": 0.9}
    handles.append(Line2D([], [], label="exclusion", **marker))
    legend(axes[0].figure, handles)
    return say(axes, title(compare({key: run for key, run in runs.items() if key[0] in models})))


def exclusions(msft) -> list[float]:
    """Path epochs at which mSFT dropped a sub-dataset, in order."""
    return list(data.drops(msft).values())


COMPARE_CAPTION = (
    "Training loss of mSFT minus that of SFT on the sub-datasets that both train, after the first exclusion: its epoch, the pairs of "
    "interval and sub-dataset, the share in which mSFT is lower, and the mean difference in nats with its 95 % interval over the "
    "sub-datasets."
)


def compare(runs) -> pd.DataFrame:
    """SFT and mSFT on the sub-datasets that both train after the first exclusion, one row a model.

    Until the first exclusion both train the same batches, and the losses are equal. Columns: first exclusion (epoch),
    compared (pairs of evaluation interval and sub-dataset), mSFT lower (percent of them), difference (mean over the
    sub-datasets of mSFT minus SFT, nats), low and high (its 95 % t interval over the sub-datasets).
    """
    rows = {}
    for model in dict.fromkeys(model for model, _ in runs):
        first = min(exclusions(runs[model, "msft"]), default=np.inf)
        both = losses(runs[model, "sft"], runs[model, "msft"])
        both = both[both.path_epoch > first]
        apart = both.msft - both.sft
        by_task = apart.groupby(both.task).mean()
        mean, half = by_task.mean(), findings.half_width(by_task)
        rows[model_label(model)] = {
            "first exclusion": first if np.isfinite(first) else np.nan,
            "compared": len(both),
            "mSFT lower (%)": 100 * (apart < 0).mean() if len(both) else np.nan,
            "difference (nats)": mean,
            "low": mean - half,
            "high": mean + half,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


AGAINST_PAPER_CAPTION = (
    "Training loss of mSFT minus that of SFT (nats) on the sub-datasets that both still train, after the first exclusion. The paper "
    "shows curves, no number." + reported_numbers.told("the sub-datasets, one run each")
)


def against_paper(table: pd.DataFrame) -> pd.DataFrame | None:
    """The difference of each model by direction: the paper has a lower loss under mSFT; None where no model has one.

    table: as compare gives it.
    """
    known = table.dropna(subset="difference (nats)")
    pairs = {
        f"training loss of mSFT over SFT, {model}": ("lower", row["difference (nats)"], row.low, row.high)
        for model, row in known.iterrows()
    }
    return reported_numbers.directions(pairs, unit="nats") if pairs else None


def title(table: pd.DataFrame) -> str:
    """The sentence above the picture: on how many models the loss is shown to differ. table: as compare gives it."""
    known = table.dropna(subset="difference (nats)")
    if known.empty:
        return "Nothing to compare: no sub-dataset is trained by both after a first exclusion"
    lower, higher, count = (known.high < 0).sum(), (known.low > 0).sum(), len(known)
    words = [f"{word}{f' on {shown}' * (count > 1)}" for word, shown in (("lower", lower), ("higher", higher)) if shown]
    among = f" of {count} models" * (count > 1)
    verdict = (
        f"mSFT's training loss is {' and '.join(words)}{among}" if words else "cannot tell whose training loss is lower"
    )
    spans = []
    for name, row in known.iterrows():
        span = "no interval" if np.isnan(row.low) else f"{row.low:+.3f} to {row.high:+.3f}"
        spans.append(f"{row['difference (nats)']:+.3f} nats ({f'{name}, ' * (count > 1)}{span})")
    return f"On what both still train, {verdict}; mSFT minus SFT {', '.join(spans)}"


def finding(table: pd.DataFrame) -> str:
    """On how many models mSFT has the lower training loss, and by how much. table: as compare gives it."""
    differences = table["difference (nats)"].dropna()
    if differences.empty:
        return "No model has sub-datasets that both runs train after a first exclusion, so that there is nothing to compare."
    return (
        f"After the first exclusion mSFT's training loss on what both still train is the lower one on {(differences < 0).sum()} of "
        f"n = {len(differences)} models, by {findings.mean(differences, 3, signed=True)} nats on average (mSFT minus SFT, 95 % "
        "interval over models, one run each). It falls short of a proof of the paper's reason, relief from gradient conflict: after an "
        "exclusion mSFT has a fresh optimizer too."
    )
