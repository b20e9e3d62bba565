"""Runs as SLURM job arrays, through submitit (the optional extra `cluster`).

A job that is preempted, or comes near its time limit, saves its run and is queued again; it then goes on where it was.
"""

import dataclasses
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from msft.config import RunConfig
from msft.cost.plan import search_of
from msft.errors import ConfigError, Interrupted, MsftError, RunError, check_installed
from msft.results.run import FAILED
from msft.settings import check_values, setting

_TIMEOUTS = 1000  # times that a job may reach its limit and go on; submitit's own number is 3


@dataclasses.dataclass(frozen=True)
class Options:
    """What a job asks the cluster for."""

    hours: float = setting(24.0, "time limit in hours; a job that reaches it is queued again", low=0.1, high=720)
    partition: str | None = setting(None, "partition of the jobs")
    account: str | None = setting(None, "account that is charged")
    qos: str | None = setting(None, "quality of service")
    constraint: str | None = setting(None, "feature of the nodes, such as h100")
    gpus: int = setting(1, "GPUs a run; several train it together through accelerate", low=0, high=64)
    cpus: int = setting(8, "CPU cores a run", low=1, high=1024)
    memory: float | None = setting(None, "host memory a run in GB; none takes the cluster's default", low=1, high=1e5)
    parallel: int = setting(32, "jobs at a time", low=1, high=10_000)
    warning: int = setting(300, "seconds before its end in which a job saves", low=30, high=36_000)
    setup: str | None = setting(None, "shell line before the job, such as 'module load cuda'")


def read_options(values: dict) -> Options:
    """Options from a mapping. Raises ConfigError that names every wrong one."""
    clean, problems = check_values(Options, values, "option of slurm")
    if problems:
        raise ConfigError("the jobs cannot be submitted with these options:", problems)
    return Options(**clean)


class Job:
    """What a job does: trains a run, or goes on with it. Called again after a preemption, by submitit."""

    def __init__(self, config: RunConfig, runs_dir: str, gpus: int = 1):
        self.config, self.runs_dir, self.gpus = config, runs_dir, gpus

    def __call__(self) -> str:
        """The run's directory."""
        from msft.launch.local import KILLED, note_failure
        from msft.prepared import prepare
        from msft.runs import run

        config = self.config
        directory, log = Path(self.runs_dir) / prepare(config).name, os.environ.get("SUBMITIT_FOLDER")
        note_failure(directory, KILLED, log)
        try:
            with _saved_before_requeue():
                if self.gpus > 1:
                    _in_several_processes(config, self.runs_dir, self.gpus)
                else:
                    run(config, self.runs_dir)
        except Interrupted:
            (directory / FAILED).unlink(missing_ok=True)
            raise
        except Exception as error:
            note_failure(directory, str(error) if isinstance(error, MsftError) else repr(error), log)
            raise
        (directory / FAILED).unlink(missing_ok=True)
        return str(directory)

    def checkpoint(self):
        """The same again: a run goes on by itself."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


class _saved_before_requeue:
    """submitit answers SIGUSR2 by queueing the job again at once; here the run saves its state first."""

    def __enter__(self):
        self.requeue, self.before = signal.getsignal(signal.SIGUSR2), signal.getsignal(signal.SIGTERM)
        self.asked = False
        if callable(self.requeue):
            signal.signal(signal.SIGUSR2, self._ask)

    def _ask(self, number, frame):
        self.asked = True
        if signal.getsignal(signal.SIGTERM) == self.before:  # still loading: there is nothing to save
            self.requeue(number, frame)
        os.kill(os.getpid(), signal.SIGTERM)  # what a run saves and stops for

    def __exit__(self, kind, error, trace):
        if callable(self.requeue):
            signal.signal(signal.SIGUSR2, self.requeue)
        if self.asked and error is not None:
            self.requeue(signal.SIGUSR2, None)


def _in_several_processes(config: RunConfig, runs_dir: str, count: int) -> None:
    ddp = Path(__file__).parent / "accelerate" / "ddp.yaml"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(ddp)]
    launch += ["--num_processes", str(count)]
    _, *words = shlex.split(config.command_line(runs_dir=runs_dir))  # behind `python`
    child = subprocess.Popen([*launch, *words])
    before = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    try:
        if child.wait():
            raise RunError(f"accelerate launch ended with code {child.returncode}")
    finally:
        signal.signal(signal.SIGTERM, before)


def submit(configs: Sequence[RunConfig], runs_dir: str | Path, options: Options, cluster: str = "slurm") -> list:
    """Submits a job a run, in one array; runs of SRO and Soft SRO in a second one, behind the searches they read.

    cluster: slurm; submitit's own local and debug executors serve to try a grid without one.
    Returns submitit's jobs, in the order of the configs. Raises ConfigError where submitit is not installed, RunError
    where there is no SLURM.
    """
    check_installed("--submit slurm", "submitit")
    runs_dir = Path(runs_dir).absolute()
    jobs: dict[RunConfig, object] = {}
    for is_second in (False, True):
        wanted = [config for config in configs if bool(search_of(config)) == is_second]
        searches = dict.fromkeys(jobs[search_of(config)].job_id for config in wanted if search_of(config) in jobs)
        if wanted:
            executor = _executor(runs_dir / "logs" / "jobs", options, cluster, list(searches))
            with executor.batch():
                submitted = [executor.submit(Job(config, str(runs_dir), options.gpus)) for config in wanted]
            jobs |= dict(zip(wanted, submitted, strict=True))
    return [jobs[config] for config in configs]


def _executor(folder: Path, options: Options, cluster: str, after: Sequence[str]):
    """submitit's executor of jobs that wait for others, named by their ids."""
    import submitit

    try:
        executor = submitit.AutoExecutor(folder=folder / "%j", cluster=cluster, slurm_max_num_timeout=_TIMEOUTS)
    except RuntimeError as error:
        raise RunError(f"{error} Submit from a login node of the cluster, or take --submit local") from None
    # afterany: where the search fails, the run trains it itself
    dependency = {"dependency": "afterany:" + ":".join(after)} if after else {}
    parameters = {
        "timeout_min": round(60 * options.hours),
        "gpus_per_node": options.gpus,
        "cpus_per_task": options.cpus,
        "mem_gb": options.memory,
        "name": "msft",
        **{f"slurm_{name}": getattr(options, name) for name in ("partition", "account", "qos", "constraint")},
        "slurm_setup": [options.setup] if options.setup else None,
        "slurm_array_parallelism": options.parallel,
        "slurm_signal_delay_s": options.warning,
        "slurm_additional_parameters": {"requeue": True, **dependency},
    }
    executor.update_parameters(**{name: value for name, value in parameters.items() if value is not None})
    return executor
