"""What a roll-out measured: the score of every sub-dataset at every evaluation."""

from collections.abc import Mapping


class Curve(dict):
    """{epoch: {sub-dataset: score}} of one roll-out, epochs counted from its start.

    score: what decisions are taken on, the higher the better: an accuracy, or minus a loss (RunConfig.select_metric).
    stage: number of the roll-out.  offset: the paper's Ep. of its start.  points: all that was recorded.
    """

    def __init__(self, stage: int, offset: float, points: list[dict]):
        super().__init__({point["epoch"]: point["selection"] for point in points})
        self.stage, self.offset, self.points = stage, offset, points

    def peak(self, task: str) -> float:
        """Epoch of the earliest best score of a sub-dataset."""
        return max(sorted(self), key=lambda epoch: (self[epoch][task], -epoch))


def comparable(point: Mapping) -> list[str]:
    """The sub-datasets of an evaluated point that a mean is taken over: those with a scale of their own, as a perplexity
    has, are left out, unless there are no others."""
    apart = set(point.get("on_own_scale", ()))
    return [task for task in point["accuracy"] if task not in apart] or list(point["accuracy"])


def overall(scores: Mapping[str, float], sizes: Mapping[str, int]) -> float:
    """Accuracy over all items; with equal test sizes, the mean over sub-datasets."""
    total = sum(sizes[task] for task in scores)
    return sum(scores[task] * sizes[task] for task in scores) / total
