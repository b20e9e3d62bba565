"""Mixtures: sub-datasets of examples, read from a YAML over JSONL files and checked in full.

name: my_mixture
sub_datasets:
  - name: arithmetic
    train: arithmetic/train.jsonl      # rows of question, answer, optional rationale
    test: arithmetic/test.jsonl
    validation: arithmetic/validation.jsonl   # optional
    shots: arithmetic/shots.jsonl             # optional: five rows; else taken from train
    benchmark: gsm8k                          # optional: rows are hub records of this benchmark
    metric: number_match                      # optional: exact_match, number_match or loss (metrics.py)

Rows may be chats instead, {"messages": [...]} (chat.py); they are answered zero-shot and take no shots.
"""

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

import yaml

from msft.data import chat, metrics
from msft.data.example import SHOTS, Example, shot_text, target_text
from msft.errors import DataError, nearest, together, unknown
from msft.settings import parse_yaml

LONGEST_NAME = 200  # of a sub-dataset: a file's name has at most 255 bytes on most systems
SHOT_POOL = 1000  # the five shots are the shortest of this many seeded draws from train


@dataclass(frozen=True)
class SubDataset:
    """One sub-dataset of a mixture, its parts disjoint.

    name: unique in the mixture.  group: its row in Table 2, '' where it has none.
    train, test, validation, shots: lists of Example; five shots, the same for every item, or none where the items are
    chats or measured by their loss.
    left_out: how many records each rule kept out, by reason.
    source: where the records come from and under which licence, for the data card.
    metric: one of metrics.METRICS, '' for the paper's scorer.  stop: of chats, the text that ends a turn.
    """

    name: str
    train: list[Example]
    test: list[Example]
    shots: list[Example]
    validation: list[Example] = field(default_factory=list)
    group: str = ""
    left_out: dict[str, int] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)
    metric: str = ""
    stop: str = ""

    @property
    def is_chat(self) -> bool:
        """Whether the rows are chats."""
        return bool(self.train and self.train[0].messages)


@dataclass(frozen=True)
class Mixture:
    """Sub-datasets in mixture order, the order that breaks ties (Algorithm 1)."""

    name: str
    sub_datasets: list[SubDataset]

    def __post_init__(self):
        problems = []
        if not self.sub_datasets:
            problems.append("it has no sub-dataset; give at least one")
        names = [sub.name for sub in self.sub_datasets]
        problems += [
            f"the sub-dataset name {name!r} is used {names.count(name)} times; names must be unique"
            for name in dict.fromkeys(names)
            if names.count(name) > 1
        ]
        for sub in self.sub_datasets:
            for part in ("train", "test"):
                if not getattr(sub, part):
                    problems.append(f"{sub.name}: the {part} set is empty")
            if len(sub.shots) != SHOTS and not (is_zero_shot(sub.is_chat, sub.metric) and not sub.shots):
                problems.append(f"{sub.name}: {len(sub.shots)} shots; the protocol takes exactly {SHOTS}")
        if problems:
            raise DataError(together(f"mixture {self.name!r} cannot be used:", problems))

    def __iter__(self):
        return iter(self.sub_datasets)

    def __len__(self):
        return len(self.sub_datasets)

    def __getitem__(self, name: str) -> SubDataset:
        for sub in self.sub_datasets:
            if sub.name == name:
                return sub
        raise KeyError(unknown("sub-dataset", name, self.names))

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

    def fingerprint(self) -> str:
        """SHA-256 of all content that training or evaluation can see, in order."""
        digest = hashlib.sha256()
        for sub in self.sub_datasets:
            for part in ("train", "test", "validation", "shots"):
                digest.update(f"\x00{sub.name}\x00{part}\x00".encode())
                for example in getattr(sub, part):
                    row = [example.question, example.target, example.answer]
                    row += [example.messages, example.prompt] if example.messages else []
                    digest.update(json.dumps(row, ensure_ascii=True).encode())
            if sub.metric:
                digest.update(f"\x00metric\x00{sub.metric}".encode())
        return digest.hexdigest()


def is_zero_shot(is_chat: bool, metric: str) -> bool:
    """Whether the items of a sub-dataset have no shots before them."""
    return is_chat or metric == metrics.LOSS


def draw_shots(pool: Sequence[Example], seed: int) -> list[Example]:
    """The five shortest of a seeded pool; the caller takes them out of train."""
    drawn = random.Random(seed).sample(list(pool), min(SHOT_POOL, len(pool)))
    return sorted(drawn, key=lambda example: len(shot_text(example)))[:SHOTS]


def read_jsonl(path: Path) -> list[tuple[int, dict]]:
    """(line number, row) for every non-empty line; a line that is not a JSON object is an error."""
    rows, problems = [], []
    try:
        if path.exists() and not path.is_file():  # reading a device or a pipe might never end
            raise OSError("it is no file; give a JSONL file")
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        close = nearest(path.name, [other.name for other in path.parent.glob("*.jsonl")])
        raise DataError(f"{path}: no such file.{close}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    except ValueError as error:
        raise DataError(f"{path}: not UTF-8 text ({error}); save it as UTF-8 JSON lines") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            problems.append(f"{path}:{number}: not JSON ({error})")
            continue
        if not isinstance(row, dict):
            problems.append(f"{path}:{number}: a {type(row).__name__}, not an object with keys")
            continue
        rows.append((number, row))
    if problems:
        raise DataError(together(f"{path} has lines that cannot be read:", problems[:20]))
    return rows


def row_to_example(row: dict, metric: str = "", place: str = "") -> Example:
    """A user's row (question, answer, optional rationale, or messages) as an Example; place: its file and line."""
    if "messages" in row:
        return chat.to_example(row, metric, place)
    for key in ("question", "answer"):
        if key not in row:
            close = nearest(key, row)
            raise DataError(f"the key {key!r} is missing; the row has {sorted(map(str, row))}.{close}")
    for key in ("question", "answer", "rationale"):
        value = row.get(key, "")
        if value is None and key == "rationale":
            continue
        if not isinstance(value, str):
            raise DataError(f"{key!r} is a {type(value).__name__}; give a string (numbers in quotes)")
        if key != "rationale" and not value.strip():
            raise DataError(f"{key!r} is empty")
    example = Example(row["question"], target_text(row["answer"], row.get("rationale")), row["answer"])
    metrics.check_example(example, metric)
    return example


_MIXTURE_KEYS = ("name", "sub_datasets", "seed", "allow_overlap")
_SUB_KEYS = ("name", "train", "test", "validation", "shots", "group", "benchmark", "source", "metric")


def read_mixture(path: str | Path, to_example: Callable[[str, dict], Example] | None = None) -> Mixture:
    """Reads and checks a mixture YAML.

    path: the YAML file; the data paths in it are relative to its folder.
    to_example: (benchmark name, hub record) -> Example, for entries with `benchmark:`.
    Raises DataError that lists everything wrong at once, with file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"mixture file {str(path)!r} does not exist")
    try:
        spec = parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        # PyYAML lets errors of its converters out, as for `!!int ''`
        raise DataError(f"{path}: not readable as YAML: {error}") from None
    problems = _check_spec(spec)
    if problems:
        raise DataError(together(f"{path} is not a mixture:", problems))
    seed = spec.get("seed", 20)
    allowed = spec.get("allow_overlap", [])
    subs = []
    for entry in spec["sub_datasets"]:
        sub, found = _read_sub_dataset(path.parent, entry, seed, entry["name"] in allowed, to_example)
        problems += found
        if sub is not None:
            subs.append(sub)
    if problems:
        raise DataError(together(f"{path}: the mixture has problems:", problems))
    return Mixture(spec.get("name", path.stem), subs)


def _check_spec(spec: object) -> list[str]:
    if not isinstance(spec, dict):
        return [f"its top level is a {type(spec).__name__}; it must have the keys name and sub_datasets"]
    problems = [unknown("key", key, _MIXTURE_KEYS) for key in spec if key not in _MIXTURE_KEYS]
    if not isinstance(spec.get("name", ""), str):
        problems.append("name must be a string")
    if not isinstance(spec.get("seed", 0), int) or isinstance(spec.get("seed", 0), bool):
        problems.append("seed must be an integer")
    entries = spec.get("sub_datasets")
    if not isinstance(entries, list) or not entries:
        return [*problems, "sub_datasets must be a non-empty list of entries with name, train, test"]
    names = []
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            problems.append(f"sub_datasets entry {number} is not a mapping with name, train, test")
            continue
        label = f"sub_datasets entry {number} ({entry.get('name', 'no name')})"
        problems += [f"{label}: " + unknown("key", k, _SUB_KEYS) for k in entry if k not in _SUB_KEYS]
        problems += [f"{label}: the key {key!r} is missing" for key in ("name", "train", "test") if key not in entry]
        problems += [
            f"{label}: {key} must be a string" for key in entry if key in _SUB_KEYS and not isinstance(entry[key], str)
        ]
        problems += _check_name(number, entry.get("name"))
        problems += [f"{label}: {found}" for found in metrics.check_metric(str(entry.get("metric", "")))]
        names.append(entry.get("name"))
    problems += [
        f"the sub-dataset name {name!r} is used twice; names must be unique"
        for name in {str(n) for n in names if isinstance(n, str) and names.count(n) > 1}
    ]
    overlap = spec.get("allow_overlap", [])
    if not isinstance(overlap, list):
        problems.append("allow_overlap must be a list of sub-dataset names")
    else:
        known = [name for name in names if isinstance(name, str)]
        problems += ["allow_overlap: " + unknown("sub-dataset", n, known) for n in overlap if n not in known]
    return problems


def _check_name(number: int, name: object) -> list[str]:
    # it becomes the name of a task file, its special characters as %XX
    if isinstance(name, str) and not (name.strip() and name.isprintable() and len(quote(name)) <= LONGEST_NAME):
        return [
            f"sub_datasets entry {number}: the name {name[:60]!r} must be printable text of at most {LONGEST_NAME} characters "
            "(other than ASCII letters and digits count three or more)"
        ]
    return []


def _read_sub_dataset(folder, entry, seed, overlap_allowed, to_example):
    """(SubDataset or None, problems) of one entry."""
    name, problems, parts, lines = entry["name"], [], {}, {}
    metric, convert, kinds = entry.get("metric", ""), row_to_example, {}
    if "benchmark" in entry:
        if to_example is None:
            return None, [f"{name}: `benchmark:` needs a converter; load through msft.load_mixture"]

        def convert(row, metric, place):
            example = to_example(entry["benchmark"], row)
            metrics.check_example(example, metric)
            return example

    for part in ("train", "test", "validation", "shots"):
        if part not in entry:
            continue
        file = folder / entry[part]
        try:
            rows = read_jsonl(file)
        except DataError as error:
            problems.append(f"{name}: {error}")
            continue
        parts[part], lines[part], bad = [], {}, []
        for number, row in rows:
            try:
                example = convert(row, metric, f"{file}:{number}")
            except DataError as error:
                bad.append(f"{name}: {file}:{number}: {error}")
                continue
            parts[part].append(example)
            kinds.setdefault(bool(example.messages), f"{file}:{number}")
            lines[part].setdefault(example.question, number)
        problems += bad[:10] + ([f"{name}: {file}: {len(bad) - 10} more lines like these"] if bad[10:] else [])
        if not rows:
            problems.append(f"{name}: {file} has no rows")
    if len(kinds) == 2:
        problems.append(
            f"{name}: chat rows ({kinds[True]}) and question rows ({kinds[False]}) in one sub-dataset; make it two"
        )
    is_zero = is_zero_shot(True in kinds, metric)
    if is_zero and "shots" in entry:
        problems.append(f"{name}: it is measured zero-shot, as chats and held-out loss are; take `shots` away")
    if is_zero:
        parts["shots"] = []
    elif not problems and "shots" not in parts:
        # shots come out of train, never out of what is scored
        if len(parts["train"]) <= SHOTS:
            problems.append(
                f"{name}: {len(parts['train'])} train rows; five become shots and some must be left "
                "to train on: give more rows or a shots file"
            )
        else:
            parts["shots"] = draw_shots(parts["train"], seed)
            chosen = {example.question for example in parts["shots"]}
            parts["train"] = [e for e in parts["train"] if e.question not in chosen]
    elif not problems and len(parts["shots"]) < SHOTS:
        problems.append(f"{name}: {len(parts['shots'])} shots in {entry['shots']}; give five")
    if problems:
        return None, problems
    parts["shots"] = parts["shots"][:SHOTS]
    if not overlap_allowed:
        pairs = [("train", "test"), ("train", "validation"), ("shots", "test"), ("validation", "test")]
        for first, second in pairs:
            shared = [q for q in lines.get(second, {}) if q in lines.get(first, {})]
            problems += [
                f"{name}: the same question in {first} (line {lines[first][q]}) and {second} "
                f"(line {lines[second][q]}): {q[:60]!r}; remove one, or name {name} under allow_overlap"
                for q in shared[:5]
            ]
    source = {"source": entry["source"]} if "source" in entry else {}
    sub = SubDataset(name=name, group=entry.get("group", ""), source=source, metric=metric, **parts)
    return (None, problems) if problems else (sub, [])


def without_long(sub: SubDataset, part: str, keep: Sequence[bool], reason: str) -> SubDataset:
    """The sub-dataset with the examples of one part that `keep` does not name left out and counted."""
    kept = [example for example, k in zip(getattr(sub, part), keep, strict=True) if k]
    out = len(keep) - len(kept)
    left_out = {**sub.left_out, reason: sub.left_out.get(reason, 0) + out} if out else sub.left_out
    return replace(sub, **{part: kept}, left_out=left_out)
