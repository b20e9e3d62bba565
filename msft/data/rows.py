"""Rows of one's own as Examples: questions with answers, or chats. No key that says something is dropped without a word.

A chat is {"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}; the tokenizer's
template makes its texts later (chat.py). A key that nobody reads is an error where it changes what a row means, else
it is counted.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from msft.data.example import Example, target_text
from msft.data.files import read_file
from msft.data.metrics import LOSS, check_example
from msft.data.scoring import THOUGHT_END, extract, stripped, thoughtless
from msft.errors import DataError, nearest, shortened, together

QUESTION_KEYS = ("question", "answer", "rationale")
ROW_KEYS, MESSAGE_KEYS = ("messages",), ("role", "content")
ROLES = ("system", "user", "assistant")
# what would have to reach the prompt, the template or the loss; in a row '_', digits and case may be others
CHANGES_MEANING = frozenset(
    """context contexts passage passages paragraph document documents article table evidence options choices input inputs
    instruction instructions prompt history hint hints premise hypothesis background body story facts knowledge support
    distractors few_shot persona answers system sys_prompt system_prompt system_message developer conversations output response
    completion chosen rejected tools tool_calls tool_call tool_call_id tool_choice tool_responses available_tools functions
    function_call function_declarations parallel_tool_calls chat_template_kwargs images image image_url audio video videos
    weight loss_weight sample_weight loss loss_mask reasoning reasoning_content reasoning_details thinking thinking_content
    thought chain_of_thought cot continue_final_message ctx sys option choice img attachments dialogue conversation
    system_instruction rejected_response chosen_response preamble enable_thinking sentence""".replace("_", "").split()
) | {f"{kind}{letter}" for kind in ("", "op", "option", "choice") for letter in "abcde"}  # options, a column each
WEIGHTS = ("weight", "loss", "train", "training")  # whether a message is learned, as other tools call it
OF_A_MESSAGE = CHANGES_MEANING | {*WEIGHTS, "traindetail", "name", "prefix", "mask", "masked"}


def read_rows(path: Path) -> list[dict]:
    """The rows of a file. Raises DataError with every row that cannot be read."""
    read = read_file(path)
    if read.problems:
        raise DataError(together(f"{path} cannot be used:", shortened(read.problems)))
    return [row for _, row in read.rows]


def row_to_example(row: Mapping, metric: str = "", place: str = "") -> Example:
    """A row as an Example; place: its file and line. Raises DataError with all that is wrong with the row."""
    is_chat = has_value(row.get("messages")) or "messages" in row and not {"question", "answer"} & set(row)
    # rows of both shapes in one table have the columns of both: those of the other shape are empty
    other = ("question", "answer") if is_chat else (*ROW_KEYS, "rationale")
    row = {key: value for key, value in row.items() if key not in other or has_value(value)}
    example = _chat(row, place) if is_chat else _question(row, metric, place)
    check_example(example, metric)
    return example


def _question(row: Mapping, metric: str, place: str) -> Example:
    problems = []
    for key in QUESTION_KEYS:
        if key not in row:
            if key != "rationale":
                problems.append(f"the key {key!r} is missing; the row has {sorted(map(str, row))}.{nearest(key, row)}")
        elif not isinstance(row[key], str):
            problems.append(f"{key!r} is of type {type(row[key]).__name__}; give a string (numbers in quotes)")
        elif key != "rationale" and not stripped(row[key]):
            problems.append(f"{key!r} is empty")
    problems += _check_keys(row, QUESTION_KEYS, "question, answer or rationale")
    if problems:
        raise DataError("; ".join(problems))
    question, answer, rationale = (row.get(key, "").strip() for key in QUESTION_KEYS)
    if (marks := ["####"] * ("####" in answer) or THOUGHT_END.findall(answer)) and metric != LOSS:
        mend = "say `benchmark: gsm8k` in the mixture's entry where rows are GSM8K's, else put what stands before under rationale"
        raise DataError(f"the answer holds {marks[0]!r}, so that it is a solution with its result: {mend}")
    return Example(question, target_text(answer, rationale), answer, place=place)


def _chat(row: Mapping, place: str) -> Example:
    messages, problems = row["messages"], []
    if {"question", "answer"} & set(row):
        problems.append("it has messages and a question or an answer; give one of the two")
    others = {key: value for key, value in row.items() if key not in QUESTION_KEYS}
    problems += _check_keys(others, ROW_KEYS, "the messages")
    if not isinstance(messages, list) or not messages:
        raise DataError("; ".join([*problems, "messages must be a non-empty list of {'role': ..., 'content': ...}"]))
    for number, message in enumerate(messages, 1):
        problems += _check_message(number, message, is_last=number == len(messages))
    if problems:
        raise DataError("; ".join(problems))
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    if turns != (["user", "assistant"] * len(turns))[: len(turns)] or not turns or turns[-1] != "assistant":
        mend = "give user and assistant in turn, the assistant last, and a system message at most before them"
        raise DataError(f"the roles are {', '.join(roles)}; {mend}")
    pairs = tuple((message["role"], message["content"]) for message in messages)
    asked, answer = "\n".join(f"{role}: {content}" for role, content in pairs[:-1]), pairs[-1][1]
    return Example(asked, answer, extract(thoughtless(answer)), messages=pairs, place=place)


def _check_message(number: int, message: object, is_last: bool) -> list[str]:
    if not isinstance(message, dict):
        return [f"message {number} is of type {type(message).__name__}, not an object with role and content"]
    # the loss is on the last message and on none before it: a weight that asks for that asks for nothing
    is_other = message.get("role") != "assistant"
    read = {k: v for k, v in message.items() if not (k in WEIGHTS and (is_other or v == int(is_last)))}
    problems = [f"message {number}: {problem}" for problem in _check_keys(read, MESSAGE_KEYS, "its content")]
    for key in MESSAGE_KEYS:
        value = message.get(key)
        if value is None:
            problems.append(f"message {number} has no {key}.{nearest(key, set(message) - {key})}")
        elif not isinstance(value, str):
            problems.append(f"message {number}: {key} is of type {type(value).__name__}; give a string")
        # an empty system message keeps some templates from writing their own
        elif key == "content" and not stripped(value) and message.get("role") != "system":
            problems.append(f"message {number}: content is empty")
        elif key == "role" and value not in ROLES:
            problems.append(f"message {number}: role {value!r}; allowed: {', '.join(ROLES)}")
    return problems


def _check_keys(row: Mapping, known: Iterable[str], into: str) -> list[str]:
    """Problems of keys that are near a known one, or would change what the row or message means.

    into: where what such a key says could stand. An empty value, and a text that stands there already, change nothing.
    """
    changes, problems = OF_A_MESSAGE if known == MESSAGE_KEYS else CHANGES_MEANING, []
    for key, value in row.items():
        if key in known or not has_value(value):
            continue
        close = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.8)
        name = re.sub(r"[\W\d_]", "", key).lower()
        said = str(value) if len(name) == 1 else value  # a table may have a and b of 'a + b' as numbers
        if close and abs(len(close[0]) - len(key)) <= 2:
            problems.append(f"unknown key {key!r}. Did you mean {close[0]!r}?")
        elif {name, name.removesuffix("s")} & changes and not _is_said(said, row, known):
            mend = f"write it into {into}, or take it out"
            problems.append(f"the key {key!r} is not read, and what it says would be lost: {mend}")
    return problems


def _is_said(value: object, row: Mapping, known: Iterable[str]) -> bool:
    """Whether a text stands in what is read of the row, as a question has its context."""
    parts = [row.get(key) for key in known]
    messages = row.get("messages")
    parts += [m.get("content") for m in messages if isinstance(m, dict)] if isinstance(messages, list) else []
    if not isinstance(value, str):
        return False
    value, texts = value.strip(), [part for part in parts if isinstance(part, str)]
    # a short text stands in many words: 'A' is not said by 'Are'
    whole = rf"(?<!\w){re.escape(value)}(?!\w)" if re.fullmatch(r"\w(.{0,18}\w)?", value, re.ASCII) else ""
    return any(value in text and re.search(whole, text, re.ASCII) for text in texts)


def unread(row: Mapping) -> set[str]:
    """The keys of a row, and of its messages, that have a value and are not read; the row has no problems."""
    messages = row.get("messages") or ()
    parts = [(row, ROW_KEYS if messages else QUESTION_KEYS)]
    parts += [(message, (*MESSAGE_KEYS, *WEIGHTS)) for message in messages]
    return {key for part, known in parts for key, value in part.items() if key not in known and has_value(value)}


def has_value(value: object) -> bool:
    """Whether a key says anything: NaN, which pandas writes for a missing value, and a struct or list of nulls do not."""
    if isinstance(value, dict | list):
        return any(map(has_value, value.values() if isinstance(value, dict) else value))
    return value is not None and value != "" and value == value
