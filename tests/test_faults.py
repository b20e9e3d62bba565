"""The short version of benchmarks/faults.py, and the ledger held against the file system on the way."""

import errno
import warnings
from pathlib import Path

import faults
import pytest
from helpers import ALWAYS
from recorder import PARAMS

import msft
from msft import run_directory
from msft.errors import RunError
from msft.store import files
from msft.store.journal import Journal
from msft.training import Trainer

KEEP = ("memory", "disk")


@pytest.mark.parametrize("kind", faults.KINDS)
@pytest.mark.parametrize("method", ["sft", "msft"])
def test_nothing_committed_is_lost_to_a_write_fault(method, kind, monkeypatch):
    monkeypatch.setattr(faults, "KINDS", (kind,))
    rows = faults.write_faults(1, seed=len(method) + len(kind), methods=(method,), say=lambda line: None)
    assert [(row["method"], row["kind"]) for row in rows] == [(method, kind)]


def test_killed_process_goes_on_as_if_it_never_was():
    rows = faults.kills(1, seed=3, methods=("msft",), say=lambda line: None)
    assert len(rows) == 1


@pytest.mark.parametrize("name", ["scoring.py", "msft_run.yaml", "run.json"])
def test_a_disk_that_is_full_before_the_first_step_is_said_and_the_run_begins_later(
    small_settings, tmp_path, monkeypatch, name
):
    def full(path):
        if path.name.startswith(name):
            raise OSError(errno.EDQUOT, "Disk quota exceeded")

    config = msft.RunConfig(**{**small_settings, "params": {"epochs": 0.25}})
    with monkeypatch.context() as patch:
        patch.setattr(files, "sync", full)
        with pytest.raises(RunError, match=f"cannot write .*{name} .*Disk quota exceeded. .* make room"):
            msft.run(config, tmp_path, progress=False)
    assert not list(tmp_path.rglob(f"*{name}*"))
    assert msft.run(config, tmp_path, progress=False).status == "finished"


def on_disk(directory):
    places = [directory / "state", directory / "best"]
    return sum(path.stat().st_size for place in places for path in place.rglob("*") if path.is_file())


@pytest.mark.parametrize("keep_peaks", KEEP)
@pytest.mark.parametrize("method", ["msft", "ies", "dynamix_sft"])
def test_ledger_is_what_the_file_system_says(small_settings, runs_dir, monkeypatch, method, keep_peaks):
    """At every step and evaluation of a run that saves whenever it can."""
    original, seen = Trainer.gradients, []

    def looking(self, rows):
        self.durable.writer.wait()
        told = self.run.store.ledger
        last = files.read_lines(told)[-1]["bytes"] if told.exists() else 0
        seen.append((last, on_disk(self.run.directory)))
        return original(self, rows)

    monkeypatch.setattr(Trainer, "gradients", looking)
    settings = {**small_settings, "method": method, "params": PARAMS[method]}
    config = msft.RunConfig(**{**settings, **ALWAYS, "keep_peaks": keep_peaks})
    run = msft.run(config, runs_dir, progress=False)
    assert len(seen) >= 15
    assert [told for told, _ in seen] == [there for _, there in seen]
    assert len({there for _, there in seen}) > 1
    assert run.disk.bytes.iloc[-1] == on_disk(run.directory)
    assert not (run.directory / "state").exists()
    if method == "msft":
        # live peaks stay below the bound of Algorithm 4, and the two retained points above it
        stages = run.disk.dropna(subset="bound")
        assert (stages.copies <= stages.bound + 1).all()


def test_equal_histories_wherever_peaks_wait(small_msft_settings, tmp_path):
    runs = [
        msft.run(msft.RunConfig(**{**small_msft_settings, "keep_peaks": k}), tmp_path / k, progress=False) for k in KEEP
    ]
    for run in runs[1:]:
        assert run.history.equals(runs[0].history)
        assert run.journal == runs[0].journal
        best = [Path(r.best.path, "model.safetensors").read_bytes() for r in (run, runs[0])]
        assert best[0] == best[1]
    means = [run.disk.copies.mean() for run in runs]
    assert means[0] <= means[1]


def test_damaged_last_state_is_said_and_the_run_starts_again(small_settings, small_run, runs_dir, children):
    from helpers import killed_run
    from test_runs import assert_equal_runs, child

    settings = {**small_settings, **ALWAYS}
    assert child(children, killed_run, settings, runs_dir, "step", 8) == -9
    (directory,) = runs_dir.iterdir()
    saved = Journal(directory / "journal.jsonl").saved
    assert len(saved) > 2
    newest = directory / "state" / saved[-1]["state"]["weights"]
    newest.write_bytes(newest.read_bytes()[:-5])
    steps, original = [], Trainer.gradients
    with pytest.MonkeyPatch.context() as patch, pytest.warns(UserWarning, match="is damaged.*going on from the start"):
        patch.setattr(Trainer, "gradients", lambda self, rows: steps.append(1) or original(self, rows))
        run = msft.run(msft.RunConfig(**settings), runs_dir, progress=False)
    assert_equal_runs(run, small_run)
    assert len(steps) == 9


def test_the_best_checkpoint_is_on_the_disk_itself_before_it_has_its_name(small_settings, runs_dir, monkeypatch):
    synced = []

    def sync(path, sync=files.sync):
        synced.append(path)
        sync(path)

    monkeypatch.setattr(run_directory, "sync", sync)
    best = msft.run(msft.RunConfig(**small_settings), runs_dir, progress=False).best.path
    assert {path.parent.name for path in synced[:-1]} == {synced[-1].name} == {f"best{files.PARTIAL}"}
    assert {path.name for path in synced[:-1]} == {path.name for path in best.iterdir()}


def test_where_a_run_starts_again_no_other_damaged_file_is_taken_for_a_whole_one(
    small_msft_settings, runs_dir, children
):
    from helpers import killed_run
    from test_runs import child

    settings = {**small_msft_settings, **ALWAYS, "keep_peaks": "disk"}
    assert child(children, killed_run, settings, runs_dir, "step", 8) == -9
    (directory,) = runs_dir.iterdir()
    weights = list((directory / "state").glob("weights-*"))
    assert len(weights) > 1
    for path in weights:
        path.write_bytes(path.read_bytes()[:100])
    with pytest.warns(UserWarning, match="is damaged.*going on from the start"):
        assert msft.run(msft.RunConfig(**settings), runs_dir, progress=False).status == "finished"


def test_one_saved_state_is_kept(small_settings, runs_dir, monkeypatch):
    original, weights = Trainer.gradients, []

    def looking(self, rows):
        self.durable.writer.wait()
        weights.append(len(list(Path(self.run.directory, "state").glob("weights-*"))))
        return original(self, rows)

    monkeypatch.setattr(Trainer, "gradients", looking)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        msft.run(msft.RunConfig(**{**small_settings, **ALWAYS}), runs_dir, progress=False)
    assert max(weights) == 2  # those of the state, and the best ones
