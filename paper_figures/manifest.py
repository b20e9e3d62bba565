"""manifest.json: which command, commit, versions and machine made the outputs of a folder, notebook by notebook."""

import json
import os
import platform
from importlib import metadata
from pathlib import Path

from msft.errors import RunError
from msft.results.leads import doubts
from msft.results.provenance import git_commit, processor
from msft.results.run import Run
from msft.store.files import write_atomic

PACKAGES = ("torch", "transformers", "datasets", "lm-eval", "accelerate", "papermill", "seaborn", "pandas", "numpy")


def items(out: Path) -> list[dict]:
    """What study.Study told of each figure and table in a folder of outputs: kind, name, item, caption, notebook."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((out / "items").glob("*.json"))]


def read(out: Path) -> dict:
    """The manifest of a folder; empty parts where there is none yet."""
    path = out / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {name: manifest.get(name, {}) for name in ("notebooks", "executions", "runs")}


def machine() -> str:
    """System, processor, cores and, where there is one, the GPU."""
    import torch

    gpu = f", {torch.cuda.device_count()} x {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{platform.system()} {platform.machine()}, {processor()}, {os.cpu_count()} cores{gpu}"


def execution(command: str) -> dict:
    """What the notebooks of one command have in common."""
    versions = {name: metadata.version(name) for name in PACKAGES}
    about = {"command": command, "commit": git_commit(), "machine": machine(), "python": platform.python_version()}
    return {**about, "versions": versions}


def update(out: Path, started: str, common: dict, notebooks: dict[str, dict], runs_dir: Path) -> dict:
    """Adds the notebooks of one execution to the folder's manifest and writes it; the others keep their entries.

    started: UTC time in ISO format, the name of the execution.  common: see `execution`.
    notebooks: {notebook: {"status": ..., "seconds": ...}}; their runs are read from what they registered.
    """
    manifest, registered = read(out), items(out)
    for stem, entry in notebooks.items():
        runs = sorted({run for item in registered if item["notebook"] == stem for run in item["runs"]})
        manifest["notebooks"][stem] = {**entry, "execution": started, "runs": runs}
    manifest["executions"][started] = common
    standing = {entry["execution"] for entry in manifest["notebooks"].values()}
    manifest["executions"] = {name: e for name, e in manifest["executions"].items() if name in standing}
    wanted = {run for entry in manifest["notebooks"].values() for run in entry["runs"]}
    known = {name: facts for name, facts in manifest["runs"].items() if name in wanted}
    for name in wanted:
        known |= _facts(runs_dir / name)
    manifest["runs"] = dict(sorted(known.items()))
    manifest["notebooks"] = dict(sorted(manifest["notebooks"].items()))
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    return manifest


def _facts(directory: Path) -> dict[str, dict]:
    """{name: what the report says of a run}; {} for one that is not in this folder any more."""
    run = Run(directory)
    try:
        best, about = run.result["best"], run.about
    except RunError:
        return {}
    facts = {"accuracy": best["accuracy"], "epoch": best["path_epoch"], "seconds": run.result["seconds"]["total"]}
    facts |= {"commit": about["git_commit"], "started": about["started"]}
    return {directory.name: facts | ({"doubts": said} if (said := doubts(run.leads)) else {})}
