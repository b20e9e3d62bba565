"""Data sets of the Hugging Face hub: the splits of one, all of the commit that its revision names now."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from msft.errors import DataError, each

_COMMIT = re.compile("[0-9a-f]{40}")


def load(
    hub_id: str, config: str | None, splits: Sequence[str], revision: str | None, instead: str
) -> tuple[list, str]:
    """(a `datasets.Dataset` a split, the commit that they are of).

    instead: what can be done where there is no hub, for the error.
    Raises DataError with every split that cannot be read.
    """
    ways_out = f"Either allow https access to huggingface.co and its file hosts (*.hf.co), or {instead}. "
    ways_out += "Where the datasets are in the local cache already, set HF_HUB_OFFLINE=1."
    commit = _commit(hub_id, revision, ways_out)
    parts, refused = each(partial(_load_dataset, hub_id, config, commit), splits)
    if refused:
        raise DataError("\n    ".join(str(error) for _, error in refused) + f". {ways_out}") from refused[0][1]
    if commit is None:
        # of what came out of the cache the library names the folder after it
        folders = [Path(file["filename"]).parent.name for file in parts[0].cache_files]
        commit = next((name for name in folders if _COMMIT.fullmatch(name)), "not recorded")
        if _COMMIT.fullmatch(revision or "") and commit != revision:
            raise DataError(f"{hub_id}: the cache holds commit {commit}, not {revision}")
    return parts, commit


def _load_dataset(hub_id: str, config: str | None, revision: str | None, split: str):
    """`datasets.load_dataset`, its many kinds of failure as one DataError."""
    import datasets

    try:
        return datasets.load_dataset(hub_id, config, split=split, revision=revision)
    except Exception as error:  # the library raises its own, pyarrow's, httpx's and built-in errors
        what = f"{type(error).__name__}: {str(error)[:300].rstrip('.')}"
        raise DataError(f"{hub_id} ({split}) cannot be read: {what}") from error


def _commit(hub_id: str, revision: str | None, ways_out: str) -> str | None:
    """The commit that a revision names, or None in offline mode, where the cache has what it has.

    One request without retries: `load_dataset` would try for minutes where there is no network.
    """
    import huggingface_hub

    if huggingface_hub.is_offline_mode():
        return None
    try:
        return huggingface_hub.HfApi().dataset_info(hub_id, revision=revision, timeout=10).sha
    except Exception as error:  # no network, proxy, unknown revision: httpx's and the hub's own errors
        what = f"{type(error).__name__}: {str(error)[:200]}"
        raise DataError(f"{hub_id} cannot be reached ({what}). {ways_out}") from error
