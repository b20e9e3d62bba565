"""Runs as SLURM jobs: the script that is submitted, and submitit's own executors in the cluster's place."""

import dataclasses
import os
import re
import signal
import stat
import sys
import time
from types import SimpleNamespace

import psutil
import pytest

import msft
from msft.__main__ import main
from msft.cli import options
from msft.errors import ConfigError, DataError, RunError
from msft.launch import slurm
from msft.results.run import Run, matching

submitit = pytest.importorskip("submitit")

SBATCH = """#!/bin/sh
# keeps what it is given and numbers the jobs
n=$(ls "$JOBS" | wc -l)
cp "$1" "$JOBS/$n.sh"
echo "Submitted batch job 10$n"
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A login node: `sbatch` keeps the scripts, `srun` is there. Gives the folder of the scripts."""
    jobs, bin_dir = tmp_path / "jobs", tmp_path / "bin"
    jobs.mkdir()
    bin_dir.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", "#!/bin/sh\n"), ("sacct", "#!/bin/sh\n")):
        (bin_dir / name).write_text(text)
        (bin_dir / name).chmod(0o755 | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{bin_dir}:{os.environ['PATH']}")
    monkeypatch.setenv("JOBS", str(jobs))
    monkeypatch.chdir(tmp_path)
    return jobs


def directives(path):
    """{name: value} of the #SBATCH lines."""
    lines = [line.removeprefix("#SBATCH --") for line in path.read_text().splitlines() if line.startswith("#SBATCH")]
    return {line.partition("=")[0]: line.partition("=")[2] for line in lines}


GRID = """
model: tiny-smoke
mixture: tiny-smoke
method: [sft, msft, sro_sft, soft_sro_sft]
seed: [20, 30]
slurm: {partition: gpu, hours: 48, setup: module load cuda}
"""


def test_a_grid_is_two_arrays_the_second_behind_the_searches(cluster, capsys):
    (cluster.parent / "grid.yaml").write_text(GRID)
    words = [
        "grid",
        "grid.yaml",
        "--submit",
        "slurm",
        "--account",
        "lab",
        "--gpus",
        "1",
        "--cpus",
        "4",
        "--parallel",
        "3",
    ]
    assert main(words) == 0
    first, second = (directives(cluster / name) for name in ("0.sh", "1.sh"))
    assert first["array"] == second["array"] == "0-3%3"
    for script in (first, second):
        assert script["time"] == "2880"
        assert (script["partition"], script["account"]) == ("gpu", "lab")
        assert (script["gpus-per-node"], script["cpus-per-task"]) == ("1", "4")
        assert script["signal"] == "USR2@300"
        assert "requeue" in script
        assert script["open-mode"] == "append"
    assert "dependency" not in first
    # afterany, by the tasks that are SFT
    jobs = re.findall(r"job (\S+): (\w+) \S+ \S+ seed (\d+)", capsys.readouterr().out)
    searches = {job for job, method, _ in jobs if method == "sft"}
    kind, *after = second["dependency"].strip("'").split(":")
    assert (kind, set(after)) == ("afterany", searches)
    assert len(jobs) == 8
    text = (cluster / "0.sh").read_text()
    assert "\nmodule load cuda\n" in text
    assert f"{sys.executable} -u -m submitit.core._submit" in text


def test_without_a_time_limit_it_is_a_day_and_never_submitit_s_minutes(cluster):
    config = msft.RunConfig(method="sft", model="tiny-smoke", mixture="tiny-smoke")
    (job,) = slurm.submit([config], "runs", slurm.Options())
    assert job.job_id == "100"
    script = directives(cluster / "0.sh")
    assert script["time"] == "1440"
    assert "array" not in script
    # a search that is no part of the grid is nothing to wait for
    sro = dataclasses.replace(config, method="sro_sft", params={"epochs": 3})
    slurm.submit([config, sro], "runs", slurm.Options())
    assert [("dependency" in directives(path)) for path in sorted(cluster.glob("*.sh"))] == [False] * 3


def test_nothing_is_submitted_without_being_told(cluster, capsys):
    (cluster.parent / "grid.yaml").write_text(GRID)
    assert main(["grid", "grid.yaml"]) == 0
    assert "Nothing was started. --submit local" in capsys.readouterr().out
    assert not list(cluster.iterdir())
    assert not (cluster.parent / "runs").exists()


def test_no_cluster_and_no_submitit_are_clear_errors(tmp_path, monkeypatch):
    config = msft.RunConfig(method="sft", model="tiny-smoke", mixture="tiny-smoke")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RunError, match="srun.*login node.*--submit local"):
        slurm.submit([config], tmp_path, slurm.Options())
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ConfigError, match="pip install submitit"):
        slurm.submit([config], tmp_path, slurm.Options())


def test_options_are_checked_all_at_once():
    with pytest.raises(ConfigError) as caught:
        slurm.read_options({"hour": 3, "gpus": -1, "memory": "much"})
    for fragment in ("Did you mean 'hours'?", "gpus = -1", "memory = 'much'"):
        assert fragment in str(caught.value)


def test_the_debug_executor_trains(small_settings, tmp_path):
    config = msft.RunConfig(**{**small_settings, "params": {"epochs": 0.25}})
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    (job,) = slurm.submit([config], tmp_path / "runs", slurm.Options(gpus=0), cluster="debug")
    assert Run(job.result()).status == "finished"
    assert {number: signal.getsignal(number) for number in before} == before


def test_several_gpus_share_a_run_through_accelerate(small_settings, tmp_path, monkeypatch):
    config = msft.RunConfig(**{**small_settings, "params": {"epochs": 0.25}, "save_share": 0.2})
    started = []
    monkeypatch.setattr(
        slurm.subprocess, "Popen", lambda words: started.append(words) or SimpleNamespace(wait=lambda: 0)
    )
    directory = slurm.Job(config, str(tmp_path / "my runs"), gpus=4)()
    (words,) = started
    assert words[1:3] == ["-m", "accelerate.commands.launch"]
    assert words[words.index("--num_processes") + 1] == "4"
    flags = options.read(options.Run, words[words.index("run") + 1 :])
    assert (flags.problems, flags.runs_dir) == ([], str(tmp_path / "my runs"))
    assert options.config_of(flags) == config
    assert directory.startswith(flags.runs_dir)


def test_a_failed_job_says_why(small_settings, tmp_path):
    config = msft.RunConfig(**{**small_settings, "mixture": str(tmp_path / "none.yaml")})
    with pytest.raises(DataError, match=r"none\.yaml"):
        slurm.Job(config, str(tmp_path / "runs"))()
    (tmp_path / "methods").mkdir()
    text = (
        "from msft.methods.sft import Params\ndef run(trainer, params):\n    raise ValueError('a number is missing')\n"
    )
    (tmp_path / "methods" / "raises.py").write_text(text)
    own = {"method": "raises", "params": {}, "methods_dir": str(tmp_path / "methods")}
    config = msft.RunConfig(**{**small_settings, **own})
    with pytest.raises(RunError, match=r"raises\.py, line 3: ValueError: a number is missing"):
        slurm.Job(config, str(tmp_path / "runs"))()
    (run,) = matching([config], tmp_path / "runs")
    assert run.status == "failed"
    assert "a number is missing" in run.failure["why"]


def test_a_preempted_job_saves_is_queued_again_and_goes_on(small_settings, tmp_path):
    """submitit's local executor stands for the cluster: SIGUSR2, as SLURM sends it, and the job comes again."""
    config = msft.RunConfig(**{**small_settings, "params": {"epochs": 20}, "save_share": 0.0})
    (job,) = slurm.submit([config], tmp_path / "runs", slurm.Options(gpus=0), cluster="local")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        (run,) = matching([config], tmp_path / "runs")
        if run and len(list((run.directory / "outputs").glob("*.gz"))) >= 3:
            break
        time.sleep(0.05)
    task = psutil.Process(job._process.pid).children()[-1]  # the controller passes SIGTERM on alone
    os.kill(task.pid, signal.SIGUSR2)
    assert job.result() == str(run.directory)
    assert run.status == "finished"
    assert job.stderr().count("preempted") >= 1
    assert "stopping: the state is saved" in job.stderr()
    # one roll-out, gone on with and not begun anew: no step was trained twice
    assert sum(entry["kind"] == "roll_out" for entry in run.journal) == 1
    events = list(run.disk["event"])
    assert "write optimizer" in events
    whole = msft.run(config, tmp_path / "whole", progress=False)
    assert whole.history.equals(run.history)
