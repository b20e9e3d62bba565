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

    def files(self) -> list[str]:
        """Names of the files that peaks are in."""
        return [_name(kept) for kept in self._kept.values() if not isinstance(kept, dict)]

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
