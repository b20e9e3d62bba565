"""What a roll-out measured: the score of every sub-dataset at every evaluation."""

from collections.abc import Collection, Mapping


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


def overall(scores: Mapping[str, float], sizes: Mapping[str, int], apart: Collection[str] = ()) -> float:
    """Accuracy over all items; with equal test sizes, the mean over sub-datasets.

    apart: those with a scale of their own, as a perplexity has: they are left out, unless there are no others.
    """
    tasks = [task for task in scores if task not in apart] or list(scores)
    return sum(scores[task] * sizes[task] for task in tasks) / sum(sizes[task] for task in tasks)
