"""The seven methods on the tiny mixture: accuracy, best epoch and compute beside SFT's, mean and spread over seeds.

    python benchmarks/methods.py                  # three seeds of each method, two runs at a time
    python benchmarks/methods.py --model tiny-smoke --mixture tiny-smoke --seeds 20 --results runs/check   # a check

Writes benchmarks/results/methods.{json,md}. Finished runs are read, not trained again.
"""

import argparse
import json
import platform
from pathlib import Path

import numpy as np
import pandas as pd
from calibration import RESULTS, train_all

SEEDS = (20, 30, 40)
# in Table 2's order; DynamixSFT's look-ahead batch is scaled down with the batch size (16, not 64) and the mixture
METHODS = {
    "sft": {},
    "continual_sft": {},
    "dynamix_sft": {"look_ahead_batch": 8},
    "ies": {},
    "sro_sft": {},
    "soft_sro_sft": {},
    "msft": {},
}


def train_methods(options: argparse.Namespace) -> dict[str, list]:
    """{method: its runs, one a seed}."""
    shared = {"model": options.model, "mixture": options.mixture}
    keys = [(method, seed) for method in METHODS for seed in options.seeds]
    jobs = [{**shared, "method": method, "params": METHODS[method], "seed": seed} for method, seed in keys]
    runs = dict(zip(keys, train_all(jobs, options.runs, options.processes), strict=True))
    return {method: [runs[method, seed] for seed in options.seeds] for method in METHODS}


def row(run, sft) -> dict:
    """What the table says of one run, beside the SFT run of the same seed."""
    return {
        "seed": run.config.seed,
        "accuracy (%)": 100 * run.best.accuracy,
        "minus SFT (points)": 100 * (run.best.accuracy - sft.best.accuracy),
        "best epoch": run.best.path_epoch,
        **{f"{part} FLOPs": run.flops[part] for part in ("train", "evaluate", "look_ahead", "total")},
        "FLOPs over SFT": run.flops["total"] / sft.flops["total"],
        "train and look-ahead FLOPs over SFT": (run.flops["train"] + run.flops["look_ahead"]) / sft.flops["train"],
    }


def summary(rows: dict[str, list[dict]]) -> pd.DataFrame:
    """One line a method: mean over seeds, with the standard deviation (n - 1) of accuracy and difference."""

    def spread(found: list[dict], key: str) -> str:
        values = np.array([entry[key] for entry in found])
        return f"{values.mean():.2f} ± {values.std(ddof=1):.2f}" if len(values) > 1 else f"{values.mean():.2f}"

    lines = []
    for found in rows.values():
        means = pd.DataFrame(found).mean()
        names = ("best epoch", "FLOPs over SFT", "train and look-ahead FLOPs over SFT")
        lines.append(
            {
                **{key: spread(found, key) for key in ("accuracy (%)", "minus SFT (points)")},
                **{key: f"{means[key]:.2f}" for key in names},
            }
        )
    return pd.DataFrame(lines, index=pd.Index(rows, name="method"))


def markdown(table: pd.DataFrame, result: dict) -> str:
    from paper_figures.output import markdown as as_table
    from paper_figures.style import METHODS as NAMES

    seeds = ", ".join(map(str, result["seeds"]))
    table = table.rename(index=NAMES)
    return (
        "\n".join(
            [
                f"# The seven methods: model {result['model']}, mixture {result['mixture']}, seeds {seeds}",
                "",
                f"Command: `{result['command']}`",
                "",
                as_table(table, 2),
                "Mean over the seeds, ± standard deviation (n - 1); accuracy is that of the reported checkpoint on the test "
                "sets, chosen on the same items as in the paper. Best epoch is the paper's Ep. FLOPs are those of appendix F; "
                "the search of SRO and Soft SRO is counted though it is read from the SFT run.",
                "",
                f"Scaled down: DynamixSFT looks ahead on {METHODS['dynamix_sft']['look_ahead_batch']} examples a sub-dataset, "
                "not 128. Everything else is each method's default.",
            ]
        ).rstrip()
        + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--model", default="tiny-qwen2")
    parser.add_argument("--mixture", default="tiny")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    runs = train_methods(options)
    rows = {m: [row(run, sft) for run, sft in zip(runs[m], runs["sft"], strict=True)] for m in METHODS}
    about = runs["sft"][0].about
    result = {
        "model": options.model,
        "mixture": options.mixture,
        "seeds": options.seeds,
        "params": {method: found[0].config.params for method, found in runs.items()},
        "rows": rows,
        "versions": about["versions"],
        "commit": about["git_commit"],
        "machine": f"{platform.system()} {platform.machine()}",
        "command": "python benchmarks/methods.py",
    }
    (options.results / "methods.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    text = markdown(summary(rows), result)
    (options.results / "methods.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
