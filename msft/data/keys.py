"""Keys of rows that nobody reads: an error where they change what a row means, else counted."""

import difflib
from collections.abc import Iterable, Mapping

QUESTION_KEYS = ("question", "answer", "rationale")
# what would have to reach the prompt, the template or the loss
CHANGES_MEANING = {
    *(
        "context",
        "contexts",
        "passage",
        "passages",
        "paragraph",
        "document",
        "documents",
        "article",
        "table",
        "evidence",
    ),
    *("options", "choices", "input", "inputs", "instruction", "instructions", "prompt", "history", "hint", "answers"),
    *(
        "system",
        "system_prompt",
        "developer",
        "conversations",
        "output",
        "response",
        "completion",
        "chosen",
        "rejected",
    ),
    *(
        "tools",
        "tool_calls",
        "tool_call",
        "tool_call_id",
        "tool_choice",
        "tool_responses",
        "functions",
        "function_call",
    ),
    *("parallel_tool_calls", "chat_template_kwargs", "images", "image", "audio", "video", "videos", "name"),
    *("weight", "loss_weight", "sample_weight", "loss_mask", "mask", "train", "prefix", "continue_final_message"),
    *("reasoning", "reasoning_content", "thinking", "thought", "chain_of_thought", "cot"),
}
NOTHING = ("", [], {}, ())


def _misspelt(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.8)
    return close[0] if close and abs(len(close[0]) - len(key)) <= 2 else ""


def _others(row: Mapping, known: Iterable[str]) -> list[str]:
    return [key for key, value in row.items() if key not in known and value is not None and value not in NOTHING]


def check_keys(row: Mapping, known: Iterable[str]) -> list[str]:
    """Problems of keys that are near a known one, or would change what the row means. An empty value changes nothing."""
    problems = []
    for key in _others(row, known):
        if right := _misspelt(key, known):
            problems.append(f"unknown key {key!r}. Did you mean {right!r}?")
        elif key.lower() in CHANGES_MEANING:
            problems.append(
                f"the key {key!r} is not read, and what it says would be lost: write it into {' or '.join(known)}, or "
                "take it out"
            )
    return problems


def unread(row: Mapping, known: Iterable[str]) -> list[str]:
    """The keys of a row that are neither read nor refused."""
    return [key for key in _others(row, known) if not _misspelt(key, known) and key.lower() not in CHANGES_MEANING]
