"""Mixtures: sub-datasets of examples, and the five shots of each (reading.py has the files)."""

import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from msft.data import metrics
from msft.data.example import SHOTS, Example, shot_text
from msft.errors import DataError, together, unknown

MEASURED = ("test", "validation", "confirmation")  # parts that are answered, never trained
PARTS = ("train", *MEASURED, "shots")
SHOT_POOL = 1000  # the five shots are the shortest of this many seeded draws from train


@dataclass(frozen=True)
class SubDataset:
    """One sub-dataset of a mixture, its parts disjoint.

    name: unique in the mixture.  group: its row in Table 2, '' where it has none.
    train, test, validation, confirmation, shots: lists of Example. Nothing is ever chosen on confirmation items: the base
    model and the reported checkpoint answer them once. Five shots, the same for every item, or none where the items are
    chats or measured by their loss.
    left_out: how many records each rule kept out, by reason.
    source: where the records come from and under which licence, for the data card.
    metric: one of metrics.METRICS, '' for the paper's scorer.  stop: of chats, the text that ends a turn.
    judge: the lm-eval task (judges.Judge) whose value is the sub-dataset's score. Its metric is then the loss: that of the
    test items, where it has some, stands beside the score.
    skips: whether rows that the tokenizer cannot use are left out and counted; else they are an error.
    """

    name: str
    train: list[Example]
    test: list[Example]
    shots: list[Example]
    validation: list[Example] = field(default_factory=list)
    confirmation: list[Example] = field(default_factory=list)
    group: str = ""
    left_out: dict[str, int] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)
    metric: str = ""
    stop: str = ""
    judge: object = None
    skips: bool = False

    @property
    def is_chat(self) -> bool:
        """Whether the rows are chats."""
        return bool(self.train and self.train[0].messages)


@dataclass(frozen=True)
class Mixture:
    """Sub-datasets in mixture order, the order that breaks ties (Algorithm 1).

    judges: lm-eval tasks (judges.Judge) that are only watched: nothing is decided on them.
    """

    name: str
    sub_datasets: list[SubDataset]
    judges: list = field(default_factory=list)

    def __post_init__(self):
        names, problems = self.names, [] if self.sub_datasets else ["it has no sub-dataset; give at least one"]
        problems += [
            f"the sub-dataset name {name!r} is used {names.count(name)} times; names must be unique"
            for name in dict.fromkeys(names)
            if names.count(name) > 1
        ]
        for sub in self.sub_datasets:
            needed = ("train",) if sub.judge else ("train", "test")
            problems += [f"{sub.name}: the {part} set is empty" for part in needed if not getattr(sub, part)]
            if len(sub.shots) != SHOTS and not (is_zero_shot(sub.is_chat, sub.metric) and not sub.shots):
                problems.append(f"{sub.name}: {len(sub.shots)} shots; the protocol takes exactly {SHOTS}")
        if problems:
            raise DataError(together(f"mixture {self.name!r} cannot be used:", problems))

    def __iter__(self):
        return iter(self.sub_datasets)

    def __len__(self):
        return len(self.sub_datasets)

    def __getitem__(self, name: str) -> SubDataset:
        if name not in self.names:
            raise KeyError(unknown("sub-dataset", name, self.names))
        return self.sub_datasets[self.names.index(name)]

    @property
    def names(self) -> list[str]:
        """The sub-datasets' names in mixture order."""
        return [sub.name for sub in self.sub_datasets]

    @property
    def groups(self) -> dict[str, list[str]]:
        """Sub-dataset names by group, in order of first appearance; without groups one of all."""
        groups: dict[str, list[str]] = {}
        for sub in self.sub_datasets:
            groups.setdefault(sub.group or "All", []).append(sub.name)
        return groups

    def check_selection(self, part: str, metric: str) -> None:
        """Raises DataError where the items are missing that decisions would be taken on."""
        bare = [sub.name for sub in self if not sub.validation and not sub.judge]
        bare = bare if any(sub.validation for sub in self) else self.names
        if part == "validation" and bare:
            raise DataError(f"select_on='validation' needs a validation set; these have none: {', '.join(bare)}")
        judged = [sub.name for sub in self if sub.judge]
        if metric == "loss" and judged:
            raise DataError(f"select_metric='loss' decides on gold answers; lm-eval tasks judge {', '.join(judged)}")

    def fingerprint(self) -> str:
        """SHA-256 of all content that training or evaluation can see, in order."""
        digest = hashlib.sha256()
        for sub in self.sub_datasets:
            parts = ("train", "test", "validation", "shots", *(["confirmation"] if sub.confirmation else []))
            for part in parts:
                digest.update(f"\x00{sub.name}\x00{part}\x00".encode())
                for example in getattr(sub, part):
                    row = [example.question, example.target, example.answer]
                    row += [example.messages, example.prompt] if example.messages else []
                    digest.update(json.dumps(row, ensure_ascii=True).encode())
            if sub.metric:
                digest.update(f"\x00metric\x00{sub.metric}".encode())
        for judge in filter(None, [*(sub.judge for sub in self.sub_datasets), *self.judges]):
            digest.update(f"\x00judge\x00{judge.fingerprint()}".encode())
        return digest.hexdigest()


def is_zero_shot(is_chat: bool, metric: str) -> bool:
    """Whether the items of a sub-dataset have no shots before them."""
    return is_chat or metric == metrics.LOSS


def seed_of(seed: int, name: str, part: str) -> int:
    """A seed of its own for every sub-dataset and part, so that no draw moves another."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}/{part}".encode()).digest()[:8], "big")


def draw_shots(pool: Sequence[Example], seed: int) -> list[Example]:
    """The five shortest of a seeded pool, those of equal length as they stand; the caller takes them out of train."""
    drawn = random.Random(seed).sample(range(len(pool)), min(SHOT_POOL, len(pool)))
    return [pool[i] for i in sorted(drawn, key=lambda i: (len(shot_text(pool[i])), i))[:SHOTS]]


def distinct(examples: Iterable[Example]) -> list[Example]:
    """The first example of every question."""
    return list({example.question_key: example for example in reversed(list(examples))}.values())[::-1]


def without_questions(examples: Iterable[Example], asked: Iterable[Example]) -> list[Example]:
    """The examples that ask no question of the others."""
    keys = {example.question_key for example in asked}
    return [example for example in examples if example.question_key not in keys]


def without_long(sub: SubDataset, part: str, keep: Sequence[bool], reason: str) -> SubDataset:
    """The sub-dataset with the examples of one part that `keep` does not name left out and counted."""
    kept = [example for example, k in zip(getattr(sub, part), keep, strict=True) if k]
    out = len(keep) - len(kept)
    left_out = {**sub.left_out, reason: sub.left_out.get(reason, 0) + out} if out else sub.left_out
    return replace(sub, **{part: kept}, left_out=left_out)
