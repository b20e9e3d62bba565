"""A sub-dataset on its way from the rows of its entry: split, checked, given its shots and drawn to size."""

import logging
import random
from dataclasses import dataclass, field

from msft.data import metrics, repeats
from msft.data.columns import Source
from msft.data.example import SHOTS, Example
from msft.data.mixture import SubDataset, distinct, draw_shots, is_zero_shot, seed_of, without_questions
from msft.errors import shortened

_log = logging.getLogger(__name__)


@dataclass
class Draft:
    """What is known of a sub-dataset while its entry is read. A step adds what is wrong to `problems` and goes on where it
    can, so that one reading says all.

    entry: what the mixture's file says of it, `source` of its rows.  metric: what these are checked for, '' being the
    paper's scorer.  seed: of splits, shots and draws.
    judge: the lm-eval task that judges it.  parts: {part: its examples}.  origin: where rows of the hub come from.
    left_out: rows that each rule kept out.
    """

    entry: dict
    source: Source
    metric: str
    seed: int
    judge: object = None
    parts: dict[str, list[Example]] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the sub-dataset."""
        return self.entry["name"]

    def split(self) -> None:
        """Takes the asked shares of train's questions out of it; rows of one question stay together."""
        shares = {"test": self.source.test_split, "validation": self.source.validation_split}
        shares = {part: share for part, share in shares.items() if share is not None}
        if self.problems or not shares or "train" not in self.parts:
            return
        rows = self.parts["train"]
        questions = list(dict.fromkeys(example.question_key for example in rows))
        sizes = {part: round(share * len(questions)) for part, share in shares.items()}
        for part, size in sizes.items():
            drawn = set(self._random(part).sample(questions, min(size, len(questions))))
            questions = [question for question in questions if question not in drawn]
            self.parts[part] = [example for example in rows if example.question_key in drawn]
            self.parts["train"] = without_questions(self.parts["train"], self.parts[part])
        asked = ", ".join(f"{part}_split = {share}" for part, share in shares.items())
        empty = [part for part in ("train", *shares) if not self.parts[part]]
        self.problems += [f"{asked} of {len(rows)} rows: nothing is left for {part}" for part in empty]

    def _random(self, what: str) -> random.Random:
        return random.Random(seed_of(self.seed, self.name, what))

    def check(self, is_overlap_allowed: bool) -> None:
        """Questions that stand twice, chats beside questions, answers that the metric cannot tell apart."""
        repeats.say_repeated(self.name, self.parts, self.metric)
        places = {bool(e.messages): e.place for part in self.parts.values() for e in reversed(part)}
        if len(places) == 2:
            both = f"chat rows ({places[True]}) and question rows ({places[False]})"
            self.problems.append(f"{both} in one sub-dataset; make it two")
        alike = metrics.merged((e for part in self.parts.values() for e in part), self.metric)
        if alike and not self.metric:  # that scorer is the paper's: numbers and case may be meant
            _log.warning("%s: %d answers count as another one: %s", self.name, len(alike), alike[0])
        self.problems += shortened(alike) if self.metric else []
        self.problems += [] if is_overlap_allowed else repeats.overlaps(self.name, self.parts)

    def take_shots(self) -> None:
        """Five shots from their file or out of train, none where items are measured without; train keeps other questions."""
        train, is_chat = self.parts.get("train", []), any(e.messages for part in self.parts.values() for e in part)
        if is_zero_shot(is_chat, self.metric):
            if "shots" in self.parts:
                self.problems.append("it is measured zero-shot, as chats and held-out loss are; take `shots` away")
            self.parts["shots"] = []
        elif self.parts.get("shots"):
            self._check_shots()
            self._keep("shots", self.parts["shots"][:SHOTS], f"only {SHOTS} stand before an item")
            self._keep("train", without_questions(train, self.parts["shots"]), "same question as a shot")
            if train and not self.parts["train"]:
                self.problems.append("every train row asks what a shot asks; give more rows")
        elif train and not self.problems:
            self._draw_shots()

    def _check_shots(self) -> None:
        """Shots that a file lists: five questions, each with one answer."""
        shots, file = self.parts["shots"], self.entry["shots"]
        if len(shots) < SHOTS:
            self.problems.append(f"{len(shots)} shots in {file}; give five")
        others = repeats.several_answers([*shots, *self.parts.get("train", [])], self.metric)
        places = {shot.place for shot in distinct(shots)}
        for shot in shots:
            if shot.place not in places:
                self.problems.append(f"{shot.place}: this shot's question stands twice; give five different questions")
            elif other := others.get(shot.question_key):
                answers = f"{shot.answer[:60]!r} where {other.place} answers {other.answer[:60]!r}"
                self.problems.append(f"{shot.place}: this shot answers {answers}; one question has one answer")

    def _draw_shots(self) -> None:
        train = self.parts["train"]
        # rows that stand several times are one question; what has several answers shows no answer
        others = repeats.several_answers(train, self.metric)
        pool = [example for example in distinct(train) if example.question_key not in others]
        shots = self.parts["shots"] = draw_shots(pool, self.seed)
        rest = self.parts["train"] = without_questions(train, shots)
        if len(shots) < SHOTS or not rest:
            what = "" if len(pool) == len(train) else f", {len(pool)} different questions with one answer each"
            mend = "five become shots and some must be left to train on: give more rows or a shots file"
            self.problems.append(f"{len(train)} train rows{what}; {mend}")
        if repeated := len(train) - len(rest) - len(shots):
            self.left_out["train: same question as a shot"] = repeated

    def draw_sizes(self) -> None:
        """Draws as many rows of each part as the entry asks for."""
        for part in ("train", "test", "validation") if not self.problems else ():
            size, rows = getattr(self.source, f"{part}_size"), self.parts.get(part, [])
            if size and size > len(rows):
                has = f"{part} has {len(rows)} rows beside its shots"
                self.problems.append(f"{part}_size = {size}, and {has}; lower it")
            elif size:
                places = sorted(self._random(f"{part}_size").sample(range(len(rows)), size))
                self._keep(part, [rows[place] for place in places], f"not drawn, {part}_size = {size}")

    def _keep(self, part: str, kept: list[Example], why: str) -> None:
        """Keeps these examples of a part, and counts the others."""
        if lost := len(self.parts.get(part, ())) - len(kept):
            self.parts[part], self.left_out[f"{part}: {why}"] = kept, lost

    def sub_dataset(self) -> SubDataset:
        """What it is in the end, where there was no problem."""
        origin = self.origin | ({"source": self.entry["source"]} if "source" in self.entry else {})
        facts = {"metric": self.metric, "group": self.entry.get("group", ""), "source": origin, "judge": self.judge}
        facts |= {"left_out": self.left_out, "skips": self.source.skip_bad_rows}
        return SubDataset(name=self.name, **{"test": [], **self.parts}, **facts)
