"""The most that an mSFT run holds on disk, by where its peaks wait: copies, size of a difference, time spent on saving.

    python benchmarks/storage.py                                     # four runs, some ten minutes
    python benchmarks/storage.py --model tiny-smoke --mixture tiny-smoke --budget 1 --results runs/check   # a check

Once at the tiny profile's settings (fp32, its learning rate) and once in bf16 at the paper's 1e-5, where most weights
keep most of their bits. Every save is made: no share of the run's time and no minutes between two bound them, as they do
by default, where a run holds no more than this. Writes benchmarks/results/storage.{json,md}, which notebook 12 shows.
"""

import argparse
import tempfile
from pathlib import Path

import pandas as pd
from recording import RESULTS, heading, measured_with, write

from paper_figures.output import markdown
from paper_figures.reported_numbers import claim

MODES = ("memory", "disk")
TRAININGS = {
    "fp32, tiny rate": {},
    "bf16, rate 1e-5": {"precision": "bf16", "learning_rate": 1e-5},
}


def measure(options, settings: dict, mode: str, folder: str) -> dict:
    """What one run held on disk and what its saving took."""
    import msft
    from paper_figures.figures import storage

    config = msft.RunConfig(
        method="msft",
        model=options.model,
        mixture=options.mixture,
        params={"budget": options.budget},
        keep_peaks=mode,
        save_share=1.0,
        save_minutes=0.0,
        **settings,
    )
    run = msft.run(config, Path(folder) / mode, progress=False)
    disk, seconds = run.disk, run.result["seconds"]
    writes = disk[disk.event == "write weights"]
    size = run.result["parameters"] * (2 if settings.get("precision") == "bf16" else 4)
    row = {
        "copies, mean": storage.mean_copies(run),
        "whole files, mean": storage.mean_copies(run, whole=True),
        "copies, peak": float(disk.copies.max()),
        "file / weights": float(writes.change.mean() / size),
        "saving / time": seconds["save"] / seconds["total"],
        "stages": len(storage.replay(run).stage.unique()),
        "saves": len(storage.saves(run)),
    }
    return {**row, "history": run.history.to_csv()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny-qwen2")
    parser.add_argument("--mixture", default="tiny")
    parser.add_argument("--budget", type=float, default=3.0, help="C of mSFT, in epochs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows = []
    for training, settings in TRAININGS.items():
        histories = set()
        for mode in MODES:
            with tempfile.TemporaryDirectory() as folder:
                row = measure(options, settings, mode, folder)
            histories.add(row.pop("history"))
            rows.append({"training": training, "keep_peaks": mode, **row})
            print(rows[-1], flush=True)
        assert len(histories) == 1, "where the peaks wait changed the history"
    words = f"--model {options.model} --mixture {options.mixture} --budget {options.budget:g}"
    result = {"command": f"python benchmarks/storage.py {words}", **measured_with("torch", "safetensors"), "rows": rows}
    text = (
        f"# Where the peaks of mSFT wait\n{heading(result)} Both places give the same history, item by item. Copies: of the "
        "weights on disk, the mean over the run's time, the finished checkpoint counted; whole files: what they would be "
        f"without the coding as differences. The paper reports a mean of {claim('mean disk use of mSFT'):g}.\n\n"
    )
    table = markdown(pd.DataFrame(rows).set_index(["training", "keep_peaks"]), 3)
    write(options.results, "storage", result, text + table)


if __name__ == "__main__":
    main()
