"""The seven methods: what each is equal to, what each trains, what its journal says, and what a kill changes."""

import copy
import dataclasses
import hashlib
import json

import numpy as np
import pytest
import torch
import yaml
from helpers import ALWAYS, MAKERS, FakeEvaluator, make_model, make_trainer
from recorder import PARAMS, WeightsEvaluator, owners_of, recorded, same_weights, train
from safetensors.torch import load, save

import msft
from msft import evaluation
from msft.cli.main import main
from msft.errors import ConfigError, RunError
from msft.loss.tokens import Tokens
from msft.methods import dynamix_sft, ies, soft_sro_sft
from msft.results.flops import run_flops
from msft.runs import Run
from msft.schedules import Passes
from msft.store.checkpoints import snapshot
from msft.store.curve import Curve
from msft.store.state import Progress, pack_progress, unpack_progress
from msft.training import Trainer

METHODS = ["continual_sft", "dynamix_sft", "ies", "msft", "sft", "soft_sro_sft", "sro_sft"]
TASKS = list(MAKERS)


def points_of(run, stage=0):
    """What a roll-out measured, without how it was come by."""
    entry = next(e for e in run.journal if e["kind"] in ("roll_out", "search") and e["result"]["stage"] == stage)
    return [{k: v for k, v in point.items() if k != "reused"} for point in entry["result"]["points"]]


def weights_of(run):
    return (run.best.path / "model.safetensors").read_bytes()


def notes_of(run, what=None):
    """Notes of the method, or with None those of the schedule of the last roll-out."""
    if what is None:
        return [e for e in run.journal if e["kind"] == "roll_out"][-1]["result"]["notes"]
    return next(e["arguments"] for e in run.journal if e["kind"] == "note" and e["arguments"]["what"] == what)


def assert_equal_runs(a, b):
    assert a.history.equals(b.history)
    assert weights_of(a) == weights_of(b)
    assert a.result["best"] == b.result["best"]
    assert a.flops == b.flops


# the zoo ------------------------------------------------------------------------------------------------------


def test_there_are_seven_methods():
    assert msft.methods.available() == METHODS
    assert [name for name in METHODS if not getattr(msft.methods, name).__doc__] == []
    with pytest.raises(ConfigError, match=r"unknown method 'dynamixsft'\. Did you mean 'dynamix_sft'\?"):
        msft.RunConfig(method="dynamixsft")


FIELDS = [(name, field) for name in METHODS for field in dataclasses.fields(msft.methods.load(name).Params)]


@pytest.mark.parametrize(("method", "field"), FIELDS, ids=lambda v: getattr(v, "name", v))
def test_parameters_have_bounds_that_are_checked(method, field):
    low, high = field.metadata["low"], field.metadata["high"]
    assert low is not None and high is not None and field.metadata["doc"]
    for value in (low, high, field.default):
        assert msft.RunConfig(method=method, params={field.name: value}).params[field.name] == value
    for value in (low - 1, high + 1, "three", None, [1], float("nan")):
        with pytest.raises(ConfigError, match=f"parameter of {method} {field.name} ="):
            msft.RunConfig(method=method, params={field.name: value})


@pytest.mark.parametrize(
    ("method", "wrong", "near"),
    [
        ("sft", "epoch", "epochs"),
        ("continual_sft", "bugdet", "budget"),
        ("dynamix_sft", "look_ahead_bath", "look_ahead_batch"),
        ("dynamix_sft", "gama", "gamma"),
        ("ies", "detla", "delta"),
        ("sro_sft", "epochss", "epochs"),
        ("soft_sro_sft", "Epochs", "epochs"),
        ("msft", "max_stage", "max_stages"),
    ],
)
def test_unknown_parameter_names_the_nearest(method, wrong, near):
    with pytest.raises(ConfigError, match=f"unknown parameter of {method} '{wrong}'. Did you mean '{near}'"):
        msft.RunConfig(method=method, params={wrong: 1})


USER_METHOD = """
from dataclasses import dataclass
from msft.settings import setting


@dataclass(frozen=True)
class Params:
    epochs: float = setting(0.5, "epochs of each", low=0.25, high=10)


def run(trainer, params):
    for task in reversed(trainer.tasks):
        trainer.roll_out([task], epochs=params.epochs)
"""


def test_method_in_one_file_of_a_folder_of_the_users_own(settings, tmp_path):
    folder = tmp_path / "zoo"
    folder.mkdir()
    path = folder / "backwards.py"
    path.write_text(USER_METHOD)
    assert msft.methods.available(str(folder)) == sorted([*METHODS, "backwards"])
    own = {**settings, "methods_dir": str(folder)}
    with pytest.raises(ConfigError, match="Did you mean 'backwards'"):
        msft.RunConfig(method="backward", **own)
    with pytest.raises(ConfigError, match=r"must lie in \[0.25, 10\]"):
        msft.RunConfig(method="backwards", params={"epochs": 11}, **own)
    run = train(own, tmp_path / "runs", "backwards", {})
    assert [e["arguments"]["active"] for e in run.journal] == [[task] for task in reversed(TASKS)]
    assert run.config.params == {"epochs": 0.5}
    assert train(own, tmp_path / "runs", "backwards", {}).directory == run.directory
    path.write_text(USER_METHOD.replace("reversed(trainer.tasks)", "trainer.tasks"))
    other = train(own, tmp_path / "runs", "backwards", {})
    assert other.directory != run.directory
    assert [e["arguments"]["active"] for e in other.journal] == [[task] for task in TASKS]
    # what is trained is read and exported where the method's file is not, as on another machine
    folder.rename(tmp_path / "elsewhere")
    assert (other.config.method, other.config.params) == ("backwards", {"epochs": 0.5})
    assert main(["status", "--runs-dir", str(tmp_path / "runs")]) == 0
    assert main(["export", str(other.directory), str(tmp_path / "new")]) == 0
    assert "--method backwards" in (tmp_path / "new" / "README.md").read_text()


def test_error_in_a_method_of_the_users_own_names_its_line(settings, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(USER_METHOD.replace("reversed(trainer.tasks)", "trainer.taks"))
    with pytest.raises(RunError, match=rf"method file {path}, line 12: AttributeError: .*'taks'"):
        train({**settings, "methods_dir": str(tmp_path)}, tmp_path / "runs", "mine", {})


def test_what_a_watcher_raises_is_not_laid_at_a_method_s_door(settings, tmp_path):
    (tmp_path / "mine.py").write_text(USER_METHOD)

    def watch(history, event):
        raise ValueError("enough")

    config = msft.RunConfig(**{**settings, "method": "mine", "params": {}, "methods_dir": str(tmp_path)})
    with pytest.raises(ValueError, match="^enough$"):
        msft.run(config, tmp_path / "runs", progress=False, on_evaluation=watch)


def test_method_file_of_the_users_own_with_postponed_annotations(tmp_path):
    (tmp_path / "mine.py").write_text("from __future__ import annotations\n" + USER_METHOD)
    assert msft.RunConfig(method="mine", methods_dir=str(tmp_path)).params == {"epochs": 0.5}


# identities ---------------------------------------------------------------------------------------------------


def test_ies_that_leaves_nobody_out_is_sft(finished, settings, tmp_path):
    sft = train(settings, tmp_path, "sft", {"epochs": 5})
    other = train(settings, tmp_path, "ies", {"epochs": 5, "delta": 0})
    assert_equal_runs(other, sft)
    assert [note["sat_out"] for note in notes_of(other)] == [[]] * 5


@pytest.mark.parametrize(("method", "peak"), [("soft_sro_sft", 1.25), ("soft_sro_sft", 0.0), ("sro_sft", 2.0)])
def test_second_roll_out_with_equal_peaks_is_sft(finished, settings, tmp_path, monkeypatch, method, peak):
    sft = finished("sft").run
    monkeypatch.setattr(Curve, "peak", lambda self, task: peak)
    run = train(settings, tmp_path, method)
    assert points_of(run, 0) == points_of(run, 1) == points_of(sft)
    assert weights_of(run) == weights_of(sft)
    assert run.best.accuracy == sft.best.accuracy
    assert run.best.path_epoch == sft.best.path_epoch
    assert run.flops["train"] == 2 * sft.flops["train"]


@pytest.fixture
def one_task(settings, mixture_file):
    rows = yaml.safe_load(mixture_file.read_text())
    path = mixture_file.with_name("one.yaml")
    path.write_text(yaml.safe_dump({"name": "one", "sub_datasets": rows["sub_datasets"][1:2]}))
    return {**settings, "mixture": str(path)}


def test_continual_sft_on_one_sub_dataset_is_sft_with_an_early_stop(one_task, tmp_path):
    sft = train(one_task, tmp_path, "sft", {"epochs": 2})
    run = train(one_task, tmp_path, "continual_sft", {"budget": 2})
    assert points_of(run) == points_of(sft)
    assert_equal_runs(run, sft)
    assert notes_of(run, "peaks")["peaks"] == {"adding": sft.best.path_epoch}


def test_first_stage_of_msft_is_sft(finished, settings, tmp_path):
    sft = train(settings, tmp_path, "sft", {"epochs": PARAMS["msft"]["budget"]})
    assert points_of(finished("msft").run) == points_of(sft)


# SRO and Soft SRO ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["sro_sft", "soft_sro_sft"])
def test_search_is_read_from_the_finished_sft_run_or_trained(finished, settings, tmp_path, method):
    alone = finished(method)
    train(settings, tmp_path, "sft")
    reading = recorded(settings, tmp_path, method)
    assert_equal_runs(reading.run, alone.run)
    assert {stage for stage, _ in alone.steps} >= {0}
    assert 0 not in {stage for stage, _ in reading.steps}
    assert reading.steps == [step for step in alone.steps if step[0] > 0]
    assert points_of(reading.run, 0) == points_of(finished("sft").run)
    assert reading.run.outputs.equals(alone.run.outputs)  # the answers of the search too


@pytest.mark.parametrize(
    "other", [{"seed": 21}, {"learning_rate": 1e-3}, {"params": {"epochs": 1.75}}, {"batch_size": 4}], ids=str
)
def test_search_is_not_read_from_an_sft_run_of_other_settings(settings, tmp_path, other):
    train({**settings, **other}, tmp_path, "sft", other.get("params"))
    assert 0 in {stage for stage, _ in recorded(settings, tmp_path, "soft_sro_sft").steps}


def test_search_is_not_read_from_an_unfinished_sft_run(settings, tmp_path):
    run = train(settings, tmp_path, "sft")
    (run.directory / "result.json").unlink()
    assert 0 in {stage for stage, _ in recorded(settings, tmp_path, "sro_sft").steps}


def test_sro_with_every_peak_at_the_start_reports_the_base_model(finished, settings, tmp_path, monkeypatch):
    from safetensors.torch import load

    monkeypatch.setattr(Curve, "peak", lambda self, task: 0.0)
    run = train(settings, tmp_path, "sro_sft")
    base = dict(make_model().named_parameters())
    saved = load(weights_of(run))
    assert all(torch.equal(saved[name], base[name]) for name in saved)
    assert run.best.path_epoch == 0
    assert set(run.history["stage"]) == {0}
    first = points_of(run)[0]
    right = sum(first["accuracy"][t] * first["n"][t] for t in TASKS) / sum(first["n"].values())
    assert run.best.accuracy == pytest.approx(right)


PEAKS = {"zebras": 0.5, "adding": 1.25, "mottos": 0.0}


def test_sro_trains_each_sub_dataset_up_to_its_peak_with_one_optimizer(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(Curve, "peak", lambda self, task: PEAKS[task])
    record = recorded(settings, tmp_path, "sro_sft")
    trained = [e for e in record.run.journal if e["kind"] == "roll_out"]
    assert [e["arguments"]["active"] for e in trained] == [["zebras", "adding"], ["adding"]]
    assert [e["arguments"]["epochs"] for e in trained] == [0.5, 0.75]
    assert [e["arguments"]["optimizer"] for e in trained] == [False, True]
    assert [(e["result"]["stage"], e["result"]["offset"]) for e in trained] == [(1, 0.0), (2, 0.5)]
    assert notes_of(record.run, "drop times")["peaks"] == PEAKS
    # what was really trained: 24 examples each, half an epoch of two, then three quarters of one
    assert owners_of(record, 1) == {"zebras", "adding"}
    assert owners_of(record, 2) == {"adding"}
    assert [sum(len(rows) for stage, rows in record.steps if stage == s) for s in (1, 2)] == [24, 24]
    assert record.run.history.query("stage > 0").groupby("stage")["path_epoch"].max().tolist() == [0.5, 1.25]
    assert record.run.best.path_epoch <= 1.25


def test_soft_sro_draws_in_proportion_to_the_peaks(settings, tmp_path, monkeypatch):
    peaks = {"zebras": 0.5, "adding": 1.25, "mottos": 0.25}
    monkeypatch.setattr(Curve, "peak", lambda self, task: peaks[task])
    record = recorded(settings, tmp_path, "soft_sro_sft")
    note = notes_of(record.run, "weights")
    weights = {task: peak / np.mean(list(peaks.values())) for task, peak in peaks.items()}
    assert note["peaks"] == peaks
    assert note["weights"] == pytest.approx(weights)
    assert sum(note["weights"].values()) == pytest.approx(3)
    steps = [rows for stage, rows in record.steps if stage == 1]
    total = sum(round(24 * w) for w in weights.values())
    per_epoch = -(-total // 8)
    assert len(steps) == 2 * per_epoch
    epochs = [sum(steps[k * per_epoch : (k + 1) * per_epoch], []) for k in range(2)]
    for drawn in epochs:
        for k, task in enumerate(TASKS):
            times = np.bincount([i - 24 * k for i in drawn if record.owners[i] == task], minlength=24)
            assert times.sum() == round(24 * weights[task])
            assert times.max() - times.min() <= 1
    # the remainder is another one in every epoch
    assert sorted(epochs[0]) != sorted(epochs[1])


def test_soft_sro_sub_dataset_without_a_peak_is_never_trained(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(Curve, "peak", lambda self, task: PEAKS[task])
    record = recorded(settings, tmp_path, "soft_sro_sft")
    assert owners_of(record, 0) == set(TASKS)
    assert owners_of(record, 1) == {"zebras", "adding"}


def test_soft_sro_weight_rounds_to_a_number_of_examples(tmp_path):
    trainer, _ = make_trainer(tmp_path)
    schedule = soft_sro_sft.WeightedPasses({"zebras": 0.01, "adding": 2.99, "mottos": 0.0})
    schedule.start(trainer, trainer.tasks)
    drawn = schedule.examples(0)
    assert [int((drawn // 24 == k).sum()) for k in range(3)] == [0, 72, 0]
    assert schedule.steps(0) == 9


# Continual SFT ------------------------------------------------------------------------------------------------


def test_continual_goes_from_peak_to_peak_and_reports_the_last(finished):
    run = finished("continual_sft").run
    verbs = [(e["kind"], e["arguments"]) for e in run.journal]
    budget = PARAMS["continual_sft"]["budget"]
    rolled = [a for kind, a in verbs if kind == "roll_out"]
    assert [a["active"] for a in rolled] == [[task] for task in TASKS]
    assert [(a["epochs"], a["optimizer"], a["candidate"]) for a in rolled] == [(budget, False, False)] * 3
    peaks, offset, end = {}, 0.0, None
    for k, task in enumerate(TASKS):
        points = points_of(run, k)
        curve = {point["epoch"]: point["selection"][task] for point in points}
        peaks[task] = min(e for e in curve if curve[e] == max(curve.values()))
        assert run.history.query(f"stage == {k}")["path_epoch"].min() == offset
        offset += peaks[task]
        if k:
            # it begins at the weights that the one before was rolled back to
            assert points[0]["accuracy"] == end["accuracy"]
        end = next(point for point in points if point["epoch"] == peaks[task])
    assert [(a["epoch"], a["task"]) for kind, a in verbs if kind == "roll_back"] == [(peaks[t], t) for t in TASKS]
    assert notes_of(run, "peaks")["peaks"] == peaks
    assert run.best.path_epoch == np.mean(list(peaks.values()))
    assert (run.result["best"]["stage"], run.result["best"]["epoch"]) == (2, peaks[TASKS[-1]])


@pytest.mark.parametrize("method", METHODS)
def test_reported_weights_are_those_that_were_measured(finished, method):
    """The stand-in's accuracies are a hash of the weights, so equal accuracies mean equal weights."""
    from transformers import AutoModelForCausalLM

    run = finished(method).run
    best = run.result["best"]
    point = next(p for p in points_of(run, best["stage"]) if p["epoch"] == best["epoch"])
    model = AutoModelForCausalLM.from_pretrained(run.best.path)
    measured = WeightsEvaluator(model, None, msft.load_mixture(run.config.mixture), "test").evaluate()
    assert {task: score.accuracy for task, score in measured.items()} == point["accuracy"]
    assert run.best.accuracy == pytest.approx(
        sum(score.accuracy * score.n for score in measured.values()) / sum(score.n for score in measured.values())
    )


# dropped sub-datasets -----------------------------------------------------------------------------------------


def scripted(folder, monkeypatch, table):
    """(trainer, steps): accuracies from {task: value at each call}; steps: (stage, owners of the batch) trained."""
    model = make_model()
    fake = FakeEvaluator(TASKS, lambda call, task: table[task][call] if call < len(table[task]) else 0.0, model)
    trainer, _ = make_trainer(folder, model, evaluators={"test": fake})
    base = snapshot(model)
    trainer.run.finished_sft, trainer.run.store.reference = lambda epochs: None, base
    steps, original = [], Trainer.gradients
    owner = {id(row): task for row, task in zip(trainer.rows, trainer.owners, strict=True)}

    def recording(self, rows):
        steps.append((self.stage, [owner[id(row)] for row in rows]))
        return original(self, rows)

    monkeypatch.setattr(Trainer, "gradients", recording)
    return trainer, steps


def trained_in(steps, stage):
    return [task for s, tasks in steps if s == stage for task in tasks]


def test_msft_takes_the_known_decisions_and_trains_no_dropped_sub_dataset(tmp_path, monkeypatch):
    table = {
        "zebras": [0, 0.8, 0.2],
        "adding": [0, 0.1, 0.2, 0.9, 0.0],
        "mottos": [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.0],
    }
    trainer, steps = scripted(tmp_path, monkeypatch, table)
    msft.methods.msft.run(trainer, msft.methods.msft.Params(budget=0.5))
    backs = [e["arguments"] for e in trainer.run.journal.verbs() if e["kind"] == "roll_back"]
    assert backs == [{"stage": k, "epoch": 0.25, "dropped": task} for k, task in enumerate(TASKS)]
    assert trainer.offset == 0.75
    assert [len(trained_in(steps, stage)) for stage in range(3)] == [40, 24, 16]  # 5, 3 and 2 steps of 8
    assert [set(trained_in(steps, stage)) for stage in range(3)] == [set(TASKS[k:]) for k in range(3)]
    stages = [e["arguments"] for e in trainer.run.journal.verbs() if e["kind"] == "roll_out"]
    assert [(s["active"], s["keep"]) for s in stages] == [(TASKS[k:], TASKS[k:]) for k in range(3)]


def test_sro_trains_no_dropped_sub_dataset(tmp_path, monkeypatch):
    table = {"zebras": [0, 0.1, 0.2, 0.9], "adding": [0, 0.1, 0.2, 0.3, 0.9], "mottos": [0.5, 0.1]}
    trainer, steps = scripted(tmp_path, monkeypatch, table)
    msft.methods.sro_sft.run(trainer, msft.methods.sro_sft.Params(epochs=1))
    assert [sorted(set(trained_in(steps, stage))) for stage in range(3)] == [
        sorted(TASKS),
        ["adding", "zebras"],
        ["adding"],
    ]
    # three quarters of an epoch of the two, then a quarter of one, in whole steps of 8
    assert [len(trained_in(steps, stage)) for stage in range(3)] == [72, 40, 8]
    assert {float(state["step"]) for state in trainer.optimizer.state.values()} == {6.0}  # one Adam for both parts


def test_second_training_of_sro_begins_at_the_base(tmp_path, monkeypatch):
    table = {task: [0, 0.1, 0.9] for task in TASKS}
    trainer, _ = scripted(tmp_path, monkeypatch, table)
    fake = trainer.evaluators["test"]
    started, original = [], Passes.start

    def start(self, trainer, active):
        started.append((snapshot(trainer.model), len(trainer.optimizer.state)))
        original(self, trainer, active)

    monkeypatch.setattr(Passes, "start", start)
    msft.methods.sro_sft.run(trainer, msft.methods.sro_sft.Params(epochs=0.5))
    assert len(started) == 2
    assert same_weights(started[0][0], started[1][0])
    assert [moments for _, moments in started] == [0, 0]
    assert not same_weights(fake.seen[0], fake.seen[1])
    assert same_weights(fake.seen[1], fake.seen[3])  # one order of the data in both
    assert trainer.best.stage == 1


# DynamixSFT ---------------------------------------------------------------------------------------------------


def even_examples(sizes):
    """{sub-dataset: examples}, all of 12 tokens, 8 of them in the loss."""
    rows = {}
    for k, (task, size) in enumerate(sizes.items()):
        rows[task] = [Tokens(tuple(2 + (i * 11 + j * (3 + k)) % 60 for j in range(12)), 4) for i in range(size)]
    return rows


def bandit_of(folder, sizes, **params):
    trainer, _ = make_trainer(folder, make_model(vocabulary=64), examples=even_examples(sizes), batch_size=30)
    bandit = dynamix_sft.Bandit(dynamix_sft.Params(**params))
    bandit.start(trainer, trainer.tasks)
    return bandit


def counts(bandit, epochs):
    drawn = [i for e in range(epochs) for s in range(bandit.steps(e)) for i in bandit.batch(e, s)]
    assert len(drawn) == epochs * len(bandit.indices)
    return np.bincount(drawn, minlength=len(bandit.indices))


SIZES = {"a": 66, "b": 27, "c": 7}


def test_dynamix_with_gamma_1_samples_sub_datasets_uniformly(tmp_path):
    bandit = bandit_of(tmp_path, SIZES, gamma=1.0, beta=9.0)
    assert bandit.p.tolist() == [1 / 3] * 3
    assert dynamix_sft.probabilities(np.array([0.9, 0.1, 0.4]), bandit.p0, 9.0, 1.0).tolist() == [1 / 3] * 3
    times = counts(bandit, 60)
    drawn = np.array([times[rows].sum() for rows in bandit.members])
    sigma = np.sqrt(6000 * 2 / 9)
    assert np.abs(drawn - 2000).max() < 4 * sigma
    for rows in bandit.members:  # and within one, every example alike
        mean = 2000 / len(rows)
        assert ((times[rows] - mean) ** 2 / mean).sum() < len(rows) + 5 * np.sqrt(2 * len(rows)) + 5


def test_dynamix_draws_follow_its_probabilities(tmp_path):
    bandit = bandit_of(tmp_path, SIZES, gamma=0.0, beta=0.0)
    assert bandit.p == pytest.approx([0.66, 0.27, 0.07])
    for p in (bandit.p, np.array([0.1, 0.2, 0.7])):
        bandit.p = p
        times = counts(bandit, 60)
        drawn = np.array([times[rows].sum() for rows in bandit.members])
        assert (np.abs(drawn - 6000 * p) < 4 * np.sqrt(6000 * p * (1 - p))).all()


def bandit_reference(losses, sizes, beta, gamma, smoothing):
    """The bandit in plain numpy: losses is a list over updates of a list over sub-datasets of (before, after)."""
    share = np.array(sizes) / sum(sizes)
    q, found = np.zeros(len(sizes)), []
    for update in losses:
        raw = []
        for before, after in update:
            relative = [(b - a) / (b + 1e-8) for b, a in zip(before, after, strict=True)]
            raw.append(sum(relative) / len(relative))
        low, high = min(raw), max(raw)
        reward = np.array([(r - low) / (high - low) for r in raw])
        q = smoothing * q + (1 - smoothing) * reward
        weight = np.array([share[k] * np.exp(beta * q[k]) for k in range(len(q))])
        p = (1 - gamma) * weight / weight.sum() + gamma / len(q)
        found.append((reward, q.copy(), p))
    return found


@pytest.mark.parametrize("own", [{}, {"beta": 40.0, "gamma": 0.1, "smoothing": 0.5}], ids=["default", "sharp"])
def test_dynamix_agrees_with_a_plain_reference(finished, settings, tmp_path, own):
    record = recorded(settings, tmp_path, "dynamix_sft", {**PARAMS["dynamix_sft"], **own})
    params = record.run.config.params
    looks = record.look_aheads
    assert len(looks) == 3 * params["updates"]
    updates = [[(before, after) for _, before, after in looks[k : k + 3]] for k in range(0, len(looks), 3)]
    notes = notes_of(record.run)
    wanted = bandit_reference(updates, [24] * 3, params["beta"], params["gamma"], params["smoothing"])
    assert len(notes) == len(wanted)
    for note, (reward, q, p) in zip(notes, wanted, strict=True):
        assert note["rewards"] == pytest.approx(reward, abs=1e-12)
        assert note["q"] == pytest.approx(q, abs=1e-12)
        assert note["p"] == pytest.approx(p, abs=1e-12)
        assert (min(note["rewards"]), max(note["rewards"])) == (0, 1)
    assert [note["before"] for note in notes] == [pytest.approx([np.mean(b) for b, _ in u]) for u in updates]
    assert [note["after"] for note in notes] == [pytest.approx([np.mean(a) for _, a in u]) for u in updates]
    # evenly spaced from the first step on, a batch of each sub-dataset in mixture order, nobody twice
    assert [note["step"] for note in notes] == [18 * k // params["updates"] for k in range(params["updates"])]
    assert [{record.owners[i] for i in rows} for rows, _, _ in looks] == [{t} for t in TASKS] * params["updates"]
    assert all(len(set(rows)) == params["look_ahead_batch"] == len(rows) for rows, _, _ in looks)
    assert len({tuple(rows) for rows, _, _ in looks}) == len(looks)


def test_equal_rewards_are_no_rewards():
    losses = [np.array([2.0, 1.0])] * 3
    assert dynamix_sft.rewards(losses, losses).tolist() == [0, 0, 0]
    assert dynamix_sft.rewards([np.zeros(2)], [np.zeros(2)]).tolist() == [0]


def test_probabilities_hold_for_extreme_settings():
    for q in (np.array([0.0, 1.0, 0.5]), np.zeros(3)):
        p = dynamix_sft.probabilities(q, np.array([0.98, 0.01, 0.01]), 1000.0, 0.0)
        assert p.sum() == pytest.approx(1)
        assert np.isfinite(p).all()


class Looking(Passes):
    """Full passes with look-aheads before every step, which must leave no trace."""

    def before_step(self, progress):
        trainer = self.trainer
        before = snapshot(trainer.model), copy.deepcopy(trainer.optimizer.state_dict()["state"])
        first, second = trainer.look_ahead([1, 30, 60, 2, 3])
        after = snapshot(trainer.model), trainer.optimizer.state_dict()["state"]
        assert same_weights(before[0], after[0])
        for old, new in zip(before[1].values(), after[1].values(), strict=bool(before[1])):
            assert old.keys() == new.keys()
            assert all(torch.equal(old[name], new[name]) for name in old)
        assert before[1] or not any(after[1].values())
        assert all(p.grad is None for p in trainer.model.parameters())
        self.notes.append([first, second])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_look_ahead_leaves_no_trace(tmp_path, precision):
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    ends = []
    for schedule in (Passes(), Looking()):
        model = make_model().to(dtype)
        trainer, fake = make_trainer(tmp_path / type(schedule).__name__, model, precision=precision)
        curve = trainer.roll_out(trainer.tasks, epochs=1, schedule=schedule)
        steps = [float(state["step"]) for state in trainer.optimizer.state.values()]
        ends.append((fake.seen, [point["train_loss"] for point in curve.points], steps))
    assert all(same_weights(a, b) for a, b in zip(ends[0][0], ends[1][0], strict=True))
    assert ends[0][1:] == ends[1][1:]
    assert len(schedule.notes) == 9
    assert all(first != second for first, second in schedule.notes)


def plain_losses(model, rows):
    """Mean target loss of each example, one forward pass each."""
    found = []
    for row in rows:
        logits = model(input_ids=torch.tensor([row.ids])).logits[0, row.start - 1 : -1].float()
        found.append(torch.nn.functional.cross_entropy(logits, torch.tensor(row.ids[row.start :])))
    return found


def test_look_ahead_is_one_step_of_adam_as_plain_torch_takes_it(tmp_path):
    trainer, _ = make_trainer(tmp_path, learning_rate=3e-3)
    trainer.roll_out(trainer.tasks, epochs=0.5)
    indices = [5, 3, 30, 31, 60, 70]
    rows = [trainer.rows[i] for i in indices]
    model = copy.deepcopy(trainer.model)
    adam = torch.optim.Adam(model.parameters(), lr=3e-3, betas=(0.9, 0.999), eps=1e-8)
    adam.load_state_dict(copy.deepcopy(trainer.optimizer.state_dict()))
    losses = plain_losses(model, rows)
    before = [loss.item() for loss in losses]
    summed = [loss * row.targets for loss, row in zip(losses, rows, strict=True)]
    groups = [sum(summed[a:b]) / sum(row.targets for row in rows[a:b]) for a, b in ((0, 4), (4, 6))]
    (sum(groups) / 2).backward()
    adam.step()
    with torch.no_grad():
        after = [float(loss) for loss in plain_losses(model, rows)]
    found = trainer.look_ahead(indices)
    assert found[0] == pytest.approx(before, rel=1e-5)
    assert found[1] == pytest.approx(after, rel=1e-4)
    assert np.mean(found[1]) < np.mean(found[0])


def test_look_ahead_overhead_is_the_closed_form(tmp_path):
    """(updates x K x batch x 8) / (6 x examples), exact where every example has as many tokens."""
    trainer, _ = make_trainer(tmp_path, make_model(vocabulary=64), examples=even_examples({"a": 24, "b": 16, "c": 8}))
    params = dynamix_sft.Params(epochs=2, updates=5, look_ahead_batch=8)
    dynamix_sft.run(trainer, params)
    flops = run_flops(trainer.run.journal.verbs(), 1000)
    assert flops["look_ahead"] / flops["train"] == pytest.approx((5 * 3 * 8 * 8) / (6 * 2 * 48), rel=1e-9)


def test_sub_dataset_smaller_than_the_look_ahead_batch_is_taken_whole(tmp_path):
    trainer, _ = make_trainer(tmp_path, make_model(vocabulary=64), examples=even_examples({"a": 24, "b": 3}))
    dynamix_sft.run(trainer, dynamix_sft.Params(epochs=1, updates=2, look_ahead_batch=8))
    (entry,) = trainer.run.journal.verbs()
    assert entry["result"]["look_ahead_tokens"] == 2 * (8 + 3) * 12


def test_more_look_aheads_than_steps_are_one_a_step(tmp_path):
    trainer, _ = make_trainer(tmp_path, make_model(vocabulary=64), examples=even_examples({"a": 24, "b": 8}))
    dynamix_sft.run(trainer, dynamix_sft.Params(epochs=1, updates=100, look_ahead_batch=2))
    (entry,) = trainer.run.journal.verbs()
    assert [note["step"] for note in entry["result"]["notes"]] == [0, 1, 2, 3]


def test_loss_that_is_not_finite_is_named(tmp_path):
    model = make_model()
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    trainer, _ = make_trainer(tmp_path, model)
    with pytest.raises(RunError, match="not finite"):
        dynamix_sft.run(trainer, dynamix_sft.Params(epochs=1, updates=2, look_ahead_batch=4))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_virtual_step_that_is_not_finite_is_named(tmp_path, monkeypatch, value):
    trainer, _ = make_trainer(tmp_path)
    monkeypatch.setattr(trainer, "look_ahead", lambda rows: ([2.0], [value if rows[0] < 24 else 1.0]))
    with pytest.raises(RunError, match="not finite.*zebras"):
        dynamix_sft.run(trainer, dynamix_sft.Params(epochs=1, updates=2, look_ahead_batch=4))


# IES ----------------------------------------------------------------------------------------------------------


def ies_reference(record, delta):
    """(who sat out, loss of everyone) of each epoch, from the recorded losses alone."""
    everyone, history, out, result = set(range(72)), [], set(), []
    for heard, rested in record.epochs:
        assert set(rested) == out
        assert set(heard) | set(rested) == everyone and not set(heard) & set(rested)
        result.append(sorted(out))
        history.append({**heard, **rested})
        if len(history) >= 3:
            a, b, c = history[-3:]
            out = {i for i in everyone if abs(c[i] - 2 * b[i] + a[i]) < delta}
    return result


def test_ies_excludes_whom_a_plain_reference_excludes(finished):
    record = finished("ies")
    params = PARAMS["ies"]
    assert len(record.epochs) == params["epochs"]
    wanted = ies_reference(record, params["delta"])
    notes = notes_of(record.run)
    assert [note["sat_out"] for note in notes] == wanted
    assert [(note["epoch"], note["of"]) for note in notes] == [(k + 1, 72) for k in range(params["epochs"])]
    assert not any(wanted[:3])
    assert sum(map(len, wanted[3:])) > 10
    assert all(len(rows) < 72 for rows in wanted)
    # nobody is out for good: some who sat out trained again
    assert any(set(before) - set(after) for before, after in zip(wanted[3:], wanted[4:], strict=False))


class ScriptedLosses:
    """A trainer for InstanceStops alone: 4 examples whose losses are a table [epoch][example]."""

    def __init__(self, table):
        self.table, self.epoch = np.array(table), 0
        self.owners, self.rows = ["a", "a", "b", "b"], [Tokens((1, 2, 3), 1)] * 4
        self.config, self.order_stage = msft.RunConfig(method="ies", batch_size=2), 0

    def example_losses(self, indices):
        return self.table[self.epoch][list(indices)].tolist()

    def play(self, schedule, epochs):
        """Hears `epochs` epochs; returns who was trained in each."""
        trained = []
        for _ in range(epochs):
            rows = [i for step in range(schedule.steps(self.epoch)) for i in schedule.batch(self.epoch, step)]
            schedule.hear(rows, self.table[self.epoch][rows].tolist())
            progress = Progress(epoch=self.epoch)
            schedule.end_epoch(progress)
            assert progress.forward_tokens == 3 * (4 - len(rows))
            trained.append(sorted(rows))
            self.epoch += 1
        return trained


TABLE = [  # a straight line, a bend, a line that bends later, a flat one
    [5.0, 5.0, 5.0, 1.0],
    [4.0, 3.0, 4.0, 1.0],
    [3.0, 2.0, 3.0, 1.0],
    [2.0, 1.9, 2.5, 1.0],
    [1.0, 1.8, 2.4, 1.0],
    [0.5, 1.7, 2.3, 1.0],
]
TRAINED = [[0, 1, 2, 3]] * 3 + [[1], [1, 2], []]


def instance_stops(trainer):
    schedule = ies.InstanceStops(1e-6)
    schedule.start(trainer, ["a", "b"])
    return schedule


def test_ies_example_that_sat_out_can_return():
    table = [*TABLE, [0.5, 1.7, 2.0, 1.0]]
    trainer = ScriptedLosses(table)
    trained = trainer.play(instance_stops(trainer), 7)
    # at the end of epoch 4 example 2 bends, at the end of epoch 5 it is straight to the bit or not; so is 1
    assert trained[:5] == TRAINED[:5]
    assert 0 in trained[6]  # the straight line bent in epoch 6


def test_ies_state_goes_there_and_back():
    whole = ScriptedLosses(TABLE)
    schedule = instance_stops(whole)
    trained = whole.play(schedule, 6)
    for cut in range(7):
        trainer = ScriptedLosses(TABLE)
        first = instance_stops(trainer)
        before = trainer.play(first, cut)
        plain, tensors = pack_progress(Progress(schedule=first.state()))
        assert plain["schedule"].keys() == {"notes"}  # all arrays are among the tensors
        second = instance_stops(trainer)
        second.load_state(unpack_progress(plain, load(save(tensors))).schedule)
        assert before + trainer.play(second, 6 - cut) == trained
        assert second.notes == schedule.notes
        ours, theirs = second.state(), schedule.state()
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name], equal_nan=name == "current") for name in ours)


def test_ies_with_everybody_out_goes_on_to_the_end(settings, tmp_path):
    record = recorded(settings, tmp_path, "ies", {"epochs": 5, "delta": 1e6})
    assert [len(note["sat_out"]) for note in notes_of(record.run)] == [0, 0, 0, 72, 72]
    assert len(record.steps) == 3 * 9
    points = points_of(record.run)
    assert len(points) == 21
    assert {json.dumps(point["accuracy"], sort_keys=True) for point in points[12:]} == {
        json.dumps(points[12]["accuracy"], sort_keys=True)
    }
    assert all(point["train_loss"] is None for point in points[13:])


# the journal and a kill ---------------------------------------------------------------------------------------


def test_journal_holds_what_the_figures_need(finished):
    out = [len(note["sat_out"]) / note["of"] for note in notes_of(finished("ies").run)]
    assert len(out) == PARAMS["ies"]["epochs"]
    for note in notes_of(finished("dynamix_sft").run):
        assert {"step", "rewards", "q", "p", "before", "after"} <= set(note)
        assert all(len(note[key]) == 3 for key in ("rewards", "q", "p", "before", "after"))
    assert set(notes_of(finished("continual_sft").run, "peaks")["peaks"]) == set(TASKS)
    peaks = notes_of(finished("sro_sft").run, "drop times")["peaks"]
    weights = notes_of(finished("soft_sro_sft").run, "weights")
    assert weights["peaks"] == peaks
    assert set(weights["weights"]) == set(TASKS)
    search = Curve(0, 0.0, points_of(finished("sft").run))
    assert peaks == {task: search.peak(task) for task in TASKS}
    journal = finished("msft").run.journal
    stages = [e for e in journal if e["kind"] == "roll_out"]
    backs = {e["arguments"]["stage"]: e["arguments"] for e in journal if e["kind"] == "roll_back"}
    active, offset = list(TASKS), 0.0
    for stage in stages:
        assert stage["arguments"]["active"] == active
        assert stage["result"]["offset"] == offset
        curve = Curve(stage["result"]["stage"], offset, stage["result"]["points"])
        found = msft.methods.msft.earliest_overfit(curve, active)
        back = backs.get(curve.stage)
        assert found == (back and (back["dropped"], back["epoch"]))
        offset += back["epoch"] if back else PARAMS["msft"]["budget"]
        if back:
            active.remove(back["dropped"])
    assert not active or len(stages) == 2 * len(TASKS)


class Killed(Exception):
    pass


@pytest.mark.parametrize("kills", [(0.25, 0.5), (0.8, 0.1)], ids=["early", "late"])
@pytest.mark.parametrize("method", METHODS)
def test_killed_run_ends_as_if_it_never_was(finished, settings, tmp_path, monkeypatch, method, kills):
    """Killed at a step, or in the midst of a look-ahead; every step before was saved."""
    record, original, calls = finished(method), Trainer.gradients, []

    def deadly(self, rows):
        calls.append(1)
        if len(calls) == count:
            raise Killed
        return original(self, rows)

    monkeypatch.setattr(Trainer, "gradients", deadly)
    own = {**settings, **ALWAYS, "keep_peaks": "disk"}
    for share in kills:
        count = max(1, round(share * (len(record.steps) + len(record.look_aheads))))
        calls.clear()
        with pytest.raises(Killed):
            train(own, tmp_path, method)
        assert Run(next(tmp_path.iterdir())).status == "unfinished"
    count = 0
    run = train(own, tmp_path, method)
    whole = record.run
    assert_equal_runs(run, whole)
    assert [e["arguments"] for e in run.journal] == [e["arguments"] for e in whole.journal]
    assert [e["result"].get("notes") for e in run.journal] == [e["result"].get("notes") for e in whole.journal]


@pytest.mark.parametrize("method", METHODS)
def test_equal_settings_give_equal_runs_and_another_seed_does_not(finished, settings, tmp_path, method):
    whole = finished(method).run
    assert_equal_runs(train(settings, tmp_path, method), whole)
    other = train({**settings, "seed": 21}, tmp_path, method)
    assert not other.history.equals(whole.history)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_on_a_gpu(settings, tmp_path, method):
    run = train({**settings, "device": "cuda"}, tmp_path, method, PARAMS[method])
    assert run.status == "finished"


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_the_embedded_smoke_mixture(shared_runs_dir, method):
    """With the real evaluator."""
    assert evaluation.Evaluator is not WeightsEvaluator
    params = {"dynamix_sft": {"updates": 2, "look_ahead_batch": 2}}.get(method, {})
    params |= {"budget": 0.25} if method in ("msft", "continual_sft") else {"epochs": 0.5}
    config = msft.RunConfig(method=method, model="tiny-smoke", mixture="tiny-smoke", params=params)
    run = msft.run(config, shared_runs_dir, progress=False)
    assert 0 <= run.best.accuracy <= 1
    digest = hashlib.sha256(weights_of(run)).hexdigest()
    assert len(digest) == 64 and run.flops["train"] >= 0
