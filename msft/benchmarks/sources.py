"""Records of the benchmarks: from a local folder, or from the Hugging Face hub."""

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from msft.benchmarks.records import BENCHMARKS, Benchmark
from msft.data.rows import read_rows
from msft.errors import DataError, together, unknown
from msft.paths import expanded

# of one benchmark: (train records, test records, where they come from)
Reader = Callable[[Benchmark], tuple[list[dict], list[dict], dict[str, str]]]
_COMMIT = re.compile("[0-9a-f]{40}")
_WAYS_OUT = (
    "Either allow https access to huggingface.co and its file hosts (*.hf.co), or make a folder with "
    "<benchmark>/train.jsonl and <benchmark>/test.jsonl, one JSON object a line in the hub's columns, "
    "and pass it as data_dir. Where the datasets are in the local cache already, set HF_HUB_OFFLINE=1."
)


def _load_dataset(hub_id: str, config: str | None, split: str, revision: str | None):
    """`datasets.load_dataset`, its many kinds of failure as one DataError."""
    import datasets

    try:
        return datasets.load_dataset(hub_id, config, split=split, revision=revision)
    except Exception as error:  # the library raises its own, pyarrow's, httpx's and built-in errors
        what = f"{type(error).__name__}: {str(error)[:300]}"
        raise DataError(f"{hub_id} ({split}) cannot be read: {what}. {_WAYS_OUT}") from error


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
        commit = _commit(benchmark, wanted)
        splits = (benchmark.train_split, benchmark.test_split)
        parts = [_load_dataset(benchmark.hub_id, benchmark.config, split, commit) for split in splits]
        if commit is None:
            commit = _cached_commit(parts[0])
            if _COMMIT.fullmatch(wanted or "") and commit != wanted:
                raise DataError(f"{benchmark.hub_id}: the cache holds commit {commit}, not {wanted}")
        return parts[0].to_list(), parts[1].to_list(), {**_source(benchmark), "revision": commit}

    return read


def _source(benchmark: Benchmark) -> dict[str, str]:
    return {
        "hub_id": benchmark.hub_id,
        "config": benchmark.config or "default",
        "train_split": benchmark.train_split,
        "test_split": benchmark.test_split,
        "licence": benchmark.licence,
    }


def _commit(benchmark: Benchmark, revision: str | None) -> str | None:
    """The commit that a revision names, or None in offline mode, where the cache has what it has.

    One request without retries: `load_dataset` would try for minutes where there is no network.
    """
    import huggingface_hub

    if huggingface_hub.is_offline_mode():
        return None
    try:
        return huggingface_hub.HfApi().dataset_info(benchmark.hub_id, revision=revision, timeout=10).sha
    except Exception as error:  # no network, proxy, unknown revision: httpx's and the hub's own errors
        what = f"{type(error).__name__}: {str(error)[:200]}"
        raise DataError(f"{benchmark.hub_id} cannot be reached ({what}). {_WAYS_OUT}") from error


def _cached_commit(dataset) -> str:
    """The commit of a dataset that came out of the cache: the library names its folder after it."""
    names = [Path(file["filename"]).parent.name for file in dataset.cache_files]
    return next((name for name in names if _COMMIT.fullmatch(name)), "not recorded")
