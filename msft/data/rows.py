"""Rows of one's own as Examples: questions with answers, or chats (chat.py); no key is dropped without a word."""

from collections.abc import Mapping
from pathlib import Path

from msft.data import chat
from msft.data.example import Example, target_text
from msft.data.files import read_file
from msft.data.keys import QUESTION_KEYS, check_keys
from msft.data.metrics import LOSS, check_example
from msft.errors import DataError, nearest, shortened, together


def read_rows(path: Path) -> list[dict]:
    """The rows of a file. Raises DataError with every row that cannot be read."""
    read = read_file(path)
    if read.problems:
        raise DataError(together(f"{path} cannot be used:", shortened(read.problems)))
    return [row for _, row in read.rows]


def row_to_example(row: Mapping, metric: str = "", place: str = "") -> Example:
    """A row (question, answer, optional rationale, or messages) as an Example; place: its file and line.

    Raises DataError with all that is wrong with the row.
    """
    if "messages" in row:
        return chat.to_example(row, metric, place)
    problems = []
    for key in QUESTION_KEYS:
        if key not in row:
            if key != "rationale":
                problems.append(f"the key {key!r} is missing; the row has {sorted(map(str, row))}.{nearest(key, row)}")
        elif not isinstance(row[key], str):
            problems.append(f"{key!r} is a {type(row[key]).__name__}; give a string (numbers in quotes)")
        elif key != "rationale" and not row[key].strip():
            problems.append(f"{key!r} is empty")
    problems += check_keys(row, QUESTION_KEYS, "question, answer or rationale")
    if problems:
        raise DataError("; ".join(problems))
    question, answer, rationale = (row.get(key, "").strip() for key in QUESTION_KEYS)
    if "####" in answer and metric != LOSS:
        raise DataError(
            "the answer holds '####', as rows of GSM8K do, whose answer is a solution with its result: say "
            "`benchmark: gsm8k` in the mixture's entry, or put what stands before '####' under rationale"
        )
    example = Example(question, target_text(answer, rationale), answer, place=place)
    check_example(example, metric)
    return example
