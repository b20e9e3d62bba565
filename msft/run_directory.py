"""A run's directory while it is trained: its place, its lock, its saved states, and the checkpoint it ends with."""

import contextlib
import os
import shutil
import sys
import warnings
from pathlib import Path

import filelock

from msft import distributed
from msft.config import RunConfig
from msft.errors import RunError
from msft.results.progress import RunProgress
from msft.results.run import Run
from msft.store.checkpoints import Store, Weights, snapshot
from msft.store.files import PARTIAL, cannot_write, write_gzip
from msft.store.journal import Journal

SPARE_ROOM = 2.0  # model copies of weights on disk, above which no spare state is kept


def check_names(runs_dir: Path, directory: Path) -> None:
    """Raises RunError for a name that the system does not take, or one that something else has."""
    try:
        taken = directory.exists() and not directory.is_dir()
    except (OSError, ValueError) as error:
        raise RunError(f"runs_dir {str(runs_dir)!r}: {error}; give another folder") from None
    if taken:
        raise RunError(f"{directory} is a file where the run's folder belongs; move it away")


def check_place(runs_dir: Path) -> None:
    """Raises RunError where the folder of runs cannot be made or written to."""
    there = runs_dir
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise RunError(f"runs_dir {str(runs_dir)!r}: {there} is a file; give a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise RunError(f"runs_dir {str(runs_dir)!r}: {there} cannot be written to; give another folder")


@contextlib.contextmanager
def locked(lock, directory: Path, progress: bool):
    """The run's lock; says so where it must wait, and raises RunError where it may not. A crash releases it."""
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        if lock.timeout == 0:
            raise RunError(f"{directory} is being trained by another process; wait for it, or pass wait=True") from None
        if progress:
            print(f"{directory.name}: another process is at this run; waiting for it", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class RunDirectory:
    """A run directory while it is trained: what the trainer writes through."""

    def __init__(
        self,
        prepared,
        directory: Path,
        model_bytes: int,
        progress: RunProgress,
        base: Weights | None = None,
    ):
        self.prepared, self.directory, self.progress = prepared, directory, progress
        config = prepared.config if prepared else RunConfig()
        self.spare_states = config.spare_states
        whole, result = config.keep_peaks == "disk", directory / "best"
        self.store = Store(directory / "state", directory / "disk.jsonl", model_bytes, base, whole, result)
        self.journal = Journal(directory / "journal.jsonl")
        (directory / "outputs").mkdir(exist_ok=True)
        for place in (directory, directory / "outputs"):
            for partial in place.glob(f"*{PARTIAL}"):  # of a process that was killed; this one holds the lock
                partial.unlink() if partial.is_file() else shutil.rmtree(partial)
        self._recover()
        self.resumed = bool(self.journal.saved)

    def _recover(self) -> None:
        """Goes back to the newest saved state whose files are whole, and says so where one is not."""
        journal, place = self.journal, 0
        dropped = journal.torn
        saved = [i for i, entry in enumerate(journal.entries) if entry["kind"] == "saved"]
        for i in reversed(saved):
            state = journal.entries[i]["state"]
            if i != saved[-1] and not self.store.has(state["weights"]):
                continue  # deleted long ago, or found damaged just now
            if dropped and state["best_weights"] and not self.store.has(state["best_weights"]):
                state["best_weights"] = None  # see `prune`: a better one comes on the way
            try:
                for name in state_files(state):
                    self.store.get(name)
            except RunError as error:
                warnings.warn(f"{error}; looking for a state saved before it", stacklevel=2)
                dropped += 1
                continue
            place = i + 1
            break
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
        """The weights that the run began with."""
        return self.store.reference or snapshot(self.prepared.load_model())

    def saved_state(self) -> dict | None:
        """The state that the run goes on from."""
        return self.journal.saved[-1]["state"] if self.journal.saved else None

    def commit(self, state: dict) -> None:
        """Makes a state the one to go on from, then deletes what neither it nor a spare one needs."""
        # several states in a row may share their weights
        self.journal.commit(state, 1 + 3 * self.spare_states)
        self.prune([])

    def prune(self, peaks: list[str]) -> None:
        """Deletes what neither a kept state nor a held peak needs."""
        *older, last = [entry["state"] for entry in self.journal.saved] or [None]
        needed = [*(state_files(last) if last else []), *peaks]
        # a state before an evaluation and one behind it share their weights: no spare for each other
        spares = {state["weights"]: state for state in older if state["weights"] != last["weights"]}
        for state in list(spares.values())[::-1][: self.spare_states]:
            # what a spare state calls best is the last one's too, or was beaten on the way and will be again
            more = state_files({**state, "best_weights": None})
            if self.store.copies([*needed, *more]) > SPARE_ROOM:
                break
            needed += more
        self.store.retain(needed)

    def write_outputs(self, stage: int, epoch: float, results: dict) -> None:
        """The answers of one evaluation, compressed."""
        rows = [
            {"stage": stage, "epoch": epoch, "part": part, "task": task, "item": i, "text": text, "correct": right}
            for part, scores in results.items()
            for task, score in scores.items()
            for i, (text, right) in enumerate(zip(score.outputs, score.correct, strict=True))
        ]
        write_gzip(self.directory / "outputs" / f"stage{stage:03d}_epoch{epoch:07.3f}.jsonl.gz", rows)


class _NoFiles:
    """Stands for the store in a process that does not write."""

    facts: dict = {}

    def put(self, tensors: Weights, kind: str) -> str:
        """A name of nothing."""
        return ""

    def get(self, name: str) -> Weights:
        """No tensors: `checkpoints.restore` takes those of process 0."""
        return {}


class Follower:
    """Stands for the run directory in a process that does not write: its journal is in memory, and it has no files."""

    def __init__(self, directory: Path):
        self.directory, self.store, self.progress = directory, _NoFiles(), RunProgress("", shown=False)
        self.journal = Journal(Path(os.devnull))
        self.journal.path = directory / "journal.jsonl"  # for messages

    def base_weights(self) -> dict:
        """None: process 0 hands them out."""
        return {}

    saved_state = RunDirectory.saved_state

    def commit(self, state: dict) -> None:
        """Process 0 commits."""

    def prune(self, peaks: list[str]) -> None:
        """Process 0 deletes."""

    def write_outputs(self, stage: int, epoch: float, results: dict) -> None:
        """Process 0 writes."""


def open_directory(prepared, directory: Path, model_bytes: int, progress: RunProgress, model):
    """The run directory for process 0, which holds its lock, and what stands for it in the others."""
    base = snapshot(model)
    with distributed.agreed():
        if distributed.is_main():
            where = RunDirectory(prepared, directory, model_bytes, progress, base)
        else:
            where = Follower(directory)
    where.journal.entries = distributed.same(where.journal.entries)
    return where


def state_files(state: dict) -> list[str]:
    """Names of the files that a saved state needs."""
    names = [state["weights"], state["best_weights"], state["optimizer"], *state["peaks"].values()]
    return [name for name in names if name]


def clear_state(store: Store) -> None:
    """Deletes what a finished run no longer needs."""
    store.retain([])
    shutil.rmtree(store.folder)


def clear_leftovers(directory: Path) -> None:
    """Deletes the state that a kill at the very end of a finished run left behind, unless another process is at it."""
    if not (directory / "state").is_dir():
        return
    with contextlib.suppress(filelock.Timeout, OSError, RunError), filelock.FileLock(directory / ".lock", timeout=0):
        size = sum(path.stat().st_size for path in (directory / "best").glob("*.safetensors"))
        clear_state(Store(directory / "state", directory / "disk.jsonl", size, result=directory / "best"))


def save_best(directory: Path, model, tokenizer) -> None:
    """Writes the model as the run's best checkpoint: there whole or not at all. Raises RunError where it cannot."""
    from safetensors import SafetensorError

    partial, target = directory / f"best{PARTIAL}", directory / "best"
    try:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        shutil.rmtree(target, ignore_errors=True)  # of an attempt that a kill cut off: the state is still there
        partial.rename(target)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise cannot_write(target, sum(p.numel() * p.element_size() for p in model.parameters()), error) from error
