"""A run's directory while it is trained: its place, its lock, its saved states, and the checkpoint it ends with."""

import contextlib
import dataclasses
import os
import shutil
import sys
import warnings
from pathlib import Path

import filelock
from safetensors import SafetensorError

from msft import distributed
from msft.errors import RunError
from msft.generation.options import padded
from msft.results.leads import answers_file
from msft.results.progress import RunProgress
from msft.results.run import Run
from msft.store.checkpoints import Store, Weights, bytes_of, snapshot
from msft.store.files import PARTIAL, cannot_write, sync, write_atomic, write_gzip
from msft.store.journal import Journal


def check_names(runs_dir: Path, directory: Path) -> None:
    """Raises RunError for a name that the system does not take, or one that something else has."""
    try:
        folders = [directory, *(directory / name for name in ("state", "outputs", "tasks", "confirmation", "best"))]
        taken = [path for path in folders if not path.is_dir() and os.path.lexists(path)]
    except (OSError, ValueError) as error:
        raise RunError(f"runs_dir {str(runs_dir)!r}: {error}; give another folder") from None
    if taken:
        raise RunError(f"{taken[0]} is no folder, and one of the run belongs there; move it away")


@contextlib.contextmanager
def locked(lock, directory: Path, progress: bool):
    """The run's lock; says so where it must wait, and raises RunError where it may not. A crash releases it."""
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        if lock.timeout == 0:
            mend = "wait for it: wait=True, or no --no-wait"
            raise RunError(f"{directory} is being trained by another process; {mend}") from None
        if progress:
            print(f"{directory.name}: another process is at this run; waiting for it", file=sys.stderr, flush=True)
        lock.acquire()
    except OSError as error:
        raise RunError(f"{directory} cannot be locked ({error}); it must be a folder that can be written to") from None
    try:
        yield
    finally:
        lock.release()


class RunDirectory:
    """A run directory while it is trained: what the trainer writes through."""

    def __init__(self, prepared, directory: Path, model_bytes: int, progress: RunProgress, base: Weights | None = None):
        self.prepared, self.directory, self.progress = prepared, directory, progress
        self.store = Store(directory / "state", directory / "disk.jsonl", model_bytes, base, directory / "best")
        self.journal = Journal(directory / "journal.jsonl")
        (directory / "outputs").mkdir(exist_ok=True)
        for place in (directory, directory / "outputs", directory / "tasks", directory / "confirmation"):
            for partial in place.glob(f"*{PARTIAL}"):  # of a process that was killed; this one holds the lock
                partial.unlink() if partial.is_file() else shutil.rmtree(partial)
        # back to the last saved state in the journal, or to the start where its files are not whole
        journal = self.journal
        why = f"{journal.torn} of its lines cannot be read" if journal.torn else ""
        place = max((i + 1 for i, entry in enumerate(journal.entries) if entry["kind"] == "saved"), default=0)
        try:
            for name in state_files(journal.state):
                self.store.get(name)
        except RunError as error:
            why, place = str(error), 0
        if why or place < len(journal.entries):
            what = f"{journal.path} was damaged or its last state was ({why or 'it ends in no saved state'})"
            start = "the last state that is whole" if place else "the start"
            warnings.warn(f"{what}; going on from {start}", stacklevel=2)
            journal.rewind(place)
            self.prune([])  # equal content is stored once: another damaged file would stand for it
        self.resumed = journal.state is not None

    def finished_sft(self, epochs: float) -> dict | None:
        """The roll-out of the finished SFT run of the same settings, or None where there is none; its answers are copied,
        so that a search that was read leaves what one that was trained leaves."""
        sft = dataclasses.replace(self.prepared, config=self.prepared.config.sft(epochs))
        other = Run(self.directory.parent / sft.name)
        if other.status != "finished":
            return None
        for path in (other.directory / "outputs").glob("*.gz"):
            copy = self.directory / "outputs" / path.name
            write_atomic(copy, path.read_bytes())
            shutil.copystat(path, copy)
        return next(entry["result"] for entry in other.journal if entry["kind"] == "roll_out")

    def commit(self, state: dict) -> None:
        """Makes a state the one to go on from, then deletes what it does not need."""
        self.journal.commit(state)
        self.prune([])

    def prune(self, peaks: list[str]) -> None:
        """Deletes what neither the saved state nor a held peak needs."""
        self.store.retain([*state_files(self.journal.state), *peaks])

    def write_outputs(self, stage: int, epoch: float, results: dict) -> None:
        """The answers of one evaluation, compressed."""
        rows = [
            {"stage": stage, "epoch": epoch, "part": part, "task": task, "item": i, "text": text, "correct": right}
            for part, scores in results.items()
            for task, score in scores.items()
            for i, (text, right) in enumerate(zip(score.outputs, score.correct, strict=True))
        ]
        write_gzip(answers_file(self.directory / "outputs", stage, epoch), rows)


class Follower:
    """Stands for the run directory and its store in a process that does not write: its journal is in memory alone."""

    def __init__(self, directory: Path):
        self.directory, self.store, self.progress = directory, self, RunProgress("", shown=False)
        self.facts, self.reference, self.model_bytes = {}, {}, 0
        self.journal = Journal(Path(os.devnull))
        self.journal.path = directory / "journal.jsonl"  # for messages

    def get(self, *_) -> Weights:
        """No tensors: `checkpoints.restore` takes those of process 0."""
        return {}

    def put(self, *_, **__) -> str:
        """Process 0 writes: the name of nothing."""
        return ""

    commit = note = prune = write_outputs = put


def open_directory(prepared, directory: Path, progress: RunProgress, model):
    """The run directory for process 0, which holds its lock, and what stands for it in the others."""
    base = snapshot(model)
    with distributed.agreed():
        ours = (prepared, directory, bytes_of(model), progress, base)
        where = RunDirectory(*ours) if distributed.is_main() else Follower(directory)
    where.journal.entries = distributed.same(where.journal.entries)
    return where


def state_files(state: dict | None) -> list[str]:
    """Names of the files that a saved state needs."""
    if state is None:
        return []
    return list(filter(None, [state["weights"], state["best_weights"], state["optimizer"], *state["peaks"].values()]))


def clear_state(store: Store) -> None:
    """Deletes what a finished run no longer needs."""
    store.retain([])
    shutil.rmtree(store.folder)


def clear_leftovers(directory: Path) -> None:
    """Deletes the state that a kill at the very end of a finished run left behind, unless another process is at it."""
    state, best = directory / "state", directory / "best"
    if state.is_dir():
        with contextlib.suppress(OSError, RunError), filelock.FileLock(directory / ".lock", timeout=0):
            size = sum(path.stat().st_size for path in best.glob("*.safetensors")) or 1
            clear_state(Store(state, directory / "disk.jsonl", size, result=best))


def save_best(directory: Path, model, tokenizer) -> None:
    """Writes the model as the run's best checkpoint: there whole or not at all. Raises RunError where it cannot."""
    partial, target = directory / f"best{PARTIAL}", directory / "best"
    try:
        model.save_pretrained(partial)
        padded(tokenizer, model).save_pretrained(partial)
        for path in partial.glob("*.safetensors"):  # safetensors lets nobody else read what it writes
            shutil.copymode(next(partial.glob("*.json")), path)
        for path in (*partial.rglob("*"), partial):
            sync(path)
        shutil.rmtree(target, ignore_errors=True)  # of an attempt that a kill cut off: the state is still there
        partial.rename(target)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise cannot_write(target, bytes_of(model), error) from error
