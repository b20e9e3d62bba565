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
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from msft.data import from_hub, judges, metrics, repeats
from msft.data.columns import Source
from msft.data.draft import Draft
from msft.data.example import Example
from msft.data.files import Rows, read_file, table_rows
from msft.data.mixture import PARTS, Mixture
from msft.data.rows import row_to_example, unread
from msft.data.spec import DEFAULTS, check_entry, check_spec, read_spec
from msft.errors import DataError, each, shortened, together
from msft.paths import expanded

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
    spec = read_spec(path)
    problems, subs, folder = check_spec(spec), [], path.parent
    said = {key: spec[key] if type(spec.get(key)) is type(usual) else usual for key, usual in DEFAULTS.items()}
    for number, entry in enumerate(said["sub_datasets"], 1):
        source, wrong = check_entry(number, entry)
        problems += wrong
        if source is not None:
            draft = _read_entry(folder, entry, source, said, to_example)
            problems += [f"{draft.name}: {problem}" for problem in draft.problems]
            subs += [draft.sub_dataset()] if not problems else []
    readable = [judge for judge in said["judges"] if isinstance(judge, str | dict)]  # of others check_spec tells
    watched, refused = each(lambda judge: judges.load(judge, folder), readable)
    problems += [f"judges: {error}" for _, error in refused]
    counts = Counter(judge.label for judge in watched)
    problems += [f"judges: {label!r} stands twice" for label in counts if counts[label] > 1]
    if problems:
        raise DataError(together(f"{path}: the mixture has problems:", problems))
    repeats.say_trained_elsewhere(subs, said["allow_overlap"])
    return Mixture(spec.get("name", path.stem), subs, watched)


def _read_entry(folder: Path, entry: dict, source: Source, said: dict, to_example: _Convert | None) -> Draft:
    """Takes an entry through all steps. said: what the file says for all entries, `seed` and `allow_overlap`."""
    # the rows of a judged one need no answer that can be checked: they count as texts measured by their loss
    is_judged = judges.is_judged(entry.get("metric"))
    draft = Draft(entry, source, metrics.LOSS if is_judged else entry.get("metric", ""), said["seed"])
    if is_judged:
        try:
            draft.judge = judges.load(entry["metric"], folder)
        except DataError as error:
            draft.problems.append(str(error))
    if "benchmark" in entry and to_example is None:
        draft.problems.append("`benchmark:` needs a converter; load through msft.load_mixture")
        return draft
    _read_rows(draft, folder, to_example)
    draft.split()
    draft.check(is_overlap_allowed=draft.name in said["allow_overlap"])
    draft.take_shots()
    draft.draw_sizes()
    return draft


def _read_rows(draft: Draft, folder: Path, to_example: _Convert | None) -> None:
    """Files or splits to the examples of each part; rows that cannot be used are problems, or left out and counted."""
    entry, source, unused, is_raw = draft.entry, draft.source, Counter(), "benchmark" in draft.entry

    def convert(placed: tuple[str, dict]) -> Example:  # one that its metric can score
        place, row = placed
        if is_raw:
            example = replace(to_example(entry["benchmark"], row), place=place)
            metrics.check_example(example, draft.metric)
            return example
        row, left = source.shaped(row)
        example = row_to_example(row, draft.metric, place)
        unused.update(sorted(unread(row) | left))
        return example

    try:
        rows_of = _rows_of(draft, folder)
    except DataError as error:  # of the hub
        draft.problems.append(str(error))
        return
    for part, (place, rows) in rows_of.items():
        no_column = source.missing(rows) if rows.rows and not is_raw else ""
        placed = [(f"{place}:{number}", row) for number, row in rows.rows if not no_column]
        draft.parts[part], refused = each(convert, placed)
        wrong = [*rows.problems, *(f"{at}: {error}" for (at, _), error in refused)]
        if (
            len(refused) == len(placed) > 3 and len({str(error) for _, error in refused}) == 1
        ):  # of the entry, or of all
            wrong = [*rows.problems, f"{wrong[len(rows.problems)]}; so it is with all {len(placed)} rows"]
        wrong += [f"{place}: {no_column}"] if no_column else []
        if source.skip_bad_rows and draft.parts[part] and wrong:
            draft.left_out[f"{part}: rows that cannot be used, such as {wrong[0]}"] = len(wrong)
        else:
            draft.problems += shortened(wrong)
    if unused:
        keys = ", ".join(f"{key!r} ({count})" for key, count in unused.most_common())
        _log.warning("%s: keys of rows that are not read, and in how many rows: %s", draft.name, keys)


def _rows_of(draft: Draft, folder: Path) -> dict[str, tuple[str, Rows]]:
    """{part: (file, or data set and split; its rows)}; notes where rows of the hub come from. Raises DataError of the hub."""
    entry, source, is_raw = draft.entry, draft.source, "benchmark" in draft.entry
    names = ({"train": source.split} if source.split else {}) | {part: entry[part] for part in PARTS if part in entry}
    if source.hub is None:
        files = {part: folder / expanded(file) for part, file in names.items()}
        return {part: (str(file), read_file(file, is_raw)) for part, file in files.items()}
    if not names:
        return {}
    sets, commit = from_hub.load(source.hub, source.config, names.values(), source.revision, _INSTEAD)
    draft.origin = {"hub_id": source.hub, "config": source.config or "default", "revision": commit}
    draft.origin |= {f"{part}_split": split for part, split in names.items()}
    places = {part: f"{source.hub} {split}" for part, split in names.items()}
    rows = [table_rows(data, place, is_raw) for data, place in zip(sets, places.values(), strict=True)]
    return dict(zip(places, zip(places.values(), rows, strict=True), strict=True))
