"""A run: its directory, its lock, and `run`, which trains, goes on with, or reads it.

runs/msft-tiny-qwen2-tiny-s20-1a2b3c4d/
    run.json       settings, versions, commit, machine        history.csv   one row an evaluation and sub-dataset
    journal.jsonl  every verb, checksummed                    outputs/      generated text of every item
    best/          the best checkpoint, Hugging Face format   tasks/        lm-eval task files of the test sets;
                                                              confirmation/ of what nothing was chosen on
    disk.jsonl     the ledger of checkpoint bytes             result.json   best, FLOPs, time; written last
"""

import contextlib
import dataclasses
import json
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import filelock
import pandas as pd
import torch

from msft import distributed, methods
from msft.config import RunConfig
from msft.data.tasks import write_tasks
from msft.errors import ConfigError, Interrupted, RunError
from msft.paths import check_folder, usable
from msft.prepared import Prepared, of_base, prepare
from msft.results import provenance, trackers
from msft.results.history import history_rows
from msft.results.progress import RunProgress, say_choice, say_left_out, show_end
from msft.results.run import Run, load_runs
from msft.results.summary import summary
from msft.run_directory import check_names, clear_leftovers, clear_state, locked, open_directory, save_best
from msft.store.files import write_atomic

__all__ = ["Prepared", "Run", "load_runs", "prepare", "run"]


@distributed.reaching()
def run(
    config: RunConfig,
    runs_dir: str | Path = "runs",
    *,
    progress: bool = True,
    wait: bool = True,
    on_evaluation: Callable | None = None,
) -> Run:
    """Trains a run; goes on with it where it was killed; reads it at once where it is finished.

    runs_dir: folder of run directories; the directory's name carries the hash of all that determines the result.
    wait: whether to wait for another process that is at the same run; False raises RunError at once.
    on_evaluation: a function of the history so far (as `Run.history`) and an event (progress.Event), called after every
    evaluation and at the end, where the run is finished already too; what it raises stops the run.
    Raises ConfigError, DataError or ModelError before anything is written, RunError while training.
    Started on several processes (distributed.py), all of them call it alike and share the work.
    """
    if not isinstance(config, RunConfig):
        raise ConfigError(f"{config!r} is no RunConfig: give msft.RunConfig(method=..., model=..., mixture=...)")
    if not (on_evaluation is None or callable(on_evaluation)):
        raise ConfigError(f"on_evaluation = {on_evaluation!r}: give a function of a history and an event")
    trackers.check(config.track)
    distributed.start(config.device)
    watchers = [on_evaluation] if on_evaluation is not None and distributed.is_main() else []
    runs_dir, progress = Path(usable(runs_dir)), progress and distributed.is_main()
    with distributed.agreed():
        prepared = prepare(config)
        directory = runs_dir / prepared.name
        lock = filelock.FileLock(directory / ".lock", timeout=-1 if wait else 0)
        done = Run(directory)
    distributed.check_same(prepared.name)
    if distributed.on_main(_is_ready, runs_dir, done, lock, progress):
        show_end(done, watchers)
        return done
    with distributed.agreed():
        examples, mixture = prepared.tokens()
        model = prepared.load_model()
        if progress:
            say_left_out(mixture)
            say_choice(prepared.config, mixture)
        parts = dict.fromkeys(["test", prepared.config.select_on])
        evaluators = {part: prepared.evaluator(model, mixture, part) for part in parts}
        if mixture.judges:
            from msft.evaluation import Court  # lm-eval takes seconds, and a finished run needs none

            evaluators["watched"] = Court(evaluators["test"].lm, {judge.label: judge for judge in mixture.judges})
    with contextlib.ExitStack() as stack:
        before = torch.get_num_threads()
        stack.callback(torch.set_num_threads, before)
        torch.set_num_threads(prepared.config.threads or before)  # another number can give other last bits
        distributed.on_main(lambda: stack.enter_context(locked(lock, directory, progress)))
        if not distributed.on_main(lambda: done.status == "finished"):
            _train(prepared, directory, model, examples, mixture, evaluators, progress, watchers)
    return done


def _is_ready(runs_dir: Path, run: Run, lock, progress: bool) -> bool:
    """Whether the run is done already; where another process is at it, waits before anything heavy is loaded."""
    check_names(runs_dir, run.directory)
    if run.status != "finished":
        check_folder(runs_dir, "runs_dir")
        if run.directory.is_dir():
            with locked(lock, run.directory, progress):
                pass
    if run.status != "finished":
        return False
    clear_leftovers(run.directory)
    return True


def _train(prepared: Prepared, directory: Path, model, examples, mixture, evaluators: dict, progress, watchers) -> None:
    from msft.training import Trainer

    config, started = prepared.config, time.monotonic()
    distributed.on_main(_begin, prepared, directory, mixture, model)
    shown = RunProgress(directory.name, progress, config.method, watchers)
    where = open_directory(prepared, directory, shown, model)
    if where.journal.entries and progress:
        print(f"{directory.name}: goes on from what was saved", file=sys.stderr, flush=True)
    trainer = Trainer(model, config, examples, evaluators, where)
    method = methods.load(config.method, config.methods_dir)
    with contextlib.ExitStack() as stack:
        distributed.on_main(lambda: shown.watchers.extend(trackers.opened(config.track, directory, config, stack)))
        stack.enter_context(_stopping(trainer, evaluators))
        with trainer.durable.writer:
            with methods.named(method, config.methods_dir):
                method.run(trainer, method.Params(**config.params))
            shown.say("saving the end of the run")
            trainer.durable.finish()
            confirmation = _confirmation(prepared, model, mixture, trainer)
        distributed.on_main(_end, prepared, where, model, trainer, confirmation, started, progress)
        if trainer.stop_requested:  # meant for what would come next, too
            raise Interrupted(f"told to stop when {directory} was all but done: it is finished")


def _confirmation(prepared: Prepared, model, mixture, trainer) -> dict:
    """Accuracies on the items that nothing was chosen on, where the mixture has some."""
    if not any(sub.confirmation for sub in mixture):
        return {}
    evaluator = prepared.evaluator(model, mixture, "confirmation")
    evaluator.should_stop = lambda: trainer.stop_requested
    trainer.run.progress.say("measuring base and best on the items that nothing was chosen on")
    base = of_base(prepared, "confirmed", dict)
    confirmed = trainer.confirm(evaluator, base)
    base.update({name: confirmed[name] for name in ("base", "base_loss")})
    return confirmed


def _begin(prepared: Prepared, directory: Path, mixture, model) -> None:
    """Writes what says of a run what it is; a run that goes on has it, where it can be read, but for packages since."""
    directory.mkdir(parents=True, exist_ok=True)
    try:
        about, now = Run(directory).about, provenance.versions()
        before = [about.get("versions", now), *about.get("later_versions", [])][-1]
        if before != now:
            changes = [f"{name} {before.get(name)} -> {now[name]}" for name in now if before.get(name) != now[name]]
            print(f"{directory.name}: goes on with other packages than before: {', '.join(changes)}", file=sys.stderr)
            about["later_versions"] = [*about.get("later_versions", []), now]
            write_atomic(directory / "run.json", json.dumps(about, indent=1))
    except RunError:
        write_tasks(directory / "tasks", mixture, prepared.config.max_new_tokens)
        if any(sub.confirmation for sub in mixture):
            write_tasks(directory / "confirmation", mixture, prepared.config.max_new_tokens, "confirmation")
        write_atomic(directory / "run.json", json.dumps(provenance.about(prepared, mixture, model), indent=1))


def _end(prepared: Prepared, where, model, trainer, confirmation: dict, started: float, progress: bool) -> None:
    """Writes the best checkpoint, the history and, last, the result."""
    directory, where.store.facts = where.directory, {}
    save_best(directory, model, prepared.tokenizer)
    where.store.note("write best", sum(path.stat().st_size for path in (directory / "best").iterdir()))
    history = pd.DataFrame(history_rows(where.journal.verbs(), Run(directory).metrics))
    write_atomic(directory / "history.csv", history.to_csv(index=False))
    result = {
        "best": dataclasses.asdict(trainer.best),
        "parameters": sum(p.numel() for p in model.parameters()),
        **({"frozen": frozen} if (frozen := sum(p.numel() for p in model.parameters() if not p.requires_grad)) else {}),
        "seconds": {**trainer.clock, "total": time.monotonic() - started},
        "paths": {"training": trainer.losses.path, "evaluation": trainer.evaluators["test"].path},
        **({"confirmation": confirmation} if confirmation else {}),
        "threads": torch.get_num_threads(),
        "processes": distributed.size(),
        "resumed": where.resumed,
    }
    write_atomic(directory / "result.json", json.dumps(result, indent=1))
    clear_state(where.store)
    show_end(Run(directory), where.progress.watchers)
    if progress:
        print(summary(Run(directory)), file=sys.stderr, flush=True)


@contextlib.contextmanager
def _stopping(trainer, evaluators):
    """Within it SIGTERM and SIGINT ask the trainer to save and stop; a second one stops at once."""

    def ask(number, frame):
        if trainer.stop_requested and distributed.size() == 1:  # a launcher passes on what all have had already
            raise KeyboardInterrupt
        if distributed.is_main() and not trainer.stop_requested:
            print("stopping: the state is saved after this step or batch", file=sys.stderr, flush=True)
        trainer.stop_requested = True

    def should_stop() -> bool:
        trainer.run.progress.beat()  # an evaluation may take minutes
        return trainer.stop_requested

    for evaluator in evaluators.values():
        evaluator.should_stop = should_stop
    is_main_thread = threading.current_thread() is threading.main_thread()  # no other may take a signal
    with contextlib.ExitStack() as undo:
        for number in (signal.SIGTERM, signal.SIGINT) if is_main_thread else ():
            undo.callback(signal.signal, number, signal.signal(number, ask))
        yield
