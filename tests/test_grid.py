"""Grids: YAML to runs, the built-in ones, and a grid on one machine that is killed and started again."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
import yaml

import msft
from msft.__main__ import main
from msft.cli import options
from msft.errors import ConfigError
from msft.launch.grid import built_in, read_grid
from msft.results.run import Run, matching
from paper_figures import contents, study


def write(folder, text):
    (folder / "grid.yaml").write_text(text)
    return folder / "grid.yaml"


def test_lists_are_axes_and_each_run_is_there_once(tmp_path):
    path = write(
        tmp_path,
        "model: [tiny-qwen2, tiny-qwen3]\nmethod: [sft, msft]\nseed: [20, 30]\nparams: {msft: {budget: [1, 3]}, sft: {epochs: 2}}\n"
        "blocks: [{}, {method: sft, seed: 20}, {method: ies, model: tiny-olmo2, seed: 40}]\n",
    )
    found = [(c.model, c.method, c.seed, c.params.get("budget", c.params.get("epochs"))) for c in read_grid(path).runs]
    wanted = {(m, "sft", s, 2.0) for m in ("tiny-qwen2", "tiny-qwen3") for s in (20, 30)}
    wanted |= {(m, "msft", s, c) for m in ("tiny-qwen2", "tiny-qwen3") for s in (20, 30) for c in (1.0, 3.0)}
    assert len(found) == len(set(found)) == 13
    assert set(found) == {*wanted, ("tiny-olmo2", "ies", 40, 10.0)}


def test_paths_are_relative_to_the_file_wherever_the_command_is_started(tmp_path, monkeypatch):
    here, there = tmp_path / "project", tmp_path / "elsewhere"
    for folder in (here, there):  # files of the same names, and one that is called as a mixture of the package
        (folder / "data").mkdir(parents=True)
        (folder / "mine.yaml").touch()
        (folder / "tiny").touch()
    (there / "other.yaml").touch()
    text = "mixture: [mine.yaml, tiny, other.yaml]\nmethod: sft\ndata_dir: data\nmodel: tiny-qwen2\n"
    monkeypatch.chdir(there)
    runs = read_grid(write(here, text)).runs
    assert [c.mixture for c in runs] == [str(here / "mine.yaml"), "tiny", str(there / "other.yaml")]
    assert {(c.model, c.data_dir) for c in runs} == {("tiny-qwen2", str(here / "data"))}
    (here / "run.yaml").write_text("mixture: mine.yaml\nmethods_dir: data\n")  # as the settings of one run have them
    config = options.config_of(options.read(options.Run, ["--config", "../project/run.yaml", "--data-dir", "data"]))
    assert (config.mixture, config.methods_dir) == (str(here / "mine.yaml"), str(here / "data"))
    assert config.data_dir == str(there / "data")


def test_a_folder_of_runs_that_cannot_be_made_is_said_once_before_any_run(small_settings, tmp_path, capsys):
    path = write(tmp_path, yaml.safe_dump({**small_settings, "params": {}, "method": ["sft", "msft"]}))
    assert main(["grid", str(path), "--runs-dir", str(path / "runs"), "--submit", "local"]) == 1
    assert capsys.readouterr().err == f"runs_dir '{path / 'runs'}': {path} is a file; give a folder\n"


def test_what_stands_over_every_run(tmp_path):
    path = write(tmp_path, "method: [sft, msft]\n")
    assert {c.device for c in read_grid(path, {"device": "cpu", "data_dir": None}).runs} == {"cpu"}


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("modle: x\nseeds: [1]\n", ["unknown key 'modle'. Did you mean 'model'?", "'seeds'. Did you mean 'seed'?"]),
        ("blocks: [{methd: sft}]\nslrum: {}\n", ["block 1: unknown key 'methd'", "'slrum'. Did you mean 'slurm'?"]),
        ("method: [sft, msftt]\nseed: [20, -1]\n", ["unknown method 'msftt'", "seed = -1"]),
        ("params: {msftt: {budget: 1}}\n", ["params: unknown method 'msftt'. Did you mean 'msft'?"]),
        ("params: {msft: {budgt: 1}}\n", ["unknown parameter of msft 'budgt'. Did you mean 'budget'?"]),
        ("params: [1]\n", ["give a mapping of methods to their parameters"]),
        ("params: {msft: 3}\n", ["give a mapping of methods to their parameters"]),
        ("blocks: 3\n", ["blocks = 3: give a list of mappings"]),
        ("slurm: 3\n", ["slurm = 3: give a mapping"]),
        ("- a\n", ["a mapping of settings is needed"]),
        ("seed: []\nblocks: [{model: []}]\n", ["seed = []: give one value or a list", "model = []"]),
        ("blocks: []\n", ["blocks = []: give a list of mappings"]),
        ("method: [[sft]]\n", ["method = [['sft']]: give one value or a list of values"]),
        ("method: sft\nparams: {sft: {epochs: []}}\n", ["give every parameter at least one value"]),
        ("method: sft\nparams: {msft: {budget: 1}}\n", ["'msft' is not among the methods they stand for: sft"]),
        (
            "method: [sft, msft]\nblocks: [{}, {method: sft, params: {msft: {budget: 1}}}]\n",
            ["'msft' is not among the methods they stand for: sft"],
        ),
    ],
)
def test_every_wrong_key_is_named(tmp_path, capsys, text, fragments):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_grid(path)
    assert main(["grid", str(path), "--runs-dir", str(tmp_path / "runs")]) == 2
    for message in (str(caught.value), capsys.readouterr().err):
        assert all(fragment in message for fragment in fragments)


@pytest.mark.parametrize("profile", ["paper", "tiny"])
def test_the_built_in_grids_are_what_the_notebooks_read(profile, tmp_path):
    assert built_in() == ["paper", "tiny"]
    needed = set()
    for stem, module in contents.NOTEBOOKS.items():
        if module:
            page = study.Study(stem, profile, str(tmp_path), str(tmp_path))
            configs = importlib.import_module(f"paper_figures.figures.{module}").needs(page).values()
            named = [config for config in configs if not config.mixture.endswith(".yaml")]  # no mixture of one's own
            needed |= set(named)
    assert set(read_grid(profile).runs) == needed


def test_nothing_starts_without_submit(tmp_path, capsys):
    path = write(tmp_path, "model: tiny-smoke\nmixture: tiny-smoke\nmethod: [sft, msft]\n")
    assert main(["grid", str(path), "--runs-dir", str(tmp_path / "runs")]) == 0
    told = capsys.readouterr().out
    assert "2 runs in" in told
    assert "Nothing was started." in told
    assert not (tmp_path / "runs").exists()


def test_what_differs_only_in_what_no_run_uses_is_one_run(tmp_path):
    path = write(tmp_path, "mixture: tiny\ntrain_size: [10, 20]\nlora_r: [none]\nprecision: [fp32, none]\n")
    assert len(read_grid(path).runs) == 1


@pytest.mark.parametrize("line", ["model: no-such-model", "mixture: no-such-mixture"])
def test_what_has_no_estimate_is_left_to_train(tmp_path, capsys, line):
    path = write(tmp_path, f"{line}\nmethod: sft\n")
    assert main(["grid", str(path), "--runs-dir", str(tmp_path / "runs")]) == 0
    told = capsys.readouterr().out
    assert "no estimate: unknown m" in told and "What is left to train has no estimate." in told
    assert "Nothing is left" not in told


# on this machine --------------------------------------------------------------------------------------------------


@pytest.fixture
def six(small_settings, tmp_path):
    """A grid of six runs of a few seconds, as a file and as configs."""
    values = {**small_settings, "save_share": 0.0, "method": "sft", "threads": 1, "seed": [20, 30, 40]}
    values |= {
        "params": {"sft": {"epochs": 8}, "msft": {"budget": 2}, "sro_sft": {"epochs": 8}, "soft_sro_sft": {"epochs": 8}}
    }
    values["blocks"] = [{}, {"method": ["msft", "sro_sft", "soft_sro_sft"], "seed": 20}]
    path = write(tmp_path, yaml.safe_dump(values))
    return path, read_grid(path).runs


def start(path, runs_dir):
    """The launcher, in a process group of its own."""
    words = [
        sys.executable,
        "-m",
        "msft",
        "grid",
        str(path),
        "--runs-dir",
        str(runs_dir),
        "--submit",
        "local",
        "--slots",
        "2",
    ]
    # one that is started in the background may ignore Ctrl-C
    listen = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), "start_new_session": True}
    return subprocess.Popen(words, **listen, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(ready, seconds=120):
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def in_the_middle(configs, runs_dir):
    """Whether one run is finished and another one has a saved state."""
    runs = [run for run in matching(configs, runs_dir) if run]
    done = [run for run in runs if run.status == "finished"]
    begun = [
        run for run in runs if run.status in ("running", "unfinished") and (run.directory / "journal.jsonl").is_file()
    ]
    return done and begun


def check_each_is_trained_once(configs, runs_dir, finished_before):
    """Every run is finished; those that were done are as they were; no roll-out is there twice or was begun anew."""
    runs = matching(configs, runs_dir)
    assert [run.status for run in runs] == ["finished"] * 6
    for run in runs:
        if run.directory in finished_before:
            assert (run.directory / "result.json").stat().st_mtime_ns == finished_before[run.directory]
        stages = [e["result"]["stage"] for e in run.journal if e["kind"] in ("roll_out", "search")]
        assert stages == list(range(len(stages)))
        outputs = [path.name for path in (run.directory / "outputs").glob("*.gz")]
        assert len(outputs) == len(set(outputs))
    sft, sro, soft = (
        next(r for r in runs if r.config.method == m and r.config.seed == 20)
        for m in ("sft", "sro_sft", "soft_sro_sft")
    )
    for run in (sro, soft):  # the search was read, not trained again
        search = next(entry for entry in run.journal if entry["kind"] == "search")
        assert search["result"]["points"] == sft.journal[0]["result"]["points"]
        assert run.about["started"] >= sft.about["started"]
        copies = list((run.directory / "outputs").glob("stage000_*"))
        originals = [sft.directory / "outputs" / path.name for path in copies]
        assert copies and [p.stat().st_mtime for p in copies] == [p.stat().st_mtime for p in originals]


def finish(path, configs, runs_dir, finished_before, whole_dir):
    again = start(path, runs_dir)
    told, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    check_each_is_trained_once(configs, runs_dir, finished_before)
    # as though nobody had disturbed it
    (broken,) = matching(configs[3:4], runs_dir)
    whole = msft.run(configs[3], whole_dir, progress=False)
    assert whole.history.equals(broken.history)
    assert not any(run.failure for run in matching(configs, runs_dir))
    return told, errors


def test_a_grid_is_killed_and_started_again(six, tmp_path):
    path, configs = six
    runs_dir = tmp_path / "runs"
    launcher = start(path, runs_dir)
    wait_until(lambda: in_the_middle(configs, runs_dir))
    os.killpg(launcher.pid, signal.SIGKILL)
    launcher.wait()
    finished = {r.directory: (r.directory / "result.json").stat().st_mtime_ns for r in msft.load_runs(runs_dir)}
    assert 1 <= len(finished) < 6
    told, errors = finish(path, configs, runs_dir, finished, tmp_path / "whole")
    assert f"6 runs in {runs_dir}: {len(finished)} finished" in told
    assert f"{6 - len(finished)}/{6 - len(finished)} " in errors
    # each run has a log of its own
    logs = {path.stem for path in (runs_dir / "logs").glob("*.log")}
    assert {run.directory.name for run in matching(configs, runs_dir)} <= logs


def test_only_the_launcher_is_killed_and_a_second_one_takes_over(six, tmp_path):
    path, configs = six
    runs_dir = tmp_path / "runs"
    launcher = start(path, runs_dir)
    wait_until(lambda: in_the_middle(configs, runs_dir))
    workers = psutil.Process(launcher.pid).children()
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.wait()
    assert len(workers) == 2
    finished = {r.directory: (r.directory / "result.json").stat().st_mtime_ns for r in msft.load_runs(runs_dir)}
    finish(path, configs, runs_dir, finished, tmp_path / "whole")  # at once: the orphans may still be at work
    assert psutil.wait_procs(workers, timeout=30)[1] == []


@pytest.mark.parametrize("everybody", [False, True])  # Ctrl-C in a terminal reaches the workers too
def test_ctrl_c_saves_every_run_before_the_launcher_ends(six, tmp_path, everybody):
    path, configs = six
    runs_dir = tmp_path / "runs"
    launcher = start(path, runs_dir)
    wait_until(lambda: in_the_middle(configs, runs_dir))
    workers = psutil.Process(launcher.pid).children()
    begun = sum(run is not None for run in matching(configs, runs_dir))
    (os.killpg if everybody else os.kill)(launcher.pid, signal.SIGINT)
    _, errors = launcher.communicate(timeout=300)
    assert launcher.returncode == 130
    assert "stopping: every run saves its state first" in errors and "was saved is kept" in errors
    assert len(workers) == 2 and psutil.wait_procs(workers, timeout=5)[1] == []
    runs = [run for run in matching(configs, runs_dir) if run]
    # one at its very end is finished; each of two slots may just have taken another
    assert len(runs) <= begun + 2 and not any(run.failure for run in runs)
    for run in runs:
        log = (runs_dir / "logs" / f"{run.directory.name}.log").read_text()
        assert run.status == "finished" or (run.status == "unfinished" and "the state is saved" in log)


def test_a_run_that_fails_or_is_killed_stops_no_other_and_status_says_why(small_settings, tmp_path, capsys):
    folder = tmp_path / "methods"
    folder.mkdir()
    head = "import os, signal\nfrom msft.methods.sft import Params\ndef run(trainer, params):\n"
    (folder / "raises.py").write_text(head + "    raise ValueError('a number is missing')\n")
    (folder / "killed.py").write_text(head + "    trainer.model; os.kill(os.getpid(), signal.SIGKILL)\n")
    values = {**small_settings, "params": {"sft": {"epochs": 0.25}}, "methods_dir": str(folder)}
    path = write(tmp_path, yaml.safe_dump({**values, "method": ["raises", "killed", "sft"]}))
    runs_dir = str(tmp_path / "runs")
    words = ["grid", str(path), "--runs-dir", runs_dir]
    assert main([*words, "--submit", "local", "--slots", "1"]) == 1
    said = capsys.readouterr().err
    assert "2 of 3 runs failed:" in said
    assert "SIGKILL; out of memory, or killed by somebody" in said
    assert main(["status", "--runs-dir", runs_dir]) == 0
    lines = {line.split("-")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert ": finished, accuracy" in lines["sft"]
    assert re.search(r": failed: method file .*, line 4: ValueError: a number is missing.* \(log: ", lines["raises"])
    assert ": failed: its process ended with code -9 (SIGKILL" in lines["killed"]
    log = lines["raises"].split("(log: ")[1].rstrip(")")
    assert "a number is missing" in open(log).read()
    assert main(["status", "--runs-dir", runs_dir, "--json"]) == 0
    rows = {row["name"].split("-")[0]: row for row in json.loads(capsys.readouterr().out)}
    assert (rows["killed"]["state"], rows["sft"]["state"]) == ("failed", "finished")
    # the mended method: the note goes
    (folder / "raises.py").write_text(head + "    trainer.roll_out(trainer.tasks, epochs=0.25)\n")
    (folder / "killed.py").write_text(head + "    trainer.roll_out(trainer.tasks, epochs=0.25)\n")
    assert main([*words, "--submit", "local", "--slots", "2"]) == 0
    assert "3 runs in" in capsys.readouterr().out
    assert [run.status for run in map(Run, sorted((tmp_path / "runs").glob("[rks]*")))].count("finished") == 3
