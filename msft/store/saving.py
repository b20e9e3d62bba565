"""When and how the state of a run goes to disk: in a thread beside training, the journal's line last."""

import time

from msft.store.checkpoints import Weights
from msft.store.peaks import Peaks
from msft.store.writer import Writer

RATE = 100e6  # bytes a second that the first save is taken to reach; later ones are taken to cost what the last one did


class Saving:
    """The saved states of one run.

    share: of the run's time that saving may cost, all of it: copying, and the whole time of the writer, since the steps
    beside it cannot lose more than that; 1 sets no limit.  minutes: between two saves at least.
    seconds: what training itself has waited for it so far, copying and waiting.
    """

    def __init__(self, run, share: float, minutes: float):
        self.run, self.share, self.pause, self.writer = run, share, 60 * minutes, Writer()
        self.seconds = 0.0
        self._started = self._saved_at = time.monotonic()
        self._cost = 3 * run.store.model_bytes / RATE  # seconds of one save: weights and Adam's two moments

    def journal(self):
        """The journal, once what is on its way to disk is there; raises what went wrong on the way."""
        started = time.monotonic()
        self.writer.wait()
        self.seconds += time.monotonic() - started
        return self.run.journal

    def is_due(self) -> bool:
        """Whether enough time has passed for another save."""
        now = time.monotonic()
        if now < self._saved_at + self.pause:
            return False
        spent = self.seconds + self.writer.seconds + self._cost
        return self.share == 1.0 or (not self.writer.busy and spent <= self.share * (now - self._started))

    def put(self, copies) -> None:
        """Writes a state beside training and commits the journal: weights, state, journal line, then deletions.

        copies: () -> (weights, best weights, tensors, peaks, plain values), all of them copies. Until they are written
        host memory holds the weights once more, and Adam's state where it is saved: three times the weights' size
        together. One save at a time: the next one, and the next verb, wait. What goes wrong is raised at the next step,
        save or verb.
        """
        started = time.monotonic()
        self.writer.wait()
        copied = copies()
        self._saved_at = time.monotonic()
        copying = self._saved_at - started
        self.seconds += copying
        self.writer.submit(lambda: self._write(copying, *copied))

    def _write(
        self, copying: float, weights: Weights, best: Weights | None, tensors: Weights, peaks: Peaks | None, plain: dict
    ) -> None:
        store, started = self.run.store, time.monotonic()
        files = {
            "weights": store.put(weights, "weights"),
            "best_weights": store.put(best, "weights") if best else None,
            "optimizer": store.put(tensors, "optimizer") if tensors else None,
            "peaks": peaks.to_disk() if peaks else {},
        }
        self.run.commit({**files, **plain})
        self._cost = copying + time.monotonic() - started
        store.note("saved", 0, interval=max(self.pause, self._cost / max(self.share, 1e-9)))
