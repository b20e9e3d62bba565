"""What mSFT gains over SFT, in two parts: prevented over-fitting, and forgetting after exclusion (Fig. 8, Eq. 4)."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from paper_figures import data, findings
from paper_figures.reported_numbers import model_label
from paper_figures.style import COLUMN, colour, legend, pretty, say

_PARTS = {
    "forgetting": ("change after its own peak (Eq. 4)", "0.6"),
    "prevention": ("prevented over-fitting", None),
}


def needs(page) -> dict:
    """{(model, method): RunConfig} of SFT and mSFT for every model of the profile and its focus."""
    models = dict.fromkeys([page.focus, *page.models])
    return {(model, method): page.config(method, model=model) for model in models for method in ("sft", "msft")}


def own_peaks(msft) -> pd.DataFrame:
    """Where each sub-dataset peaked in the roll-out search, one row each in mixture order.

    The own peak is the earliest best evaluation of the LAST stage that trained the sub-dataset. For one that was
    dropped, that is the point that its stage was rolled back to (Algorithm 1, line 5); for one that never was, the
    best of the stage in which the search ended. Later evaluations that happen to be higher do not count.

    Columns: task, stage and epoch within it (those that first reached the point), path_epoch, peak (test accuracy
    0..1), dropped (bool).
    """
    stages, history = data.stages(msft), msft.history
    dropped = set(stages.dropped.dropna())
    rows = []
    for task in history.task.unique():
        last = max(row.stage for row in stages.itertuples() if task in row.active)
        curve = history[(history.stage == last) & (history.task == task)].sort_values("epoch")
        # decisions were taken on `selection`, which is the test accuracy unless the run selects on a validation set
        top = curve.loc[curve.selection.idxmax()]
        stage, epoch = data.evaluated_at(msft, last, top.epoch)
        row = {"task": task, "stage": stage, "epoch": epoch, "path_epoch": top.path_epoch}
        rows.append({**row, "peak": top.accuracy, "dropped": task in dropped})
    return pd.DataFrame(rows)


def decompose(sft, msft) -> pd.DataFrame:
    """The two parts of each sub-dataset's gain over SFT, one row each in mixture order.

    With theta* the best overall checkpoint of mSFT and theta_i the own peak of sub-dataset i (see own_peaks):

        forgetting_i = acc_i(theta*) - acc_i(theta_i)                                     (Eq. 4)
        prevention_i = (acc_i(theta*) - acc_i(best overall checkpoint of SFT)) - forgetting_i
                     = acc_i(theta_i) - acc_i(best overall checkpoint of SFT)

    so that forgetting + prevention = gain.  A negative forgetting is an accuracy lost after the peak, a positive one
    transfer from the sub-datasets that went on.

    Columns: task; forgetting, prevention, gain (points of test accuracy); peak_epoch, dropped (bool); later (bool:
    theta* was not trained on from theta_i, so that forgetting_i is no loss that came after the peak).
    """
    peaks, best = own_peaks(msft).set_index("task"), msft.result["best"]
    ours, theirs = data.at_best(msft), data.at_best(sft)
    gain, forgetting = 100 * (ours - theirs), 100 * (ours - peaks.peak)
    later = (peaks.stage > best["stage"]) | ((peaks.stage == best["stage"]) & (peaks.epoch > best["epoch"]))
    columns = {"forgetting": forgetting, "prevention": gain - forgetting, "gain": gain}
    table = pd.DataFrame({**columns, "peak_epoch": peaks.path_epoch, "dropped": peaks.dropped, "later": later})
    return table.loc[ours.index].rename_axis("task").reset_index()


BARS_CAPTION = (
    "Gain of mSFT over SFT (diamonds, points of test accuracy at the best overall checkpoints) on each sub-dataset and their mean, "
    "split by Eq. 4 into the change since the sub-dataset's own peak (grey; negative: forgetting) and prevented over-fitting (colour); "
    "* marks a peak after the best checkpoint. ± and the line through the mean's diamond: 95 % interval over the sub-datasets."
)


def bars(table: pd.DataFrame, ax=None):
    """Fig. 8: both parts of the gain of each sub-dataset and of their mean, as diverging bars, the sum as a diamond, of the mean with its interval.

    table: as decompose gives it.  Sub-datasets by gain, best on top; '*' marks those whose peak came after the best
    checkpoint. Returns the axes.
    """
    rows = table.sort_values("gain", ascending=False, kind="stable")
    if ax is None:
        _, ax = plt.subplots(figsize=(COLUMN, 0.16 * len(rows) + 0.7), layout="constrained")
    y = np.append(np.arange(len(rows)), len(rows) + 0.4)
    for part, (words, shade) in _PARTS.items():
        values = np.append(rows[part], rows[part].mean())
        # two parts of one sign stand on each other, of two signs on both sides of zero
        start = np.zeros(len(values))
        if part == "prevention":
            before = np.append(rows.forgetting, rows.forgetting.mean())
            start = np.where(np.sign(before) == np.sign(values), before, 0.0)
        ax.barh(y, values, left=start, height=0.66, color=shade or colour("msft"), label=words)
    ax.plot(
        np.append(rows.gain, rows.gain.mean()), y, "D", ms=2.8, color="0.1", mec="white", mew=0.4, label="gain over SFT"
    )
    half = findings.half_width(rows.gain)
    if np.isfinite(half):
        ends = rows.gain.mean() + np.array([-half, half])
        ax.plot(ends, [y[-1]] * 2, color="0.1", lw=0.8, label="95 % interval of its mean")
    ax.axvline(0, color="0.2", lw=0.6)
    ax.axhline(len(rows) - 0.3, color="0.6", lw=0.6)
    names = [pretty(row.task) + (" *" if row.later else "") for row in rows.itertuples()]
    ax.set_yticks(y, [*names, "mean"])
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.margins(y=0.02)
    ax.set_xlabel("points of test accuracy" + ("; *: peak after the best checkpoint" if rows.later.any() else ""))
    legend(ax.figure, *ax.get_legend_handles_labels())
    told = []
    for part, words in (("prevention", "prevented over-fitting"), ("forgetting", "forgetting (Eq. 4)")):
        is_shown = abs(table[part].mean()) > findings.half_width(table[part])
        told.append(
            f"{words} {findings.mean(table[part], signed=True)} points{'' if is_shown else ' (cannot tell from 0)'}"
        )
    return say(ax, f"Mean over {len(table)} sub-datasets: {'; '.join(told)}")


READABLE_CAPTION = (
    "Forgetting (Eq. 4) and prevented over-fitting of each sub-dataset in points of test accuracy, which add up to the gain of mSFT "
    "over SFT, and where its own peak lies."
)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The parts with a row 'mean', named for a reader."""
    shown = table.drop(columns="dropped").assign(later=np.where(table.later, "yes", "no")).set_index("task")
    parts = ["forgetting", "prevention", "gain"]
    shown.loc["mean", parts] = table[parts].mean()
    shown.loc["mean", "later"] = "–"
    names = {"peak_epoch": "own peak (epoch)", "later": "peak after the best checkpoint", "gain": "gain over SFT"}
    return shown.rename(columns=names).rename_axis("sub-dataset")


BY_MODEL_CAPTION = (
    "Means over the sub-datasets in points of test accuracy for every model, each with half of its 95 % interval over the sub-datasets "
    "(±), how many sub-datasets have a negative Eq. 4, and how many peaked after the best checkpoint."
)


def by_model(runs) -> pd.DataFrame:
    """Means over the sub-datasets for each model: forgetting, prevention, gain (points) with half of their intervals, and
    how many sub-datasets have a negative forgetting, and a peak after the best checkpoint."""
    rows = {}
    for model in dict.fromkeys(model for model, _ in runs):
        table = decompose(runs[model, "sft"], runs[model, "msft"])
        means = {}
        for part, name in (("forgetting",) * 2, ("prevention",) * 2, ("gain", "gain over SFT")):
            means |= {name: table[part].mean(), f"± of {part}": findings.half_width(table[part])}
        counts = {"sub-datasets": len(table), "forgetting < 0": int((table.forgetting < 0).sum())}
        rows[model_label(model)] = {**means, **counts, "peak after the best": int(table.later.sum())}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


def finding(table: pd.DataFrame) -> str:
    """Both parts of the gain with their intervals, and what noise does to them. table: as decompose gives it."""
    words = {part: findings.mean(table[part], signed=True) for part in ("prevention", "forgetting", "gain")}
    return (
        f"Prevented over-fitting is {words['prevention']} points and forgetting (Eq. 4) {words['forgetting']}, together "
        f"{words['gain']} over SFT (means and 95 % intervals over n = {len(table)} sub-datasets, one run a method). The two parts "
        "fall short of a proof: an own peak is the highest of many noisy measurements, which alone makes the first positive and "
        f"Eq. 4 negative, and {int(table.later.sum())} sub-datasets peaked after the best checkpoint, so that Eq. 4 holds what "
        "they had yet to learn."
    )
