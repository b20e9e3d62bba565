"""What watchers, trackers and the terminal are told of a run is what its history says, also of a run that goes on."""

import importlib.util
import sys
import types

import pandas as pd
import pytest
from recorder import train

import msft
from msft.errors import ConfigError, RunError
from msft.results import history, summary, trackers
from msft.results.progress import RunProgress
from msft.training import Trainer


class Heard(list):
    """A watcher that remembers."""

    def __call__(self, rows, event):
        self.append((rows, event))


def run_of(settings, runs_dir, **options):
    return msft.run(msft.RunConfig(**settings), runs_dir, progress=False, **options)


@pytest.fixture
def stopping(monkeypatch):
    """stopping(n): the run is asked to stop at its n-th step from now on; stopping(0) takes it back."""
    gradients, left = Trainer.gradients, []

    def counting(self, rows):
        if left:
            left[0] -= 1
            self.stop_requested |= left[0] == 0
        return gradients(self, rows)

    monkeypatch.setattr(Trainer, "gradients", counting)
    return lambda number: left.__setitem__(slice(None), [number] if number else [])


# watchers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fixture", ["small_settings", "small_msft_settings"])
def test_a_watcher_hears_every_evaluation_and_the_end(request, fixture, runs_dir):
    settings, heard = request.getfixturevalue(fixture), Heard()
    run = run_of(settings, runs_dir, on_evaluation=heard)
    *during, (rows, end) = heard
    points = run.history[["stage", "epoch", "path_epoch"]].drop_duplicates()
    assert [(e.stage, e.epoch, e.path_epoch) for _, e in during] == list(points.itertuples(index=False, name=None))
    for number, (so_far, event) in enumerate(during):
        pd.testing.assert_frame_equal(so_far, run.history.iloc[: 3 * (number + 1)])
        assert (event.run, event.method, event.finished) == (run.directory.name, settings["method"], False)
    assert end.finished
    assert (end.best_accuracy, end.best_path_epoch) == (run.best.accuracy, run.best.path_epoch)
    pd.testing.assert_frame_equal(rows, run.history)


def test_a_watcher_hears_of_a_run_that_was_finished_before(small_msft_run, small_msft_settings):
    heard = Heard()
    run_of(small_msft_settings, small_msft_run.directory.parent, on_evaluation=heard)
    ((rows, event),) = heard
    pd.testing.assert_frame_equal(rows, small_msft_run.history)
    assert event.finished and event.best_accuracy == small_msft_run.best.accuracy


@pytest.mark.parametrize("fixtures", [("small_run", "small_settings"), ("small_msft_run", "small_msft_settings")])
def test_a_watcher_of_a_run_that_goes_on_has_the_whole_history(request, fixtures, runs_dir, stopping):
    whole, settings = map(request.getfixturevalue, fixtures)
    first, second = Heard(), Heard()
    stopping(8)
    with pytest.raises(RunError, match="stopped and saved"):
        run_of(settings, runs_dir, on_evaluation=first)
    stopping(0)
    run_of(settings, runs_dir, on_evaluation=second)
    assert first and not first[-1][1].finished
    for rows, _ in first + second:
        pd.testing.assert_frame_equal(rows, whole.history.iloc[: len(rows)])
    lengths = [len(rows) for rows, event in first + second if not event.finished]
    assert lengths == list(range(3, len(whole.history) + 1, 3))  # each evaluation once


def test_what_a_watcher_raises_stops_the_run(small_settings, runs_dir):
    def broken(rows, event):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run_of(small_settings, runs_dir, on_evaluation=broken)


def test_nothing_is_made_for_nobody(monkeypatch):
    monkeypatch.setattr("msft.results.progress.history_rows", lambda entries: pytest.fail("made for nobody"))
    RunProgress("quiet", shown=False).tell([], None)


# the kept path ------------------------------------------------------------------------------------------------


def test_kept_path_and_drops():
    rows = [  # stage 0 to epoch 2, back to 1 without b; stage 1 to path epoch 3, kept whole; stage 2 without c
        *[(0, e, t, True) for e in (0, 1, 2) for t in "abc"],
        *[(1, e, t, t != "b") for e in (1, 2, 3) for t in "abc"],
        *[(2, e, t, t == "a") for e in (3, 4) for t in "abc"],
    ]
    table = pd.DataFrame(rows, columns=["stage", "path_epoch", "task", "active"])
    assert history.drops(table) == {"b": 1.0, "c": 3.0}
    kept = table[history.kept(table)].groupby("stage").path_epoch.unique()
    assert {stage: list(epochs) for stage, epochs in kept.items()} == {0: [0, 1], 1: [1, 2, 3], 2: [3, 4]}
    assert history.drops(table[table.stage == 0]) == {}


# the setting --------------------------------------------------------------------------------------------------


def test_the_setting_and_its_errors():
    assert msft.RunConfig().track is None
    assert msft.RunConfig(track="none").track is None
    assert msft.RunConfig(track="tensorboard, wandb").track == "tensorboard, wandb"
    for wrong, fragment in [("tensorbord", "Did you mean 'tensorboard'"), ("wandb,x", "'x'"), ("", "''"), (3, "'3'")]:
        with pytest.raises(ConfigError, match=fragment):
            msft.RunConfig(track=wrong)
    assert msft.RunConfig(track="wandb").fingerprint() == msft.RunConfig().fingerprint()


def test_a_missing_library_is_said_before_anything_is_loaded(small_settings, runs_dir, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("msft.runs.prepare", lambda config: pytest.fail("too late"))
    with pytest.raises(
        ConfigError, match=r"tensorboard and wandb, which are not installed. Run: pip install tensorboard wandb"
    ):
        run_of({**small_settings, "track": "tensorboard,wandb"}, runs_dir)
    assert not runs_dir.exists()


# trackers -----------------------------------------------------------------------------------------------------


def scalars(folder):
    """{stage folder: {name: [(step, value)]}} as TensorBoard shows them."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = {}
    for stage in sorted(folder.iterdir()):
        events = accumulator.EventAccumulator(str(stage)).Reload()
        found[stage.name] = {n: [(e.step, e.value) for e in events.Scalars(n)] for n in events.Tags()["scalars"]}
    return found


def test_tensorboard_shows_the_history_each_point_once(small_msft_settings, small_msft_run, runs_dir, stopping):
    pytest.importorskip("tensorboard")
    settings = {**small_msft_settings, "track": "tensorboard"}
    stopping(8)
    with pytest.raises(RunError, match="stopped and saved"):
        run_of(settings, runs_dir)
    stopping(0)
    run = run_of(settings, runs_dir)
    assert run.history.equals(small_msft_run.history)
    shown = scalars(run.directory / "tensorboard")
    assert list(shown) == [f"stage{number:02}" for number in run.history.stage.unique()]
    for (_, own), values in zip(run.history.groupby("stage"), shown.values(), strict=True):
        steps = (1000 * own.path_epoch.unique()).round().tolist()
        for task, rows in own.groupby("task"):
            assert [step for step, _ in values[f"accuracy/{task}"]] == steps
            assert [value for _, value in values[f"accuracy/{task}"]] == pytest.approx(rows.accuracy.tolist())
        means = own.assign(right=own.accuracy * own.n).groupby("path_epoch")[["right", "n"]].sum()
        assert [value for _, value in values["accuracy/mean"]] == pytest.approx((means.right / means.n).tolist())
        losses = own.groupby("path_epoch").train_loss.first().dropna().tolist()
        assert [value for _, value in values["train_loss"]] == pytest.approx(losses)
        assert steps == sorted(set(steps))


def test_the_mean_is_over_all_items_as_the_best_beside_it():
    rows = {"task": ["one", "three"], "accuracy": [1.0, 0.0], "n": [1, 3], "loss": 0.5, "active": True}
    rows = pd.DataFrame({"stage": 0, "epoch": 0.5, "train_loss": 0.25, **rows})
    event = types.SimpleNamespace(stage=0, epoch=0.5, path_epoch=0.5, best_accuracy=0.25, best_path_epoch=0.5)
    assert trackers._measured(rows, event)["accuracy/mean"] == 0.25


class FakeRun:
    """A run of wandb: takes only steps that go up, as the real one does."""

    def __init__(self, logged):
        self.logged, self.summary, self.step, self.ended = logged, {}, 0, None
        self.step = max((step for step, _ in logged), default=-1) + 1

    def log(self, values, step):
        assert step >= self.step
        self.step = step + 1
        self.logged.append((step, values))

    def finish(self, exit_code):
        self.ended = exit_code


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for wandb that keeps runs by their id."""
    known, runs = {}, []

    def init(**settings):
        runs.append((settings, FakeRun(known.setdefault(settings["id"], []))))
        return runs[-1][1]

    module = types.ModuleType("wandb")
    module.__spec__ = types.SimpleNamespace(name="wandb")
    module.init, module.known, module.runs = init, known, runs
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_wandb_goes_on_with_its_run(small_msft_settings, runs_dir, wandb, stopping, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    settings = {**small_msft_settings, "track": "wandb"}
    stopping(8)
    with pytest.raises(RunError, match="stopped and saved"):
        run_of(settings, runs_dir)
    stopping(0)
    run = run_of(settings, runs_dir)
    (first, broken), (second, whole) = wandb.runs
    assert first == second
    assert first["id"] == first["name"] == run.directory.name
    assert (first["resume"], first["project"], first["dir"]) == ("allow", "mine", str(run.directory))
    assert first["config"]["params"] == run.config.params
    assert (broken.ended, whole.ended) == (1, 0)
    (logged,) = wandb.known.values()
    points = run.history.groupby(["stage", "epoch"], sort=False)
    assert [step for step, _ in logged] == list(range(len(points)))
    for (_, values), ((stage, _), rows) in zip(logged, points, strict=True):
        assert values["stage"] == stage and values["path_epoch"] == rows.path_epoch.iloc[0]
        assert {task: values[f"accuracy/{task}"] for task in rows.task} == rows.set_index("task").accuracy.to_dict()
        assert values["accuracy/mean"] == pytest.approx((rows.accuracy * rows.n).sum() / rows.n.sum())
    assert whole.summary["final/accuracy"] == run.best.accuracy
    for task, epoch in history.drops(run.history).items():
        assert f"{task} at epoch {epoch:g}" in whole.summary["dropped"]


def test_wandb_that_does_not_start_says_what_to_do(small_settings, runs_dir, wandb):
    def refuse(**settings):
        raise OSError("no key")

    wandb.init = refuse
    with pytest.raises(RunError, match=r"no key.*WANDB_MODE=offline"):
        run_of({**small_settings, "track": "wandb"}, runs_dir)


def test_wandb_itself_offline(small_settings, runs_dir, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = run_of({**small_settings, "track": "wandb"}, runs_dir)
    (folder,) = (run.directory / "wandb").glob("offline-run-*")
    assert folder.name.endswith(run.directory.name[-64:])


# the terminal -------------------------------------------------------------------------------------------------


def test_summary_says_what_the_run_found(settings, tmp_path):
    run = train(settings, tmp_path, "msft")
    text = summary.summary(run)
    lines = text.splitlines()
    drops = [entry["arguments"] for entry in run.journal if entry["kind"] == "roll_back"]
    best = run.result["best"]
    at_best = run.history[(run.history.stage == best["stage"]) & (run.history.epoch == best["epoch"])]
    base = run.history.iloc[:3].set_index("task").accuracy
    for row in at_best.itertuples():
        # a sentence on a peak that hardly leads begins with the name too
        (line,) = (line for line in lines if line.startswith(f"  {row.task}  "))
        cells = line.split()
        assert cells[1:3] == [f"{100 * base[row.task]:.1f}", f"{100 * row.accuracy:.1f}"]
        assert ("epoch" in line) == any(drop["dropped"] == row.task for drop in drops)
    assert f"{run.best.accuracy:.1%} at epoch {run.best.path_epoch:g}" in text
    assert f"pretrained={run.best.path}" in text and "--tasks msft_run" in text
    assert f"msft export {run.directory}" in text
    assert "training" in text and "evaluation" in text and "saving" in text
    assert all(len(line) <= 100 for line in lines if str(run.directory) not in line)
    assert not text.count("\x1b") and "nan" not in text


def test_summary_ends_a_run_in_the_terminal(small_settings, small_run, runs_dir, capsys, stopping):
    msft.run(msft.RunConfig(**small_settings), runs_dir / "a")
    told = capsys.readouterr().err
    assert "best checkpoint: accuracy" in told and "since it went on" not in told and "dropped at" not in told
    run_of(small_settings, runs_dir / "b")
    assert capsys.readouterr().err == ""
    stopping(8)
    with pytest.raises(RunError, match="stopped and saved"):
        run_of(small_settings, runs_dir / "c")
    stopping(0)
    msft.run(msft.RunConfig(**small_settings), runs_dir / "c")
    assert "since it went on" in capsys.readouterr().err
