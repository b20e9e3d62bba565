"""Reads and scores a generated answer. Stands alone: lm-eval loads a copy of it beside its task files."""

import re

_ANSWER = re.compile(r"####\s*(.*)")
# once a line ends after some text behind the first ####, no later token can change the score
_DECIDED = re.compile(r"\A(?:(?!####).)*####\s*\S[^\n]*\n", re.DOTALL)


def extract(text: str) -> str:
    """The answer in a generated text: what follows the first '####' on its line, or the whole text."""
    match = _ANSWER.search(text)
    return (match.group(1) if match else text).strip().rstrip(".").strip()


def score(text: str, answer: str) -> bool:
    """Whether a generated text gives the gold answer: equal as numbers if both are, else lower-cased."""
    found, gold = extract(text), answer.strip().rstrip(".").strip()
    try:
        return float(found) == float(gold)
    except ValueError:
        return found.lower() == gold.lower()


def decided(text: str) -> bool:
    """Whether the score of a text can no longer change, however it goes on (protocol: exact shortcut)."""
    return _DECIDED.search(text) is not None


def process_results(doc: dict, results: list[str]) -> dict:
    """lm-eval's hook: the metrics of one item."""
    return {"acc": float(score(results[0], doc["answer"]))}
