"""JSON lines of one's own as Examples: questions with answers, or chats (chat.py); no key is dropped without a word."""

import json
from collections.abc import Mapping
from pathlib import Path

from msft.data import chat
from msft.data.example import Example, target_text
from msft.data.keys import QUESTION_KEYS, check_keys
from msft.data.metrics import LOSS, check_example
from msft.errors import DataError, nearest, shortened, together


def read_lines(path: Path) -> tuple[list[tuple[int, dict]], list[str]]:
    """((line number, row) of every JSON object, null columns taken out; the problems of all other lines)."""
    try:
        if path.exists() and not path.is_file():  # reading a device or a pipe might never end
            raise OSError("it is no file; give a JSONL file")
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        close = nearest(path.name, [other.name for other in path.parent.glob("*.jsonl")])
        return [], [f"{path}: no such file.{close}"]
    except OSError as error:
        return [], [f"{path}: cannot be read: {error}"]
    except ValueError as error:
        return [], [f"{path}: not UTF-8 text ({error}); save it as UTF-8 JSON lines"]
    rows, problems = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            problems.append(f"{path}:{number}: not JSON ({error})")
            continue
        if isinstance(row, dict):
            # data sets that were joined have every column, null where a row lacks it
            rows.append((number, {key: value for key, value in row.items() if value is not None}))
        else:
            problems.append(f"{path}:{number}: a {type(row).__name__}, not an object with keys")
    return rows, problems if rows or problems else [f"{path} has no rows"]


def read_rows(path: Path) -> list[dict]:
    """The rows of a JSONL file. Raises DataError with every line that cannot be read."""
    rows, problems = read_lines(path)
    if problems:
        raise DataError(together(f"{path} is not JSON lines:", shortened(problems)))
    return [row for _, row in rows]


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
