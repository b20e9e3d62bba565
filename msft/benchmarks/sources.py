"""Records of the benchmarks: from a local folder, or from the Hugging Face hub."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from msft.benchmarks.records import BENCHMARKS, Benchmark
from msft.data import from_hub
from msft.data.rows import read_rows
from msft.errors import DataError, together, unknown
from msft.paths import expanded

# of one benchmark: (train records, test records, where they come from)
Reader = Callable[[Benchmark], tuple[list[dict], list[dict], dict[str, str]]]
_INSTEAD = (
    "make a folder with <benchmark>/train.jsonl and <benchmark>/test.jsonl, one JSON object a line in the hub's columns, "
    "and pass it as data_dir"
)


def local(data_dir: str | Path, benchmarks: Sequence[Benchmark]) -> Reader:
    """A reader of <data_dir>/<name>/train.jsonl and test.jsonl; complains of all missing files at once."""
    folder = Path(expanded(data_dir))
    files = {b.name: {part: folder / b.name / f"{part}.jsonl" for part in ("train", "test")} for b in benchmarks}
    missing = [str(file) for parts in files.values() for file in parts.values() if not file.is_file()]
    if missing:
        title = "data_dir must hold <benchmark>/train.jsonl and test.jsonl, one hub record a line; missing:"
        raise DataError(together(title, missing))

    def read(benchmark: Benchmark) -> tuple[list[dict], list[dict], dict[str, str]]:
        source, records = {**_source(benchmark), "revision": "local"}, {}
        for part, file in files[benchmark.name].items():
            records[part] = read_rows(file)
            source[f"{part}_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        return records["train"], records["test"], source

    return read


def hub(revision: str | dict[str, str] | None) -> Reader:
    """A reader of the hub; each repository is pinned to the commit that its revision names now."""
    asked = revision if isinstance(revision, dict) else dict.fromkeys(BENCHMARKS, revision)
    for name in asked:
        if name not in BENCHMARKS:
            raise DataError("revision: " + unknown("benchmark", name, list(BENCHMARKS)))

    def read(benchmark: Benchmark) -> tuple[list[dict], list[dict], dict[str, str]]:
        wanted = asked.get(benchmark.name) or benchmark.revision
        splits = (benchmark.train_split, benchmark.test_split)
        (train, test), commit = from_hub.load(benchmark.hub_id, benchmark.config, splits, wanted, _INSTEAD)
        return train.to_list(), test.to_list(), {**_source(benchmark), "revision": commit}

    return read


def _source(benchmark: Benchmark) -> dict[str, str]:
    return {
        "hub_id": benchmark.hub_id,
        "config": benchmark.config or "default",
        "train_split": benchmark.train_split,
        "test_split": benchmark.test_split,
        "licence": benchmark.licence,
    }
