"""Many runs on one machine: finished ones are read, the others are trained, several at a time.

A worker process trains one run after the other, with a GPU of its own, and writes what a run says to logs/<run>.log in
the folder of runs. A worker whose launcher dies saves its run and stops; one that dies takes no other run along.
"""

import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from msft.config import RunConfig
from msft.cost.plan import AFTER_SFT, search_of
from msft.errors import Interrupted, MsftError, RunError, together
from msft.names import filled
from msft.paths import check_folder, usable
from msft.prepared import name_of
from msft.results.progress import clock
from msft.results.run import FAILED, Run, is_locked
from msft.store.files import write_atomic

KILLED = "its process ended without a word: killed, or its machine was"
_WATCH = 1.0  # seconds between two looks of a worker at whether its launcher is there
# the longest first, and last what reads its search from another run; 0 stands for all others
_TURNS = {"msft": -3, "dynamix_sft": -2, "sft": -1, **dict.fromkeys(AFTER_SFT, 1)}


def slots_of(config: RunConfig) -> int:
    """Runs that this machine takes at a time: one a GPU, or as many as its cores hold where `threads` is set."""
    import torch

    if config.device is None and torch.cuda.is_available():
        return torch.cuda.device_count()
    threads = filled(config).threads
    return max((os.cpu_count() or 1) // threads, 1) if threads else 1


def run_all(
    configs: Sequence[RunConfig],
    runs_dir: str | Path = "runs",
    *,
    slots: int | None = None,
    on_evaluation: Callable | None = None,
) -> list[Run]:
    """The finished runs of these configs, in their order; what is missing is trained, the longest first.

    slots: runs at a time; None takes what the machine holds.  on_evaluation: as in `run`; all are then trained in this
    process. A run that fails does not stop the others. Raises RunError at the end, with what each failed run said;
    Interrupted at once where the run in this process was told to stop.
    """
    runs = [Run(Path(usable(runs_dir)) / name) for name in run_names(configs)]
    pairs = zip(configs, runs, strict=True)
    missing = {run.directory.name: config for config, run in pairs if run.status != "finished"}
    todo = sorted(missing, key=lambda name: _TURNS.get(missing[name].method, 0))
    problems, ours = [], [missing[name] for name in todo]
    if ours:
        check_folder(Path(usable(runs_dir)), "runs_dir")
    slots = 1 if on_evaluation is not None or len(todo) < 2 else slots or min(map(slots_of, ours))
    if slots > 1:
        problems = in_processes(ours, todo, runs_dir, slots)
    elif ours:
        from msft.runs import run  # loads torch

        for config in ours:
            try:
                run(config, runs_dir, on_evaluation=on_evaluation)
            except Interrupted:  # meant for all of them: no other run begins
                raise
            except MsftError as error:
                problems.append(f"{_title(config)}: {error}")
    if problems:
        raise RunError(together(f"{len(problems)} of {len(todo)} runs failed:", problems))
    return runs


def run_names(configs: Sequence[RunConfig]) -> list[str]:
    """The directory names of runs; data and tokenizer are loaded once for all runs that share them. Raises as `prepare`."""
    known: dict = {}
    return [name_of(config, known) for config in configs]


def _title(config: RunConfig) -> str:
    params = "".join(f" {name}={value}" for name, value in config.params.items())
    return f"{config.method} {Path(config.model).name} {Path(config.mixture).stem} seed {config.seed}{params}"


def in_processes(configs: Sequence[RunConfig], names: Sequence[str], runs_dir: str | Path, slots: int) -> list[str]:
    """Trains runs in the order given, in `slots` worker processes; returns what failed, a line each. names: of the runs'
    directories, where a failure is noted too."""
    # a job is the number of its config; after: the job of the search that it reads
    known = {filled(config): job for job, config in enumerate(configs)}
    after = [known.get(search_of(filled(config))) for config in configs]
    waiting, unfinished, elsewhere = list(range(len(configs))), set(range(len(configs))), set()
    changed, problems, workers = threading.Condition(), [], {}
    started, runs_dir = time.monotonic(), Path(usable(runs_dir))

    def take() -> int | None:
        """The next job whose search is over; waits for one, and gives None once no job waits."""
        with changed:
            while waiting:
                for job in waiting:
                    if after[job] not in unfinished:
                        waiting.remove(job)
                        return job
                changed.wait()
        return None

    def serve(place: int) -> None:
        worker = None
        while (job := take()) is not None:
            directory, log = runs_dir / names[job], log_of(runs_dir, names[job])
            if job not in elsewhere and is_locked(directory):  # another process is at it
                with changed:  # behind all others
                    elsewhere.add(job)
                    waiting.append(job)
                continue
            try:
                worker = workers[place] = worker or _worker(place, runs_dir)
                # stands there beforehand, for the case that nobody is left to write it
                note_failure(directory, KILLED, log)
                problem, is_failure = _answer(worker, [configs[job].to_dict(), str(runs_dir), str(log)])
                if worker.poll() is not None:
                    worker = None  # it died with its run; the others get a new one
                if is_failure:
                    note_failure(directory, problem, log)
                else:
                    (directory / FAILED).unlink(missing_ok=True)
            except (OSError, RunError) as error:  # a full disk, say; a thread that ended here would leave jobs waiting
                problem = f"{error}; see that {runs_dir} can be written to"
            title, spent = _title(configs[job]), clock(time.monotonic() - started)
            word = f"failed: {problem.splitlines()[-1]}" if problem else "done"
            with changed:
                unfinished.discard(job)
                changed.notify_all()
                problems.extend([f"{title}: {problem}"] if problem else [])
                done = len(configs) - len(unfinished)
                print(f"{done}/{len(configs)} {title}: {word} ({spent})", file=sys.stderr, flush=True)
        if worker is not None:
            worker.communicate()  # it ends where its input ends

    with ThreadPoolExecutor(slots) as pool:  # at its end it waits for all threads
        try:
            list(pool.map(serve, range(min(slots, len(configs)))))
        except KeyboardInterrupt:
            print("stopping: every run saves its state first", file=sys.stderr, flush=True)
            with changed:  # the workers take nothing more
                waiting.clear()
                changed.notify_all()
            for worker in workers.values():  # these save and stop
                worker.terminate()
            raise
    return problems


def log_of(runs_dir: Path, name: str) -> Path:
    """Where what a run says is kept, by the name of its directory."""
    return runs_dir / "logs" / f"{name}.log"


def note_failure(directory: Path, why: str, log: str | Path | None = None) -> None:
    """Notes in a run's directory why its last attempt failed."""
    directory.mkdir(parents=True, exist_ok=True)
    when = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    write_atomic(directory / FAILED, json.dumps({"when": when, "why": why, "log": str(log) if log else None}, indent=1))


def _worker(place: int, runs_dir: Path) -> subprocess.Popen:
    """A process that does `work`; libraries are loaded once for all its runs."""
    import torch

    # '' hides all GPUs, and the number of one that is not there would hide them too: several slots share one then
    everyone = ",".join(map(str, range(torch.cuda.device_count())))
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", everyone).split(",")
    # idle OpenMP threads would spin on the cores that the other runs need
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]}
    log = log_of(runs_dir, f"worker{place}")
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as file:
        return subprocess.Popen(
            [sys.executable, "-c", "from msft.launch.local import work; work()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, env=environment, text=True,
        )  # fmt: skip


def _answer(worker: subprocess.Popen, job: Sequence) -> tuple[str, bool]:
    """What `work` says of a job (settings, runs_dir, log), or what is to be said where it died with it."""
    with contextlib.suppress(BrokenPipeError):
        worker.stdin.write(json.dumps(job) + "\n")
        worker.stdin.flush()
        if line := worker.stdout.readline():
            return tuple(json.loads(line))
    code = worker.wait()
    killed = " (SIGKILL; out of memory, or killed by somebody)" if code == -signal.SIGKILL else ""
    return f"its process ended with code {code}{killed}; see {job[-1]}", code != -signal.SIGTERM


def work() -> None:
    """What a worker process does: trains the runs that its standard input names, a JSON line each, and answers each with
    ['' or why it is not finished, whether that is a failure: one that was told to stop has not failed]."""
    # Ctrl-C reaches all processes of a terminal, and a second signal would stop a run before it is saved
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    from msft.runs import run

    answers, launcher = os.fdopen(os.dup(1), "w", encoding="utf-8"), os.getppid()

    def stop_as_orphan() -> None:
        """Once the launcher is gone: the run is saved and stops, so that nobody trains unseen."""
        while os.getppid() == launcher:
            time.sleep(_WATCH)
        print("the launcher is gone", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_as_orphan, daemon=True).start()
    for line in sys.stdin:
        settings, runs_dir, log = json.loads(line)
        with open(log, "a", encoding="utf-8") as file:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
        problem, is_failure = "", False
        try:
            run(RunConfig.from_mapping(settings), runs_dir)
        except Interrupted as error:
            problem = str(error)
        except Exception as error:  # whatever one run meets, the next ones still have their turn
            problem = str(error) if isinstance(error, MsftError) else "".join(traceback.format_exception(error))
            is_failure = True
            print(problem, file=sys.stderr, flush=True)
        print(json.dumps([problem, is_failure]), file=answers, flush=True)
