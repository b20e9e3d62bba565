"""When and how the state of a run goes to disk: in a thread beside training, the journal's line last."""

import time

from msft.store.checkpoints import Weights
from msft.store.peaks import Peaks
from msft.store.writer import Writer

LEAST_COST = 0.25  # seconds; what a save is taken to cost at least, or a tiny model would save at every step


class Saving:
    """The saved states of one run.

    share: of the time that saving may cost training.  seconds: what it has cost so far, copying and waiting.
    """

    def __init__(self, run, share: float):
        self.run, self.share, self.writer = run, share, Writer()
        self.seconds = 0.0
        self._saved_at, self._cost = time.monotonic(), 0.0

    def journal(self):
        """The journal, once what is on its way to disk is there; raises what went wrong on the way."""
        started = time.monotonic()
        self.writer.wait()
        self.seconds += time.monotonic() - started
        return self.run.journal

    def is_due(self) -> bool:
        """Whether enough time has passed for another save."""
        return (time.monotonic() - self._saved_at) * self.share > max(self._cost, LEAST_COST)

    def put(self, copies) -> None:
        """Writes a state beside training and commits the journal: weights, state, journal line, then deletions.

        copies: () -> (weights, best weights, tensors, peaks, plain values), all of them copies. Until they are written
        host memory holds the weights once more, and Adam's state where it is saved: three times the weights' size
        together. One save at a time: the next one, and the next verb, wait. What goes wrong is raised at the next step,
        save or verb.
        """
        started = time.monotonic()
        self.writer.wait()
        weights, best_weights, tensors, peaks, plain = copies()
        self.writer.submit(lambda: self._write(weights, best_weights, tensors, peaks, plain))
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - started
        self.seconds += self._cost

    def _write(self, weights: Weights, best_weights: Weights | None, tensors: Weights, peaks: Peaks | None, plain):
        store = self.run.store
        files = {
            "weights": store.put(weights, "weights"),
            "best_weights": store.put(best_weights, "weights") if best_weights else None,
            "optimizer": store.put(tensors, "optimizer") if tensors else None,
            "peaks": peaks.to_disk() if peaks else {},
        }
        self.run.commit({**files, **plain})
