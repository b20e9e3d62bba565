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
        self._weights: dict[str, Weights] = {}  # of the peaks in memory
        self._files: dict[str, str | Future] = {}  # of the others, which alone are loaded: names, or promises of them
        self._written: dict[str, str] = {}  # the files of those in memory

    def add(self, epoch: float, weights: Weights) -> None:
        """Keeps the weights of an evaluated point; on the way to disk one host copy at most."""
        if self.in_memory:
            self._weights = {**self._weights, str(epoch): weights}
        else:
            self.writer.wait()
            promise = self.writer.submit(lambda: self.store.put(weights, "weights"))
            self._files = {**self._files, str(epoch): promise}

    def keep_held(self, holders: Mapping[str, list]) -> bool:
        """Drops what nobody holds; returns whether a file may be deleted now."""
        wanted, before = {str(epoch) for epoch, _ in holders.values()}, len(self.epochs())
        self._weights = {epoch: weights for epoch, weights in self._weights.items() if epoch in wanted}
        self._files = {epoch: file for epoch, file in self._files.items() if epoch in wanted}
        return len(self.epochs()) < before and not self.in_memory

    def weights(self, epoch: float) -> Weights | None:
        """The weights of an epoch's point, or None where it is not kept."""
        file = self._files.get(str(epoch))
        return self._weights.get(str(epoch)) if file is None else self.store.get(_name(file))

    def epochs(self) -> list[str]:
        """The epochs that are kept."""
        return [*self._files, *self._weights]

    def files(self) -> list[str]:
        """Names of the files that peaks are in."""
        return [_name(file) for file in self._files.values()]

    def to_disk(self) -> dict[str, str]:
        """{epoch: file}; those in memory are written."""
        for epoch, weights in self._weights.items():
            if epoch not in self._written:
                self._written[epoch] = self.store.put(weights, "weights")
        names = {epoch: _name(file) for epoch, file in self._files.items()}
        return names | {epoch: self._written[epoch] for epoch in self._weights}

    def load(self, files: Mapping[str, str]) -> None:
        """Puts `to_disk` back."""
        self._weights, self._files = {}, dict(files)


def _name(file: str | Future) -> str:
    """Of a file, its promise kept: raises what went wrong with the write."""
    return file.result() if isinstance(file, Future) else file
