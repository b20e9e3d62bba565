"""A mixture of one's own: a YAML over files or data sets of the hub, read, converted, given its shots and checked in full.

name: my_mixture
sub_datasets:
  - name: arithmetic
    train: arithmetic/train.jsonl      # rows of question, answer, optional rationale; also CSV, parquet, JSON (files.py)
    test: arithmetic/test.jsonl
    validation: arithmetic/validation.jsonl   # optional
    confirmation: arithmetic/fresh.jsonl      # optional: answered once, at the end; nothing is chosen on it
    shots: arithmetic/shots.jsonl             # optional: five rows; else taken from train
    benchmark: gsm8k                          # optional: rows are hub records of this benchmark
    metric: number_match                      # optional: exact_match, number_match or loss (metrics.py),
                                              # or a task of lm-eval, which needs no test file (judges.py)

Rows may be chats instead, {"messages": [...]} (chat.py); they are answered zero-shot and take no shots. Other columns, data
sets of the hub, seeded splits and sizes: columns.py.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from msft.data import from_hub, judges, metrics
from msft.data.columns import Source
from msft.data.drawing import draw, split_off
from msft.data.example import SHOTS, Example
from msft.data.files import Rows, read_file, table_rows
from msft.data.mixture import MEASURED, Mixture, SubDataset, distinct, draw_shots, is_zero_shot, without_questions
from msft.data.rows import row_to_example, unread
from msft.data.scoring import SCORERS, score
from msft.data.spec import DEFAULTS, PARTS, check_entry, check_spec, read_spec
from msft.errors import DataError, each, shortened, together
from msft.paths import expanded

_DISJOINT = [("train", part) for part in MEASURED] + [("shots", part) for part in MEASURED]
_DISJOINT += [("validation", "test"), ("confirmation", "test"), ("confirmation", "validation")]
_INSTEAD = "download the data and name the files in place of `hub`"
_Convert = Callable[[str, dict], Example]  # (benchmark name, hub record)
_log = logging.getLogger(__name__)


def read_mixture(path: str | Path, to_example: _Convert | None = None) -> Mixture:
    """Reads and checks a mixture YAML.

    path: the YAML file; the data paths in it are relative to its folder.
    to_example: (benchmark name, hub record) -> Example, for entries with `benchmark:`.
    Raises DataError that lists everything wrong at once, with file and line.
    """
    path = Path(expanded(path))
    spec, judged, watched, problems = judges.taken(read_spec(path), path.parent)
    entries, allowed, seed = (spec.get(key, default) for key, default in DEFAULTS.items())
    problems, subs = [*check_spec(spec), *problems], []
    for number, entry in enumerate(entries if isinstance(entries, list) else [], 1):
        source, wrong = check_entry(number, entry, judged)
        problems += wrong
        if source is not None:
            is_allowed = isinstance(allowed, list) and entry["name"] in allowed
            seed = seed if type(seed) is int else DEFAULTS["seed"]
            sub, wrong = _sub_dataset(path.parent, entry, source, seed, is_allowed, to_example)
            subs.append(sub)
            problems += [f"{entry['name']}: {problem}" for problem in wrong]
    if problems:
        raise DataError(together(f"{path}: the mixture has problems:", problems))
    subs = [replace(sub, judge=judged.get(sub.name)) for sub in subs]
    _say_trained_elsewhere(subs, allowed)
    return Mixture(spec.get("name", path.stem), subs, watched)


def _sub_dataset(
    folder: Path, entry: dict, source: Source, seed: int, overlap_allowed: bool, to_example: _Convert | None
) -> tuple[SubDataset | None, list[str]]:
    """(the sub-dataset of an entry, None where there are problems; the problems)."""
    if "benchmark" in entry and to_example is None:
        return None, ["`benchmark:` needs a converter; load through msft.load_mixture"]
    metric, name = entry.get("metric", ""), entry["name"]
    parts, origin, left_out, problems = _parts(folder, entry, source, to_example)
    if not problems:
        problems += _split(parts, source, seed, name)
    for part in MEASURED:
        rows = parts.get(part, ())
        counts = Counter(example.question_key for example in rows)
        if again := [example for example in rows if counts[example.question_key] > 1]:
            text = "%s: %d of %d rows of %s ask what another one asks, and count as often: %s (%s)"
            _log.warning(text, name, len(again), len(rows), part, _quoted(again[-1]), _where(again[-1]))
        if metric != metrics.LOSS and (others := _several_answers(rows, metric)):
            example = next(iter(others.values()))
            text = "%s: %d questions of %s have several answers, of which one at most is right for a model: %s (%s)"
            _log.warning(text, name, len(others), part, _quoted(example), _where(example))
    is_zero, wrong = _is_zero_shot(parts, metric)
    alike = metrics.merged((e for part in parts.values() for e in part), metric)
    if alike and not metric:  # that scorer is the paper's: numbers and case may be meant
        _log.warning("%s: %d answers count as another one: %s", name, len(alike), alike[0])
    problems += wrong + (shortened(alike) if metric else [])
    problems += [] if overlap_allowed else _overlaps(parts, name)
    train = parts.get("train", [])
    if is_zero:
        parts["shots"] = []
    elif parts.get("shots"):
        problems += _check_shots(parts["shots"], train, metric, entry["shots"])
        _leave_out(parts, "shots", parts["shots"][:SHOTS], f"only {SHOTS} stand before an item", left_out)
        _leave_out(parts, "train", without_questions(train, parts["shots"]), "same question as a shot", left_out)
        problems += [] if parts.get("train") or not train else ["every train row asks what a shot asks; give more rows"]
    elif train and not problems:
        parts["shots"], parts["train"], wrong = _drawn_shots(train, seed, metric)
        problems += wrong
        if repeated := len(train) - len(parts["train"]) - len(parts["shots"]):
            left_out["train: same question as a shot"] = repeated
    problems += _sized(parts, source, seed, name, left_out) if not problems else []
    if problems or "train" not in parts:  # what else is missing, `check_entry` says
        return None, problems
    origin |= {"source": entry["source"]} if "source" in entry else {}
    more = {"group": entry.get("group", ""), "metric": metric, "source": origin, "left_out": left_out}
    more["skips"] = source.skip_bad_rows
    return SubDataset(name=name, **more, **{"test": [], **parts}), []


def _leave_out(parts: dict, part: str, kept: list[Example], why: str, left_out: dict[str, int]) -> None:
    """Keeps these examples of a part, and counts the others."""
    if lost := len(parts.get(part, ())) - len(kept):
        parts[part], left_out[f"{part}: {why}"] = kept, lost


def _parts(
    folder: Path, entry: dict, source: Source, to_example: _Convert | None
) -> tuple[dict[str, list[Example]], dict[str, str], dict[str, int], list[str]]:
    """({part: its examples}, where they come from, how many rows each rule left out, problems)."""
    parts, left_out, unused, metric = {}, {}, Counter(), entry.get("metric", "")
    found, origin, problems = _found(folder, entry, source)

    def convert(row: dict, place: str) -> Example:  # one that its metric can score
        if "benchmark" in entry:
            example = replace(to_example(entry["benchmark"], row), place=place)
            metrics.check_example(example, metric)
            return example
        row, left = source.shaped(row)
        example = row_to_example(row, metric, place)
        unused.update(sorted(unread(row) | left))
        return example

    for part, (place, rows) in found.items():
        parts[part], wrong = _read(place, rows, source, convert, "benchmark" in entry)
        if source.skip_bad_rows and parts[part] and wrong:
            left_out[f"{part}: rows that cannot be used, such as {wrong[0]}"] = len(wrong)
        else:
            problems += shortened(wrong)
    if unused:
        keys = ", ".join(f"{key!r} ({count})" for key, count in unused.most_common())
        _log.warning("%s: keys of rows that are not read, and in how many rows: %s", entry["name"], keys)
    return parts, origin, left_out, problems


def _found(folder: Path, entry: dict, source: Source) -> tuple[dict[str, tuple[str, Rows]], dict[str, str], list[str]]:
    """({part: (file, or data set and split; its rows)}, where they come from, problems of the hub)."""
    names, is_raw = {part: entry[part] for part in PARTS if part in entry}, "benchmark" in entry
    names = {"train": source.split, **names} if source.split else names
    if source.hub is None:
        files = {part: folder / expanded(file) for part, file in names.items()}
        return {part: (str(file), read_file(file, is_raw)) for part, file in files.items()}, {}, []
    if not names:
        return {}, {}, []
    try:
        sets, commit = from_hub.load(source.hub, source.config, names.values(), source.revision, _INSTEAD)
    except DataError as error:
        return {}, {}, [str(error)]
    places = {part: f"{source.hub} {split}" for part, split in names.items()}
    rows = [table_rows(found, place, is_raw) for found, place in zip(sets, places.values(), strict=True)]
    origin = {"hub_id": source.hub, "config": source.config or "default", "revision": commit}
    origin |= {f"{part}_split": split for part, split in names.items()}
    return dict(zip(places, zip(places.values(), rows, strict=True), strict=True)), origin, []


def _read(place: str, found: Rows, source: Source, convert: Callable, is_raw: bool) -> tuple[list[Example], list[str]]:
    """(the examples of a file or split, the problems of its other rows)."""
    if found.rows and not is_raw and (wrong := source.missing(found)):
        return [], [*found.problems, f"{place}: {wrong}"]
    examples, refused = each(lambda row: convert(row[1], f"{place}:{row[0]}"), found.rows)
    return examples, [*found.problems, *(f"{place}:{number}: {error}" for (number, _), error in refused)]


def _split(parts: dict, source: Source, seed: int, name: str) -> list[str]:
    """Takes the shares of train that the entry asks for out of it; problems of parts that get nothing."""
    shares = {"test": source.test_split, "validation": source.validation_split}
    shares = {part: share for part, share in shares.items() if share is not None}
    if not shares or "train" not in parts:
        return []
    count, (parts["train"], taken) = len(parts["train"]), split_off(parts["train"], shares, seed, name)
    parts |= taken
    asked = ", ".join(f"{part}_split = {share}" for part, share in shares.items())
    return [f"{asked} of {count} rows: nothing is left for {part}" for part in ("train", *taken) if not parts[part]]


def _sized(parts: dict, source: Source, seed: int, name: str, left_out: dict) -> list[str]:
    """Draws as many rows of each part as the entry asks for; problems of parts that have fewer."""
    problems = []
    for part in ("train", "test", "validation"):
        size, count = getattr(source, f"{part}_size"), len(parts.get(part, ()))
        if size and size > count:
            problems.append(f"{part}_size = {size}, and {part} has {count} rows beside its shots; lower it")
        elif size and size < count:
            parts[part] = draw(parts[part], size, seed, name, part)
            left_out[f"{part}: not drawn, {part}_size = {size}"] = count - size
    return problems


def _is_zero_shot(parts: dict[str, list[Example]], metric: str) -> tuple[bool, list[str]]:
    """(whether no shots stand before the items, problems); chats and questions do not mix."""
    places, problems = {bool(e.messages): e.place for part in parts.values() for e in reversed(part)}, []
    if len(places) == 2:
        both = f"chat rows ({places[True]}) and question rows ({places[False]})"
        problems.append(f"{both} in one sub-dataset; make it two")
    is_zero = is_zero_shot(True in places, metric)
    if is_zero and "shots" in parts:
        problems.append("it is measured zero-shot, as chats and held-out loss are; take `shots` away")
    return is_zero, problems


def _overlaps(parts: dict[str, list[Example]], name: str) -> list[str]:
    """Problems of questions that stand in two parts which must be disjoint."""
    problems = []
    for first, second in _DISJOINT:
        known = {e.question_key: e for e in reversed(parts.get(first, []))}
        shared = [
            f"the same question in {first} ({_where(known[e.question_key])}) and {second} ({_where(e)}): {_quoted(e)}; "
            f"remove one, or write `allow_overlap: [{name}]` beside `name` at the top of the YAML"
            for e in distinct(parts.get(second, []))
            if e.question_key in known
        ]
        problems += shortened(shared, 5)
    return problems


def _say_trained_elsewhere(subs: list[SubDataset], allowed: list[str]) -> None:
    """Names with their number the questions of measured items that another sub-dataset trains on."""
    trained = {example.question_key: (sub.name, example) for sub in subs for example in sub.train}
    for sub in subs:
        items = [item for part in MEASURED for item in getattr(sub, part) if sub.name not in allowed]
        pairs = [(item, *trained[item.question_key]) for item in items if item.question_key in trained]
        if pairs := [pair for pair in pairs if pair[1] != sub.name]:
            item, other, example = pairs[0]
            text = "%s: %d questions of %d are trained in other sub-datasets, such as %s (%s of %s); remove them there, or write `allow_overlap: [%s]` at the top of the YAML"
            _log.warning(text, sub.name, len(pairs), len(items), _quoted(item), _where(example), other, sub.name)


def _quoted(example: Example) -> str:
    """The beginning of a question, or of what a chat asks last."""
    return repr((example.messages[-2][1] if example.messages else example.question)[:60])


def _where(example: Example) -> str:
    """'line 3' or, where rows have no lines, 'row 3'."""
    number = example.place.rpartition(":")[2]
    return f"line {number}" if number.isdigit() else number


def _several_answers(examples: Iterable[Example], metric: str) -> dict[str, Example]:
    """{question: the first example that answers it in another way than the first one}."""
    first, others, is_same = {}, {}, SCORERS.get(metric, score)
    for example in examples:
        key = example.question_key
        known = first.setdefault(key, example)
        if known.answer != example.answer and not is_same(known.answer, example.answer):
            others.setdefault(key, example)
    return others


def _check_shots(shots: list[Example], train: list[Example], metric: str, file: str) -> list[str]:
    """Problems of shots that a file lists: five questions, each with one answer."""
    problems = [f"{len(shots)} shots in {file}; give five"] if len(shots) < SHOTS else []
    others, places = _several_answers([*shots, *train], metric), {shot.place for shot in distinct(shots)}
    for shot in shots:
        if shot.place not in places:
            problems.append(f"{shot.place}: this shot's question stands twice; give five different questions")
        elif other := others.get(shot.question_key):
            answers = f"{shot.answer[:60]!r} where {other.place} answers {other.answer[:60]!r}"
            problems.append(f"{shot.place}: this shot answers {answers}; one question has one answer")
    return problems


def _drawn_shots(train: list[Example], seed: int, metric: str) -> tuple[list[Example], list[Example], list[str]]:
    """(five shots of train, the examples that ask other questions, problems)."""
    # rows that stand several times are one question; what has several answers shows no answer
    others = _several_answers(train, metric)
    pool = [example for example in distinct(train) if example.question_key not in others]
    shots = draw_shots(pool, seed)
    rest = without_questions(train, shots)
    if len(shots) == SHOTS and rest:
        return shots, rest, []
    what = "" if len(pool) == len(train) else f", {len(pool)} different questions with one answer each"
    mend = "five become shots and some must be left to train on: give more rows or a shots file"
    return shots, rest, [f"{len(train)} train rows{what}; {mend}"]
