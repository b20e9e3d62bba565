"""What a mixture's YAML says, and what it may say: keys, names and metrics, before a data file is opened."""

import os
import unicodedata
from collections import Counter
from pathlib import Path
from urllib.parse import quote

from msft.data import columns, judges, metrics
from msft.data.mixture import PARTS
from msft.errors import DataError, unknown
from msft.paths import expanded, nearest_file
from msft.settings import read_yaml

LONGEST_NAME = 200  # of a sub-dataset: a file's name has at most 255 bytes on most systems
# rows of tables that have the sub-datasets beside them, and what pandas reads in a CSV as no name
RESERVED = ("mean", "all", "nan", "NaN", "NA", "N/A", "n/a", "null", "NULL", "None")
DEFAULTS = {"sub_datasets": [], "allow_overlap": [], "judges": [], "seed": 20}
_TEXT_KEYS = ("name", *PARTS, "group", "benchmark", "source", "metric")
_NOT_JUDGED = ("validation", "validation_split", "confirmation", "benchmark")  # of no use beside a judge
_SUB_KEYS = (*_TEXT_KEYS, *columns.KEYS)


def read_spec(path: Path) -> dict:
    """What a mixture's YAML says."""
    if not os.path.isfile(path):
        way = nearest_file(path)
        raise DataError(f"mixture file {str(path)!r} does not exist, or its folder may not be read.{way}")
    return read_yaml(path, "name and sub_datasets", DataError)


def selects_on(file: str) -> str:
    """The part that decisions are taken on where nothing else is said: 'validation' where a mixture's file gives every
    sub-dataset such items, or a judge; else 'test', also where it cannot be read."""
    try:
        entries = read_spec(Path(expanded(file))).get("sub_datasets")
    except DataError:
        return "test"
    entries = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    validated = [bool({"validation", "validation_split"} & set(map(str, entry))) for entry in entries]
    judged = [judges.is_judged(entry.get("metric")) for entry in entries]
    return "validation" if any(validated) and all(map(max, validated, judged)) else "test"


def check_spec(spec: dict) -> list[str]:
    """Problems of all but the entries themselves, whose names must be unique."""
    problems = [unknown("key", key, ("name", *DEFAULTS)) for key in spec if key not in ("name", *DEFAULTS)]
    entries, allowed, listed, seed = (spec.get(key, default) for key, default in DEFAULTS.items())
    if not isinstance(spec.get("name", ""), str):
        problems.append("name must be a string")
    if type(seed) is not int:
        problems.append("seed must be an integer")
    if listed is not None and not (isinstance(listed, list) and all(isinstance(judge, str | dict) for judge in listed)):
        problems.append(f"judges: give a list of lm-eval tasks, such as `- arc_easy`; found {listed!r}")
    if not isinstance(entries, list) or not entries:
        return [*problems, "sub_datasets must be a non-empty list of entries with name, train, test"]
    names = [e["name"] for e in entries if isinstance(e, dict) and isinstance(e.get("name"), str)]
    # they become names of files: on some disks case does not tell two apart, nor how a letter is composed
    alike = {name: unicodedata.normalize("NFC", name.casefold()) for name in names}
    counts, mend = Counter(alike[name] for name in names), "names must be unique, in more than case"
    problems += [f"the sub-dataset name {name!r} is used twice; {mend}" for name in alike if counts[alike[name]] > 1]
    if not isinstance(allowed, list):
        return [*problems, "allow_overlap must be a list of sub-dataset names"]
    return problems + ["allow_overlap: " + unknown("sub-dataset", name, names) for name in allowed if name not in names]


def check_entry(number: int, entry: object) -> tuple[columns.Source | None, list[str]]:
    """(what an entry says of its rows, problems); where its files can be read by it, what else is wrong with it is said too."""
    if not isinstance(entry, dict):
        return None, [f"sub_datasets entry {number} is not a mapping with name, train, test"]
    label, name = f"sub_datasets entry {number} ({entry.get('name', 'no name')})", entry.get("name")
    is_judged = judges.is_judged(entry.get("metric"))  # by a task of lm-eval, which has its own items
    metric = metrics.LOSS if is_judged else entry.get("metric", "")
    problems = [unknown("key", key, _SUB_KEYS) for key in entry if key not in _SUB_KEYS]
    problems += [
        f"the key {key!r} is missing"
        for key, other in (("name", ""), ("train", "split"), ("test", "test_split"))
        if key not in entry and entry.get(other) is None and not (key == "test" and is_judged)
    ]
    unused = [key for key in _NOT_JUDGED if is_judged and key in entry]
    problems += [f"it is judged by an lm-eval task, so that {key!r} has no use; drop it" for key in unused]
    texts = {key: value for key, value in {**entry, "metric": metric}.items() if key in _TEXT_KEYS}
    no_texts = [f"{key} must be a string" for key, value in texts.items() if not isinstance(value, str)]
    source, wrong = columns.read_source(entry)
    problems += [*no_texts, *wrong]
    if no_metric := isinstance(metric, str) and metric not in ("", *metrics.METRICS):
        mend = "Left out, it is the paper's scorer; lm_eval:arc_easy stands for a task of lm-eval, here arc_easy"
        problems.append(f"{unknown('metric', metric, metrics.METRICS)} {mend}")
    if name in RESERVED:
        problems.append(f"the name {name!r} stands for all sub-datasets or none in tables and figures; give another")
    problems = [f"{label}: {problem}" for problem in problems]
    # it becomes the name of a task file, its special characters as %XX
    if isinstance(name, str) and not (name.strip() and name.isprintable() and len(quote(name)) <= LONGEST_NAME):
        most = f"{LONGEST_NAME} characters (other than ASCII letters and digits count three or more)"
        problems.append(f"sub_datasets entry {number}: the name {name[:60]!r} must be printable text of at most {most}")
    is_readable = isinstance(name, str) and name.isprintable() and not no_texts and not no_metric
    return source if is_readable else None, problems
