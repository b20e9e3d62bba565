"""What lets a run be killed at any moment: verbs are recorded once done, and the trainer's state is saved beside it.

The state goes to disk in a thread beside training (Writer), the journal's line last.
"""

import contextlib
import copy
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict

from msft import distributed
from msft.errors import Interrupted, RunError
from msft.store import checkpoints
from msft.store.checkpoints import Weights
from msft.store.state import Best, Progress, pack_progress, unpack_progress

RATE = 100e6  # bytes a second that the first save is taken to reach; later ones are taken to cost what the last one did
START = ""  # stands among the sub-datasets whose peaks are kept; its peak is the start point


class Writer(contextlib.AbstractContextManager):
    """Does jobs one after the other beside the thread that gives them; what one raises is raised there, never lost.

    Between `submit` and `wait` the files, the store and the journal belong to the jobs, and what a job was given must
    not change. As a context manager it waits at the end, whatever ended it.  seconds: how long its jobs have taken.
    """

    def __init__(self):
        self._pool = ThreadPoolExecutor(1, "msft-writer")
        self._jobs: deque[Future] = deque()
        self.seconds = 0.0

    @property
    def busy(self) -> bool:
        """Whether a job is not done yet."""
        return any(not job.done() for job in self._jobs)

    def submit(self, job: Callable) -> Future:
        """Queues a job behind those before it."""

        def timed():
            started = time.monotonic()
            try:
                return job()
            finally:
                self.seconds += time.monotonic() - started

        self._jobs.append(self._pool.submit(timed))
        return self._jobs[-1]

    def check(self, wait: bool = False) -> None:
        """Raises what a job that is done raised; waits for none unless told to."""
        while self._jobs and (wait or self._jobs[0].done()):
            self._jobs[0].result()  # one that raised stays, to raise again
            self._jobs.popleft()

    def wait(self) -> None:
        """Until every job is done; raises what one raised."""
        self.check(wait=True)

    def __exit__(self, kind, error, trace) -> None:
        try:
            self.wait()
        except Exception as failure:
            if error is None:
                raise
            if failure is not error:  # a second error beside the one that is on its way already
                warnings.warn(str(failure), stacklevel=2)
        finally:
            self._pool.shutdown()


def holders_after(
    holders: Mapping[str, list], epoch: float, scores: Mapping[str, float], keep: Sequence[str]
) -> dict[str, list]:
    """{sub-dataset: [epoch, accuracy] of its peak} once a point is evaluated; only a strictly higher score takes over."""
    scores = {**scores, START: 0.0}
    taken = {t: [epoch, scores[t]] for t in keep if t not in holders or scores[t] > holders[t][1]}
    return {**holders, **taken}


class Peaks:
    """The weights at the peaks of the stage that is under way, by epoch; where: in "memory" or on "disk".

    A peak in memory goes to disk with the states that need it; once loaded, it is in a file alone.
    What is held is replaced, never changed: a shallow copy stays as it is, for a job of the writer.
    """

    def __init__(self, store, where: str, writer: Writer):
        self.store, self.in_memory, self.writer = store, where == "memory", writer
        self.clear()

    def clear(self) -> None:
        """A stage ends: its peaks are dropped."""
        self._kept: dict[str, Weights | str | Future] = {}  # weights, or the name of their file, or a promise of it
        self._written: dict[str, str] = {}  # the files of those in memory

    def add(self, epoch: float, weights: Weights) -> None:
        """Keeps the weights of an evaluated point; on the way to disk one host copy at most."""
        if not self.in_memory:
            self.writer.wait()
        promise = None if self.in_memory else self.writer.submit(lambda: self.store.put(weights, "weights"))
        self._kept = {**self._kept, str(epoch): promise or weights}

    def keep_held(self, holders: Mapping[str, list]) -> bool:
        """Drops what nobody holds; returns whether a file may be deleted now."""
        wanted, before = {str(epoch) for epoch, _ in holders.values()}, len(self._kept)
        self._kept = {epoch: kept for epoch, kept in self._kept.items() if epoch in wanted}
        return len(self._kept) < before and not self.in_memory

    def weights(self, epoch: float) -> Weights | None:
        """The weights of an epoch's point, or None where it is not kept."""
        kept = self._kept.get(str(epoch))
        return kept if kept is None or isinstance(kept, dict) else self.store.get(_name(kept))

    def epochs(self) -> list[str]:
        """The epochs that are kept."""
        return list(self._kept)

    def to_disk(self) -> dict[str, str]:
        """{epoch: file}; those in memory are written."""
        for epoch, kept in self._kept.items():
            if isinstance(kept, dict) and epoch not in self._written:
                self._written[epoch] = self.store.put(kept, "weights")
        return {epoch: _name(self._written.get(epoch, kept)) for epoch, kept in self._kept.items()}

    def load(self, files: Mapping[str, str]) -> None:
        """Puts `to_disk` back."""
        self._kept = dict(files)


def _name(file: str | Future) -> str:
    """Of a file, its promise kept: raises what went wrong with the write."""
    return file.result() if isinstance(file, Future) else file


class Durable:
    """The journal and the saved states of a trainer's run.

    trainer: its model, optimizer, best and here are what is saved and what comes back.  resumed: the roll-out that a kill
    cut off.  stopping: whether the processes have agreed to stop.  seconds: how long training has waited for saving.
    """

    def __init__(self, trainer, run):
        config = trainer.config
        self.trainer, self.run, self.writer = trainer, run, Writer()
        self.peaks = Peaks(run.store, config.keep_peaks, self.writer)
        self.best_weights: Weights | None = None
        self.resumed: Progress | None = None
        self.stopping = self._is_live = False
        self.seconds, self._pause, self._share = 0.0, 60 * config.save_minutes, config.save_share
        self._started = self._saved_at = time.monotonic()
        self._cost = 3 * run.store.model_bytes / RATE  # seconds of one save: weights and Adam's two moments

    def journal(self):
        """The journal, once what is on its way to disk is there; raises what went wrong on the way."""
        started = time.monotonic()
        self.writer.wait()
        self.seconds += time.monotonic() - started
        return self.run.journal

    def once(self, verb: str, arguments: dict, action: Callable[[], dict | None]) -> dict:
        """A verb's result: from the journal where it is there, else of `action`, which is then recorded."""
        result = self.journal().replay(verb, arguments)
        if result is None:
            self.go_live()
            result = action() or {}
            self.journal().add(verb, arguments, result)
        return result

    def go_live(self) -> None:
        """Once all recorded verbs are replayed: the state that the journal names last."""
        trainer, store = self.trainer, self.run.store
        state = None if self._is_live else self.run.journal.state
        self._is_live = True
        if state is None:
            return
        checkpoints.restore(trainer.model, store.get(state["weights"]))
        if state["best_weights"]:
            self.best_weights = store.get(state["best_weights"])
        self.peaks.load(state["peaks"])
        trainer.best, trainer.here = Best(**state["best"]), state["here"]
        tensors = store.get(state["optimizer"]) if state["optimizer"] else {}
        if state["progress"]:
            self.resumed = distributed.same(unpack_progress(state["progress"], tensors))
        if state["optimizer"]:
            trainer.optimizer = trainer.fresh_optimizer()
            checkpoints.load_optimizer(trainer.optimizer, tensors)

    def is_due(self) -> bool:
        """Whether it is time to save, by the clock of process 0."""
        return distributed.any_of(self._is_due())[0]

    def _is_due(self) -> bool:
        """Saves are minutes apart and stay within their share of the run's time: copying, waiting, and the whole time of the
        writer, since the steps beside it cannot lose more than that; a share of 1 sets no limit."""
        now = time.monotonic()
        spent = self.seconds + self.writer.seconds + self._cost
        is_cheap = self._share == 1.0 or (not self.writer.busy and spent <= self._share * (now - self._started))
        return distributed.is_main() and now >= self._saved_at + self._pause and is_cheap

    def must_save(self) -> bool:
        """Whether all processes save now: it is time by the clock of process 0, or one of them was told to stop."""
        self.stopping, due = distributed.any_of(self.trainer.stop_requested, self._is_due())
        return self.stopping or due

    def save(self, progress: Progress | None = None, optimizer: bool = False) -> None:
        """Writes the state beside training and commits the journal: weights, state, journal line, then deletions.

        All of it is copied first, with Adam's state three times the weights' size in host memory. One save at a time: the
        next one, and the next verb, wait. What goes wrong is raised at the next step, save or verb.
        """
        started, trainer = time.monotonic(), self.trainer
        self.writer.wait()
        plain, tensors = pack_progress(progress) if progress else (None, {})
        if optimizer and trainer.optimizer:
            tensors |= checkpoints.optimizer_tensors(trainer.optimizer)
        facts = {"best": asdict(trainer.best), "here": trainer.here, "progress": plain}
        peaks = copy.copy(self.peaks) if progress else None
        weights, best = checkpoints.snapshot(trainer.model), self.best_weights
        self._saved_at = time.monotonic()
        copying = self._saved_at - started
        self.seconds += copying

        def write() -> None:
            store, started = self.run.store, time.monotonic()
            files = {
                "weights": store.put(weights, "weights"),
                "best_weights": store.put(best, "weights") if best else None,
                "optimizer": store.put(tensors, "optimizer") if tensors else None,
                "peaks": peaks.to_disk() if peaks else {},
            }
            self.run.commit({**files, **facts})
            self._cost = copying + time.monotonic() - started
            store.note("saved", 0, interval=max(self._pause, self._cost / max(self._share, 1e-9)))

        self.writer.submit(write)

    def save_within(self, roll_out) -> None:
        """Puts the place within a roll-out on disk; raises Interrupted where the run was told to stop."""
        progress = roll_out.progress
        if progress.evaluations or progress.step:  # nothing was trained yet at the start point
            progress.schedule = roll_out.schedule.state()
            self.save(progress, optimizer=True)
        if self.stopping:
            self.interrupt()

    def interrupt(self) -> None:
        """Ends the run where it was told to stop: raises Interrupted once all is on disk."""
        distributed.on_main(self.writer.wait)  # the first process that ends takes the others with it
        raise Interrupted(f"stopped and saved in {self.run.directory}. Give the same command again to go on")

    def roll_back(self, stage: int, epoch: float) -> None:
        """Puts the weights of a kept peak back. Raises RunError where none was kept at that epoch."""
        weights = self.peaks.weights(epoch)
        if weights is None:
            raise RunError(f"no weights were kept at epoch {epoch} of stage {stage}; kept: {self.peaks.epochs()}")
        checkpoints.restore(self.trainer.model, weights)

    def report(self) -> None:
        """Makes the current weights the best, whatever was better before."""
        self.best_weights = checkpoints.snapshot(self.trainer.model)

    def announce(self, facts: dict) -> None:
        """What the ledger says of every write from here on, behind what the last stage still writes."""
        self.writer.submit(lambda: setattr(self.run.store, "facts", facts))

    def hold(self, epoch: float, holders: dict, is_peak: bool, is_best: bool) -> None:
        """Copies the weights where they are a peak or the best; drops those that nobody holds any more."""
        weights = checkpoints.snapshot(self.trainer.model) if is_peak or is_best else None
        if is_peak:
            self.peaks.add(epoch, weights)
        if is_best:
            self.best_weights = weights
        if self.peaks.keep_held(holders):
            peaks = copy.copy(self.peaks)
            self.writer.submit(lambda: self.run.prune([*peaks.to_disk().values()]))

    def finish(self) -> None:
        """Puts the end of the run on disk; the model ends as its best checkpoint, so that one file holds both."""
        self.go_live()
        if self.best_weights is None:
            what = "the method left no checkpoint to report: let a roll_out have candidate=True, or call trainer.report"
            raise RunError(f"{self.run.directory}: {what}")
        checkpoints.restore(self.trainer.model, self.best_weights)
        distributed.refresh(self.trainer.measured, self.trainer.model)
        self.save()
        self.journal()
