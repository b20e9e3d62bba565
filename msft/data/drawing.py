"""Seeded draws: pure functions of (seed, sub-dataset, part) and of the rows as they stand, on every machine alike."""

import hashlib
import random
from collections.abc import Mapping, Sequence

from msft.data.example import Example


def seed_of(seed: int, name: str, part: str) -> int:
    """A seed of its own for every sub-dataset and part, so that no draw moves another."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}/{part}".encode()).digest()[:8], "big")


def split_off(
    examples: Sequence[Example], shares: Mapping[str, float], seed: int, name: str
) -> tuple[list[Example], dict[str, list[Example]]]:
    """(the rest, {part: its examples}): each part has its share of all questions, rows of one question stay together."""
    questions, taken = list(dict.fromkeys(example.question_key for example in examples)), {}
    sizes = {part: round(share * len(questions)) for part, share in shares.items()}
    for part, size in sizes.items():
        drawn = set(random.Random(seed_of(seed, name, part)).sample(questions, min(size, len(questions))))
        questions = [question for question in questions if question not in drawn]
        taken[part] = [example for example in examples if example.question_key in drawn]
    left = set(questions)
    return [example for example in examples if example.question_key in left], taken


def draw(examples: Sequence[Example], size: int, seed: int, name: str, part: str) -> list[Example]:
    """As many rows of a part, in the order in which they stand."""
    places = random.Random(seed_of(seed, name, f"{part}_size")).sample(range(len(examples)), size)
    return [examples[place] for place in sorted(places)]
