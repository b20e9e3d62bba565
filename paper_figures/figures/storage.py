"""Disk: the copies that Algorithm 4 keeps alive, its bound, and what a run really held on disk (Fig. 16 to 18)."""

import json
from datetime import datetime
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from msft.store.curve import overall
from paper_figures import findings, reported_numbers
from paper_figures.style import COLUMN, SMALLEST, colour, legend, panels, say

MEASURED = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "storage.json"
CLAIM = "mean disk use of mSFT"  # how the paper's number begins in text_claims.csv


def needs(page) -> dict:
    """{(what varies, value): RunConfig}: mSFT by model, by size of the mixture, and by compute budget C."""
    models = {("model", model): page.config("msft", model=model) for model in page.models}
    sizes = {("mixture", str(count)): page.config("msft", mixture=name) for count, name in page.mixtures.items()}
    granular = {("mixture", "granular"): page.config("msft", mixture=page.granular)}
    budgets = {("C", f"{c:g}"): page.config("msft", varied={"budget": c}) for c in page.budgets}
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
    """What was really on disk: seconds since the run's start, when nothing was, to its end, and copies of the weights."""
    seconds = run.disk.time - datetime.fromisoformat(run.about["started"]).timestamp()
    return pd.DataFrame({"seconds": [0.0, *seconds], "copies": [0.0, *run.disk.copies]})


def mean_copies(run, whole: bool = False) -> float:
    """Copies of the weights on disk, averaged over the run's time. whole: as if none was stored as differences."""
    ledger = on_disk_by_time(run)
    if whole:
        files = run.disk.event.map({"write weights": 1, "write best": 1, "delete weights": -1}).fillna(0).cumsum()
        ledger["copies"] = [0.0, *files]
    return float(np.average(ledger.copies[:-1], weights=np.diff(ledger.seconds)))


def saves(run) -> pd.Series:
    """When the run saved its state: seconds since its start."""
    return on_disk_by_time(run).seconds[1:][(run.disk.event == "saved").to_numpy()]


def stage_peaks(copies: pd.DataFrame) -> float:
    """Mean over the stages of the most copies alive in each: what appendix H predicts. copies: as replay gives it."""
    return float(copies.groupby("stage").live.max().mean())


def predicted(run) -> float:
    """What appendix H predicts for the mean of the stages' peaks: (N + 1) / 2 + 2 copies for N sub-datasets."""
    return (run.history.task.nunique() + 1) / 2 + 2


def label_of(key: tuple[str, str], run) -> str:
    """What a run is called in a figure; a mixture by the sub-datasets that it really has."""
    what, value = key
    if what == "model":
        return reported_numbers.model_label(value)
    return f"C = {value}" if what == "C" else f"{run.history.task.nunique()} sub-datasets"


SUMMARY_CAPTION = (
    "Model copies of every mSFT run: by Algorithm 4 (mean over evaluations, mean of the stages' peaks beside what appendix H predicts "
    "for N sub-datasets, (N + 1) / 2 + 2, highest, highest bound), and really on disk (mean from the run's start to its end, highest, "
    "and how often the state was saved: a run that saved it once says little of long ones)."
)


def summary(runs) -> pd.DataFrame:
    """One row a run, also where it stands for several values: copies by Algorithm 4, and really on disk."""
    names: dict = {}
    for key, run in runs.items():
        names.setdefault(run.directory, (run, {}))[1][label_of(key, run)] = None
    rows = []
    for run, labels in names.values():
        copies = replay(run)
        row = {"run": ", ".join(labels), "Algorithm 4, mean": copies.live.mean()}
        row |= {"stages' peaks, mean": stage_peaks(copies), "predicted": predicted(run)}
        row |= {"Algorithm 4, peak": float(copies.live.max()), "bound, peak": float(copies.bound.max())}
        row |= {"on disk, mean": mean_copies(run), "on disk, peak": float(run.disk.copies.max())}
        rows.append({**row, "states saved": len(saves(run))})
    return pd.DataFrame(rows).set_index("run")


LIVE_COPIES_CAPTION = (
    "Model copies that Algorithm 4 keeps alive after each evaluation of mSFT (line) and the bound (grey) against the epochs trained; "
    "the mean of the stages' peaks (dotted) beside what appendix H predicts for it, (N + 1) / 2 + 2 (dash-dotted). Above each panel "
    "the mean over the evaluations, which the paper's is compared with."
)


def live_copies(runs, axes=None):
    """Copies alive by Algorithm 4 against the epochs trained, with the bound and what appendix H predicts; an axes a run."""
    if axes is None:
        axes = panels(len(runs), "epochs trained, rolled-back ones too", "model copies", columns=3, share="y")
    lines, means, peaks = {}, [], []
    for axis, (key, run) in zip(axes, runs.items(), strict=True):
        copies = replay(run)
        means.append(copies.live.mean())
        peaks.append((stage_peaks(copies), predicted(run)))
        # its rim shows the last value of a stage, which lasts no time
        lines["bound"] = axis.fill_between(copies.trained, copies.bound, step="post", color="0.87", lw=0.8)
        (lines["alive"],) = axis.step(copies.trained, copies.live, where="post", color=colour("msft"), lw=0.8)
        lines["mean of the stages' peaks"] = axis.axhline(peaks[-1][0], color=colour("msft"), lw=0.9, ls=":")
        lines["predicted by appendix H"] = axis.axhline(peaks[-1][1], color="0.15", lw=0.7, ls="-.")
        axis.set_title(
            f"{label_of(key, run)}\nmean {means[-1]:.1f}, peaks {peaks[-1][0]:.1f}\npredicted {peaks[-1][1]:.1f}",
            fontsize=SMALLEST,
        )
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    # the axes share one scale, which holds the highest of all panels
    axes[0].set_ylim(0, 1.05 * max(axis.dataLim.y1 for axis in axes))
    axes[0].yaxis.set_major_locator(MaxNLocator(5, integer=True))
    legend(axes[0].figure, lines.values(), lines.keys())
    below = sum(peak < expected for peak, expected in peaks)
    return say(
        axes,
        f"Algorithm 4 keeps {min(means):.1f} to {max(means):.1f} model copies on average (the paper: "
        f"{reported_numbers.claim(CLAIM):g}); the mean of its stages' peaks lies below the predicted one in {below} of {len(means)} runs",
    )


ON_DISK_CAPTION = (
    "Copies of the weights on disk from the start of one mSFT run to its end (its ledger: saved states, and at the end the best "
    "checkpoint), their mean over this time, the mean of Algorithm 4 over the evaluations, and the paper's. States are saved two "
    "minutes apart or more, and when training ends: a run that saves a single state says little of what long ones hold."
)


def on_disk(run, axis=None):
    """What the ledger of one run says: copies of the weights on disk against wall-clock time."""
    if axis is None:
        _, axis = plt.subplots(figsize=(COLUMN, 1.6), layout="constrained")
    ledger, played, mean, saved = on_disk_by_time(run), replay(run).live.mean(), mean_copies(run), saves(run)
    theirs, end = reported_numbers.claim(CLAIM), ledger.seconds.iloc[-1]
    divisor, unit = next((u for u in ((3600, "hours"), (60, "minutes")) if end >= 5 * u[0]), (1, "seconds"))
    axis.step(ledger.seconds / divisor, ledger.copies, where="post", color=colour("msft"), lw=1.1, label="on disk here")
    axis.axhline(mean, color=colour("msft"), ls=":", label=f"mean here, {mean:.2f}")
    axis.axhline(theirs, color="0.35", ls="-.", lw=1, label=f"the paper's mean, {theirs:g}")
    axis.axhline(played, color="0.6", ls="--", lw=1, label=f"Algorithm 4 here, {played:.2f}")
    axis.set(xlabel=f"{unit} since the run's start", ylabel="model copies", xlim=(0, None))
    axis.set_ylim(0, 1.08 * max(theirs, played, ledger.copies.max()))
    legend(axis.figure, *axis.get_legend_handles_labels())
    long = f"{end / divisor:.0f} {unit}"
    if len(saved) > 1:
        words = f"{mean:.2f} model copies are on disk on average over {long}, in which the state was saved {len(saved)} times"
    else:
        words = f"A run of {long} that saves its state once, when its training ends, says little of long ones: {mean:.2f} copies on disk"
    return say(axis, f"{words}; the paper reports {theirs:g}")


MODES_CAPTION = (
    "Where the peaks of mSFT wait: copies of the weights on disk, size of a difference beside the weights, and share of the run's "
    "time spent on saving, where every save is made; whole files: without the coding as differences."
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
    once = sum(len(saves(run)) < 2 for run in distinct)
    return (
        f"mSFT holds {findings.mean(disk, 2)} model copies on disk from a run's start to its end, where Algorithm 4 with whole files "
        f"would hold {findings.mean(played, 2)} over the evaluations (means with 95 % intervals over n = {len(distinct)} runs) and the "
        f"paper reports {reported_numbers.claim(CLAIM):g}. It falls short of what long runs hold: {once} of these saved their state once, "
        "since states are saved minutes apart, and the peaks of a stage with them; until then these wait in the host's memory."
    )
