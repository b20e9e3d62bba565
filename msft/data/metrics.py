"""Metrics of sub-datasets: what a mixture's YAML may name under `metric`, and what an example needs for it.

Each is a number 0..1 of which higher is better, so that every method's decisions work with any of them.
"""

import math
from collections.abc import Sequence

from msft.data.example import Example, check_scorable, check_text
from msft.data.scoring import SCORERS, last_number
from msft.errors import DataError, unknown

LOSS = "loss"
METRICS = (*SCORERS, LOSS)
LABELS = {
    "": "accuracy",
    "exact_match": "exact match",
    "number_match": "number match",
    LOSS: "token probability, exp(-loss)",
}


def check_metric(name: str) -> list[str]:
    """'' stands for the paper's scorer; the problem of any other name that is none of METRICS."""
    return [] if name in ("", *METRICS) else [unknown("metric", name, METRICS) + " Left out, it is the paper's scorer"]


def check_example(example: Example, metric: str) -> None:
    """Raises DataError for an example that its own target would not be right for."""
    if metric == LOSS:
        check_text(example)
    elif metric == "":
        check_scorable(example)
    else:
        check_text(example)
        if metric == "number_match" and last_number(example.answer) is None:
            raise DataError(f"metric number_match needs a number, and the answer {example.answer[:60]!r} has none")
        if not SCORERS[metric](example.target, example.answer):
            raise DataError(f"{metric}: its own target text would be scored as wrong: {example.target[:60]!r}")


def probability(losses: Sequence[float], sizes: Sequence[int]) -> float:
    """exp(-mean token loss): the geometric mean of the probabilities that a model gives the target tokens, 0..1.

    losses: mean target-token loss of each example, in nats.  sizes: its target tokens. It is highest where the
    held-out loss is lowest, and 1 / perplexity.
    """
    mean = sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes)
    return math.exp(-mean)
