"""The embedded default mixture: generated questions, one declared table, related text to pre-train on.

A small invented world (stones and their colours, animals and their homes, who gave what to whom, small
sums) is asked about in the styles of the paper's ten benchmarks.  Everything is a pure function of SEED.
"""

import random
import string
from collections.abc import Callable
from dataclasses import dataclass

from msft.errors import DataError, unknown
from msft.mixture import Mixture, SubDataset
from msft.prompts import SHOTS, Example, target_text

SEED = 20
VERSION = 1  # raise it when the words or the templates below change: cached base models depend on them
SCIENCE, COMMONSENSE, MATHS = "Science and Knowledge", "Commonsense and Language", "Mathematic and Quantitative"


@dataclass(frozen=True)
class Row:
    """What one sub-dataset is, and the levers that set when it over-fits.

    style: 'letter', 'true/false', 'open' or 'rationale'.  skill: the function of that name in SKILLS.
    topic: the facts asked about, where the skill is about facts.
    label_noise: share of the train labels that are wrong (0 to 1); test labels are never wrong.
    difficulty: how much has to be known: entities, verbs, sentences or the largest number.
    train, test: examples; validation is as large as test.
    """

    name: str
    group: str
    style: str
    skill: str
    topic: str
    label_noise: float
    difficulty: int
    train: int = 96
    test: int = 64


TABLE = (
    Row("stones", SCIENCE, "letter", "which_value", "stones", 0.40, 24),
    Row("homes", SCIENCE, "letter", "which_entity", "homes", 0.20, 24),
    Row("herbs", SCIENCE, "open", "open_value", "herbs", 0.30, 24),
    Row("metals", SCIENCE, "letter", "which_value", "metals", 0.10, 32),
    Row("opposites", COMMONSENSE, "letter", "which_of_five", "opposites", 0.30, 32),
    Row("endings", COMMONSENSE, "letter", "ending", "steps", 0.15, 30),
    Row("holders", COMMONSENSE, "letter", "holder", "", 0.25, 8),
    Row("passages", COMMONSENSE, "true/false", "passage", "", 0.20, 3),
    Row("choices", MATHS, "rationale", "sum_choice", "", 0.10, 9),
    Row("sums", MATHS, "rationale", "two_steps", "", 0.0, 9),
)
EXTRA = (
    Row("birds", SCIENCE, "letter", "which_value", "birds", 0.20, 24),
    Row("trees", SCIENCE, "open", "open_value", "trees", 0.10, 24),
    Row("kinds", COMMONSENSE, "true/false", "claim", "stones", 0.30, 24),
    Row("orders", COMMONSENSE, "letter", "which_of_five", "steps", 0.10, 30),
    Row("single_sums", MATHS, "rationale", "one_step", "", 0.15, 9),
)
SUBJECTS = tuple(
    Row(subject, "Remedies", "letter", "which_value", subject, (0.0, 0.2, 0.4)[i % 3], 8, 48, 32)
    for i, subject in enumerate(
        "balms barks berries blooms bulbs clays crystals dews ferns fungi gums honeys leaves lichens mosses "
        "oils pollens resins roots salts waters".split()
    )
)
_BY_NAME = {row.name: row for row in TABLE + EXTRA + SUBJECTS}
_SMOKE = (("stones", 0.25), ("passages", 0.25), ("sums", 0.0))


# --- the world -------------------------------------------------------------------------------------------

NAMES = "ann bo cy dan eve fay gus hal ivy jo kim lou".split()
COLOURS = "red blue green grey pink gold white black".split()
_VALUES = {
    "stones": ("colour", COLOURS),
    "homes": ("home", "cave lake forest marsh hill desert reef barn".split()),
    "herbs": ("cure", "fever cough rash ache burn chill cramp gout".split()),
    "metals": ("use", "bells coins nails pans rings tools wires wheels".split()),
    "birds": ("food", "seeds fish grass moss nuts bugs fruit corn".split()),
    "trees": ("wood", "soft hard dark pale light dense smooth rough".split()),
}
_OPPOSITES = (
    "hot cold big small wet dry fast slow old young open shut full empty rich poor loud quiet near far up down "
    "day night sweet sour thick thin early late high low push pull"
).split()
_STEPS = (
    "dig sow water weed reap thresh grind knead bake slice|draw cut sew hem press fold wear wash rinse dry|"
    "fell saw plane drill glue clamp sand paint hang sell"
)


def _facts() -> dict[str, dict[str, str]]:
    """{topic: {entity: value}}, entities being invented words that occur in one topic only."""
    rng = random.Random(f"{SEED} facts")
    consonants, vowels = "bdfgklmnprstvz", "aeiou"
    words = [a + b + c + d for a in consonants for b in vowels for c in consonants for d in vowels]
    words = iter(rng.sample(words, len(words)))
    facts = {}
    sizes = {row.topic: row.difficulty for row in TABLE + EXTRA if row.topic in _VALUES}
    for topic, (_, values) in _VALUES.items():
        size = sizes[topic]
        drawn = rng.sample(values * (size // len(values) + 1), size)
        facts[topic] = {next(words): value for value in drawn}
    for row in SUBJECTS:
        facts[row.topic] = {next(words): value for value in rng.sample(_VALUES["herbs"][1], row.difficulty)}
    pairs = list(zip(_OPPOSITES[::2], _OPPOSITES[1::2], strict=True))
    facts["opposites"] = {a: b for pair in pairs for a, b in (pair, pair[::-1])}
    chains = [chain.split() for chain in _STEPS.split("|")]
    facts["steps"] = {a: b for chain in chains for a, b in zip(chain, chain[1:] + chain[:1], strict=True)}
    return facts


FACTS = _facts()
RELATION = {topic: relation for topic, (relation, _) in _VALUES.items()} | {
    "opposites": "opposite",
    "steps": "next",
    **{row.topic: "cure" for row in SUBJECTS},
}


@dataclass(frozen=True)
class Item:
    """One drawn question in two surface formats.

    question: as in the mixture.  related: the same thing as pre-training writes it.
    answer: the right one.  others: what a wrong label may say.  work: the rationale, '{}' for the answer.
    easier: (prompt, answer) pieces that only look things up in the options or the passage; pre-training
    uses some, because a tiny model learns the look-up first and the skill on top of it.
    """

    question: str
    related: str
    answer: str
    others: tuple[str, ...]
    work: str = ""
    easier: tuple[tuple[str, str], ...] = ()


def _choose(rng: random.Random, right: str, wrong: list[str], count: int, labels: str = string.ascii_uppercase):
    """(options as the mixture writes them, as pre-training does, right label, other labels)."""
    options = rng.sample(sorted(set(wrong)), count - 1) + [right]
    rng.shuffle(options)
    label = labels[options.index(right)]
    asked = ", ".join(f"{x}. {option}" for x, option in zip(labels, options, strict=False))
    related = "; ".join(f"{x}) {option}" for x, option in zip(labels, options, strict=False))
    others = tuple(x for x in labels[:count] if x != label)
    pairs = list(zip(labels, options, strict=False))
    rng.shuffle(pairs)
    easier = [(f"; {option}=", x) for x, option in pairs]
    easier[0] = (f"[{related}] {pairs[0][1]}=", pairs[0][0])
    return f"\noptions: {asked}", f" [{related}]", label, others, tuple(easier)


def which_value(rng: random.Random, row: Row, count: int = 4) -> Item:
    """Which value goes with an entity? A letter."""
    facts, relation = FACTS[row.topic], RELATION[row.topic]
    entity = rng.choice(list(facts))
    wrong = [value for value in facts.values() if value not in (facts[entity], entity)]
    asked, related, label, others, easier = _choose(rng, facts[entity], wrong, count)
    lead = rng.choice(["what is the", f"{rng.choice(NAMES)} asks: what is the", "name the", "which is the"])
    return Item(f"{lead} {relation} of {entity}?{asked}", f"{relation} {entity}{related}", label, others, easier=easier)


def which_of_five(rng: random.Random, row: Row) -> Item:
    """`which_value` with five options."""
    return which_value(rng, row, 5)


def which_entity(rng: random.Random, row: Row) -> Item:
    """Which entity has a value? A letter."""
    facts, relation = FACTS[row.topic], RELATION[row.topic]
    entity = rng.choice(list(facts))
    value = facts[entity]
    asked, related, label, others, easier = _choose(rng, entity, [e for e, v in facts.items() if v != value], 4)
    lead = rng.choice(["which one has the", f"{rng.choice(NAMES)} seeks one with the", "what has the"])
    question = f"{lead} {relation} {value}?{asked}"
    return Item(question, f"{relation} is {value}{related}", label, others, easier=easier)


def open_value(rng: random.Random, row: Row) -> Item:
    """What value goes with an entity? The word itself."""
    facts, relation = FACTS[row.topic], RELATION[row.topic]
    entity = rng.choice(list(facts))
    lead = rng.choice(["what is", "name", "tell me", "find"])
    question = f"{rng.choice(NAMES)} asks: {lead} the {relation} of {entity}?"
    others = tuple(sorted(set(facts.values()) - {facts[entity]}))
    return Item(question, f"{relation} {entity}", facts[entity], others)


def claim(rng: random.Random, row: Row) -> Item:
    """Does an entity have a value? True or False."""
    facts, relation = FACTS[row.topic], RELATION[row.topic]
    entity = rng.choice(list(facts))
    value = rng.choice([facts[entity], rng.choice(sorted(set(facts.values()) - {facts[entity]}))])
    answer, other = ("True", "False") if value == facts[entity] else ("False", "True")
    question = f"{rng.choice(NAMES)} says the {relation} of {entity}, as all know, is {value}. Right?"
    return Item(question, f"{relation} {entity}: {value}", answer, (other,))


def ending(rng: random.Random, row: Row) -> Item:
    """What comes after two steps of a chain? A letter, every text in double quotes."""
    facts = FACTS[row.topic]
    first = rng.choice(list(facts))
    second = facts[first]
    right = facts[second]
    wrong = [step for step in facts if step not in (first, second, right)]
    asked, related, label, others, easier = _choose(rng, f'"{right}"', [f'"{step}"' for step in wrong], 4)
    asked, who = asked.removeprefix("\noptions: "), rng.choice(NAMES)
    question = f'"{who}: {first}, {second},"\nendings: {asked}'
    return Item(question, f"{first}, {second}{related}", label, others, easier=easier)


_GIVING = "gave lent sold sent mailed handed showed passed".split()
_TAKING = "took stole got bought won seized hid grabbed".split()


def holder(rng: random.Random, row: Row) -> Item:
    """Who has the thing after it changed hands? 1 or 2, the blank as '_'."""
    one, two = rng.sample(NAMES, 2)
    gives, has = rng.random() < 0.5, rng.random() < 0.5
    verb = rng.choice((_GIVING if gives else _TAKING)[: row.difficulty])
    keeper = two if gives == has else one
    asked, related, label, others, easier = _choose(rng, keeper, [two if keeper == one else one], 2, "12")
    thing, state = rng.choice(["cup", "hat", "key", "map", "pen"]), "has" if has else "lacks"
    passed = f"{one} {verb} {'to' if gives else 'from'} {two}"
    question = f"the {thing}: {passed}. now _ {state} it.{asked}"
    return Item(question, f"{passed}; {state}{related}", label, others, easier=easier)


def passage(rng: random.Random, row: Row) -> Item:
    """Does a short passage say so? True or False."""
    who = rng.sample(NAMES, row.difficulty)
    worn = rng.sample(COLOURS, row.difficulty)
    i = rng.randrange(row.difficulty)
    colour = rng.choice([worn[i], rng.choice([c for c in worn if c != worn[i]])])
    answer, other = ("True", "False") if colour == worn[i] else ("False", "True")
    told = " ".join(f"{name} wore {c}." for name, c in zip(who, worn, strict=True))
    related = "; ".join(f"{name} {c}" for name, c in zip(who, worn, strict=True))
    easier = [(f"; {name} ", c) for name, c in rng.sample(list(zip(who, worn, strict=True)), row.difficulty)]
    easier[0] = (related + easier[0][0], easier[0][1])
    question = f"{told} Did {who[i]} wear {colour}?"
    return Item(question, f"{related}; {who[i]} {colour}?", answer, (other,), easier=tuple(easier))


def sum_choice(rng: random.Random, row: Row) -> Item:
    """One sum, a rationale, then the letter of the result."""
    a, b = rng.randint(1, row.difficulty), rng.randint(1, row.difficulty)
    near = [str(n) for n in range(max(1, a + b - 4), a + b + 5) if n != a + b]
    asked, related, label, others, easier = _choose(rng, str(a + b), near, 4)
    question = f"{rng.choice(NAMES)} had {a}, got {b}. total?{asked}"
    return Item(question, f"{a} and {b}{related}", label, others, f"{a}+{b}={a + b}.", easier)


def one_step(rng: random.Random, row: Row) -> Item:
    """One sum or difference, written out."""
    a, b = rng.randint(1, row.difficulty), rng.randint(1, row.difficulty)
    a, sign, result = rng.choice([(a, "+", a + b), (a + b, "-", a)])
    others = tuple(str(n) for n in range(max(0, result - 3), result + 4) if n != result)
    who, verb = rng.choice(NAMES), "got" if sign == "+" else "lost"
    return Item(f"{who} had {a}, {verb} {b}. how many?", f"{a} {sign} {b}", str(result), others, f"{a}{sign}{b}={{}}.")


def two_steps(rng: random.Random, row: Row) -> Item:
    """A sum, then another sum or difference, each written out."""
    a, b = rng.randint(1, row.difficulty), rng.randint(1, row.difficulty)
    gets = rng.random() < 0.5
    c = rng.randint(1, row.difficulty if gets else min(a + b, row.difficulty))
    sign, verb, result = ("+", "got", a + b + c) if gets else ("-", "lost", a + b - c)
    others = tuple(str(n) for n in range(max(0, result - 3), result + 4) if n != result)
    question = f"{rng.choice(NAMES)} had {a}, got {b}, {verb} {c}. how many?"
    work = f"{a}+{b}={a + b}. {a + b}{sign}{c}={{}}."
    return Item(question, f"{a} + {b} {sign} {c}", str(result), others, work)


SKILLS: dict[str, Callable[[random.Random, Row], Item]] = {
    skill.__name__: skill
    for skill in (
        which_value, which_of_five, which_entity, open_value, claim,
        ending, holder, passage, sum_choice, one_step, two_steps,
    )
}  # fmt: skip


def rows_of(name: str) -> tuple[Row, ...]:
    """The table's rows that a mixture is made of, in mixture order."""
    from dataclasses import replace

    small = {"label_noise": 0.25, "train": 24, "test": 12}
    rows = {
        "tiny": TABLE,
        "tiny-5": tuple(_BY_NAME[n] for n in ("stones", "herbs", "endings", "passages", "sums")),
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
        source={"source": "generated by msft.tiny_data", "licence": "that of this package"},
    )


def _example(item: Item, answer: str) -> Example:
    rationale = item.work.format(answer) if item.work else None
    return Example(item.question, target_text(answer, rationale), answer)


def related_text(rng: random.Random, row: Row, easier: float = 0.4) -> list[tuple[str, str]]:
    """(prompt, answer) pieces of one pre-training item: the row's skill in another surface format.

    easier: the share of items that only look things up.
    """
    item = SKILLS[row.skill](rng, row)
    if item.easier and rng.random() < easier:
        return [*item.easier, ("\n", "")]
    work = item.work.format(item.answer) + " " if item.work else ""
    return [(f"{item.related} -> ", f"{work}{item.answer}\n")]
