"""Disk use of an mSFT run by where its peaks wait: copies on disk, size of a difference, time spent on saving.

    python benchmarks/storage.py                                     # six runs, some ten minutes
    python benchmarks/storage.py --model tiny-smoke --mixture tiny-smoke --budget 1 --results runs/check   # a check

Once at the tiny profile's settings (fp32, its learning rate) and once in bf16 at the paper's 1e-5, where most weights
keep most of their bits. Writes benchmarks/results/storage.{json,md}, which notebook 12 shows.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path

import pandas as pd
from recording import RESULTS

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
        **settings,
    )
    run = msft.run(config, Path(folder) / mode, progress=False)
    disk, seconds = run.disk, run.result["seconds"]
    writes = disk[disk.event == "write weights"]
    size = run.result["parameters"] * (2 if settings.get("precision") == "bf16" else 4)
    row = {
        "copies, mean": storage.mean_copies(run),
        "copies, peak": float(disk.copies.max()),
        "file / weights": float(writes.change.mean() / size),
        "saving / time": seconds["save"] / seconds["total"],
        "stages": len(storage.replay(run).stage.unique()),
    }
    return {**row, "history": run.history.to_csv()}


def main() -> None:
    """Trains and writes <results>/storage.{json,md}."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny-qwen2")
    parser.add_argument("--mixture", default="tiny")
    parser.add_argument("--budget", type=float, default=3.0, help="C of mSFT, in epochs")
    parser.add_argument("--results", default=str(RESULTS))
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
    command = (
        f"python benchmarks/storage.py --model {options.model} --mixture {options.mixture} --budget {options.budget:g}"
    )
    about = {
        "command": command,
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
    folder = Path(options.results)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "storage.json").write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    from paper_figures.output import markdown

    table = markdown(pd.DataFrame(rows).set_index(["training", "keep_peaks"]), 3)
    text = (
        f"`{command}`, {about['date']}, {about['machine']}. The two modes have the same history, item by item. Copies: of "
        "the weights on disk, the mean over the run's time, the finished checkpoint counted; the paper "
        "reports a mean of 4.44.\n\n"
    )
    (folder / "storage.md").write_text("# Where the peaks of mSFT wait\n" + text + table, encoding="utf-8")


if __name__ == "__main__":
    main()
