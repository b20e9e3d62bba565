"""A run: its directory, its lock, and `run`, which trains, goes on with, or reads it.

runs/msft-tiny-qwen2-tiny-s20-1a2b3c4d/
    run.json       settings, versions, commit, machine        history.csv   one row an evaluation and sub-dataset
    journal.jsonl  every verb, checksummed                    outputs/      generated text of every item
    best/          the best checkpoint, Hugging Face format   tasks/        lm-eval task files of the test sets
    disk.jsonl     the ledger of checkpoint bytes             result.json   best, FLOPs, time; written last
"""

import contextlib
import dataclasses
import json
import signal
import sys
import threading
import time
from pathlib import Path

import filelock
import pandas as pd

from msft import catalog, methods, provenance
from msft.checkpoints import Store, snapshot
from msft.config import RunConfig
from msft.directory import RunDirectory, check_names, check_place, clear_state, locked, save_best
from msft.errors import DataError, ModelError, RunError
from msft.files import write_atomic
from msft.history import history_rows
from msft.progress import RunProgress, clock
from msft.records import Run, load_runs

__all__ = ["Prepared", "Run", "load_runs", "prepare", "run"]


def run(config: RunConfig, runs_dir: str | Path = "runs", *, progress: bool = True, wait: bool = True) -> Run:
    """Trains a run; goes on with it where it was killed; reads it at once where it is finished.

    runs_dir: folder of run directories; the directory's name carries the hash of all that determines the result.
    wait: whether to wait for another process that is at the same run; False raises RunError at once.
    Raises ConfigError, DataError or ModelError before anything is written, RunError while training.
    """
    prepared = prepare(config)
    directory = Path(runs_dir) / prepared.name
    lock = filelock.FileLock(directory / ".lock", timeout=-1 if wait else 0)
    check_names(Path(runs_dir), directory)
    if _is_finished(directory):
        return Run(directory)
    check_place(Path(runs_dir))
    try:
        if directory.is_dir():  # another process may be at it: wait before anything heavy is loaded
            with locked(lock, directory, progress):
                if _is_finished(directory):
                    return Run(directory)
        model = prepared.load_model()
        examples, mixture = prepared.tokens(model)
        if progress:
            for sub in mixture:
                for reason, count in sub.left_out.items():
                    print(f"{sub.name}: {count} left out: {reason}", file=sys.stderr)
        evaluators = _evaluators(prepared, model, mixture)
        directory.mkdir(parents=True, exist_ok=True)
        with locked(lock, directory, progress), _threads(prepared.config.threads):
            if not _is_finished(directory):
                _train(prepared, directory, model, examples, mixture, evaluators, progress)
    except filelock.Timeout:
        raise RunError(f"{directory} is being trained by another process; wait for it, or pass wait=True") from None
    return Run(directory)


def _is_finished(directory: Path) -> bool:
    """Whether the run is done; a state that a kill at the very end left behind is taken away."""
    if Run(directory).status != "finished":
        return False
    if (directory / "state").is_dir():
        with contextlib.suppress(filelock.Timeout, OSError, RunError):
            with filelock.FileLock(directory / ".lock", timeout=0):
                size = sum(path.stat().st_size for path in (directory / "best").glob("*.safetensors"))
                clear_state(Store(directory / "state", directory / "disk.jsonl", size, result=directory / "best"))
    return True


@dataclasses.dataclass
class Prepared:
    """A config with its data and tokenizer, checked; nothing is written yet."""

    config: RunConfig
    mixture: object
    tokenizer: object
    source: str
    contents: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the run's directory; it carries the hash of all that determines the result."""
        config, contents = self.config, self.contents
        if config.methods_dir:  # a method of the user's own is part of what determines the result
            contents = (*contents, Path(methods.load(config.method, config.methods_dir).__file__).read_text())
        model, mixture = Path(config.model).name, Path(config.mixture).stem
        return f"{config.method}-{model}-{mixture}-s{config.seed}-{config.fingerprint(*contents)[:10]}"

    def twin(self, method: str, params: dict) -> "Prepared":
        """The same run with another method."""
        config = dataclasses.replace(self.config, method=method, params=params, methods_dir=None)
        return dataclasses.replace(self, config=config)

    def load_model(self):
        """The base model on its device."""
        config = self.config
        model = catalog.load_model(self.source, config.precision, config.model_revision, config.trust_remote_code)
        return model.to(_device(config.device))

    def tokens(self, model=None) -> tuple[dict, object]:
        """({sub-dataset: tokenised train examples}, mixture without the examples that are too long).

        model: checked to have a position for every token of an example and of a prompt with its answer.
        """
        from msft.batching import check_context, fit_mixture

        config, cache = self.config, catalog.tiny.cache_folder() / "tokens"
        limits = (config.max_tokens, config.max_prompt_tokens)
        examples, mixture, longest = fit_mixture(self.tokenizer, self.mixture, *limits, cache)
        if model is not None:
            check_context(model, examples, longest, config.max_new_tokens)
        return examples, mixture


def prepare(config: RunConfig) -> Prepared:
    """Loads and checks what a run needs but its weights. Raises ConfigError, DataError or ModelError."""
    config = config.with_defaults(catalog.model_settings(config.model))
    _device(config.device)
    source = catalog.model_source(config.model)
    tokenizer = catalog.load_tokenizer(source, config.model_revision, config.trust_remote_code)
    names = ("train_size", "test_size", "validation_size", "data_dir", "revision", "max_tokens", "max_prompt_tokens")
    given = {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    mixture = catalog.load_mixture(config.mixture, tokenizer=tokenizer, **given)
    if config.select_on == "validation":
        bare = [sub.name for sub in mixture if not sub.validation]
        if bare:
            raise DataError(f"select_on='validation' needs a validation set; these have none: {', '.join(bare)}")
    contents = [mixture.fingerprint(), catalog.model_identity(source, config.model_revision)]
    return Prepared(config, mixture, tokenizer, source, tuple(contents))


def _device(wanted: str | None):
    import torch

    try:
        device = torch.device(wanted or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise ModelError(f"unknown device {wanted!r}. Allowed: cpu, cuda, cuda:0, cuda:1, ...") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"device {wanted!r}: this machine has no CUDA device; take cpu")
    try:
        torch.zeros(1, device=device).item()
    # what torch raises depends on the kind of device: a build without it, a meta tensor's value, no driver
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"device {wanted!r} cannot be used: {reason}. Allowed: cpu, cuda, cuda:0, cuda:1, ..."
        ) from None
    return device


def _evaluators(prepared: Prepared, model, mixture) -> dict:
    from msft.evaluation import Evaluator

    config = prepared.config
    return {
        part: Evaluator(model, prepared.tokenizer, mixture, part, config.max_new_tokens, config.eval_batch_size)
        for part in dict.fromkeys(["test", config.select_on])
    }


def _train(prepared: Prepared, directory: Path, model, examples, mixture, evaluators: dict, progress: bool) -> None:
    import torch

    from msft.evaluation import write_tasks
    from msft.training import Trainer

    config, started = prepared.config, time.monotonic()
    if not (directory / "run.json").is_file():
        write_tasks(directory / "tasks", mixture, config.max_new_tokens)
        write_atomic(directory / "run.json", json.dumps(provenance.about(prepared, mixture, model), indent=1))
    model_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    shown = RunProgress(directory.name.rsplit("-", 1)[0], progress)
    where = RunDirectory(prepared, directory, model_bytes, shown, snapshot(model))
    trainer = Trainer(model, prepared.tokenizer, config, examples, evaluators, where)
    method = methods.load(config.method, config.methods_dir)
    with _stopping(trainer, evaluators):
        method.run(trainer, method.Params(**config.params))
        trainer.finish()
    where.store.facts = {}
    save_best(directory, model, prepared.tokenizer)
    where.store.note("write best", sum(path.stat().st_size for path in (directory / "best").iterdir()))
    history = pd.DataFrame(history_rows(where.journal.verbs()))
    write_atomic(directory / "history.csv", history.to_csv(index=False))
    result = {
        "best": dataclasses.asdict(trainer.best),
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": {**trainer.clock, "total": time.monotonic() - started},
        "threads": torch.get_num_threads(),
    }
    write_atomic(directory / "result.json", json.dumps(result, indent=1))
    clear_state(where.store)
    if progress:
        best = trainer.best
        print(
            f"{shown.name}: finished in {clock(result['seconds']['total'])}, accuracy {best.accuracy:.1%} at "
            f"epoch {best.path_epoch:.2f}, {directory}",
            file=sys.stderr,
        )


@contextlib.contextmanager
def _threads(number: int | None):
    """torch's CPU threads for a run: another number can give other last bits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _stopping:
    """SIGTERM and SIGINT ask the trainer to save and stop; a second one stops at once."""

    def __init__(self, trainer, evaluators):
        self.trainer, self.before = trainer, {}
        for evaluator in evaluators.values():
            evaluator.should_stop = lambda: trainer.stop_requested

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self.before[number] = signal.signal(number, self._ask)

    def _ask(self, number, frame):
        if self.trainer.stop_requested:
            raise KeyboardInterrupt
        self.trainer.stop_requested = True
        print("stopping: the state is saved after this step or batch", file=sys.stderr, flush=True)

    def __exit__(self, *error):
        for number, handler in self.before.items():
            signal.signal(number, handler)
