"""A finished run as a folder, or a repository on the hub, that stock transformers and vLLM load.

It holds the weights in safetensors, the configuration, the tokenizer with its chat template, and a model card. Of a run
with an adapter it holds the adapter alone, which transformers loads where peft is installed, unless it is merged.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from msft import adapter, names
from msft.errors import ConfigError, RunError, unknown
from msft.paths import usable
from msft.results import card
from msft.results.run import Run
from msft.settings import DTYPES
from msft.store.files import cannot_write


def export(
    source: Run | str | Path,
    target: str | Path,
    *,
    push: bool = False,
    dtype: str = "",
    private: bool = True,
    merge: bool = False,
) -> str:
    """Writes the best checkpoint of a finished run with a model card; returns the folder, or the address on the hub.

    source: a run or its directory.  target: a new or empty folder; with push the hub's owner/name.
    dtype: "bf16" or "fp32" converts the weights; "" leaves them as they were trained.
    private: whether a repository that push makes is private. The login is that of `hf auth login`.
    merge: adds an adapter to its base model's weights, rounded to their type; vLLM, say, then needs no peft.
    Raises RunError for a run that is not finished, a target that is taken or cannot be written, and a failed upload,
    ConfigError for another dtype or name, ModelError for a base model that is gone or has changed. A folder that stands is whole.
    """
    run = source if isinstance(source, Run) else Run(source)
    _check_options(run, target, push, dtype, merge)
    _check_checkpoint(run)
    if push:
        return _pushed(run, str(target), dtype, private, merge)
    return _written(run, Path(usable(target)), dtype, merge)


def _check_options(run: Run, target: str | Path, push: bool, dtype: str, merge: bool) -> None:
    """Refuses what this run cannot be made, or nobody could be sent."""
    if dtype and dtype not in DTYPES:
        raise ConfigError(unknown("dtype", dtype, list(DTYPES)))
    if push:
        from huggingface_hub import get_token

        if str(target).count("/") != 1:  # all else the hub's client checks
            raise ConfigError(f"the hub's repository {str(target)!r}: give owner/name")
        if not get_token():
            raise RunError("no login to the hub: run `hf auth login`, or set HF_TOKEN to a token that may write")
    if run.status == "missing":
        raise RunError(f"{run.directory} is no run: it has no run.json. Give the directory of a finished run")
    if run.status != "finished":
        raise RunError(f"{run.directory} is {run.status}; give its command again to finish it, then export it")
    has_adapter = bool(run.config.adapter)
    if merge and not has_adapter:
        raise ConfigError(f"{run.directory} was trained without an adapter: there is nothing to merge")
    if dtype and has_adapter and not merge:
        raise ConfigError("dtype converts whole weights, and this run has an adapter: merge it too (--merge)")
    if merge:
        adapter.available()


def _check_checkpoint(run: Run) -> None:
    """Opens every file of the best checkpoint."""
    config = run.config
    path = best = run.best.path
    wanted = adapter.FILE if config.adapter else "config.json"
    try:
        files = [best / name for name in os.listdir(best)]  # where it may not be read, `glob` finds nothing
        if lacking := [name for name in (wanted, "*.safetensors") if not any(best.glob(name))]:
            raise run.damaged(best, f"it has no {' and no '.join(lacking)}")
        for path in files:
            if path.suffix == ".safetensors":
                safe_open(path, "np")
            elif path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
        path = best  # its tokenizer, whatever the files of it are called
        names.load_tokenizer(str(best), trust_remote_code=config.trust_remote_code)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error}; see that you may read it") from None
    except (SafetensorError, ValueError) as error:
        raise run.damaged(path, str(error)) from None


def _pushed(run: Run, repository: str, dtype: str, private: bool, merge: bool) -> str:
    from huggingface_hub import HfApi

    # before a merge that may take minutes: who may not write there learns it now
    _asked(repository, HfApi().create_repo, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        _fill(run, Path(folder), dtype, repository, merge)
        _asked(repository, HfApi().upload_folder, folder_path=folder, commit_message="Checkpoint and model card")
    return f"https://huggingface.co/{repository}"


def _written(run: Run, place: Path, dtype: str, merge: bool) -> str:
    # an empty folder is filled, not replaced: it may be a link or a mount, its parent one that cannot be written
    is_there = place.is_dir()
    # one that was killed leaves a hidden folder; a link that leads nowhere is there too
    if taken := next(place.iterdir(), None) if is_there else os.path.lexists(place) and place:
        what = f"not empty: it holds {taken.name}" if is_there else "no folder"
        raise RunError(f"{place} is there and {what}; give a new folder, or take it away")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place if is_there else place.parent))
    except OSError as error:
        raise RunError(f"cannot write {place}: {error}; give another folder") from None
    try:
        _fill(run, partial, dtype, place.absolute().name, merge)
        partial.chmod(0o755)
        for path in list(partial.iterdir()) if is_there else ():
            os.rename(path, place / path.name)
        if not is_there:
            os.rename(partial, place)
    except (OSError, SafetensorError) as error:
        size = sum(path.stat().st_size for path in run.best.path.glob("*.safetensors"))
        raise cannot_write(place, size, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return str(place)


def _fill(run: Run, folder: Path, dtype: str, name: str, merge: bool) -> None:
    config, model = run.config, None
    if merge:
        import torch

        source, revision = run.about["model"]["source"], config.model_revision
        names.check_base(run.about["model"], source, revision)
        base = names.load_model(source, config.weights, revision, config.trust_remote_code)
        model = adapter.loaded(base.float(), run.best.path).merge_and_unload()  # added in fp32, rounded once
        model = model.to(getattr(torch, DTYPES[dtype or config.weights]))
    elif dtype:
        model = names.load_model(str(run.best.path), dtype, trust_remote_code=config.trust_remote_code)
    if model is not None:
        model.save_pretrained(folder)
    # how the run decoded is the checkpoint's word: the base model's generation_config may ask for sampling or a penalty
    is_here = ("adapter_", "model", "config.json") if model is not None else ()
    for path in run.best.path.iterdir():
        if path.is_dir():  # of a tokenizer with several chat templates
            shutil.copytree(path, folder / path.name, copy_function=shutil.copyfile)
        elif not path.name.startswith(is_here):
            shutil.copyfile(path, folder / path.name)
    try:
        card.draw(run, folder / "curves.png")
        text = card.text(run, name, merge)
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # of values of other kinds, deep in its files
        raise run.damaged(run.directory, f"no card can be written: {type(error).__name__}: {error}") from error
    (folder / "README.md").write_text(text, encoding="utf-8")
    for path in folder.glob("*.safetensors"):  # safetensors lets nobody else read what it writes
        shutil.copymode(folder / "README.md", path)


def _asked(repository: str, call: Callable, **options) -> None:
    """A call to the hub."""
    try:
        call(repo_id=repository, **options)
    except Exception as error:  # the library lets out its own, its client's and the system's errors
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        way = "Log in with `hf auth login`, or export to a folder without push"
        raise RunError(f"the upload to {repository} failed: {why.rstrip('.')}. {way}") from error
