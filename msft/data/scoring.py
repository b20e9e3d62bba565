"""Reads and scores a generated answer. Stands alone: lm-eval loads a copy of it beside its task files."""

import math
import re
import unicodedata

_ANSWER = re.compile(r"####\s*(.*)")
_SIGN = r"(?:(?<![\w.)])[-+])?"  # '2020-05' holds no negative number
_NUMBER = re.compile(_SIGN + r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?")
_ENDS = " \t\n.,;:!?\"'`()[]{}\u2018\u2019\u201c\u201d"  # what stands around an answer without changing it
_TOLERANCE = 1e-6  # relative: decimals that were rounded differ, one digit does not
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


def normalised(text: str) -> str:
    """Text as exact_match compares it: NFKC, case folded, white space as single blanks, no punctuation around it."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(_ENDS)


def last_number(text: str) -> float | None:
    """The last number in a text, without its thousands' commas and units; None where there is none."""
    found = _NUMBER.findall(text.replace("\u2212", "-"))
    return float(found[-1].replace(",", "")) if found else None


def exact_match(text: str, answer: str) -> bool:
    """Whether the answer in a generated text is the gold one, both `normalised`."""
    return normalised(extract(text)) == normalised(answer)


def number_match(text: str, answer: str) -> bool:
    """Whether the last number of the answer in a generated text equals that of the gold one."""
    found, gold = last_number(extract(text)), last_number(answer)
    return found is not None and gold is not None and math.isclose(found, gold, rel_tol=_TOLERANCE, abs_tol=1e-12)


SCORERS = {"exact_match": exact_match, "number_match": number_match}


def decided(text: str) -> bool:
    """Whether the score of a text can no longer change, however it goes on (protocol: exact shortcut)."""
    return _DECIDED.search(text) is not None


def process_results(doc: dict, results: list[str]) -> dict:
    """lm-eval's hook: the metrics of one item, by the metric that its document names, else the paper's scorer."""
    return {"acc": float(SCORERS.get(doc.get("metric"), score)(results[0], doc["answer"]))}
