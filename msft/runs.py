"""A run: its directory, its lock, and `run`, which trains, goes on with, or reads it.

runs/msft-tiny-qwen2-tiny-s20-1a2b3c4d/
    run.json       settings, versions, commit, machine        history.csv   one row an evaluation and sub-dataset
    journal.jsonl  every verb, checksummed                    outputs/      generated text of every item
    best/          the best checkpoint, Hugging Face format   tasks/        lm-eval task files of the test sets
    disk.jsonl     the ledger of checkpoint bytes             result.json   best, FLOPs, time; written last
"""

import contextlib
import dataclasses
import datetime
import json
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from importlib import metadata
from pathlib import Path

import filelock
import pandas as pd

from msft import catalog, methods
from msft.checkpoints import Store, snapshot, write_atomic, write_gzip
from msft.config import RunConfig
from msft.errors import DataError, ModelError, RunError
from msft.history import history_rows
from msft.journal import Journal
from msft.progress import RunProgress, clock
from msft.records import Run, load_runs

__all__ = ["Prepared", "Run", "load_runs", "prepare", "run"]
PACKAGES = ("msft", "torch", "transformers", "datasets", "lm-eval", "accelerate", "tokenizers", "numpy", "pandas")


def run(config: RunConfig, runs_dir: str | Path = "runs", *, progress: bool = True, wait: bool = True) -> Run:
    """Trains a run; goes on with it where it was killed; reads it at once where it is finished.

    runs_dir: folder of run directories; the directory's name carries the hash of all that determines the result.
    wait: whether to wait for another process that is at the same run; False raises RunError at once.
    Raises ConfigError, DataError or ModelError before anything is written, RunError while training.
    """
    prepared = prepare(config)
    directory = Path(runs_dir) / prepared.name
    if Run(directory).status == "finished":
        return Run(directory)
    model = prepared.load_model()
    examples, mixture = prepared.tokens()
    if progress:
        for sub in mixture:
            for reason, count in sub.left_out.items():
                print(f"{sub.name}: {count} left out: {reason}", file=sys.stderr)
    directory.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(directory / ".lock", timeout=-1 if wait else 0)
    try:
        with lock, _threads(prepared.config.threads):
            if Run(directory).status != "finished":
                _train(prepared, directory, model, examples, mixture, progress)
    except filelock.Timeout:
        raise RunError(f"{directory} is being trained by another process; wait for it, or pass wait=True") from None
    return Run(directory)


@dataclasses.dataclass
class Prepared:
    """A config with its data and tokenizer, checked; nothing is written yet."""

    config: RunConfig
    mixture: object
    tokenizer: object
    source: str
    contents: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the run's directory; it carries the hash of all that determines the result."""
        config, contents = self.config, self.contents
        if config.methods_dir:  # a method of the user's own is part of what determines the result
            contents = (*contents, Path(methods.load(config.method, config.methods_dir).__file__).read_text())
        model, mixture = Path(config.model).name, Path(config.mixture).stem
        return f"{config.method}-{model}-{mixture}-s{config.seed}-{config.fingerprint(*contents)[:10]}"

    def twin(self, method: str, params: dict) -> "Prepared":
        """The same run with another method."""
        config = dataclasses.replace(self.config, method=method, params=params, methods_dir=None)
        return dataclasses.replace(self, config=config)

    def load_model(self):
        """The base model on its device."""
        config = self.config
        model = catalog.load_model(self.source, config.precision, config.model_revision, config.trust_remote_code)
        return model.to(_device(config.device))

    def tokens(self) -> tuple[dict, object]:
        """({sub-dataset: tokenised train examples}, mixture without the examples that are too long)."""
        from msft.batching import fit_mixture

        cache = catalog.tiny.cache_folder() / "tokens"
        limits = (self.config.max_tokens, self.config.max_prompt_tokens)
        return fit_mixture(self.tokenizer, self.mixture, *limits, cache)


def prepare(config: RunConfig) -> Prepared:
    """Loads and checks what a run needs but its weights. Raises ConfigError, DataError or ModelError."""
    config = config.with_defaults(catalog.model_settings(config.model))
    _device(config.device)
    source = catalog.model_source(config.model)
    tokenizer = catalog.load_tokenizer(source, config.model_revision, config.trust_remote_code)
    names = ("train_size", "test_size", "validation_size", "data_dir", "revision", "max_tokens", "max_prompt_tokens")
    given = {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    mixture = catalog.load_mixture(config.mixture, tokenizer=tokenizer, **given)
    if config.select_on == "validation":
        bare = [sub.name for sub in mixture if not sub.validation]
        if bare:
            raise DataError(f"select_on='validation' needs a validation set; these have none: {', '.join(bare)}")
    contents = [mixture.fingerprint(), catalog.model_identity(source, config.model_revision)]
    return Prepared(config, mixture, tokenizer, source, tuple(contents))


def _device(wanted: str | None):
    import torch

    try:
        device = torch.device(wanted or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise ModelError(f"unknown device {wanted!r}. Allowed: cpu, cuda, cuda:0, cuda:1, ...") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"device {wanted!r}: this machine has no CUDA device; take cpu")
    return device


class _Directory:
    """A run directory while it is trained: what the trainer writes through."""

    def __init__(self, prepared: "Prepared", directory: Path, model_bytes: int, progress: RunProgress):
        self.prepared, self.directory, self.progress = prepared, directory, progress
        self.store = Store(directory / "state", directory / "disk.jsonl", model_bytes)
        self.journal = Journal(directory / "journal.jsonl")
        (directory / "outputs").mkdir(exist_ok=True)
        self._recover()

    def _recover(self) -> None:
        """Goes back to the newest saved state whose files are whole, and says so where one is not."""
        journal = self.journal
        dropped = journal.torn
        for place in range(len(journal.entries), 0, -1):
            entry = journal.entries[place - 1]
            if entry["kind"] == "saved":
                try:
                    for name in _files(entry["state"]):
                        self.store.get(name)
                except RunError as error:
                    warnings.warn(f"{error}; looking for a state saved before it", stacklevel=2)
                    dropped += 1
                    continue
                break
        else:
            place = 0
        if dropped or place < len(journal.entries):
            warnings.warn(
                f"{journal.path} was damaged or its last state was; going on from "
                f"{'an earlier saved state' if place else 'the start'}",
                stacklevel=2,
            )
            journal.rewind(place)

    def finished_sft(self, epochs: float) -> dict | None:
        """The roll-out of the finished SFT run of the same settings, or None where there is none."""
        twin = self.prepared.twin("sft", {"epochs": epochs})
        other = Run(self.directory.parent / twin.name)
        if other.status != "finished":
            return None
        return next(entry["result"] for entry in other.journal if entry["kind"] == "roll_out")

    def base_weights(self) -> dict:
        """The weights that the run began with, loaded anew."""
        return snapshot(self.prepared.load_model())

    def saved_state(self) -> dict | None:
        """The state that the run goes on from."""
        return self.journal.saved[-1]["state"] if self.journal.saved else None

    def commit(self, state: dict) -> None:
        """Makes a state the one to go on from, then deletes what no state needs."""
        self.journal.commit(state)
        self.store.retain(_files(state))

    def prune(self, peaks: list[str]) -> None:
        """Deletes what neither the saved state nor a held peak needs."""
        state = self.saved_state()
        self.store.retain([*(_files(state) if state else []), *peaks])

    def write_outputs(self, stage: int, epoch: float, results: dict) -> None:
        """The answers of one evaluation, compressed."""
        rows = [
            {"stage": stage, "epoch": epoch, "part": part, "task": task, "item": i, "text": text, "correct": right}
            for part, scores in results.items()
            for task, score in scores.items()
            for i, (text, right) in enumerate(zip(score.outputs, score.correct, strict=True))
        ]
        write_gzip(self.directory / "outputs" / f"stage{stage:03d}_epoch{epoch:07.3f}.jsonl.gz", rows)


def _files(state: dict) -> list[str]:
    names = [state["weights"], state["best_weights"], state["optimizer"], *state["peaks"].values()]
    return [name for name in names if name]


def _train(prepared: Prepared, directory: Path, model, examples, mixture, progress: bool) -> None:
    import torch

    from msft.evaluation import Evaluator, write_tasks
    from msft.training import Trainer

    config, started = prepared.config, time.monotonic()
    if not (directory / "run.json").is_file():
        write_tasks(directory / "tasks", mixture, config.max_new_tokens)
        write_atomic(directory / "run.json", json.dumps(_about(prepared, mixture, model), indent=1))
    model_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    where = _Directory(prepared, directory, model_bytes, RunProgress(directory.name.rsplit("-", 1)[0], progress))
    parts = dict.fromkeys(["test", config.select_on])
    evaluators = {
        part: Evaluator(model, prepared.tokenizer, mixture, part, config.max_new_tokens, config.eval_batch_size)
        for part in parts
    }
    trainer = Trainer(model, prepared.tokenizer, config, examples, evaluators, where)
    method = methods.load(config.method, config.methods_dir)
    with _stopping(trainer):
        method.run(trainer, method.Params(**config.params))
        trainer.finish()
    parameters = sum(p.numel() for p in model.parameters())
    journal = where.journal.verbs()
    _save_best(directory, model, prepared.tokenizer)
    history = pd.DataFrame(history_rows(journal))
    write_atomic(directory / "history.csv", history.to_csv(index=False))
    result = {
        "best": dataclasses.asdict(trainer.best),
        "parameters": parameters,
        "seconds": {**trainer.clock, "total": time.monotonic() - started},
        "threads": torch.get_num_threads(),
    }
    write_atomic(directory / "result.json", json.dumps(result, indent=1))
    where.store.retain([])
    shutil.rmtree(directory / "state")
    if progress:
        best = trainer.best
        print(
            f"{where.progress.name}: finished in {clock(result['seconds']['total'])}, accuracy {best.accuracy:.1%} at "
            f"epoch {best.path_epoch:.2f}, {directory}",
            file=sys.stderr,
        )


def _save_best(directory: Path, model, tokenizer) -> None:
    partial, target = directory / "best.partial", directory / "best"
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def _about(prepared: Prepared, mixture, model) -> dict:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "config": prepared.config.to_dict(),
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": versions,
        "python": platform.python_version(),
        "machine": {"platform": platform.platform(), "processor": platform.machine(), "device": str(model.device)},
        "git_commit": _git_commit(),
        "model": {"source": prepared.source, "commit": getattr(model.config, "_commit_hash", None)},
        "mixture": {
            "name": mixture.name,
            "fingerprint": prepared.mixture.fingerprint(),
            "groups": mixture.groups,
            "sub_datasets": {
                sub.name: {
                    "train": len(sub.train),
                    "test": len(sub.test),
                    "validation": len(sub.validation),
                    "left_out": sub.left_out,
                    "source": sub.source,
                }
                for sub in mixture
            },
        },
    }


def _git_commit() -> str | None:
    """Commit of the checkout that this code runs from, with '+' where files changed since."""

    def git(*words: str) -> str:
        folder = Path(__file__).parent
        return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


@contextlib.contextmanager
def _threads(number: int | None):
    """torch's CPU threads for a run: another number can give other last bits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _stopping:
    """SIGTERM and SIGINT ask the trainer to save and stop; a second one stops at once."""

    def __init__(self, trainer):
        self.trainer, self.before = trainer, {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self.before[number] = signal.signal(number, self._ask)

    def _ask(self, number, frame):
        if self.trainer.stop_requested:
            raise KeyboardInterrupt
        self.trainer.stop_requested = True
        print("stopping: the state is saved after this step", file=sys.stderr, flush=True)

    def __exit__(self, *error):
        for number, handler in self.before.items():
            signal.signal(number, handler)
