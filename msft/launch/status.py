"""What became of the runs of a folder: how far, how good, why not; and the plan's estimate beside what it really took."""

import contextlib
from pathlib import Path

from msft.cost import describe, plan
from msft.errors import MsftError
from msft.paths import usable
from msft.results.history import roll_outs
from msft.results.progress import clock
from msft.results.run import FAILED, Run
from msft.store.journal import Journal


def runs_of(runs_dir: str | Path) -> list[Run]:
    """Every run of a folder that has begun, by name."""
    places = {path.parent for name in ("run.json", FAILED) for path in Path(usable(runs_dir)).glob(f"*/{name}")}
    return [Run(place) for place in sorted(places)]


def rows_of(runs: list[Run]) -> list[dict]:
    """One mapping a run, of plain values: name, state, why (a failure), saves, bytes_written and save_interval (seconds
    between two saves as it is now, None before the first), saved_stage, saved_epoch and saved_step that an unfinished run
    goes on from, the latter two behind what is done, accuracy and path_epoch of the best checkpoint, paths (of
    training and evaluation: packed, or the fall-back and why), and flops, seconds (None where the run was resumed) and
    disk_peak (bytes), each with its estimate, by the rates of the other finished runs of the model."""
    finished = [run for run in runs if run.status == "finished"]
    return [_row(run, [other for other in finished if other is not run]) for run in runs]


def _row(run: Run, others: list[Run]) -> dict:
    state = run.status
    failure = run.failure if state == "failed" else {"why": None, "log": None}
    row = {"name": run.directory.name, "state": state, "why": failure["why"], "log": failure["log"]}
    row |= {"saves": 0, "bytes_written": 0, "save_interval": None}
    try:
        disk = run.disk
        saved, written = disk[disk.event == "saved"], disk[disk.event.str.startswith("write")]
        row |= {"saves": len(saved), "bytes_written": int(written.change.sum())}
        row |= {"save_interval": float(saved.interval.iloc[-1]) if len(saved) else None}
        if state != "finished":
            journal = Journal(run.directory / "journal.jsonl")
            if journal.state:
                done = journal.state["progress"] or {"epoch": 0, "step": 0}
                stage = len(roll_outs(journal.verbs())) + 1
                row |= {"saved_stage": stage, "saved_epoch": done["epoch"], "saved_step": done["step"]}
            return row
        best, result = run.best, run.result
        row |= {"accuracy": best.accuracy, "path_epoch": best.path_epoch, "flops": run.flops["total"]}
        row |= {"seconds": None if result.get("resumed") else result["seconds"]["total"]}
        row |= {"disk_peak": int(disk["bytes"].max()) if len(disk) else None, "paths": {**result.get("paths", {})}}
        config = run.config
        line_of(row)  # whose values have the kinds that it writes
    except MsftError as error:
        return {**row, "state": "damaged", "why": str(error)}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        why = f"{run.directory} is damaged ({type(error).__name__}: {error}); delete it and run its command again"
        return {**row, "state": "damaged", "paths": {}, "why": why}
    with contextlib.suppress(MsftError):  # of some models and mixtures there is no estimate
        rates, device = plan.rates_of(others), str(run.about.get("machine", {}).get("device", ""))
        costs = plan.estimate(config, rates, has_search=True)
        is_timed = config.model in rates.measured or not device.startswith("cpu")  # else it would be a GPU's time
        row |= {"flops_estimate": costs.expected.flops["total"]}
        row |= {"seconds_estimate": costs.expected.seconds} if is_timed else {}
        row |= {"disk_peak_estimate": int(costs.disk_peak)}
    return row


def line_of(row: dict) -> str:
    """One line of text for a row."""
    text = f"{row['name']}: {row['state']}"
    if row["state"] == "finished":
        text += f", accuracy {row['accuracy']:.4f} at epoch {row['path_epoch']:.2f}"
        text += f"; {_took(row, 'flops', describe.flops_text)}; {_took(row, 'seconds', clock)}"
        if row["disk_peak"] is not None:  # else its ledger is gone
            text += f"; disk at most {_took(row, 'disk_peak', describe.bytes_text)}"
    if row.get("saved_stage") and row["state"] != "failed":
        text += f", saved in stage {row['saved_stage']} behind epoch {row['saved_epoch']}, step {row['saved_step']}"
    if row["saves"] and row["state"] != "failed":
        text += f"; {row['saves']} saves, {describe.bytes_text(row['bytes_written'])} written"
        text += f", {clock(row['save_interval'])} apart" if row["state"] != "finished" else ""
    if row.get("paths"):
        text += "; " + ", ".join(f"{what} {path}" for what, path in row["paths"].items())
    if row["why"] and row["state"] == "failed":
        text += f": {row['why'].strip().splitlines()[-1]}" + (f" (log: {row['log']})" if row["log"] else "")
    return text


def _took(row: dict, name: str, shown) -> str:
    text = "time not known: resumed" if row[name] is None else shown(row[name])
    estimate = row.get(f"{name}_estimate")
    return text if estimate is None else f"{text} (estimated {shown(estimate)})"
