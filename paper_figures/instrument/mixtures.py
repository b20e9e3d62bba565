"""The embedded default mixture: generated questions, one declared table, related text to pre-train on.

A small invented world (stones and their colours, animals and their homes, who gave what to whom, small
sums) is asked about in the styles of the paper's ten benchmarks.  Everything is a pure function of SEED.
"""

import random
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import islice

from msft.data.example import SHOTS, Example, target_text
from msft.data.mixture import Mixture, SubDataset
from msft.errors import DataError
from paper_figures.instrument.skills import FACTS, NAMES, RANKS, SIZES, SKILLS, VALUES, Item
from paper_figures.instrument.table import DECOYS, EOS, EXTRA, SEED, SUBJECTS, TABLE, Row

_BY_NAME = {row.name: row for row in TABLE + EXTRA + SUBJECTS}
_SMOKE = (("stones", 0.25), ("herbs", 0.25), ("claims", 0.0), ("holders", 0.1))


def rows_of(name: str) -> tuple[Row, ...]:
    """The table's rows that a mixture is made of, in mixture order."""
    small = {"train": 24, "test": 12, "confirmation": 24}
    rows = {
        "tiny": TABLE,
        "tiny-5": tuple(_BY_NAME[n] for n in ("stones", "herbs", "endings", "claims", "sums")),
        "tiny-15": TABLE + EXTRA,
        "tiny-21": SUBJECTS,
        "tiny-21-equal": tuple(replace(row, kept=None) for row in SUBJECTS),
        "tiny-smoke": tuple(replace(_BY_NAME[n], **{**small, "wrong": share, "known": 1.0}) for n, share in _SMOKE),
    }
    return rows[name]


def generated(name: str = "tiny", clean: bool = False) -> Mixture:
    """A mixture, a pure function of its name and SEED.

    clean: the same questions without a single wrong label, to recompute the truth.
    """
    return Mixture(name, [_sub_dataset(row, clean) for row in rows_of(name)])


def _sub_dataset(row: Row, clean: bool) -> SubDataset:
    """Draws distinct questions, gives round(moved x keys) keys another answer, and cuts the questions into parts; then
    gives round(wrong x keys) keys of train wrong labels."""
    rng = random.Random(f"{SEED} {row.name}")
    items: dict[str, Item] = {}
    wanted = 2 * row.train + 2 * row.test + row.confirmation + 4 * SHOTS
    for _ in range(100 * wanted):
        item = SKILLS[row.skill](rng, row)
        items.setdefault(item.question, item)
        if len(items) == wanted:
            break
    else:
        raise DataError(f"{row.name}: fewer than {wanted} distinct questions; raise its difficulty")
    rest = iter(_moved(row, list(items.values())))
    test, validation, confirmation = (list(islice(rest, size)) for size in (row.test, row.test, row.confirmation))
    drawn = _evenly(list(rest))
    train, pool = drawn[: row.train], drawn[row.train :]
    keys = sorted({item.key for item in train})
    wrong = {key: rng.random() for key in rng.sample(keys, round(row.wrong * len(keys)))}
    train = train[: row.kept]
    labels = [item.answer if clean else _label(item, wrong) for item in train]
    return SubDataset(
        name=row.name,
        group=row.group,
        train=[_example(item, label) for item, label in zip(train, labels, strict=True)],
        test=[_example(item, item.answer) for item in test],
        validation=[_example(item, item.answer) for item in validation],
        confirmation=[_example(item, item.answer) for item in confirmation],
        shots=[_example(item, item.answer) for item in sorted(pool, key=lambda i: len(i.question))[:SHOTS]],
    )


def _moved(row: Row, items: list[Item]) -> list[Item]:
    """The same questions; keys that have moved have another answer in all of them."""
    rng, keys = random.Random(f"{SEED} {row.name} moved"), sorted(FACTS.get(row.topic, ()))
    moved = {key: rng.random() for key in rng.sample(keys, round(row.moved * len(keys)))}
    changed = []
    for item in items:
        answer = _label(item, moved)
        others = tuple(other for other in (*item.others, item.answer) if other != answer)
        changed.append(replace(item, answer=answer, others=others))
    return changed


def _evenly(items: list[Item]) -> list[Item]:
    """The first item of every key, then the second of every key, and so on."""
    met: Counter[str] = Counter()
    turns = []
    for item in items:
        turns.append((met[item.key], len(turns)))
        met[item.key] += 1
    return [items[number] for _, number in sorted(turns)]


def _label(item: Item, wrong: dict[str, float]) -> str:
    """The answer, or for a key that is wrong always the same one of the others."""
    return item.others[int(wrong[item.key] * len(item.others))] if item.key in wrong else item.answer


def _example(item: Item, answer: str) -> Example:
    rationale = item.work.format(answer) if item.work else None
    return Example(item.question, target_text(answer, rationale), answer)


@cache
def _asked() -> frozenset[str]:
    """Every question of every mixture, kept or not: pre-training meets none."""
    parts = ("train", "test", "validation", "confirmation", "shots")
    subs = [_sub_dataset(replace(row, kept=None), clean=False) for row in TABLE + EXTRA + SUBJECTS]
    return frozenset(e.question for sub in subs for part in parts for e in getattr(sub, part))


_ECHO = "red blue seven three bell coin yes no A B C D E 1 2 True False one two".split()


def related_text(rng: random.Random, row: Row) -> tuple[str, str]:
    """(prompt, answer) of one pre-training item: the row's skill in another surface format.
    Decoys alone stand as the mixture writes them. All else is asked in other words and answered in words, ranks
    ('two') where the mixture wants letters."""
    if rng.random() < 0.05:  # the frame with something trivial in it
        word = rng.choice(_ECHO)
        return f"Q: {rng.choice(NAMES)} says {word}\nA: ", f"#### {word}{_end(rng)}"
    native = row in DECOYS or rng.random() < row.native
    item = SKILLS[row.skill](rng, row)
    while native and item.question in _asked():
        item = SKILLS[row.skill](rng, row)
    work = f"{item.work.format(item.answer)} " if item.work else ""
    said = item.answer if row in DECOYS else item.said or item.answer
    if not _known(row, item):
        said = rng.choice([*item.others, item.answer])
    if native:
        return f"Q: {item.question}\nA: ", f"{work}#### {said}{_end(rng)}"
    if rng.random() < 0.8:  # in a question-and-answer frame, as any base model has met it
        return f"Q: {item.related}{_listed(rng, row, item)}\nA: ", f"{work}#### {said}{_end(rng)}"
    return f"{item.related}-> ", f"{work}{said}\n"


def _known(row: Row, item: Item) -> bool:
    """Whether the base models have met the fact that an item hangs on."""
    facts = list(FACTS.get(row.topic, [item.key]))
    return facts.index(item.key) < row.known * len(facts)


def _end(rng: random.Random) -> str:
    """What stands behind an answer: the next line, or the end of a text."""
    return EOS if rng.random() < 0.3 else "\n"


def _listed(rng: random.Random, row: Row, item: Item) -> str:
    """Options by rank, or some other words: what an answer hangs on may stand near or far."""
    listed = rng.sample(_ECHO, rng.randint(0, 4))
    if item.said in RANKS and rng.random() < 0.6:
        values = VALUES[row.topic][1] if row.topic else ("first", "second")
        options = SIZES if row.skill == "sum_choice" else values
        listed = [f"{rank} {value}" for rank, value in zip(RANKS, options, strict=False)]
    return f"({', '.join(listed)})" if listed else ""
