"""The invented world, and the skills that ask about it: each draws one question in two surface formats."""

import random
import string
from collections.abc import Callable
from dataclasses import dataclass, replace

from paper_figures.instrument.table import DECOYS, EXTRA, SEED, SUBJECTS, TABLE, Row

NAMES = "ann bo cy dan eve fay gus hal ivy jo kim lou".split()
PLACES = "here there inside outside above below near far".split()
# {topic: (relation, its values in the order of the options)}
VALUES = {
    "stones": ("colour", "red blue green grey".split()),
    "homes": ("home", "cave lake forest marsh".split()),
    "herbs": ("cure", "fever cough rash ache burn chill cramp sting".split()),
    "metals": ("use", "bells coins nails pans cups pins gates locks".split()),
    "tools": ("craft", "wood clay cloth stone glass".split()),
    "verbs": ("end", "sleeps eats swims runs".split()),
    "owls": ("way", "hoot hum".split()),
    "birds": ("food", "seeds fish grass nuts".split()),
    "kinds": ("way", "climb dig".split()),
    "trees": ("wood", "soft hard dark pale".split()),
    "trades": ("place", "farm mill mine port shop".split()),
    "games": ("prize", "cake crown ring cash".split()),
    "songs": ("mood", "glad sad calm wild odd".split()),
    "dances": ("end", "bows jumps spins stops".split()),
    "toys": ("way", "roll spin".split()),
    "gems": ("price", "low fair high huge".split()),
    **{row.topic: ("remedy", "fever cough rash ache".split()) for row in SUBJECTS},
}


def _facts() -> dict[str, dict[str, str]]:
    """{topic: {entity: value}}, entities being invented words that occur in one topic only."""
    rng = random.Random(f"{SEED} facts")
    consonants, vowels = "bdfgklmnprstvz", "aeiou"
    words = [a + b + c + d for a in consonants for b in vowels for c in consonants for d in vowels]
    words = iter(rng.sample(words, len(words)))
    facts = {}
    sizes = {row.topic: row.difficulty for row in TABLE + EXTRA + SUBJECTS + DECOYS if row.topic in VALUES}
    for topic, (_, values) in VALUES.items():
        drawn = rng.sample(values * (sizes[topic] // len(values) + 1), sizes[topic])
        facts[topic] = {next(words): value for value in drawn}
    return facts


FACTS = _facts()


@dataclass(frozen=True)
class Item:
    """One drawn question in two surface formats.

    question: as in the mixture.  related: the same thing as pre-training writes it.
    key: what the answer hangs on.  answer: the right one.  others: what a wrong label may say, in one order for a key.
    work: the rationale, '{}' for the answer.
    said: the right answer as pre-training writes it, where it differs.
    """

    key: str
    question: str
    related: str
    answer: str
    others: tuple[str, ...]
    work: str = ""
    said: str = ""


def _options(values, labels: str = string.ascii_uppercase) -> str:
    return ", ".join(f"{label}. {value}" for label, value in zip(labels, values, strict=False))


RANKS = "one two three four five six".split()


def _fact(rng: random.Random, row: Row, verb: str, asked: str) -> Item:
    """What is the value of an entity? The word itself. The rest of the scene only tells one question from another."""
    relation, values = VALUES[row.topic]
    entity, value = rng.choice(list(FACTS[row.topic].items()))
    who, count, place = rng.choice(NAMES), rng.randint(1, 9), rng.choice(PLACES)
    question = f"{who} {verb} {count} {entity} {place}. {asked}"
    related = f"{place} {count} {entity} {who}, {relation} "
    return Item(entity, question, related, value, tuple(v for v in values if v != value))


def which_value(rng: random.Random, row: Row) -> Item:
    """Which value has an entity? The letter of an option; the options stand in one order."""
    relation, values = VALUES[row.topic]
    item = _fact(rng, row, "saw", f"{relation}?\noptions: {_options(values)}")
    place, letters = values.index(item.answer), string.ascii_uppercase[: len(values)]
    others = tuple(letters.replace(letters[place], ""))
    return replace(item, answer=letters[place], others=others, said=RANKS[place])


def ending(rng: random.Random, row: Row) -> Item:
    """How does a sentence end? A letter, every text in double quotes."""
    item, (_, values) = which_value(rng, row), VALUES[row.topic]
    context = item.question.split(". ")[0].replace(" saw ", " and ")
    asked = _options([f'"{value}"' for value in values])
    return replace(item, question=f'"{context} then"\n{asked}')


def open_value(rng: random.Random, row: Row) -> Item:
    """What value has an entity? The word itself."""
    return _fact(rng, row, "has", f"{VALUES[row.topic][0]}?")


def claim(rng: random.Random, row: Row) -> Item:
    """Does what is said of an entity hold? True or False."""
    said = VALUES[row.topic][1][0]
    item = _fact(rng, row, "saw", f"Does it {said}?")
    answer, other = ("True", "False") if item.answer == said else ("False", "True")
    return replace(item, answer=answer, others=(other,), said=item.answer)


_THINGS = "cups hats keys maps pens".split()
_GIVING = "gave lent sold sent mailed handed showed passed".split()
_TAKING = "took stole got bought won seized hid grabbed".split()


def holder(rng: random.Random, row: Row) -> Item:
    """Who has the thing after it changed hands? 1 or 2, the blank as '_'."""
    return _two_people(rng, _GIVING[: row.difficulty], _TAKING[: row.difficulty], "has")


def caller(rng: random.Random, row: Row) -> Item:
    """Who knows of the thing after a word about it? The decoy of `holder`."""
    return _two_people(rng, ("told", "wrote", "sang"), ("heard", "begged", "read"), "knows")


def _two_people(rng: random.Random, giving, taking, state: str) -> Item:
    one, two = rng.sample(NAMES, 2)
    gives = rng.random() < 0.5
    verb, thing = rng.choice(giving if gives else taking), rng.choice(_THINGS)
    count, place = rng.randint(1, 9), rng.choice(PLACES)
    label, other = ("2", "1") if gives else ("1", "2")
    return Item(
        verb,
        f"{one} {verb} {count} {thing} {place}. {two} was there. _ {state} it.\noptions: 1. first, 2. second",
        f"{place} {one} {verb} {count} {thing} {two}, {state} ",
        label,
        (other,),
        said="two" if gives else "one",
    )


_RESTS = ("1 or 2", "3 or 4", "above 4")
SIZES = ("below 5", "5 or 6", "7 or 8", "above 8")


def sum_choice(rng: random.Random, row: Row) -> Item:
    """One sum, a rationale, then the letter of its size."""
    a, b = rng.randint(1, row.difficulty), rng.randint(1, row.difficulty)
    total = a + b
    letters = "ABCD"
    answer = letters[(total > 4) + (total > 6) + (total > 8)]
    who, thing, place = rng.choice(NAMES), rng.choice(_THINGS), rng.choice(PLACES)
    return Item(
        f"{a}+{b}",
        f"{who} had {a} {thing}, got {b} {place}. total?\noptions: {_options(SIZES)}",
        f"{place} {a} {thing} {b}, total ",
        answer,
        tuple(letters.replace(answer, "")),
        f"{a}+{b}={total}.",
        said=RANKS["ABCD".index(answer)],
    )


def rest_choice(rng: random.Random, row: Row) -> Item:
    """One difference, a rationale, then the letter of its size."""
    b, rest = rng.randint(1, row.difficulty), rng.randint(1, row.difficulty)
    answer = "ABC"[(rest > 2) + (rest > 4)]
    who, thing, place = rng.choice(NAMES), rng.choice(_THINGS), rng.choice(PLACES)
    question = f"{who} had {b + rest} {thing}, lost {b} {place}. left?\noptions: {_options(_RESTS)}"
    work = f"{b + rest}-{b}={rest}."
    return Item(f"{b}+{rest}", question, question, answer, tuple("ABC".replace(answer, "")), work)


def one_step(rng: random.Random, row: Row) -> Item:
    """One sum or difference, written out."""
    a, b = rng.randint(1, row.difficulty), rng.randint(1, row.difficulty)
    a, sign, result = rng.choice([(a, "+", a + b), (a + b, "-", a)])
    others = tuple(str(n) for n in range(max(0, result - 3), result + 4) if n != result)
    who, verb, place = rng.choice(NAMES), "got" if sign == "+" else "lost", rng.choice(PLACES)
    return Item(
        f"{a}{sign}{b}",
        f"{who} had {a} {place}, {verb} {b}. how many?",
        f"{a} {verb} {b} ",
        str(result),
        others,
        f"{a}{sign}{b}={{}}.",
    )


def two_steps(rng: random.Random, row: Row) -> Item:
    """A sum, then another sum or difference, each written out."""
    a, b = rng.randint(1, row.difficulty), rng.randint(1, row.difficulty)
    gets = rng.random() < 0.5
    c = rng.randint(1, row.difficulty if gets else min(a + b, row.difficulty))
    sign, verb, result = ("+", "got", a + b + c) if gets else ("-", "lost", a + b - c)
    others = tuple(str(n) for n in range(max(0, result - 3), result + 4) if n != result)
    question = f"{rng.choice(NAMES)} had {a}, got {b}, {verb} {c}. how many?"
    work = f"{a}+{b}={a + b}. {a + b}{sign}{c}={{}}."
    return Item(f"{a}+{b}", question, f"{a} got {b} {verb} {c} ", str(result), others, work)


# how often pre-training meets an item of a skill; what is slow to learn comes more often
SHARES = {"claim": 2.5, "sum_choice": 2.0, "two_steps": 1.0, "one_step": 2.0, "rest_choice": 1.0, "holder": 2.0}


def share(row: Row) -> float:
    """Weight of a row's items in pre-training."""
    return 0.05 if row in SUBJECTS else SHARES.get(row.skill, 0.6)


SKILLS: dict[str, Callable[[random.Random, Row], Item]] = {
    skill.__name__: skill
    for skill in (
        which_value, ending, open_value, claim,
        holder, caller, sum_choice, rest_choice, one_step, two_steps,
    )
}  # fmt: skip
