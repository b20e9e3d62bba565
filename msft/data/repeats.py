"""Questions that stand more than once: within a part, in two parts, in two sub-datasets, with one answer or several."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from msft.data.example import Example
from msft.data.metrics import LOSS
from msft.data.mixture import MEASURED, SubDataset, distinct
from msft.data.scoring import SCORERS, score
from msft.errors import shortened

_DISJOINT = [("train", part) for part in MEASURED] + [("shots", part) for part in MEASURED]
_DISJOINT += [("validation", "test"), ("confirmation", "test"), ("confirmation", "validation")]
_OF_SEVERAL = ("all of which are trained", "of which one at most is right for a model")
_Parts = Mapping[str, Sequence[Example]]
_log = logging.getLogger(__name__)


def several_answers(examples: Iterable[Example], metric: str) -> dict[str, Example]:
    """{question: the first example that answers it in another way than the first one}."""
    first, others, is_same = {}, {}, SCORERS.get(metric, score)
    for example in examples:
        known = first.setdefault(example.question_key, example)
        if known.answer != example.answer and not is_same(known.answer, example.answer):
            others.setdefault(example.question_key, example)
    return others


def say_repeated(name: str, parts: _Parts, metric: str) -> None:
    """Names the questions of measured parts that stand several times, and those of any part with several answers."""
    for part in ("train", *MEASURED):
        rows = parts.get(part, ())
        counts = Counter(example.question_key for example in rows if part != "train")
        if again := [example for example in rows if counts[example.question_key] > 1]:
            text = "%s: %d of %d rows of %s ask what another one asks, and count as often: %s (%s)"
            _log.warning(text, name, len(again), len(rows), part, _quoted(again[-1]), _where(again[-1]))
        if metric != LOSS and (others := several_answers(rows, metric)):
            example = next(iter(others.values()))
            text = f"%s: %d questions of %s have several answers, {_OF_SEVERAL[part != 'train']}: %s (%s)"
            _log.warning(text, name, len(others), part, _quoted(example), _where(example))


def overlaps(name: str, parts: _Parts) -> list[str]:
    """Problems of questions that stand in two parts which must be disjoint."""
    problems = []
    for first, second in _DISJOINT:
        known = {e.question_key: e for e in reversed(parts.get(first, []))}
        shared = [
            f"the same question in {first} ({_where(known[e.question_key])}) and {second} ({_where(e)}): {_quoted(e)}; "
            f"remove one, or write `allow_overlap: [{name}]` beside `name` at the top of the YAML"
            for e in distinct(parts.get(second, []))
            if e.question_key in known
        ]
        problems += shortened(shared, 5)
    return problems


def _asked(example: Example) -> bytes:
    """What makes two questions the same, of a chat with one question its text alone: no role and no system message."""
    said = [content for role, content in example.messages if role == "user"]
    return replace(example, question=said[0]).question_key if len(said) == 1 else example.question_key


def say_trained_elsewhere(subs: Iterable[SubDataset], allowed: Sequence[str]) -> None:
    """Names with their number the questions of measured items that another sub-dataset trains on, as a chat or not."""
    trained = {_asked(example): (sub.name, example) for sub in subs for example in sub.train}
    for sub in subs:
        items = [item for part in MEASURED for item in getattr(sub, part) if sub.name not in allowed]
        pairs = [(item, *trained[key]) for item in items if (key := _asked(item)) in trained]
        if pairs := [pair for pair in pairs if pair[1] != sub.name]:
            item, other, example = pairs[0]
            text = "%s: %d questions of %d are trained in other sub-datasets, such as %s (%s of %s); remove them there, or write `allow_overlap: [%s]` at the top of the YAML"
            _log.warning(text, sub.name, len(pairs), len(items), _quoted(item), _where(example), other, sub.name)


def _quoted(example: Example) -> str:
    """The beginning of a question, or of what a chat asks last."""
    return repr((example.messages[-2][1] if example.messages else example.question)[:60])


def _where(example: Example) -> str:
    """'line 3' or, where rows have no lines, 'row 3'."""
    number = example.place.rpartition(":")[2]
    return f"line {number}" if number.isdigit() else number
