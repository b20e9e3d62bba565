"""Many runs: finished ones are read, a failed one stops no other and is named, SRO waits for SFT."""

import dataclasses
import os
import signal
import threading
import types

import pytest

import msft
from msft import runs
from msft.errors import DataError, Interrupted, RunError
from msft.launch import local

OWN = """from dataclasses import dataclass

@dataclass(frozen=True)
class Params:
    x: int = 0

def run(trainer, params):
"""


@pytest.fixture
def methods_dir(tmp_path):
    """A folder of methods that end badly, each in its own way."""
    folder = tmp_path / "methods"
    folder.mkdir()
    (folder / "raises.py").write_text(OWN + "    raise ValueError('a number is missing')\n")
    (folder / "dies.py").write_text("import os\n" + OWN + "    os._exit(3)\n")
    return str(folder)


@pytest.fixture
def recorded(monkeypatch):
    """Stands for training: remembers the configs in the order in which they would be trained."""
    order = []

    def train(config, runs_dir, **options):
        order.append(config)
        if config.seed == 13:
            raise RunError("the disk is full")

    monkeypatch.setattr(runs, "run", train)
    return order


def config_of(settings, **changed):
    return msft.RunConfig(**{**settings, **changed})


def test_names_are_those_of_prepare(small_settings, mixture_file, model_folder):
    configs = [
        config_of(small_settings),
        config_of(small_settings, seed=30),
        config_of(small_settings, method="msft", params={"budget": 0.5}),
        config_of(small_settings, batch_size=4),
        config_of(small_settings, max_prompt_tokens=650),
    ]
    assert local.run_names(configs) == [runs.prepare(config).name for config in configs]
    assert len(set(local.run_names(configs))) == 5


def test_what_runs_share_is_loaded_once(small_settings, monkeypatch):
    calls, original = [], runs.prepare
    monkeypatch.setattr("msft.prepared.prepare", lambda config: calls.append(config) or original(config))
    local.run_names([config_of(small_settings, seed=seed) for seed in range(5)])
    assert len(calls) == 1
    local.run_names([config_of(small_settings), config_of(small_settings, select_on="validation")])
    assert len(calls) == 3


def test_finished_runs_are_read(small_run, small_settings, recorded):
    before = (small_run.directory / "result.json").stat().st_mtime_ns
    (again, same) = local.run_all([config_of(small_settings)] * 2, small_run.directory.parent)
    assert again.directory == same.directory == small_run.directory
    assert (small_run.directory / "result.json").stat().st_mtime_ns == before
    assert recorded == []


def test_only_what_is_missing_is_trained_and_once(small_run, small_settings, recorded):
    wanted = [config_of(small_settings), config_of(small_settings, seed=99), config_of(small_settings, seed=99)]
    local.run_all(wanted, small_run.directory.parent, slots=1)
    assert recorded == [wanted[1]]


def test_the_longest_come_first_and_sro_waits_for_sft(small_settings, recorded, runs_dir):
    names = ("soft_sro_sft", "ies", "sro_sft", "sft", "msft")
    local.run_all([config_of(small_settings, method=name, params={}) for name in names], runs_dir, slots=1)
    assert [config.method for config in recorded] == ["msft", "sft", "ies", "soft_sro_sft", "sro_sft"]


@pytest.fixture
def workers(monkeypatch):
    """Stands for worker processes: gives the methods in the order in which their runs begin, and a function of the
    method that is called then."""
    began, lock, stands_for = [], threading.Lock(), types.SimpleNamespace(begins=lambda method: None)

    def answer(worker, job):
        settings, *_ = job
        with lock:
            began.append(settings["method"])
        stands_for.begins(settings["method"])
        return "", False

    process = types.SimpleNamespace(poll=lambda: None, communicate=lambda: None)
    monkeypatch.setattr(local, "_worker", lambda place, folder: process)
    monkeypatch.setattr(local, "_answer", answer)
    stands_for.began = began
    return stands_for


def in_processes(settings, names, runs_dir, slots):
    configs = [config_of(settings, method=name, params={}) for name in names]
    assert local.in_processes(configs, [f"the run of {name}" for name in names], runs_dir, slots) == []


def test_sro_waits_for_its_own_search_alone(small_settings, workers, runs_dir):
    in_processes(small_settings, ("sro_sft", "sft", "soft_sro_sft", "ies"), runs_dir, slots=1)
    assert workers.began == ["sft", "sro_sft", "soft_sro_sft", "ies"]
    # while the search is trained, what does not read it goes ahead
    workers.began.clear()
    other = threading.Event()
    waits = {"sft": lambda: other.wait(60), "ies": other.set}
    workers.begins = lambda method: waits.get(method, lambda: None)()
    in_processes(small_settings, ("sro_sft", "sft", "soft_sro_sft", "ies"), runs_dir, slots=2)
    assert other.is_set() and set(workers.began[:2]) == {"sft", "ies"}
    assert set(workers.began[2:]) == {"sro_sft", "soft_sro_sft"}


def test_what_another_process_is_at_comes_last(small_settings, workers, monkeypatch, runs_dir):
    monkeypatch.setattr(local, "is_locked", lambda directory: directory.name == "the run of msft")
    in_processes(small_settings, ("msft", "sft", "ies"), runs_dir, slots=1)
    assert workers.began == ["sft", "ies", "msft"]


def test_a_folder_of_runs_that_cannot_be_written_fails_every_run_and_none_waits(
    small_settings, workers, monkeypatch, runs_dir
):
    def refuse(directory, *_):
        raise OSError(28, "No space left on device", str(directory))

    monkeypatch.setattr(local, "note_failure", refuse)
    configs = [config_of(small_settings, method=name, params={}) for name in ("sro_sft", "sft", "ies")]
    problems = local.in_processes(configs, ["sro", "sft", "ies"], runs_dir, slots=2)
    assert len(problems) == 3
    assert all("[Errno 28] No space left on device" in problem for problem in problems)
    assert workers.began == []


def test_in_processes_sro_comes_behind_its_search(small_settings, workers, runs_dir):
    names = ("sro_sft", "sft", "soft_sro_sft", "msft")
    local.run_all([config_of(small_settings, method=name, params={}) for name in names], runs_dir, slots=2)
    order = workers.began
    assert sorted(order) == sorted(names)
    assert order.index("sft") < min(order.index("sro_sft"), order.index("soft_sro_sft"))


def test_a_failed_run_is_named_and_the_others_go_on(small_settings, recorded, runs_dir):
    configs = [config_of(small_settings, seed=seed) for seed in (13, 14, 15)]
    with pytest.raises(RunError) as caught:
        local.run_all(configs, runs_dir, slots=1)
    assert [config.seed for config in recorded] == [13, 14, 15]
    assert str(caught.value) == ("1 of 3 runs failed:\n  - sft taught small seed 13 epochs=1.0: the disk is full")


def test_a_run_in_this_process_that_is_told_to_stop_stops_them_all(small_settings, tmp_path):
    def stop(history, event):
        os.kill(os.getpid(), signal.SIGTERM)

    configs = [config_of(small_settings, seed=seed) for seed in (20, 30)]
    with pytest.raises(Interrupted, match="stopped and saved"):
        local.run_all(configs, tmp_path / "runs", on_evaluation=stop)
    assert [path.name[:3] for path in (tmp_path / "runs").iterdir()] == ["sft"]


def test_a_run_that_is_told_to_stop_at_its_very_end_is_finished_and_no_other_begins(small_settings, tmp_path):
    def stop(history, event):
        if event.finished:
            os.kill(os.getpid(), signal.SIGTERM)

    configs = [config_of(small_settings, seed=seed, params={"epochs": 0.25}) for seed in (20, 30)]
    with pytest.raises(Interrupted, match="it is finished"):
        local.run_all(configs, tmp_path / "runs", on_evaluation=stop)
    assert [run.status for run in msft.load_runs(tmp_path / "runs")] == ["finished"]


def test_a_run_that_cannot_start_is_said_before_anything_is_trained(small_settings, recorded, runs_dir):
    with pytest.raises(DataError, match="no_such.yaml"):
        local.run_all([config_of(small_settings), config_of(small_settings, mixture="no_such.yaml")], runs_dir)
    assert recorded == []


def test_in_processes_a_run_that_raises_or_dies_stops_no_other(small_settings, methods_dir, runs_dir, capfd):
    own = {"params": {}, "methods_dir": methods_dir}
    configs = [
        config_of(small_settings, method="raises", **own),
        config_of(small_settings, method="dies", **own),
        config_of(small_settings, params={"epochs": 0.25}),
    ]
    with pytest.raises(RunError) as caught:
        local.run_all(configs, runs_dir, slots=2)
    said = str(caught.value)
    assert said.startswith("2 of 3 runs failed:")
    assert "raises taught small seed 20" in said
    assert "a number is missing" in said
    assert "dies taught small seed 20 x=0: its process ended with code 3; see " in said
    (finished,) = msft.load_runs(runs_dir)
    assert finished.config.params == {"epochs": 0.25}
    lines = capfd.readouterr().err
    assert "3/3" in lines
    assert "sft taught small seed 20 epochs=0.25: done" in lines


def test_a_cpu_takes_as_many_runs_as_its_cores_hold(small_settings, monkeypatch):
    monkeypatch.setattr(local.os, "cpu_count", lambda: 8)
    config = config_of(small_settings)
    assert local.slots_of(config) == 1  # one that takes every core
    assert local.slots_of(dataclasses.replace(config, threads=2)) == 4
    assert local.slots_of(dataclasses.replace(config, threads=16)) == 1


def test_a_folder_of_runs_that_is_a_file_is_named_before_a_worker_starts(small_settings, tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(RunError, match="^runs_dir '.*runs': .*runs is a file; give a folder$"):
        local.run_all([config_of(small_settings)] * 2, tmp_path / "runs", slots=2)


@pytest.mark.parametrize(
    ("visible", "count", "wanted"),
    [
        (None, 2, ["0", "1", "0", "1"]),
        (None, 0, ["", "", "", ""]),
        ("", 0, ["", "", "", ""]),
        ("5,3", 2, ["5", "3", "5", "3"]),
        ("MIG-1/7/0", 1, ["MIG-1/7/0"] * 4),
    ],
)
def test_each_slot_sees_one_gpu_of_those_that_are_there(tmp_path, monkeypatch, visible, count, wanted):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    seen = []
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.setattr(local.subprocess, "Popen", lambda *_, env, **__: seen.append(env["CUDA_VISIBLE_DEVICES"]))
    for place in range(4):
        local._worker(place, tmp_path)
    assert seen == wanted
