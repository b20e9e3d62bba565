"""The embedded default mixture: generated questions, one declared table, related text to pre-train on.

A small invented world (stones and their colours, animals and their homes, who gave what to whom, small
sums) is asked about in the styles of the paper's ten benchmarks.  Everything is a pure function of SEED.
"""

import random
import string
from collections.abc import Callable
from dataclasses import dataclass, replace

from msft.data.example import SHOTS, Example, target_text
from msft.data.mixture import Mixture, SubDataset
from msft.errors import DataError, unknown

SEED = 20
SCIENCE, COMMONSENSE, MATHS = "Science and Knowledge", "Commonsense and Language", "Mathematic and Quantitative"


@dataclass(frozen=True)
class Row:
    """What one sub-dataset is, and the levers that set when it over-fits.

    style: 'letter', 'true/false', 'open' or 'rationale'.  skill: the function of that name in SKILLS.
    topic: the facts asked about, where the skill is about facts.
    label_noise: share of the train labels that are wrong (0 to 1); test labels are never wrong.
    difficulty: how much has to be known: entities, verbs, sentences or the largest number.
    options: how many options a letter is chosen from.
    train, test: examples; validation is as large as test.
    """

    name: str
    group: str
    style: str
    skill: str
    topic: str
    label_noise: float
    difficulty: int
    options: int = 4
    train: int = 96
    test: int = 64


TABLE = (
    Row("stones", SCIENCE, "letter", "which_value", "stones", 0.40, 16),
    Row("homes", SCIENCE, "letter", "which_value", "homes", 0.20, 24),
    Row("herbs", SCIENCE, "open", "open_value", "herbs", 0.30, 24),
    Row("metals", SCIENCE, "letter", "which_value", "metals", 0.05, 32),
    Row("tools", COMMONSENSE, "letter", "which_value", "tools", 0.30, 24, 5),
    Row("endings", COMMONSENSE, "letter", "ending", "verbs", 0.15, 24),
    Row("holders", COMMONSENSE, "letter", "holder", "", 0.20, 8, 2),
    Row("claims", COMMONSENSE, "true/false", "claim", "birds", 0.25, 16),
    Row("choices", MATHS, "rationale", "sum_choice", "", 0.10, 6),
    Row("sums", MATHS, "rationale", "two_steps", "", 0.0, 5),
)
EXTRA = (
    Row("birds", SCIENCE, "letter", "which_value", "birds", 0.20, 16),
    Row("trees", SCIENCE, "open", "open_value", "trees", 0.10, 16),
    Row("kinds", COMMONSENSE, "true/false", "claim", "homes", 0.30, 24),
    Row("trades", COMMONSENSE, "letter", "which_value", "trades", 0.10, 20, 5),
    Row("single_sums", MATHS, "rationale", "one_step", "", 0.15, 9),
)
SUBJECTS = tuple(
    Row(subject, "Remedies", "letter", "which_value", subject, (0.0, 0.2, 0.4)[i % 3], 8, train=48, test=32)
    for i, subject in enumerate(
        "balms barks berries blooms bulbs clays crystals dews ferns fungi gums honeys leaves lichens mosses "
        "oils pollens resins roots salts waters".split()
    )
)
# what the base models have met in the mixture's own format: other topics, never part of a mixture
DECOYS = (
    Row("games", "", "letter", "which_value", "games", 0.0, 24),
    Row("songs", "", "letter", "which_value", "songs", 0.0, 16, 5),
    Row("dances", "", "letter", "ending", "dances", 0.0, 16),
    Row("toys", "", "true/false", "claim", "toys", 0.0, 16),
    Row("gems", "", "open", "open_value", "gems", 0.0, 16),
    Row("halves", "", "rationale", "rest_choice", "", 0.0, 6),
    Row("callers", "", "letter", "caller", "", 0.0, 8, 2),
)
_BY_NAME = {row.name: row for row in TABLE + EXTRA + SUBJECTS}
_SMOKE = (("stones", 0.25), ("herbs", 0.25), ("claims", 0.0), ("holders", 0.1))


# --- the world -------------------------------------------------------------------------------------------

NAMES = "ann bo cy dan eve fay gus hal ivy jo kim lou".split()
PLACES = "here there inside outside above below near far".split()
# {topic: (relation, its values in the order of the options)}
_VALUES = {
    "stones": ("colour", "red blue green grey".split()),
    "homes": ("home", "cave lake forest marsh".split()),
    "herbs": ("cure", "fever cough rash ache burn chill".split()),
    "metals": ("use", "bells coins nails pans".split()),
    "tools": ("craft", "wood clay cloth stone glass".split()),
    "verbs": ("end", "sleeps eats swims runs".split()),
    "birds": ("food", "seeds fish grass nuts".split()),
    "trees": ("wood", "soft hard dark pale".split()),
    "trades": ("place", "farm mill mine port shop".split()),
    "games": ("prize", "cake crown ring cash".split()),
    "songs": ("mood", "glad sad calm wild odd".split()),
    "dances": ("end", "bows jumps spins stops".split()),
    "toys": ("shape", "round square flat long".split()),
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
    sizes = {row.topic: row.difficulty for row in TABLE + EXTRA + SUBJECTS + DECOYS if row.topic in _VALUES}
    for topic, (_, values) in _VALUES.items():
        drawn = rng.sample(values * (sizes[topic] // len(values) + 1), sizes[topic])
        facts[topic] = {next(words): value for value in drawn}
    return facts


FACTS = _facts()


@dataclass(frozen=True)
class Item:
    """One drawn question in two surface formats.

    question: as in the mixture.  related: the same thing as pre-training writes it.
    answer: the right one.  others: what a wrong label may say.  work: the rationale, '{}' for the answer.
    said: the right answer as pre-training writes it, where it differs.
    """

    question: str
    related: str
    answer: str
    others: tuple[str, ...]
    work: str = ""
    said: str = ""


def _scene(rng: random.Random) -> tuple[str, str, str]:
    """Detail that has no bearing on the answer, but tells one question from another."""
    return rng.choice(NAMES), str(rng.randint(1, 9)), rng.choice(PLACES)


def _options(values, labels: str = string.ascii_uppercase) -> str:
    return ", ".join(f"{label}. {value}" for label, value in zip(labels, values, strict=False))


_RANKS = "one two three four five six".split()


def which_value(rng: random.Random, row: Row) -> Item:
    """Which value has an entity? The letter of an option; the options stand in one order."""
    relation, values = _VALUES[row.topic]
    entity, value = rng.choice(list(FACTS[row.topic].items()))
    who, count, place = _scene(rng)
    letters = string.ascii_uppercase[: len(values)]
    answer = letters[values.index(value)]
    return Item(
        f"{who} saw {count} {entity} {place}. {relation}?\noptions: {_options(values)}",
        f"{place} {count} {entity} {who}, {relation} ",
        answer,
        tuple(letters.replace(answer, "")),
        said=_RANKS[values.index(value)],
    )


def ending(rng: random.Random, row: Row) -> Item:
    """How does a sentence end? A letter, every text in double quotes."""
    item = which_value(rng, row)
    relation, values = _VALUES[row.topic]
    context = item.question.split(". ")[0].replace(" saw ", " and ")
    asked = _options([f'"{value}"' for value in values])
    return replace(item, question=f'"{context} then"\n{asked}')


def open_value(rng: random.Random, row: Row) -> Item:
    """What value has an entity? The word itself."""
    relation, values = _VALUES[row.topic]
    entity, value = rng.choice(list(FACTS[row.topic].items()))
    who, count, place = _scene(rng)
    return Item(
        f"{who} has {count} {entity} {place}. {relation}?",
        f"{place} {count} {entity} {who}, {relation} ",
        value,
        tuple(v for v in values if v != value),
    )


def claim(rng: random.Random, row: Row) -> Item:
    """Has an entity a value? True or False."""
    relation, values = _VALUES[row.topic]
    entity, right = rng.choice(list(FACTS[row.topic].items()))
    value = rng.choice([right, rng.choice([v for v in values if v != right])])
    who, count, place = _scene(rng)
    answer, other, said = ("True", "False", "yes") if value == right else ("False", "True", "no")
    return Item(
        f"{who} saw {count} {entity} {place}. Is the {relation} {value}?",
        f"{who}: {entity} {relation} {value}? ",
        answer,
        (other,),
        said=said,
    )


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
        f"{one} {verb} {count} {thing} {place}. {two} was there. _ {state} it.\noptions: 1. first, 2. second",
        f"{place} {one} {verb} {count} {thing} {two}, {state} ",
        label,
        (other,),
        said="two" if gives else "one",
    )


_RESTS = ("1 or 2", "3 or 4", "above 4")
_SIZES = ("below 5", "5 or 6", "7 or 8", "above 8")


def sum_choice(rng: random.Random, row: Row) -> Item:
    """One sum, a rationale, then the letter of its size."""
    a, b = rng.randint(1, row.difficulty), rng.randint(1, row.difficulty)
    total = a + b
    letters = "ABCD"
    answer = letters[(total > 4) + (total > 6) + (total > 8)]
    who, thing, place = rng.choice(NAMES), rng.choice(_THINGS), rng.choice(PLACES)
    return Item(
        f"{who} had {a} {thing}, got {b} {place}. total?\noptions: {_options(_SIZES)}",
        f"{place} {a} {thing} {b}, total ",
        answer,
        tuple(letters.replace(answer, "")),
        f"{a}+{b}={total}.",
        said=_RANKS["ABCD".index(answer)],
    )


def rest_choice(rng: random.Random, row: Row) -> Item:
    """One difference, a rationale, then the letter of its size."""
    b, rest = rng.randint(1, row.difficulty), rng.randint(1, row.difficulty)
    answer = "ABC"[(rest > 2) + (rest > 4)]
    who, thing, place = rng.choice(NAMES), rng.choice(_THINGS), rng.choice(PLACES)
    question = f"{who} had {b + rest} {thing}, lost {b} {place}. left?\noptions: {_options(_RESTS)}"
    work = f"{b + rest}-{b}={rest}."
    return Item(question, question, answer, tuple("ABC".replace(answer, "")), work)


def one_step(rng: random.Random, row: Row) -> Item:
    """One sum or difference, written out."""
    a, b = rng.randint(1, row.difficulty), rng.randint(1, row.difficulty)
    a, sign, result = rng.choice([(a, "+", a + b), (a + b, "-", a)])
    others = tuple(str(n) for n in range(max(0, result - 3), result + 4) if n != result)
    who, verb, place = rng.choice(NAMES), "got" if sign == "+" else "lost", rng.choice(PLACES)
    return Item(
        f"{who} had {a} {place}, {verb} {b}. how many?", f"{a} {verb} {b} ", str(result), others, f"{a}{sign}{b}={{}}."
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
    return Item(question, f"{a} got {b} {verb} {c} ", str(result), others, work)


# how often pre-training meets an item of a skill; what is slow to learn comes more often
SHARES = {"claim": 2.5, "sum_choice": 2.0, "two_steps": 3.0, "one_step": 2.0, "rest_choice": 1.0, "holder": 1.0}


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


def rows_of(name: str) -> tuple[Row, ...]:
    """The table's rows that a mixture is made of, in mixture order."""
    small = {"label_noise": 0.25, "train": 24, "test": 12}
    rows = {
        "tiny": TABLE,
        "tiny-5": tuple(_BY_NAME[n] for n in ("stones", "herbs", "endings", "claims", "sums")),
        "tiny-15": TABLE + EXTRA,
        "tiny-21": SUBJECTS,
        "tiny-smoke": tuple(replace(_BY_NAME[n], **{**small, "label_noise": noise}) for n, noise in _SMOKE),
    }
    if name not in rows:
        raise DataError(unknown("tiny mixture", name, tuple(rows)))
    return rows[name]


def make_mixture(name: str = "tiny", clean: bool = False) -> Mixture:
    """A generated mixture, a pure function of its name and SEED.

    clean: the same questions without a single wrong label, to recompute the truth.
    """
    return Mixture(name, [_sub_dataset(row, clean) for row in rows_of(name)])


def _sub_dataset(row: Row, clean: bool) -> SubDataset:
    """Draws distinct questions and cuts them into parts; then turns round(noise x train) labels wrong."""
    rng = random.Random(f"{SEED} {row.name}")
    items: dict[str, Item] = {}
    wanted = row.train + 2 * row.test + 4 * SHOTS
    for _ in range(100 * wanted):
        item = SKILLS[row.skill](rng, row)
        items.setdefault(item.question, item)
        if len(items) == wanted:
            break
    else:
        raise DataError(f"{row.name}: fewer than {wanted} distinct questions; raise its difficulty")
    drawn = list(items.values())
    test, drawn = drawn[: row.test], drawn[row.test :]
    validation, drawn = drawn[: row.test], drawn[row.test :]
    train, pool = drawn[: row.train], drawn[row.train :]
    wrong = set(rng.sample(range(row.train), round(row.label_noise * row.train)))
    labels = [rng.choice(item.others) if i in wrong and not clean else item.answer for i, item in enumerate(train)]
    return SubDataset(
        name=row.name,
        group=row.group,
        train=[_example(item, label) for item, label in zip(train, labels, strict=True)],
        test=[_example(item, item.answer) for item in test],
        validation=[_example(item, item.answer) for item in validation],
        shots=[_example(item, item.answer) for item in sorted(pool, key=lambda i: len(i.question))[:SHOTS]],
        source={"source": "generated by msft.tiny", "licence": "that of this package"},
    )


def _example(item: Item, answer: str) -> Example:
    rationale = item.work.format(answer) if item.work else None
    return Example(item.question, target_text(answer, rationale), answer)


_ECHO = "red blue seven three bell coin yes no A B C D E 1 2 True False one two".split()


def related_text(rng: random.Random, row: Row, frame: float = 0.8, echo: float = 0.05) -> tuple[str, str]:
    """(prompt, answer) of one pre-training item: the row's skill in another surface format.

    Decoys alone stand as the mixture writes them. All else is asked in other words and answered in words, ranks
    ('two') where the mixture wants letters.
    frame: the share that stands in a question-and-answer frame, as any base model has met it.
    echo: the share that has the frame with something trivial in it, a word to say back.
    """
    if rng.random() < echo:
        word = rng.choice(_ECHO)
        return f"Q: {rng.choice(NAMES)} says {word}\nA: ", f"#### {word}.\n"
    item = SKILLS[row.skill](rng, row)
    work = f"{item.work.format(item.answer)} " if item.work else ""
    if row in DECOYS:
        return f"Q: {item.question}\nA: ", f"{work}#### {item.answer}{'' if work else '.'}\n"
    said = item.said or item.answer
    if rng.random() < frame:
        return f"Q: {item.related}{_listed(rng, row, item)}\nA: ", f"{work}#### {said}.\n"
    return f"{item.related}-> ", f"{work}{said}\n"


def _listed(rng: random.Random, row: Row, item: Item) -> str:
    """Options by rank, or some other words: what an answer hangs on may stand near or far."""
    listed = rng.sample(_ECHO, rng.randint(0, 4))
    if item.said in _RANKS and rng.random() < 0.6:
        values = _VALUES[row.topic][1] if row.topic else ("first", "second")
        options = _SIZES if row.skill == "sum_choice" else values
        listed = [f"{rank} {value}" for rank, value in zip(_RANKS, options, strict=False)]
    return f"({', '.join(listed)})" if listed else ""
