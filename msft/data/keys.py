"""Keys of rows that nobody reads: an error where they change what a row means, else counted."""

import difflib
from collections.abc import Iterable, Mapping

QUESTION_KEYS = ("question", "answer", "rationale")
ROW_KEYS, MESSAGE_KEYS = ("messages",), ("role", "content")
# what would have to reach the prompt, the template or the loss
CHANGES_MEANING = frozenset(
    """context contexts passage passages paragraph document documents article table evidence options choices input inputs
    instruction instructions prompt history hint answers system system_prompt developer conversations output response
    completion chosen rejected tools tool_calls tool_call tool_call_id tool_choice tool_responses functions function_call
    parallel_tool_calls chat_template_kwargs images image audio video videos weight loss_weight sample_weight loss_mask
    reasoning reasoning_content thinking thought chain_of_thought cot continue_final_message""".split()
)
OF_A_MESSAGE = CHANGES_MEANING | {"name", "prefix", "train", "mask"}


def check_keys(row: Mapping, known: Iterable[str], into: str) -> list[str]:
    """Problems of keys that are near a known one, or would change what the row or message means.

    into: where what such a key says could stand. An empty value, and a text that stands there already, change nothing.
    """
    changes, problems = OF_A_MESSAGE if known == MESSAGE_KEYS else CHANGES_MEANING, []
    for key, value in row.items():
        if key in known or not has_value(value):
            continue
        close = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.8)
        if close and abs(len(close[0]) - len(key)) <= 2:
            problems.append(f"unknown key {key!r}. Did you mean {close[0]!r}?")
        elif key.lower() in changes and not _is_said(value, row, known):
            problems.append(
                f"the key {key!r} is not read, and what it says would be lost: write it into {into}, or take it out"
            )
    return problems


def unread(row: Mapping) -> set[str]:
    """The keys of a row, and of its messages, that have a value and are not read; the row has no problems."""
    parts = [(row, ROW_KEYS), *((message, (*MESSAGE_KEYS, "weight")) for message in row.get("messages", ()))]
    parts = parts if "messages" in row else [(row, QUESTION_KEYS)]
    return {key for part, known in parts for key, value in part.items() if key not in known and has_value(value)}


def has_value(value: object) -> bool:
    """Whether a key says anything."""
    return value is not None and value not in ("", [], {})


def _is_said(value: object, row: Mapping, known: Iterable[str]) -> bool:
    """Whether a text stands in what is read of the row, as a question has its context."""
    parts = [row.get(key) for key in known]
    messages = row.get("messages")
    parts += [m.get("content") for m in messages if isinstance(m, dict)] if isinstance(messages, list) else []
    return isinstance(value, str) and any(value.strip() in part for part in parts if isinstance(part, str))
