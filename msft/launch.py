"""Many runs on one machine: finished ones are read, the others are trained, several at a time."""

import contextlib
import dataclasses
import json
import os
import queue
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from msft.catalog import model_settings
from msft.config import RunConfig
from msft.errors import MsftError, RunError, together
from msft.progress import clock
from msft.records import Run
from msft.runs import prepare, run

# SRO and Soft SRO read their search from the SFT run of the same settings, so they come behind it
_AFTER_SFT = ("sro_sft", "soft_sro_sft")
_REPLY = "msft-launch "  # begins a worker's answer on its standard output
_LONGEST_FIRST = ("msft", "dynamix_sft", "sft")


def slots_of(config: RunConfig) -> int:
    """Runs that this machine takes at a time: one a GPU, or as many as its cores hold where `threads` is set."""
    import torch

    if config.device is None and torch.cuda.is_available():
        return torch.cuda.device_count()
    threads = config.with_defaults(model_settings(config.model)).threads
    return max((os.cpu_count() or 1) // threads, 1) if threads else 1


def run_all(
    configs: Sequence[RunConfig], runs_dir: str | Path = "runs", *, slots: int | None = None, progress: bool = True
) -> list[Run]:
    """The finished runs of these configs, in their order; what is missing is trained, the longest first.

    slots: runs at a time; None takes what the machine holds.
    A run that fails does not stop the others. Raises RunError at the end, with what each failed run said.
    """
    names = run_names(configs)
    directories = [Path(runs_dir) / name for name in names]
    missing = {}
    for config, name, directory in zip(configs, names, directories, strict=True):
        if Run(directory).status != "finished":
            missing.setdefault(name, config)
    missing = list(missing.values())
    if missing:
        _train(missing, runs_dir, min(slots or min(map(slots_of, missing)), len(missing)), progress)
    return [Run(directory) for directory in directories]


def run_names(configs: Sequence[RunConfig]) -> list[str]:
    """The directory names of runs; data and tokenizer are loaded once for all runs that share them.

    Raises ConfigError, DataError or ModelError for a run that could not start.
    """
    known, names = {}, []
    for config in configs:
        # the four that no data, tokenizer or base model depends on
        shared = dataclasses.replace(config, method="sft", params={}, seed=0, methods_dir=None)
        key = json.dumps(shared.to_dict(), sort_keys=True)
        known[key] = known.get(key) or prepare(shared)
        own = config.with_defaults(model_settings(config.model))
        names.append(dataclasses.replace(known[key], config=own).name)
    return names


def _rank(config: RunConfig) -> int:
    return _LONGEST_FIRST.index(config.method) if config.method in _LONGEST_FIRST else len(_LONGEST_FIRST)


def _train(missing: list[RunConfig], runs_dir, slots: int, progress: bool) -> None:
    problems: list[str] = []
    first = sorted((c for c in missing if c.method not in _AFTER_SFT), key=_rank)
    for configs in (first, [c for c in missing if c.method in _AFTER_SFT]):
        if slots == 1:
            for config in configs:
                try:
                    run(config, runs_dir, progress=progress)
                except MsftError as error:
                    problems.append(f"{_title(config)}: {error}")
        else:
            problems += _in_processes(configs, runs_dir, slots, progress)
    if problems:
        raise RunError(together(f"{len(problems)} of {len(missing)} runs failed:", problems))


def _title(config: RunConfig) -> str:
    params = "".join(f" {name}={value}" for name, value in config.params.items())
    return f"{config.method} {Path(config.model).name} {Path(config.mixture).stem} seed {config.seed}{params}"


def _in_processes(configs: list[RunConfig], runs_dir, slots: int, progress: bool) -> list[str]:
    """Trains in `slots` worker processes, each with a GPU of its own; returns what failed."""
    jobs: queue.SimpleQueue = queue.SimpleQueue()
    for config in configs:
        jobs.put(config)
    problems: list[str] = []
    started, done, told = time.monotonic(), [], threading.Lock()

    def serve(place: int) -> None:
        worker = None
        while True:
            try:
                config = jobs.get_nowait()
            except queue.Empty:
                break
            worker = worker or _Worker(place, Path(runs_dir))
            problem = worker.train(config)
            if worker.process.poll() is not None:
                worker = None  # it died with its run; the others get a new one
            with told:
                done.append(config)
                problems.extend([f"{_title(config)}: {problem}"] if problem else [])
                if progress:
                    word = f"failed: {problem.splitlines()[-1]}" if problem else "done"
                    spent = clock(time.monotonic() - started)
                    print(f"{len(done)}/{len(configs)} {_title(config)}: {word} ({spent})", file=sys.stderr, flush=True)
        if worker is not None:
            worker.close()

    threads = [threading.Thread(target=serve, args=(place,)) for place in range(min(slots, len(configs)))]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        # the workers save and stop, and take nothing more
        with contextlib.suppress(queue.Empty):
            while True:
                jobs.get_nowait()
        raise
    return problems


class _Worker:
    """A process that trains one run after the other; libraries are loaded once."""

    def __init__(self, place: int, runs_dir: Path):
        # idle OpenMP threads would spin on the cores that the other runs need
        own = {"OMP_NUM_THREADS": "1", **os.environ, "CUDA_VISIBLE_DEVICES": _gpu(place)}
        runs_dir.mkdir(parents=True, exist_ok=True)
        self.runs_dir, self.log = runs_dir, runs_dir / f"worker{place}.log"
        with open(self.log, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", "from msft.launch import work; work()"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=own, text=True,
            )  # fmt: skip

    def train(self, config: RunConfig) -> str:
        """'' or what went wrong."""
        try:
            self.process.stdin.write(json.dumps([config.to_dict(), str(self.runs_dir)]) + "\n")
            self.process.stdin.flush()
            for line in self.process.stdout:
                if line.startswith(_REPLY):
                    return json.loads(line.removeprefix(_REPLY))
        except BrokenPipeError:
            pass
        return f"its process ended with code {self.process.wait()}; see {self.log}"

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def _gpu(place: int) -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    ids = visible.split(",") if visible else [str(place)]
    return ids[place % len(ids)]


def work() -> None:
    """What a worker process does: trains the configs that its standard input names, a JSON line each."""
    for line in sys.stdin:
        settings, runs_dir = json.loads(line)
        problem = ""
        try:
            run(RunConfig.from_mapping(settings), runs_dir, progress=False)
        except Exception as error:  # whatever one run meets, the next ones still have their turn
            problem = str(error) if isinstance(error, MsftError) else "".join(traceback.format_exception(error))
        print(_REPLY + json.dumps(problem), flush=True)
