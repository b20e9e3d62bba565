"""Metrics of sub-datasets: what a mixture's YAML may name under `metric`, and what an example needs for it.

Each is a number 0..1 of which higher is better, so that every method's decisions work with any of them.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from msft.data.example import Example, documents
from msft.data.scoring import SCORERS, THOUGHT_END, as_number, extract, is_right, lowered, normalised, numbers
from msft.errors import DataError

LOSS = "loss"
METRICS = (*SCORERS, LOSS)
LABELS = {
    "": "accuracy",
    "exact_match": "exact match",
    "number_match": "number match",
    LOSS: "token probability, exp(-loss)",
}


@dataclass(frozen=True)
class Scores:
    """One sub-dataset, or what a judge finds, at one evaluation.

    accuracy: share of right answers, 0..1; with the metric loss exp(-held-out loss): the geometric mean of the
    probabilities of the target tokens, highest where the loss is lowest.
    n: items.  tokens: question and generated tokens of all items, the shared prefix not counted (what Table 7 counts).
    outputs: the generated text of each item.  correct: whether it is right; with the metric loss no text, and
    exp(-loss) of the item.
    loss: mean token loss of the gold answers, in nats: over all target tokens of the set, in the very prompts that are
    answered (PrefixCachedLM.gold); with the metric loss the held-out loss.
    Where an lm-eval task is the judge, accuracy is its own value, of which a lower one may be better and which may have a
    scale of its own, as a perplexity has: then it belongs in no mean with accuracies, and outputs and correct are empty,
    as they are where some items lack the metric (n counts those that have it); loss is None without test items.
    """

    accuracy: float
    n: int
    tokens: int
    outputs: list[str]
    correct: list[bool] | list[float]
    loss: float | None = None
    higher_is_better: bool = True
    on_own_scale: bool = False


def check_example(example: Example, metric: str = "") -> None:
    """Raises DataError for what cannot be tokenised, and for an example that its own target would not be right for."""
    try:
        f"{example.question}{example.target}".encode()
    except UnicodeEncodeError as error:
        raise DataError(f"it holds half of a surrogate pair, which is no text ({error.reason})") from None
    if metric == LOSS:
        return
    if example.messages and "\n" in example.target.partition("####")[2].strip():
        what = "its last message has '####', behind which the scored answer stands, and lines behind that"
        raise DataError(f"{what}: end with '#### result', mark headings in another way, or take the metric loss")
    if example.messages and (not example.answer or THOUGHT_END.search(example.answer)):
        raise DataError("its last message has no answer behind its thought: end the thought, and say the answer then")
    shown, is_number = repr(example.answer[:60]), metric == "number_match"
    values = numbers(example.answer) if is_number else []
    if is_number and (None in values[-1:] or len(values) != 1 and not (values and example.messages)):
        how_many = "none" if not values else "one that it cannot read" if None in values[-1:] else len(values)
        what = f"metric number_match needs a number, and the answer {shown} has {how_many}"
        mend = "give one such as 1250, 1,250.5, 1 1/2 or 1.6e-19, no range, date, power or root, or take exact_match"
        raise DataError(f"{what}: {mend}")
    if not is_right(example.target, documents([example], metric)[0]) or not extract(example.target):
        what = f"its own target text would be scored as wrong: the answer {shown} is not what follows its first '####'"
        mend = "give an answer of one line, more than dots, without '####' in the rationale ('nan' wants exact_match)"
        raise DataError(f"{what}; {mend}, or take the metric loss")


def merged(examples: Iterable[Example], metric: str) -> list[str]:
    """Problems of gold answers of one set that differ and that the metric takes for the same; numbers may be equal."""
    first, problems = {}, []
    for example in examples if metric in ("", "exact_match") else ():
        answer = unicodedata.normalize("NFC", example.answer.rstrip(". "))
        known, place = first.setdefault(
            normalised(answer) if metric else as_number(lowered(answer)), (answer, example.place)
        )
        if known != answer:
            who = f"metric {metric}" if metric else "the default metric"
            what = f"{who} takes the answer {answer[:60]!r} for {known[:60]!r} ({place})"
            problems.append(f"{example.place}: {what}; write both alike, or take another metric")
    return problems


def token_mean(losses: Sequence[float], sizes: Sequence[int]) -> float:
    """Mean token loss of a set, in nats. losses: mean target-token loss of each example.  sizes: its target tokens."""
    return sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes)
