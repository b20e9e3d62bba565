"""Runs on disk, read: history, best checkpoint, FLOPs, disk use, generated answers."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

import filelock
import pandas as pd

from msft.config import RunConfig
from msft.errors import ConfigError, RunError
from msft.names import filled
from msft.paths import usable
from msft.results import leads
from msft.results.flops import run_flops
from msft.results.history import history_rows, roll_outs
from msft.store.files import read_lines
from msft.store.journal import Journal

FAILED = "failed.json"  # a launcher's note in the directory of a run that failed


@dataclasses.dataclass(frozen=True)
class BestCheckpoint:
    """The reported checkpoint: its folder, its test accuracy 0..1, and the paper's Ep. of it."""

    folder: Path
    accuracy: float
    path_epoch: float

    @property
    def path(self) -> Path:
        """The folder. Raises RunError where it was taken away, to make room, say: its figures are there without it."""
        if not self.folder.is_dir():
            mend = f"delete {self.folder.parent} and run its command again to train it anew"
            raise RunError(f"{self.folder} is gone, and with it the checkpoint; {mend}")
        return self.folder


class Run:
    """A run on disk. Everything is read from its directory when asked for."""

    def __init__(self, directory: str | Path):
        self.directory = Path(usable(directory))

    def __repr__(self) -> str:
        return f"<msft run {self.directory.name}: {self.status}>"

    @property
    def status(self) -> str:
        """'finished'; 'running' where a process is at the run; 'failed' where its last attempt left a note; 'unfinished'
        (the same command goes on with it); 'missing'."""
        if os.path.isfile(self.directory / "result.json"):  # False too where the folder may not be read
            return "finished"
        if is_locked(self.directory):
            return "running"
        if self.failure:
            return "failed"
        return "unfinished" if os.path.isfile(self.directory / "run.json") else "missing"

    @property
    def failure(self) -> dict | None:
        """What the launcher noted of a failed attempt: when, why, log; None where nothing failed or it is finished since."""
        if os.path.isfile(self.directory / "result.json"):  # by a worker that outlived its launcher, say
            return None
        try:
            return json.loads((self.directory / FAILED).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _read(self, name: str, *needed: str) -> dict:
        path = self.directory / name
        if not os.path.isfile(path):
            if self.status == "finished":  # its command would only read it
                raise self.damaged(path, "it is not there")
            raise RunError(f"{self.directory} is {self.status}: it has no {name}; run its command again to finish it")
        try:
            contents = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error}; see that you may read it") from None
        except ValueError as error:
            raise self.damaged(path, str(error)) from None
        for key in needed:
            value = contents
            for word in key.split("."):
                value = value.get(word) if isinstance(value, dict) else None
            if not isinstance(value, dict if name == "run.json" else int | float):
                raise self.damaged(path, f"it has no {key!r}, or another kind of value under it")
        return contents

    def damaged(self, path: Path, why: str) -> RunError:
        """The error of a finished run's file that cannot be used."""
        return RunError(f"{path} is damaged ({why}); delete {self.directory} and run its command again")

    @property
    def config(self) -> RunConfig:
        """The settings, defaults filled in; one that this version no longer has is left out."""
        names = {field.name for field in dataclasses.fields(RunConfig)}
        values = {name: value for name, value in self.about["config"].items() if name in names}
        # a method of one's own was checked when the run began: its file may be on another machine now
        parts = ("params", "method", "methods_dir") if values.get("methods_dir") else ()
        of_method = {name: values.pop(name, None) for name in parts}
        try:
            config = filled(RunConfig.from_mapping(values))
        except ConfigError as error:
            raise self.damaged(self.directory / "run.json", "; ".join(error.problems)) from None
        for name, value in of_method.items():
            object.__setattr__(config, name, value)
        return config

    @property
    def about(self) -> dict:
        """What run.json holds: config, versions, git_commit, machine, model, mixture."""
        needed = ("config.params", "versions", "machine", "model", "mixture.groups", "mixture.sub_datasets")
        return self._read("run.json", *needed)

    @property
    def journal(self) -> list[dict]:
        """Verbs and notes in order: kind, arguments, result."""
        journal = Journal(self.directory / "journal.jsonl")
        if (journal.torn or not journal.entries) and self.status == "finished":
            raise self.damaged(journal.path, f"{journal.torn or 'all'} of its lines cannot be read")
        return journal.verbs()

    @property
    def history(self) -> pd.DataFrame:
        """One row an evaluation and sub-dataset: stage, epoch (in the stage), path_epoch (the paper's Ep.), task,
        accuracy 0..1, n, active, losses in nats, and what decisions were taken on (history.history_rows)."""
        return pd.DataFrame(history_rows(self.journal, self.metrics))

    @property
    def metrics(self) -> dict[str, str]:
        """{sub-dataset: what its accuracy is}, one of metrics.METRICS, a judge's label, or '' for the paper's scorer."""
        sets = self.about["mixture"].get("sub_datasets", {})
        return {name: facts.get("metric", "") for name, facts in sets.items()}

    @property
    def result(self) -> dict:
        """What result.json holds: best, parameters, seconds, paths (of training and evaluation), threads; with an adapter
        frozen, the parameters that are not trained."""
        best = (f"best.{name}" for name in ("accuracy", "stage", "epoch", "path_epoch"))
        return self._read("result.json", *best, "parameters", "seconds.total")

    @property
    def best(self) -> BestCheckpoint:
        """The reported checkpoint."""
        best = self.result["best"]
        return BestCheckpoint(self.directory / "best", best["accuracy"], best["path_epoch"])

    @property
    def confirmation(self) -> pd.DataFrame:
        """Accuracies 0..1 of the base model and of the reported checkpoint on items that nothing was chosen on, one row a
        sub-dataset: task, n, base, best, and the held-out losses base_loss and best_loss in nats, NaN where an older
        version did not record them; without rows where the mixture has no such items."""
        sets, scores = self.about["mixture"].get("sub_datasets", {}), self.result.get("confirmation", {})
        names = ["base", "best", "base_loss", "best_loss"]
        try:
            table = pd.DataFrame(scores, index=list(scores.get("best", {})), columns=names, dtype=float)
            table.insert(0, "n", [sets[task]["confirmation"] for task in table.index])
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise self.damaged(self.directory / "result.json", f"confirmation: {error}") from None
        return table.rename_axis("task").reset_index()

    @property
    def flops(self) -> dict[str, float]:
        """FLOPs by appendix F: train, evaluate, look_ahead, total."""
        result = self.result
        return run_flops(self.journal, result["parameters"], self.about["config"]["method"], result.get("frozen", 0))

    @property
    def disk(self) -> pd.DataFrame:
        """The ledger of checkpoint bytes (state/ and best/): time (seconds since 1970), event, change and bytes alive,
        weights alive in model copies, and in a stage its number and the bound of Algorithm 4 in copies; once a state is
        saved, the interval in seconds at which the next ones come."""
        columns = ["time", "event", "change", "bytes", "copies", "stage", "bound", "interval"]
        return pd.DataFrame(read_lines(self.directory / "disk.jsonl"), columns=columns)

    @property
    def dropped(self) -> dict[str, float | None]:
        """{sub-dataset: path epoch from which on it was no longer trained}, those that a method dropped in their order;
        None where it trained to the end of the run's path."""
        journal = self.journal
        offsets = {entry["result"]["stage"]: entry["result"]["offset"] for entry in roll_outs(journal)}
        backs = [entry["arguments"] for entry in journal if entry["kind"] == "roll_back"]
        dropped = {a["dropped"]: offsets[a["stage"]] + a["epoch"] for a in backs if a.get("dropped")}
        return dropped | {task: None for task in self.metrics if task not in dropped}

    @property
    def leads(self) -> pd.DataFrame:
        """How clear the peak of every sub-dataset that was dropped is, one row each (leads.leads)."""
        return leads.leads(self.journal, self.directory / "outputs", self.config.select_on)

    @property
    def at_best(self) -> pd.DataFrame:
        """The rows of `history` at the reported checkpoint, one a sub-dataset."""
        history, best = self.history, self.result["best"]
        return history[(history.stage == best["stage"]) & (history.epoch == best["epoch"])]

    @property
    def outputs(self) -> pd.DataFrame:
        """Every generated answer: stage, epoch, part, task, item, text, correct."""
        return self.answers()

    def answers(self, stage: int | None = None, epoch: float = 0.0) -> pd.DataFrame:
        """The rows of `outputs` at one evaluation. Raises RunError where nothing was answered there."""
        folder = self.directory / "outputs"
        names = "*.gz" if stage is None else leads.answers_file(folder, stage, epoch).name
        files = sorted(folder.glob(names))
        if not files:
            why = "it is of no evaluation with answers of its own (a start point has none), or was taken away"
            raise RunError(f"{folder} has no {names} that can be read: {why}; see the history")
        return pd.concat(map(leads.answers, files))


def load_runs(runs_dir: str | Path = "runs") -> list[Run]:
    """The finished runs of a folder, by name. A folder without a run.json is none: other tools write a result.json too."""
    runs = [Run(path.parent) for path in sorted(Path(usable(runs_dir)).glob("*/run.json"))]
    return [run for run in runs if run.status == "finished"]


def is_locked(directory: Path) -> bool:
    """Whether a process is at a run. A lock that may not be touched is taken for a free one."""
    if not os.path.isfile(directory / ".lock"):
        return False
    try:
        with filelock.FileLock(directory / ".lock", timeout=0):
            return False
    except OSError as error:
        return isinstance(error, filelock.Timeout)


def matching(configs: Sequence[RunConfig], runs_dir: str | Path) -> list[Run | None]:
    """The run in a folder with the settings of each config, finished or not; neither its data nor its model is needed.

    Where several stand for the same settings (other data, another model behind the same name), a finished one is taken.
    """
    fields = [field for field in dataclasses.fields(RunConfig) if field.metadata["result"]]
    known: dict[str, Run] = {}

    def key(values: dict) -> str:
        plain = {f.name: values.get(f.name, {} if f.name == "params" else f.default) for f in fields}
        return json.dumps(plain, sort_keys=True)

    for path in sorted(Path(usable(runs_dir)).glob("*/run.json")):
        run = Run(path.parent)
        try:
            name = key(run.about["config"])
        except (RunError, AttributeError, TypeError):  # a damaged run is none of those asked for
            continue
        if name not in known or run.status == "finished":
            known[name] = run
    return [known.get(key(filled(config).to_dict())) for config in configs]
