"""What is written beside training is what was there when it was given, in order, and no error is lost."""

import json
import threading
from types import SimpleNamespace

import pytest
import torch
from helpers import ALWAYS, killed_run, make_trainer
from test_runs import child

import msft
from msft import run_directory
from msft.errors import RunError
from msft.launch.status import line_of, rows_of, runs_of
from msft.results.progress import clock as clock_text
from msft.results.run import Run
from msft.store import files
from msft.store.checkpoints import Store, snapshot
from msft.store.durable import Durable, Writer
from msft.store.journal import Journal
from msft.store.state import Best, Progress
from msft.training import Trainer


def failing(error):
    def job():
        raise error

    return job


def test_jobs_are_done_in_their_order_beside_the_caller():
    writer, done, gate = Writer(), [], threading.Event()
    writer.submit(gate.wait)
    for number in range(5):
        writer.submit(lambda number=number: done.append((number, threading.current_thread().name)))
    writer.check()
    assert done == []
    gate.set()
    writer.wait()
    assert [number for number, _ in done] == list(range(5))
    assert {name for _, name in done} != {threading.current_thread().name}


def test_an_error_stays_until_somebody_hears_it():
    writer = Writer()
    error = RunError("full")
    job = writer.submit(failing(error))
    job.exception()
    for hear in (writer.check, writer.wait, writer.wait):
        with pytest.raises(RunError, match="full"):
            hear()
    with pytest.raises(RunError, match="full"), Writer() as other:
        other.submit(failing(error))


def test_what_ended_the_work_goes_before_an_error_of_the_writer():
    with pytest.warns(UserWarning, match="full"), pytest.raises(KeyError), Writer() as writer:
        writer.submit(failing(RunError("full")))
        raise KeyError
    error = RunError("full")
    with pytest.raises(RunError), Writer() as writer:  # heard within: no second word
        writer.submit(failing(error))
        writer.wait()


def test_the_end_waits_whatever_it_was():
    done = []
    with pytest.raises(KeyError), Writer() as writer:
        gate = threading.Timer(0.05, lambda: None)
        gate.start()
        writer.submit(lambda: (gate.join(), done.append(1)))
        raise KeyError
    assert done == [1]


@pytest.fixture
def held(monkeypatch):
    """Commits wait for this event."""
    gate, commit = threading.Event(), run_directory.RunDirectory.commit
    monkeypatch.setattr(run_directory.RunDirectory, "commit", lambda self, state: gate.wait(60) and commit(self, state))
    yield gate
    gate.set()


class Clock:
    """Stands for the module time; a commit takes 20 seconds."""

    now = 0.0

    def monotonic(self):
        return self.now

    def commit(self, state):
        self.now += 20


def saving_of(monkeypatch, tmp_path, share, minutes, copy=0.0):
    clock = Clock()
    monkeypatch.setattr("msft.store.durable.time", clock)
    store = Store(tmp_path / "state", tmp_path / "disk.jsonl", 100_000_000)
    config = SimpleNamespace(save_share=share, save_minutes=minutes, keep_peaks="memory")
    trainer = SimpleNamespace(config=config, model=None, best=Best(), here=None)
    durable = Durable(trainer, SimpleNamespace(store=store, commit=clock.commit, directory=tmp_path))

    def snapshot(model):
        clock.now += copy
        return {"a": torch.ones(2)}

    monkeypatch.setattr("msft.store.checkpoints.snapshot", snapshot)

    def save():
        durable.save()
        durable.writer.wait()

    def first_due(start):
        for clock.now in range(int(start), 10_000):
            if durable.is_due():
                return clock.now
        return None

    return clock, save, first_due


def test_all_of_a_save_counts_and_saves_are_minutes_apart(monkeypatch, tmp_path):
    clock, save, first_due = saving_of(monkeypatch, tmp_path, 0.05, 2.0, copy=4.0)
    assert first_due(0) == 120  # 3 s, for 300 MB at 100 MB a second, would be 5 % of 60 s
    save()
    assert clock.now == 144
    # 24 s so far and 24 s for the next are 5 % of 960 s
    assert first_due(144) == 960
    row = Run(tmp_path).disk.iloc[-1]
    assert (row.event, row.change, row.interval) == ("saved", 0, 480)


@pytest.mark.parametrize(
    ("share", "minutes", "due"), [(0.05, 0.0, 60), (1.0, 5.0, 300), (1.0, 0.0, 0), (0.0, 0.0, None)]
)
def test_each_limit_by_itself(monkeypatch, tmp_path, share, minutes, due):
    _, save, first_due = saving_of(monkeypatch, tmp_path, share, minutes)
    assert first_due(0) == due
    if share == 1.0:
        save()
        assert first_due(due) == due + (60 * minutes if minutes else 0)


def test_status_tells_what_a_run_that_is_under_way_has_saved(small_settings, runs_dir, children):
    settings = {**small_settings, **ALWAYS, "save_minutes": 1e-6}
    child(children, killed_run, settings, runs_dir, "evaluation", 4)
    (row,) = rows_of(runs_of(runs_dir))
    disk = Run(runs_dir / row["name"]).disk
    assert row["state"] == "unfinished" and row["saves"] == sum(disk.event == "saved") > 1
    assert row["bytes_written"] == disk.change[disk.change > 0].sum()
    assert row["save_interval"] >= 6e-5
    saved = [json.loads(line)["entry"] for line in (runs_dir / row["name"] / "journal.jsonl").read_text().splitlines()]
    progress = saved[-1]["state"]["progress"]
    assert (row["saved_stage"], row["saved_epoch"], row["saved_step"]) == (1, progress["epoch"], progress["step"])
    assert f"unfinished, saved in stage 1 behind epoch {row['saved_epoch']}, step {row['saved_step']}; " in line_of(row)
    assert f"; {row['saves']} saves, " in line_of(row) and line_of(row).endswith(
        f" written, {clock_text(row['save_interval'])} apart"
    )


def test_what_was_there_at_the_save_is_written_while_training_goes_on(tmp_path, held):
    trainer, _ = make_trainer(tmp_path / "run")
    trainer.optimizer = trainer.fresh_optimizer()

    def step():
        trainer.gradients(trainer.rows[:4])
        trainer.optimizer.step()
        trainer.optimizer.zero_grad(set_to_none=True)

    step()
    progress = Progress(step=1, losses=[0.5], schedule={"notes": [1], "array": torch.arange(3).numpy()})
    before, moments = snapshot(trainer.model), trainer.optimizer.state_dict()["state"][0]["exp_avg"].clone()
    trainer.durable.save(progress, optimizer=True)
    step()
    progress.step, progress.losses[0] = 2, 9.0
    progress.schedule["notes"].append(2)
    progress.schedule["array"][:] = 7
    assert trainer.run.journal.saved == []
    held.set()
    trainer.durable.writer.wait()
    (entry,) = trainer.run.journal.saved
    state, store = entry["state"], trainer.run.store
    assert state["progress"]["step"] == 1 and state["progress"]["losses"] == [0.5]
    assert state["progress"]["schedule"]["notes"] == [1]
    weights, tensors = store.get(state["weights"]), store.get(state["optimizer"])
    assert all(torch.equal(weights[name], before[name]) for name in before)
    assert not all(torch.equal(value, before[name]) for name, value in snapshot(trainer.model).items())
    assert torch.equal(tensors["0.exp_avg"], moments)
    assert tensors["schedule.array"].tolist() == [0, 1, 2]


def test_steps_are_trained_while_a_save_is_written(small_settings, small_run, runs_dir, monkeypatch):
    """A commit that would only end after two more steps: it would never end if training waited for it."""
    steps, gate, gradients, commit = [], threading.Event(), Trainer.gradients, run_directory.RunDirectory.commit

    def counting(self, rows):
        steps.append(1)
        if len(steps) == 8:
            gate.set()
        return gradients(self, rows)

    def committing(self, state):
        assert gate.wait(60), "training waits"
        commit(self, state)

    monkeypatch.setattr(Trainer, "gradients", counting)
    monkeypatch.setattr(run_directory.RunDirectory, "commit", committing)
    monkeypatch.setattr(Durable, "must_save", lambda self: len(steps) == 6)
    run = msft.run(msft.RunConfig(**small_settings), runs_dir, progress=False)
    assert run.history.equals(small_run.history)


def test_an_error_of_the_writer_stops_training_with_its_message(small_settings, small_run, runs_dir, monkeypatch):
    steps, gradients, write = [], Trainer.gradients, files.write_tensors

    def counting(self, rows):
        steps.append(1)
        return gradients(self, rows)

    def full(path, tensors):
        if "weights-" in path.name:
            raise files.cannot_write(path, 1, OSError(28, "No space left on device"))
        write(path, tensors)

    monkeypatch.setattr(Trainer, "gradients", counting)
    monkeypatch.setattr("msft.store.checkpoints.write_tensors", full)
    settings = {**small_settings, **ALWAYS}
    with pytest.raises(RunError, match=r"cannot write .*No space left.*make\s+room"):
        msft.run(msft.RunConfig(**settings), runs_dir, progress=False)
    assert 0 < len(steps) < 9
    (folder,) = runs_dir.iterdir()
    assert Journal(folder / "journal.jsonl").saved == []
    monkeypatch.undo()
    run = msft.run(msft.RunConfig(**settings), runs_dir, progress=False)
    assert run.history.equals(small_run.history)


def test_time_of_saving_is_counted_once(small_settings, runs_dir):
    run = msft.run(msft.RunConfig(**{**small_settings, **ALWAYS}), runs_dir, progress=False)
    seconds = run.result["seconds"]
    assert seconds["save"] > 0
    assert seconds["train"] + seconds["evaluate"] + seconds["save"] <= seconds["total"]
