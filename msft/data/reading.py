"""A mixture of one's own: a YAML over JSONL files, read, converted, given its shots and checked in full.

name: my_mixture
sub_datasets:
  - name: arithmetic
    train: arithmetic/train.jsonl      # rows of question, answer, optional rationale
    test: arithmetic/test.jsonl
    validation: arithmetic/validation.jsonl   # optional
    confirmation: arithmetic/fresh.jsonl      # optional: answered once, at the end; nothing is chosen on it
    shots: arithmetic/shots.jsonl             # optional: five rows; else taken from train
    benchmark: gsm8k                          # optional: rows are hub records of this benchmark
    metric: number_match                      # optional: exact_match, number_match or loss (metrics.py)

Rows may be chats instead, {"messages": [...]} (chat.py); they are answered zero-shot and take no shots.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import yaml

from msft import distributed
from msft.data import metrics
from msft.data.example import SHOTS, Example, question_key
from msft.data.keys import unread
from msft.data.mixture import MEASURED, Mixture, SubDataset, distinct, draw_shots, is_zero_shot
from msft.data.rows import read_lines, row_to_example
from msft.errors import DataError, shortened, together, unknown
from msft.paths import expanded
from msft.settings import parse_yaml

LONGEST_NAME = 200  # of a sub-dataset: a file's name has at most 255 bytes on most systems
RESERVED = ("mean", "all")  # rows of tables that have the sub-datasets beside them
PARTS = ("train", *MEASURED, "shots")
_DEFAULTS = {"sub_datasets": [], "allow_overlap": [], "seed": 20}
_SUB_KEYS = ("name", *PARTS, "group", "benchmark", "source", "metric")
_DISJOINT = [("train", part) for part in MEASURED] + [("shots", part) for part in MEASURED]
_DISJOINT += [("validation", "test"), ("confirmation", "test"), ("confirmation", "validation")]
_log = logging.getLogger(__name__)


def read_mixture(path: str | Path, to_example: Callable[[str, dict], Example] | None = None) -> Mixture:
    """Reads and checks a mixture YAML.

    path: the YAML file; the data paths in it are relative to its folder.
    to_example: (benchmark name, hub record) -> Example, for entries with `benchmark:`.
    Raises DataError that lists everything wrong at once, with file and line.
    """
    path = Path(expanded(path))
    if not path.is_file():
        raise DataError(f"mixture file {str(path)!r} does not exist")
    try:
        spec = parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        # PyYAML lets errors of its converters out, as for `!!int ''`
        raise DataError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(spec, dict):
        raise DataError(
            f"{path}: its top level is a {type(spec).__name__}; it must have the keys name and sub_datasets"
        )
    entries, allowed, seed = (spec.get(key, default) for key, default in _DEFAULTS.items())
    problems, subs = _check_spec(spec), []
    for number, entry in enumerate(entries if isinstance(entries, list) else [], 1):
        if wrong := _check_entry(number, entry):
            problems += wrong
            continue
        reader = _Entry(path.parent, entry, to_example)
        is_allowed = isinstance(allowed, list) and entry["name"] in allowed
        subs.append(reader.sub_dataset(seed if isinstance(seed, int) else 20, is_allowed))
        problems += reader.problems
    if problems:
        raise DataError(together(f"{path}: the mixture has problems:", problems))
    return Mixture(spec.get("name", path.stem), subs)


class _Entry:
    """One entry of sub_datasets on its way to a SubDataset; `problems` has all that is wrong with it."""

    def __init__(self, folder: Path, entry: dict, to_example: Callable[[str, dict], Example] | None):
        self.folder, self.entry, self.to_example = folder, entry, to_example
        self.name, self.metric = entry["name"], entry.get("metric", "")
        self.unread, self.problems = Counter(), []

    def sub_dataset(self, seed: int, overlap_allowed: bool) -> SubDataset | None:
        """The sub-dataset, or None where there are problems."""
        if "benchmark" in self.entry and self.to_example is None:
            self._wrong("`benchmark:` needs a converter; load through msft.load_mixture")
            return None
        parts = {part: self._read(self.folder / expanded(self.entry[part])) for part in PARTS if part in self.entry}
        is_zero = self._is_zero_shot(parts)
        self._wrong(*shortened(metrics.merged((e for part in parts.values() for e in part), self.metric)))
        if not overlap_allowed:
            self._check_overlap(parts)
        left_out = {}
        if is_zero:
            parts["shots"] = []
        elif parts.get("shots"):
            parts["shots"] = self._given_shots(parts["shots"], parts["train"])
        elif not self.problems:
            parts["shots"], parts["train"], left_out = self._drawn_shots(parts["train"], seed)
        if self.unread and distributed.is_main():
            keys = ", ".join(f"{key!r} ({count})" for key, count in self.unread.most_common())
            _log.warning("%s: keys of rows that are not read, and in how many rows: %s", self.name, keys)
        if self.problems:
            return None
        source = {"source": self.entry["source"]} if "source" in self.entry else {}
        more = {"group": self.entry.get("group", ""), "metric": self.metric, "source": source, "left_out": left_out}
        return SubDataset(name=self.name, **more, **parts)

    def _wrong(self, *problems: str) -> None:
        self.problems += [f"{self.name}: {problem}" for problem in problems]

    def _read(self, file: Path) -> list[Example]:
        """The examples of one file."""
        rows, problems = read_lines(file)
        examples = []
        for number, row in rows:
            place = f"{file}:{number}"
            try:
                examples.append(self._convert(row, place))
            except DataError as error:
                problems.append(f"{place}: {error}")
        self._wrong(*shortened(problems))
        return examples

    def _convert(self, row: dict, place: str) -> Example:
        if "benchmark" not in self.entry:
            example = row_to_example(row, self.metric, place)
            self.unread.update(unread(row))
            return example
        example = replace(self.to_example(self.entry["benchmark"], row), place=place)
        metrics.check_example(example, self.metric)
        return example

    def _is_zero_shot(self, parts: dict[str, list[Example]]) -> bool:
        """Whether no shots stand before the items; chats and questions do not mix."""
        places = {bool(e.messages): e.place for part in parts.values() for e in reversed(part)}
        if len(places) == 2:
            both = f"chat rows ({places[True]}) and question rows ({places[False]})"
            self._wrong(f"{both} in one sub-dataset; make it two")
        is_zero = is_zero_shot(True in places, self.metric)
        if is_zero and "shots" in parts:
            self._wrong("it is measured zero-shot, as chats and held-out loss are; take `shots` away")
        return is_zero

    def _check_overlap(self, parts: dict[str, list[Example]]) -> None:
        for first, second in _DISJOINT:
            asked = {question_key(example): example for example in reversed(parts.get(first, []))}
            shared = [
                f"the same question in {first} (line {_line(asked[question_key(e)])}) and {second} (line {_line(e)}): "
                f"{e.question[:60]!r}; remove one, or name {self.name} under allow_overlap"
                for e in distinct(parts.get(second, []))
                if question_key(e) in asked
            ]
            self._wrong(*shortened(shared, 5))

    def _several_answers(self, examples: Iterable[Example]) -> dict[str, Example]:
        """{question: the first example that answers it in another way than the first one}."""
        first, others = {}, {}
        for example in examples:
            key = question_key(example)
            if not metrics.same_answer(first.setdefault(key, example), example, self.metric):
                others.setdefault(key, example)
        return others

    def _given_shots(self, shots: list[Example], train: list[Example]) -> list[Example]:
        if len(shots) < SHOTS:
            self._wrong(f"{len(shots)} shots in {self.entry['shots']}; give five")
        others, places = self._several_answers([*shots, *train]), {shot.place for shot in distinct(shots)}
        for shot in shots:
            if shot.place not in places:
                self._wrong(f"{shot.place}: this shot's question stands twice; give five different questions")
            elif other := others.get(question_key(shot)):
                answers = f"{shot.answer[:60]!r} where {other.place} answers {other.answer[:60]!r}"
                self._wrong(f"{shot.place}: this shot answers {answers}; one question has one answer")
        return shots[:SHOTS]

    def _drawn_shots(self, train: list[Example], seed: int) -> tuple[list[Example], list[Example], dict[str, int]]:
        """(five shots, the train examples that ask other questions, how many left train beyond the five)."""
        # rows that stand several times are one question; what has several answers shows no answer
        others = self._several_answers(train)
        pool = [example for example in distinct(train) if question_key(example) not in others]
        shots = draw_shots(pool, seed)
        asked = {question_key(shot) for shot in shots}
        rest = [example for example in train if question_key(example) not in asked]
        if len(shots) < SHOTS or not rest:
            what = "" if len(pool) == len(train) else f", {len(pool)} different questions with one answer each"
            self._wrong(
                f"{len(train)} train rows{what}; five become shots and some must be left to train on: give more rows or a "
                "shots file"
            )
        repeated = len(train) - len(rest) - len(shots)
        return shots, rest, {"train: same question as a shot": repeated} if repeated else {}


def _line(example: Example) -> str:
    return example.place.rpartition(":")[2]


def _check_spec(spec: dict) -> list[str]:
    """Problems of all but the entries themselves, whose names must be unique."""
    problems = [unknown("key", key, ("name", *_DEFAULTS)) for key in spec if key not in ("name", *_DEFAULTS)]
    entries, allowed, seed = (spec.get(key, default) for key, default in _DEFAULTS.items())
    if not isinstance(spec.get("name", ""), str):
        problems.append("name must be a string")
    if type(seed) is not int:
        problems.append("seed must be an integer")
    if not isinstance(entries, list) or not entries:
        return [*problems, "sub_datasets must be a non-empty list of entries with name, train, test"]
    names = [e["name"] for e in entries if isinstance(e, dict) and isinstance(e.get("name"), str)]
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    problems += [f"the sub-dataset name {name!r} is used twice; names must be unique" for name in repeated]
    if not isinstance(allowed, list):
        return [*problems, "allow_overlap must be a list of sub-dataset names"]
    return problems + ["allow_overlap: " + unknown("sub-dataset", name, names) for name in allowed if name not in names]


def _check_entry(number: int, entry: object) -> list[str]:
    if not isinstance(entry, dict):
        return [f"sub_datasets entry {number} is not a mapping with name, train, test"]
    label = f"sub_datasets entry {number} ({entry.get('name', 'no name')})"
    problems = [f"{label}: " + unknown("key", key, _SUB_KEYS) for key in entry if key not in _SUB_KEYS]
    problems += [f"{label}: the key {key!r} is missing" for key in ("name", "train", "test") if key not in entry]
    problems += [
        f"{label}: {k} must be a string" for k, v in entry.items() if k in _SUB_KEYS and not isinstance(v, str)
    ]
    if isinstance(entry.get("metric", ""), str):
        problems += [f"{label}: {problem}" for problem in metrics.check_metric(entry.get("metric", ""))]
    name = entry.get("name")
    if name in RESERVED:
        problems.append(f"{label}: the name {name!r} stands for all sub-datasets in tables and figures; give another")
    # it becomes the name of a task file, its special characters as %XX
    if isinstance(name, str) and not (name.strip() and name.isprintable() and len(quote(name)) <= LONGEST_NAME):
        problems.append(
            f"sub_datasets entry {number}: the name {name[:60]!r} must be printable text of at most {LONGEST_NAME} "
            "characters (other than ASCII letters and digits count three or more)"
        )
    return problems
