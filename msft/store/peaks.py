"""Who holds which checkpoint of a stage (the paper's Algorithm 4): what nobody holds is dropped at once."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future

from msft.store.checkpoints import Weights
from msft.store.writer import Writer

START = ""  # stands among the sub-datasets whose peaks are kept; its peak is the start point


def holders_after(
    holders: Mapping[str, list], epoch: float, scores: Mapping[str, float], keep: Sequence[str]
) -> dict[str, list]:
    """{sub-dataset: [epoch, accuracy] of its peak} once a point is evaluated; only a strictly higher score takes over."""
    scores = {**scores, START: 0.0}
    taken = {t: [epoch, scores[t]] for t in keep if t not in holders or scores[t] > holders[t][1]}
    return {**holders, **taken}


class Peaks:
    """The weights at the peaks of the stage that is under way, by epoch, in memory or on disk.

    store: where files go.  where: "memory" or "disk".  writer: who writes them.
    A peak on disk is the name of its file, or the promise of it; one in memory goes to disk with the states that need it.
    What is held is replaced, never changed: a shallow copy stays as it is, for a job of the writer.
    """

    def __init__(self, store, where: str, writer: Writer):
        self.store, self.in_memory, self.writer = store, where == "memory", writer
        self.clear()

    def clear(self) -> None:
        """A stage ends: its peaks are dropped."""
        self._slots: dict[str, Weights | str | Future] = {}
        self._written: dict[str, str] = {}  # the files of those in memory

    def add(self, epoch: float, weights: Weights) -> None:
        """Keeps the weights of an evaluated point; on the way to disk one host copy at most."""
        slot = weights
        if not self.in_memory:
            self.writer.wait()
            slot = self.writer.submit(lambda: self.store.put(weights, "weights"))
        self._slots = {**self._slots, str(epoch): slot}

    def keep_held(self, holders: Mapping[str, list]) -> bool:
        """Drops what nobody holds; returns whether a file may be deleted now."""
        wanted, before = {str(epoch) for epoch, _ in holders.values()}, self._slots
        self._slots = {epoch: slot for epoch, slot in before.items() if epoch in wanted}
        return len(self._slots) < len(before) and not self.in_memory

    def weights(self, epoch: float) -> Weights | None:
        """The weights of an epoch's point, or None where it is not kept."""
        slot = _file(self._slots.get(str(epoch)))
        return self.store.get(slot) if isinstance(slot, str) else slot

    def epochs(self) -> list[str]:
        """The epochs that are kept."""
        return list(self._slots)

    def files(self) -> list[str]:
        """Names of the files that peaks are in."""
        return [slot for slot in map(_file, self._slots.values()) if isinstance(slot, str)]

    def to_disk(self) -> dict[str, str]:
        """{epoch: file}; those in memory are written."""
        for epoch, slot in self._slots.items():
            if epoch not in self._written:
                slot = _file(slot)
                self._written[epoch] = slot if isinstance(slot, str) else self.store.put(slot, "weights")
        return {epoch: self._written[epoch] for epoch in self._slots}

    def load(self, files: Mapping[str, str]) -> None:
        """Puts `to_disk` back."""
        self._slots = dict(files)


def _file(slot):
    """A slot, its promise kept: raises what went wrong with the write."""
    return slot.result() if isinstance(slot, Future) else slot
