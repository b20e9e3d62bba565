"""The tiny mixture as an instrument: does plain SFT over-fit at different times, and what does mSFT bring?

    python benchmarks/calibration.py            # five seeds of SFT and mSFT, two runs at a time
    python benchmarks/calibration.py --rates    # SFT alone at three learning rates: how the rate was chosen

Writes benchmarks/results/calibration.{json,md}. Finished runs are read, not trained again.
"""

import argparse
import json
import platform
from pathlib import Path

import numpy as np
import pandas as pd

from paper_figures.findings import half_width

SEEDS = (20, 30, 40, 50, 60)
RESULTS = Path(__file__).parent / "results"


def train_all(jobs: list[dict], runs_dir: str, processes: int) -> list:
    """The finished runs of these settings, `processes` at a time."""
    import msft
    from msft.launch.local import run_all

    return run_all([msft.RunConfig(**job) for job in jobs], runs_dir, slots=processes)


def mean_curve(runs: list) -> pd.DataFrame:
    """Accuracy by epoch and sub-dataset, the mean over runs of SFT."""
    curves = [run.history.pivot(index="epoch", columns="task", values="accuracy") for run in runs]
    return (sum(curves) / len(curves))[list(runs[0].history.task.unique())]


def calibration(sft: list, msft: list) -> tuple[dict, str]:
    curve = mean_curve(sft)
    rows = []
    for task in curve:
        peak = float(curve[task].idxmax())
        rows.append(
            {
                "sub-dataset": task,
                "base": 100 * curve[task].iloc[0],
                "peak": 100 * curve[task].max(),
                "peak epoch": peak,
                "epoch 10": 100 * curve[task].iloc[-1],
                "lost": 100 * (curve[task].max() - curve[task].iloc[-1]),
            }
        )
    table = pd.DataFrame(rows)
    base = np.array([100 * run.history.query("stage == 0 and epoch == 0").accuracy.mean() for run in sft])
    best = {name: np.array([100 * run.best.accuracy for run in runs]) for name, runs in (("SFT", sft), ("mSFT", msft))}
    gain = best["mSFT"] - best["SFT"]
    half = half_width(gain)
    facts = {
        "base, mean of seeds (%)": base.mean(),
        "best of SFT, mean of seeds (%)": best["SFT"].mean(),
        "best of SFT minus base (points)": best["SFT"].mean() - base.mean(),
        "distinct peak epochs of the mean curves": int(table["peak epoch"].nunique()),
        "sub-datasets that peak before epoch 8 and lose 2 points or more by epoch 10": int(
            ((table["peak epoch"] < 8) & (table.lost >= 2)).sum()
        ),
        "best of mSFT, mean of seeds (%)": best["mSFT"].mean(),
        "mSFT minus SFT (points)": gain.mean(),
        "95 % interval": [gain.mean() - half, gain.mean() + half],
        "mSFT minus SFT by seed": gain.tolist(),
        "SFT by seed": best["SFT"].tolist(),
        "mSFT by seed": best["mSFT"].tolist(),
        "FLOPs, mSFT over SFT": float(
            np.mean([m.flops["total"] / s.flops["total"] for m, s in zip(msft, sft, strict=True)])
        ),
    }
    return {"seeds": list(SEEDS), "facts": facts, "sub_datasets": rows}, table.round(2)


def markdown(facts: dict, table: pd.DataFrame, model: str) -> str:
    from paper_figures.output import markdown as as_table

    def text(value) -> str:
        if isinstance(value, list):
            return ", ".join(f"{v:.2f}" for v in value)
        return f"{value:.2f}" if isinstance(value, float) else str(value)

    lines = [f"# The tiny mixture under SFT, {model}, mean of seeds {', '.join(map(str, SEEDS))}", ""]
    lines += ["Command: `python benchmarks/calibration.py`", "", as_table(table.set_index("sub-dataset"), 2), ""]
    lines += ["| fact | value |", "|---|---|", *(f"| {name} | {text(value)} |" for name, value in facts.items())]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--model", default="tiny-qwen2")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rates", action="store_true")
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    if options.rates:
        rates = (2.5e-4, 5e-4, 1e-3)
        jobs = [{"method": "sft", "model": options.model, "learning_rate": rate} for rate in rates]
        runs = train_all(jobs, options.runs, options.processes)
        found = {str(rate): 100 * run.best.accuracy for rate, run in zip(rates, runs, strict=True)}
        (RESULTS / "learning_rate.json").write_text(
            json.dumps({"model": options.model, "best of SFT (%)": found}, indent=1) + "\n", encoding="utf-8"
        )
        print(found)
        return
    jobs = [{"method": method, "model": options.model, "seed": seed} for method in ("sft", "msft") for seed in SEEDS]
    runs = train_all(jobs, options.runs, options.processes)
    result, table = calibration(runs[: len(SEEDS)], runs[len(SEEDS) :])
    about = runs[0].about
    result |= {"model": options.model, "versions": about["versions"], "commit": about["git_commit"]}
    result |= {"machine": f"{platform.system()} {platform.machine()}", "command": "python benchmarks/calibration.py"}
    (RESULTS / "calibration.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    text = markdown(result["facts"], table, options.model)
    (RESULTS / "calibration.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
