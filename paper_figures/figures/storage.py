"""Disk: the copies that Algorithm 4 keeps alive, its bound, and what a run really held on disk (Fig. 16 to 18)."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from msft.curve import overall
from paper_figures import findings, reported_numbers
from paper_figures.style import COLUMN, colour, panels, say

MEASURED = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "storage.json"
CLAIM = "mean disk use of mSFT"  # how the paper's number begins in text_claims.csv


def needs(page) -> dict:
    """{(what varies, value): RunConfig}: mSFT by model, by size of the mixture, and by compute budget C."""
    models = {("model", model): page.config("msft", model=model) for model in page.models}
    sizes = {("mixture", str(count)): page.config("msft", mixture=name) for count, name in page.mixtures.items()}
    granular = {("mixture", "granular"): page.config("msft", mixture=page.granular)}
    budgets = {("C", f"{c:g}"): page.config("msft", params={"budget": c}) for c in page.budgets}
    return models | sizes | granular | budgets


def replay(run) -> pd.DataFrame:
    """Algorithm 4 played over a finished mSFT run: one row an evaluation, copies alive once it is done.

    Columns: stage, trained (epochs trained up to here, those that were rolled back too), active (sub-datasets), live
    (different checkpoints on disk), bound (live peaks <= min(active + 1, evaluations), and the two retained ones).
    A checkpoint with several holders, and a retained one that is a peak too, is one copy.
    """
    rows, trained, best = [], 0.0, (-1.0, None)
    retained: set = set()
    start, names = None, {}  # the checkpoint that the stage begins with; of the stage, by epoch
    for entry in run.journal:
        if entry["kind"] == "roll_back":
            epoch = entry["arguments"]["epoch"]
            start = names[epoch]
            retained = {start, best[1]}
        if entry["kind"] != "roll_out":
            continue
        points, stage, active = entry["result"]["points"], entry["result"]["stage"], entry["arguments"]["active"]
        start = start or (stage, 0.0)
        names = {p["epoch"]: (stage, p["epoch"]) if p["epoch"] else start for p in points}
        holders: dict[str, tuple] = {}
        for seen, point in enumerate(points):
            whole = overall(point["selection"], point["selected_from"])
            for name, score in [*((task, point["selection"][task]) for task in active), ("", whole)]:
                if name not in holders or score > holders[name][0]:
                    holders[name] = (score, names[point["epoch"]])
            live = {holder for _, holder in holders.values()} | retained
            bound = min(len(active) + 1, seen + 1) + (2 if stage else 0)
            row = {"stage": stage, "trained": trained + point["epoch"], "active": len(active), "live": len(live)}
            rows.append({**row, "bound": bound})
            if whole > best[0]:
                best = (whole, names[point["epoch"]])
        trained += points[-1]["epoch"]
        start = names[points[-1]["epoch"]]
        retained = {start, best[1]}
    return pd.DataFrame(rows)


def on_disk_by_time(run) -> pd.DataFrame:
    """What was really on disk: minutes since the first entry of the ledger, copies of the weights, bound in copies."""
    disk = run.disk
    return pd.DataFrame({"minutes": (disk.time - disk.time.iloc[0]) / 60, "copies": disk.copies, "bound": disk.bound})


def mean_copies(run) -> float:
    """Copies of the weights on disk, averaged over the run's time."""
    ledger = on_disk_by_time(run)
    spans = np.diff(ledger.minutes)
    return float((ledger.copies.to_numpy()[:-1] * spans).sum() / spans.sum())


def predicted(run) -> float:
    """Mean copies that appendix H predicts: (N + 1) / 2 + 2 for N sub-datasets."""
    return (run.history.task.nunique() + 1) / 2 + 2


def label_of(key: tuple[str, str], run) -> str:
    """What a run is called in a figure; a mixture by the sub-datasets that it really has."""
    what, value = key
    if what == "model":
        return reported_numbers.model_label(value)
    if what == "C":
        return f"C = {value}"
    return "granular mixture" if value == "granular" else f"{run.history.task.nunique()} sub-datasets"


SUMMARY_CAPTION = (
    "Model copies of every mSFT run: by Algorithm 4 (mean over evaluations, peak, bound), the mean that appendix H predicts for its "
    "number N of sub-datasets, (N + 1) / 2 + 2, and really on disk (mean over the run's time, peak)."
)


def summary(runs) -> pd.DataFrame:
    """One row a run: copies by Algorithm 4 (mean over the evaluations, peak, bound), and really on disk (mean, peak)."""
    rows = {}
    for key, run in runs.items():
        copies = replay(run)
        rows[label_of(key, run)] = {
            "Algorithm 4, mean": copies.live.mean(),
            "predicted mean": predicted(run),
            "Algorithm 4, peak": float(copies.live.max()),
            "bound, peak": float(copies.bound.max()),
            "on disk, mean": mean_copies(run),
            "on disk, peak": float(run.disk.copies.max()),
        }
    return pd.DataFrame(rows).T.rename_axis("run")


LIVE_COPIES_CAPTION = (
    "Model copies that Algorithm 4 keeps alive after each evaluation of mSFT (line), their mean (dotted), the mean that appendix H "
    "predicts, (N + 1) / 2 + 2 (dash-dotted), and the bound (dashed) against the epochs trained."
)


def live_copies(runs, axes=None):
    """Copies alive by Algorithm 4 against the epochs trained, with the bound and each stage's begin; an axes a run."""
    if axes is None:
        axes = panels(len(runs), "epochs trained, rolled-back ones too", "model copies", 1.7, columns=3)
    lines = {}
    for axis, (key, run) in zip(axes, runs.items(), strict=True):
        copies = replay(run)
        (lines["bound"],) = axis.step(copies.trained, copies.bound, where="post", color="0.6", lw=1, ls="--")
        (lines["alive by Algorithm 4"],) = axis.step(
            copies.trained, copies.live, where="post", color=colour("msft"), lw=1.2
        )
        lines["mean"] = axis.axhline(copies.live.mean(), color=colour("msft"), lw=1.1, ls=":")
        lines["predicted mean"] = axis.axhline(predicted(run), color="0.15", lw=0.9, ls="-.")
        axis.set_title(f"{label_of(key, run)}\nmean {copies.live.mean():.1f}, predicted {predicted(run):.1f}")
        axis.set_ylim(0)
    axes[0].figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=4, frameon=False)
    means = [replay(run).live.mean() for run in runs.values()]
    below = sum(mean < predicted(run) for mean, run in zip(means, runs.values(), strict=True))
    return say(
        axes,
        f"Algorithm 4 keeps {min(means):.1f} to {max(means):.1f} model copies on average, fewer than predicted in {below} of "
        f"{len(means)} runs; the paper measured {reported_numbers.claim(CLAIM):g}",
    )


ON_DISK_CAPTION = (
    "Copies of the weights on disk during one mSFT run (its ledger: saved states, and at the end the best "
    "checkpoint), the mean over its time, the mean of Algorithm 4 and the paper's."
)


def on_disk(run, axis=None):
    """What the ledger of one run says: copies of the weights on disk against wall-clock time."""
    if axis is None:
        _, axis = plt.subplots(figsize=(1.3 * COLUMN, 2.3), layout="constrained")
    ledger, copies = on_disk_by_time(run), replay(run)
    theirs = reported_numbers.claim(CLAIM)
    axis.step(ledger.minutes, ledger.copies, where="post", color=colour("msft"), lw=1.4, label="on disk here")
    axis.axhline(mean_copies(run), color=colour("msft"), ls=":", lw=1.1, label=f"mean here, {mean_copies(run):.2f}")
    axis.axhline(theirs, color="0.35", ls="-.", lw=1, label=f"the paper's mean, {theirs:g}")
    axis.axhline(copies.live.mean(), color="0.6", ls="--", lw=1, label=f"Algorithm 4 here, {copies.live.mean():.2f}")
    axis.set(xlabel="minutes", ylabel="model copies")
    axis.set_ylim(0, 1.08 * max(theirs, copies.live.mean(), ledger.copies.max()))
    axis.figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return say(axis, f"{mean_copies(run):.2f} model copies are really on disk; the paper reports {theirs:g}")


MODES_CAPTION = (
    "Where the peaks of mSFT wait: copies of the weights on disk, size of a difference beside the weights, and share of the run's "
    "time spent on saving. Measured with a former version, whose delta is disk now and whose disk wrote whole files."
)


def modes() -> pd.DataFrame:
    """What benchmarks/storage.py measured: one row a precision and place of the peaks; empty where it was not run."""
    if not MEASURED.is_file():
        return pd.DataFrame()
    rows = json.loads(MEASURED.read_text(encoding="utf-8"))["rows"]
    return pd.DataFrame(rows).set_index(["training", "keep_peaks"]).reset_index()


def finding(runs) -> str:
    """Copies really on disk beside those of Algorithm 4 and the paper's number, and what they leave out."""
    # one run may stand under several keys
    distinct = {run.directory: run for run in runs.values()}.values()
    disk, played = [mean_copies(run) for run in distinct], [replay(run).live.mean() for run in distinct]
    return (
        f"mSFT holds {findings.mean(disk, 2)} model copies on disk, where Algorithm 4 with whole files "
        f"would hold {findings.mean(played, 2)} (means over time with 95 % intervals over n = "
        f"{len(distinct)} runs) and the paper reports {reported_numbers.claim(CLAIM):g}. It falls short of a saving of memory: the "
        "peaks of a stage wait in the host's, and a killed stage begins again."
    )
