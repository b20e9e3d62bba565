"""The paper's mixtures by name, from the Hugging Face hub or from a local folder of its files.

    load("paper-10")                          # downloads, or reads the hub's cache
    load("paper-10", data_dir="benchmarks")   # benchmarks/<name>/train.jsonl and test.jsonl

The two differ in where the records come from and in nothing else: what is refused, what is left out
and what is drawn is one code path (paper section 4.1, appendix A).
"""

import hashlib
import random
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from msft.benchmarks.records import BENCHMARKS, Benchmark, UnlabelledError, to_example
from msft.data import from_hub
from msft.data.example import SHOTS, Example, fitting_prompts, training_text
from msft.data.given_back import given_back
from msft.data.mixture import Mixture, SubDataset, distinct, draw_shots, seed_of, without_questions
from msft.data.rows import read_rows
from msft.errors import ConfigError, DataError, each, together, unknown
from msft.paths import expanded

_BENCHMARKS_OF = {
    "paper-5": ("gsm8k", "boolq", "arc_easy", "hellaswag", "medmcqa"),
    "paper-10": tuple(BENCHMARKS)[:10],
    "paper-15": tuple(BENCHMARKS),
    "medmcqa-21": ("medmcqa",),
}
NAMES = tuple(_BENCHMARKS_OF)
# MedMCQA's subject_name values, in the same plain string order as everything else
SUBJECTS = (
    "Anaesthesia", "Anatomy", "Biochemistry", "Dental", "ENT", "Forensic Medicine",
    "Gynaecology & Obstetrics", "Medicine", "Microbiology", "Ophthalmology", "Orthopaedics", "Pathology",
    "Pediatrics", "Pharmacology", "Physiology", "Psychiatry", "Radiology", "Skin",
    "Social & Preventive Medicine", "Surgery", "Unknown",
)  # fmt: skip
_Records = tuple[list[dict], list[dict], dict[str, str]]  # train, test, where they come from
_INSTEAD = (
    "make a folder with <benchmark>/train.jsonl and <benchmark>/test.jsonl, one JSON object a line in the hub's columns, "
    "and pass it as data_dir"
)


@dataclass(frozen=True)
class _Draw:
    """How much to draw of a sub-dataset, from which seed, and how long an item may be (tokens)."""

    train: int
    test: int
    validation: int
    confirmation: int
    seed: int
    tokenizer: object
    max_tokens: int
    max_prompt_tokens: int

    def is_trainable(self, example: Example) -> bool:
        """Whether its text and EOS have at most max_tokens."""
        text = "".join(training_text(example))
        return self.tokenizer is None or len(self.tokenizer(text, verbose=False)["input_ids"]) < self.max_tokens

    def has_room(self, shots: Sequence[Example], example: Example) -> bool:
        """Whether its prompt has at most max_prompt_tokens."""
        return self.tokenizer is None or fitting_prompts(self.tokenizer, shots, [example], self.max_prompt_tokens)[1][0]


def load(
    name: str,
    *,
    train_size: int | None = None,
    test_size: int | None = None,
    validation_size: int | None = None,
    confirmation_size: int | None = None,
    seed: int = 20,
    data_dir: str | Path | None = None,
    revision: str | dict[str, str] | None = None,
    tokenizer=None,
    max_tokens: int = 512,
    max_prompt_tokens: int = 700,
) -> Mixture:
    """A mixture of the paper: 'paper-5', 'paper-10', 'paper-15' or 'medmcqa-21'.

    train_size, test_size, validation_size: items of each sub-dataset; by default 1,800 / 200 / 200,
        and 900 / 200 / 100 for medmcqa-21. Where there are fewer, all there are.
    confirmation_size: of the test records that are left over, at most; by default as many as test_size.
    seed: every draw is a pure function of (seed, sub-dataset, part).
    data_dir: a folder with <benchmark>/train.jsonl and test.jsonl in the hub's columns; else the hub.
    revision: a branch or commit on the hub, for all or by benchmark name.
    tokenizer: a transformers tokenizer; with it, items of which the training text and EOS exceed
        max_tokens, or the five-shot prompt max_prompt_tokens, are passed over in the draw.
    Raises DataError where records cannot be had or are too few, ConfigError for a bad size.

    Validation items come out of the train split, whether it is the hub's or a local file, disjoint from
    train and shots: most test splits are too small to give any (AQUA-RAT's has 254 items).
    """
    if name not in NAMES:
        raise DataError(unknown("mixture", name, NAMES))
    is_granular = name == "medmcqa-21"
    sizes = sizes_of(name, train_size, test_size, validation_size, confirmation_size)
    draw, benchmarks = _Draw(*sizes, seed, tokenizer, max_tokens, max_prompt_tokens), mixture_benchmarks(name)
    folder = None if data_dir is None else Path(expanded(data_dir))
    _check_records(folder, benchmarks, revision)
    subs, problems = [], []
    for benchmark in benchmarks:
        try:
            train, test, source = read_local(benchmark, folder) if folder else read_hub(benchmark, revision)
        except DataError as error:
            if folder is None:  # a hub that cannot be reached is no better for the next one
                raise
            problems.append(str(error))
            continue
        parts = _by_subject(train, test) if is_granular else {benchmark.name: (train, test)}
        group = "" if is_granular else benchmark.group
        for sub_name, records in parts.items():
            try:
                subs.append(replace(_sub_dataset(sub_name, benchmark.name, *records, draw), source=source, group=group))
            except DataError as error:
                problems.append(str(error))
    if problems and is_granular and subs:
        # a sample of MedMCQA can lack its rarest subjects; the others still make a mixture
        title = f"{name}: subjects left out ({len(problems)} of {len(SUBJECTS)}):"
        warnings.warn(together(title, problems), stacklevel=2)
    elif problems:
        raise DataError(together(f"{name} cannot be drawn:", problems))
    return Mixture(name, subs)


def mixture_benchmarks(name: str) -> list[Benchmark]:
    """The benchmarks of a mixture in mixture order: the case-sensitive order of their hub ids."""
    return sorted((BENCHMARKS[b] for b in _BENCHMARKS_OF[name]), key=lambda b: b.order_key)


def sizes_of(name: str, train=None, test=None, validation=None, confirmation=None) -> list[int]:
    """Items a part of a sub-dataset: those asked for, else the mixture's own numbers. Raises ConfigError."""
    defaults = (900, 200, 100) if name == "medmcqa-21" else (1800, 200, 200)
    defaults, asked = (*defaults, test or defaults[1]), (train, test, validation, confirmation)
    problems = [
        f"{part}_size must be a whole number of at least {low}; found {size!r}"
        for part, low, size in zip(("train", "test", "validation", "confirmation"), (1, 1, 0, 0), asked, strict=True)
        if size is not None and (type(size) is not int or size < low)
    ]
    if problems:
        raise ConfigError(together("the sizes cannot be used:", problems))
    return [default if size is None else size for default, size in zip(defaults, asked, strict=True)]


def _by_subject(train: Iterable[dict], test: Iterable[dict]) -> dict[str, tuple[list[dict], list[dict]]]:
    """MedMCQA's records by subject, as sub-datasets named like 'medmcqa_forensic_medicine'."""
    parts = {subject: ([], []) for subject in SUBJECTS}
    strange = Counter()
    for index, records in enumerate((train, test)):
        for record in records:
            subject = record.get("subject_name")
            if subject in parts:
                parts[subject][index].append(record)
            else:
                strange[str(subject)] += 1
    if strange:
        warnings.warn(f"medmcqa-21: records of subjects it does not know: {dict(strange)}", stacklevel=3)
    return {"medmcqa_" + re.sub(r"[^a-z]+", "_", subject.lower()): both for subject, both in parts.items()}


# ---- records of a benchmark


def _check_records(folder: Path | None, benchmarks: Sequence[Benchmark], revision: str | dict[str, str] | None) -> None:
    """Raises DataError with all files that a folder of records lacks, or for a revision of what is no benchmark."""
    files = [folder / b.name / f"{part}.jsonl" for b in benchmarks for part in ("train", "test")] if folder else []
    if missing := [str(file) for file in files if not file.is_file()]:
        title = "data_dir must hold <benchmark>/train.jsonl and test.jsonl, one hub record a line; missing:"
        raise DataError(together(title, missing))
    for name in revision if isinstance(revision, dict) and not folder else ():
        if name not in BENCHMARKS:
            raise DataError("revision: " + unknown("benchmark", name, list(BENCHMARKS)))


def read_local(benchmark: Benchmark, folder: Path) -> _Records:
    """The records in <folder>/<name>/train.jsonl and test.jsonl."""
    files = {part: folder / benchmark.name / f"{part}.jsonl" for part in ("train", "test")}
    train, test = map(read_rows, files.values())
    digests = {f"{part}_sha256": hashlib.sha256(file.read_bytes()).hexdigest() for part, file in files.items()}
    return train, test, {**_source(benchmark), "revision": "local", **digests}


def read_hub(benchmark: Benchmark, revision: str | dict[str, str] | None) -> _Records:
    """The records of the hub, at the commit that the revision names now."""
    asked = revision.get(benchmark.name) if isinstance(revision, dict) else revision
    splits, wanted = (benchmark.train_split, benchmark.test_split), asked or benchmark.revision
    (train, test), commit = from_hub.load(benchmark.hub_id, benchmark.config, splits, wanted, _INSTEAD)
    return train.to_list(), test.to_list(), {**_source(benchmark), "revision": commit}


def _source(benchmark: Benchmark) -> dict[str, str]:
    facts = {name: getattr(benchmark, name) for name in ("hub_id", "config", "train_split", "test_split", "licence")}
    return {**facts, "config": benchmark.config or "default"}


# ---- from records to a sub-dataset


def _sub_dataset(name: str, benchmark: str, train: list[dict], test: list[dict], draw: _Draw) -> SubDataset:
    """Converts, removes what must not be drawn, takes the shots, then draws; counts all it leaves out."""
    left_out, refusals = Counter(), []

    def converted(part: str, records: list[dict]) -> list[Example]:
        examples, refused = each(partial(to_example, benchmark), records)
        for _, error in refused:
            left_out[f"{part}: {'unlabelled' if isinstance(error, UnlabelledError) else 'broken record'}"] += 1
            refusals.append(str(error))
        return examples

    def kept(reason: str, examples: list[Example], fewer: list[Example]) -> list[Example]:
        left_out[reason] += len(examples) - len(fewer)
        return fewer

    tests = converted("test", test)
    tests = kept("test: duplicate question", tests, distinct(tests))
    pool = converted("train", train)
    pool = kept("train: question also in test", pool, without_questions(pool, tests))
    pool = kept("train: duplicate question", pool, distinct(pool))
    shots = draw_shots(pool, seed_of(draw.seed, name, "shots"))
    pool = kept("train: became a shot", pool, without_questions(pool, shots))
    for part, examples in (("train", pool), ("test", tests)):
        random.Random(seed_of(draw.seed, name, part)).shuffle(examples)

    # a pool too small for both is shared in the proportion that was asked for
    both = draw.train + draw.validation
    quota = draw.validation if len(pool) >= both else len(pool) * draw.validation // both
    has_room, long_prompt = partial(draw.has_room, shots), f"prompt longer than {draw.max_prompt_tokens} tokens"
    long = f"train: longer than {draw.max_tokens} tokens"
    trained, pool = _take(pool, min(draw.train, len(pool) - quota), draw.is_trainable, long, left_out)
    validated, _ = _take(pool, quota, has_room, f"validation: {long_prompt}", left_out)
    tested, tests = _take(tests, draw.test, has_room, f"test: {long_prompt}", left_out)
    confirmed, _ = _take(tests, draw.confirmation, has_room, f"confirmation: {long_prompt}", left_out)
    measured = {"test": tested, "validation": validated, "confirmation": confirmed}
    if draw.tokenizer is not None:
        for part, examples in measured.items():
            measured[part], lost = each(partial(given_back, draw.tokenizer, metric=""), examples)
            left_out["answer that the tokenizer cannot give back"] += len(lost)
    counts = {reason: count for reason, count in left_out.items() if count}
    if len(shots) < SHOTS or not trained or not measured["test"]:
        got = f"{len(shots)} shots, {len(trained)} train and {len(measured['test'])} test items"
        records = f"{len(train)} train and {len(test)} test records; at least {SHOTS}, 1 and 1 are needed"
        why = f"Left out: {counts or 'nothing'}. First refusal: {refusals[0] if refusals else 'none'}"
        raise DataError(f"{name}: {got} come out of {records}. {why}")
    return SubDataset(name, trained, shots=shots, left_out=counts, **measured)


def _take(
    shuffled: Sequence[Example], size: int, fits: Callable[[Example], bool], reason: str, left_out: Counter
) -> tuple[list[Example], list[Example]]:
    """(the first `size` that fit, the rest not yet looked at) of a shuffled pool.

    Passing over is the same draw as filtering the whole pool first, without tokenising all of it; so
    only the over-long items met on the way are counted, and two tokenizers draw all but those alike.
    """
    taken = []
    for index, example in enumerate(shuffled):
        if len(taken) == size:
            return taken, list(shuffled[index:])
        if fits(example):
            taken.append(example)
        else:
            left_out[reason] += 1
    return taken, []
