"""The trainer's verbs: what is trained, what is put back, what a failure says, what must not change a result."""

import numpy as np
import pytest
import torch
from helpers import MAKERS, FakeEvaluator, make_model, make_trainer

import msft
from msft.errors import Interrupted, RunError, Stopped
from msft.loss import losses
from msft.loss.tokens import Tokens
from msft.schedules import Passes
from msft.store.checkpoints import snapshot


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def fixed_model():
    """A model whose weights come from a formula, not from a generator that a release may change."""
    model = make_model(vocabulary=64)
    with torch.no_grad():
        for k, parameter in enumerate(model.parameters()):
            wave = torch.sin(torch.arange(parameter.numel(), dtype=torch.float64) * (1.7 + k))
            parameter.copy_(0.2 * wave.view_as(parameter).float() + float(parameter.dim() == 1))
    return model


def fixed_examples():
    """Token ids from a formula: three sub-datasets of lengths 5 to 24."""
    examples = {}
    for t, task in enumerate(("b", "c", "a")):
        lengths = [5 + (7 * i + 3 * t) % 20 for i in range(13)]
        examples[task] = [
            Tokens(tuple(2 + (i * 11 + j * (3 + t)) % 60 for j in range(n)), 1 + i % 4) for i, n in enumerate(lengths)
        ]
    return examples


def losses_of(folder, **settings):
    trainer, _ = make_trainer(folder, fixed_model(), examples=fixed_examples(), **settings)
    curve = trainer.roll_out(trainer.tasks, epochs=2)
    return [point["train_loss"] for point in curve.points[1:]]


TRAJECTORY = [5.007755, 4.7361879, 4.3755994, 4.2430148, 4.158567, 4.1624274, 4.1761165, 4.1684508]


@pytest.mark.parametrize("token_budget", [16, 100, 16384])
def test_trajectory_does_not_depend_on_how_a_step_is_split(tmp_path, token_budget):
    assert losses_of(tmp_path, token_budget=token_budget) == pytest.approx(TRAJECTORY, abs=1e-5)


def test_trajectory_depends_on_what_it_should(tmp_path):
    for name, setting in {"seed": 21, "loss_group": 8, "learning_rate": 2e-3, "batch_size": 4}.items():
        assert losses_of(tmp_path / name, **{name: setting}) != pytest.approx(TRAJECTORY, abs=1e-5)


@pytest.mark.parametrize("quarters", [1, 4])
def test_the_loss_of_a_sub_dataset_is_that_of_its_own_examples(tmp_path, quarters):
    # a rate at which no weight changes: the losses of an epoch are those of the model as it stands
    settings = {"learning_rate": 1e-30, "evaluations_per_epoch": quarters}
    trainer, _ = make_trainer(tmp_path, fixed_model(), examples=fixed_examples(), **settings)
    owned = {task: [i for i, owner in enumerate(trainer.owners) if owner == task] for task in ("b", "c")}
    expected = {}  # the mean over the target tokens of its examples
    for task, indices in owned.items():
        sizes = [trainer.rows[i].targets for i in indices]
        losses = trainer.example_losses(indices)
        expected[task] = sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes)
    points = trainer.roll_out(["b", "c"], epochs=1).points
    assert points[0]["train_losses"] == {}
    for point in points[1:]:
        assert set(point["train_losses"]) <= {"b", "c"}  # what is not trained has none
    if quarters == 1:
        assert points[1]["train_losses"] == pytest.approx(expected, rel=1e-5)
    else:
        for task, loss in expected.items():
            own = [point["train_losses"][task] for point in points[1:] if task in point["train_losses"]]
            assert min(own) <= loss <= max(own)


def test_loss_decreases(tmp_path):
    trainer, _ = make_trainer(tmp_path, learning_rate=3e-3)
    curve = trainer.roll_out(trainer.tasks, epochs=4)
    losses = [point["train_loss"] for point in curve.points]
    assert losses[0] is None
    assert losses[-1] < 0.5 * losses[1]
    assert list(curve) == [k / 4 for k in range(17)]


def test_bf16_trains_on_a_cpu(tmp_path):
    model = make_model().to(torch.bfloat16)
    trainer, _ = make_trainer(tmp_path, model, precision="bf16", learning_rate=3e-3)
    losses = [point["train_loss"] for point in trainer.roll_out(trainer.tasks, epochs=2).points[1:]]
    assert losses[-1] < losses[0]
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    moments = [s["exp_avg"].dtype for s in trainer.optimizer.state.values()]
    assert set(moments) == {torch.bfloat16}


def test_mixed_precision_keeps_weights_and_moments_in_full(tmp_path):
    model = make_model()
    trainer, _ = make_trainer(tmp_path, model, precision="mixed", learning_rate=3e-3)
    losses = [point["train_loss"] for point in trainer.roll_out(trainer.tasks, epochs=2).points[1:]]
    assert losses[-1] < losses[0]
    states = [s["exp_avg"] for s in trainer.optimizer.state.values()]
    assert {x.dtype for x in [*model.parameters(), *states]} == {torch.float32}
    plain, _ = make_trainer(tmp_path / "plain", make_model(), precision="fp32", learning_rate=3e-3)
    exact = [point["train_loss"] for point in plain.roll_out(plain.tasks, epochs=2).points[1:]]
    assert losses == pytest.approx(exact, rel=0.05) and losses != exact


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"precision": "mixed"}, torch.bfloat16),
        ({"precision": "mixed", "eval_precision": "fp32"}, torch.float32),
        ({"precision": "fp32"}, torch.float32),
        ({"precision": "fp32", "eval_precision": "bf16"}, torch.bfloat16),
    ],
)
def test_answers_have_their_own_precision_and_training_never_sees_it(tmp_path, settings, wanted):
    model = make_model()
    fake = FakeEvaluator(MAKERS, model=model)
    trainer, _ = make_trainer(tmp_path / "a", model, evaluators={"test": fake}, **settings)
    trainer.roll_out(trainer.tasks, epochs=1)
    assert len(fake.seen) == 5 and {x.dtype for seen in fake.seen for x in seen.values()} == {wanted}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert same(fake.seen[-1], {name: x.to(wanted) for name, x in snapshot(model).items()})
    other = make_model()
    trainer, _ = make_trainer(tmp_path / "b", other, **settings | {"eval_precision": "fp32"})
    trainer.roll_out(trainer.tasks, epochs=1)
    assert same(snapshot(model), snapshot(other))


def test_an_evaluation_that_is_stopped_leaves_the_weights_whole(tmp_path):
    def stop(call, task):
        if call:
            raise Stopped("asked to")
        return 0.5

    model = make_model()
    evaluators = {"test": FakeEvaluator(MAKERS, stop, model)}
    trainer, _ = make_trainer(tmp_path, model, evaluators=evaluators, precision="mixed")
    with pytest.raises(Interrupted):
        trainer.roll_out(trainer.tasks, epochs=1)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_packed_and_padded_rows_give_the_same_losses(tmp_path):
    rows = fixed_examples()["a"]
    losses = {}
    for path in ("packed", "padded: as asked"):
        trainer, _ = make_trainer(tmp_path / path[:6], fixed_model(), examples={"a": rows})
        assert trainer.losses.path == "packed"
        trainer.losses.path = path
        losses[path] = trainer.example_losses(range(len(rows)))
    assert losses["packed"] == pytest.approx(losses["padded: as asked"], abs=1e-6)


# what is trained ----------------------------------------------------------------------------------------------


def record_batches(monkeypatch):
    trained = []
    original = losses.TokenLosses.gradients

    def recording(self, rows):
        trained.append(list(rows))
        return original(self, rows)

    monkeypatch.setattr(losses.TokenLosses, "gradients", recording)
    return trained


def test_an_epoch_trains_every_active_example_once_and_no_other(tmp_path, monkeypatch):
    trainer, _ = make_trainer(tmp_path)
    trained = record_batches(monkeypatch)
    trainer.roll_out(["mottos", "zebras"], epochs=2)
    assert [len(step) for step in trained] == [8] * 12
    wanted = sorted(r.ids for r, owner in zip(trainer.rows, trainer.owners, strict=True) if owner != "adding")
    for epoch in (trained[:6], trained[6:]):
        assert sorted(row.ids for step in epoch for row in step) == wanted
    assert trained[:6] != trained[6:]


def test_last_step_is_partial_and_part_epochs_end_early(tmp_path, monkeypatch):
    trainer, _ = make_trainer(tmp_path, batch_size=10)
    trained = record_batches(monkeypatch)
    trainer.roll_out(trainer.tasks, epochs=1)
    assert [len(step) for step in trained] == [10] * 7 + [2]
    trained.clear()
    trainer.roll_out(trainer.tasks, epochs=1.25)
    assert [len(step) for step in trained] == [10] * 7 + [2] + [10] * 2


def test_excluded_sub_dataset_contributes_no_gradient(tmp_path):
    """A token that only 'mottos' has keeps its weights, bit for bit, while 'mottos' is excluded."""
    examples = {"a": [Tokens((2, 3, 4), 1)] * 8, "b": [Tokens((2, 3, 50), 1)] * 8}
    model = make_model(vocabulary=64)
    before = model.get_input_embeddings().weight.detach().clone()
    trainer, _ = make_trainer(tmp_path, model, examples=examples, batch_size=4)
    trainer.roll_out(["a"], epochs=1)
    after = model.get_input_embeddings().weight.detach()
    assert torch.equal(before[50], after[50])
    assert not torch.equal(before[3], after[3])


def test_more_evaluations_than_steps(tmp_path):
    trainer, _ = make_trainer(tmp_path, batch_size=64)
    curve = trainer.roll_out(["adding"], epochs=1)
    assert list(curve) == [0, 0.25, 0.5, 0.75, 1]
    assert [point["train_loss"] is None for point in curve.points] == [True, False, True, True, True]


@pytest.mark.parametrize("active", [[], ["adding", "no_such"]])
def test_what_is_to_be_trained_must_be_there(tmp_path, active):
    trainer, _ = make_trainer(tmp_path)
    with pytest.raises(RunError, match=r"roll_out: active = \[.*\]; give one or more of: .*adding"):
        trainer.roll_out(active, 1.0)


def test_kept_ones_must_be_there_and_arguments_must_fit_a_record_before_anything_is_trained(tmp_path):
    trainer, _ = make_trainer(tmp_path)
    with pytest.raises(RunError, match=r"keep = \['no_such'\]; give one or more of: .*adding"):
        trainer.roll_out(trainer.tasks, 1.0, keep=["no_such"])
    with pytest.raises(RunError, match=r"roll_out: Object of type float32 is not JSON .*such as float\(epochs\)"):
        trainer.roll_out(trainer.tasks, np.float32(0.25))
    assert trainer.stage == 0 and trainer.here is None
    assert set(trainer.roll_out(iter(trainer.tasks), 0.25)) == {0.0, 0.25}


@pytest.mark.parametrize("epochs", [0, 0.1, 0.3, 1.1, float("inf"), float("nan"), "1", None])
def test_epochs_off_the_evaluation_grid_are_refused(tmp_path, epochs):
    trainer, _ = make_trainer(tmp_path)
    with pytest.raises(RunError, match="no multiple of 1/4"):
        trainer.roll_out(trainer.tasks, epochs=epochs)


# the optimizer and the way back -------------------------------------------------------------------------------


class Watching(Passes):
    """Notes Adam's state at the first step of a roll-out."""

    def before_step(self, progress):
        if progress.step == 0 and progress.epoch == 0:
            state = self.trainer.optimizer.state_dict()["state"]
            self.notes.append({"moments": len(state), "steps": [float(s["step"]) for s in state.values()][:1]})


def test_a_stage_starts_with_a_fresh_optimizer_unless_told_to_keep_it(tmp_path):
    trainer, _ = make_trainer(tmp_path)
    seen = []
    for keep in (False, False, True):
        schedule = Watching()
        trainer.roll_out(trainer.tasks, epochs=1, schedule=schedule, keep_optimizer=keep)
        seen += schedule.notes
    assert [note["moments"] for note in seen[:2]] == [0, 0]
    assert seen[2]["moments"] > 0
    assert seen[2]["steps"] == [9.0]


def rise_and_fall(peaks):
    """Accuracies that peak at an evaluation of one's own: {task: number of the evaluation}."""
    return lambda call, task: 1 - abs(call - peaks[task]) / 10


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_roll_back_puts_the_very_weights_back(tmp_path, where):
    model = make_model()
    fake = FakeEvaluator(MAKERS, rise_and_fall({"zebras": 1, "adding": 3, "mottos": 0}), model)
    trainer, _ = make_trainer(tmp_path, model, evaluators={"test": fake}, keep_peaks=where)
    curve = trainer.roll_out(trainer.tasks, epochs=1, keep=trainer.tasks)
    assert [curve.peak(task) for task in trainer.tasks] == [0.25, 0.75, 0.0]
    for call, epoch in ((3, 0.75), (1, 0.25), (0, 0.0)):
        trainer.roll_back(curve, epoch, dropped="adding")
        assert same(snapshot(model), fake.seen[call])
        assert trainer.offset == epoch
    with pytest.raises(RunError, match=r"no weights were kept at epoch 0\.5"):
        trainer.roll_back(curve, 0.5)


def test_a_stage_after_a_roll_back_starts_there_and_does_not_measure_it_again(tmp_path):
    model = make_model()
    fake = FakeEvaluator(MAKERS, rise_and_fall({"zebras": 1, "adding": 3, "mottos": 4}), model)
    trainer, _ = make_trainer(tmp_path, model, evaluators={"test": fake})
    first = trainer.roll_out(trainer.tasks, epochs=1, keep=trainer.tasks)
    trainer.roll_back(first, 0.25, dropped="zebras")
    calls = len(fake.seen)
    second = trainer.roll_out(["adding", "mottos"], epochs=0.5, keep=["adding", "mottos"])
    assert len(fake.seen) == calls + 2
    assert second[0.0] == first[0.25]
    assert (second.stage, second.offset) == (1, 0.25)
    trainer.roll_back(second, 0.0)
    assert same(snapshot(model), fake.seen[1])


def test_best_is_the_first_of_the_highest(tmp_path):
    model = make_model()
    values = [0.1, 0.6, 0.6, 0.2, 0.6]
    fake = FakeEvaluator(MAKERS, lambda call, task: values[call], model)
    trainer, _ = make_trainer(tmp_path, model, evaluators={"test": fake})
    trainer.roll_out(trainer.tasks, epochs=1)
    assert (trainer.best.accuracy, trainer.best.path_epoch) == (pytest.approx(0.6), 0.25)
    assert same(trainer.durable.best_weights, fake.seen[1])


def test_no_candidate_from_a_search(tmp_path):
    model = make_model()
    fake = FakeEvaluator(MAKERS, lambda call, task: 0.9 if call < 5 else 0.3, model)
    trainer, _ = make_trainer(tmp_path, model, evaluators={"test": fake})
    trainer.roll_out(trainer.tasks, epochs=1, candidate=False)
    assert trainer.durable.best_weights is None
    trainer.roll_out(trainer.tasks, epochs=0.25)
    assert trainer.best.accuracy in (pytest.approx(0.9), pytest.approx(0.3))


def test_a_method_that_leaves_no_candidate_is_told_how_to(tmp_path):
    trainer, _ = make_trainer(tmp_path)
    trainer.roll_out(trainer.tasks, epochs=0.25, candidate=False)
    with pytest.raises(RunError, match="no checkpoint to report: let a roll_out have candidate=True, or call"):
        trainer.durable.finish()


def test_report_makes_the_current_weights_the_result(tmp_path):
    model = make_model()
    fake = FakeEvaluator(MAKERS, lambda call, task: 1 - call / 10, model)
    trainer, _ = make_trainer(tmp_path, model, evaluators={"test": fake})
    trainer.roll_out(trainer.tasks, epochs=0.5)
    trainer.report(path_epoch=0.5)
    assert same(trainer.durable.best_weights, fake.seen[2])
    assert trainer.best.accuracy == pytest.approx(0.8)
    assert trainer.best.path_epoch == 0.5


# decisions on validation --------------------------------------------------------------------------------------


def test_decisions_are_taken_on_validation_and_the_test_accuracy_is_reported(tmp_path):
    model = make_model()
    test = FakeEvaluator(MAKERS, lambda call, task: call / 10, model)
    validation = FakeEvaluator(MAKERS, lambda call, task: [0.2, 0.7, 0.1, 0.3, 0.4][call], model)
    evaluators = {"test": test, "validation": validation}
    trainer, _ = make_trainer(tmp_path, model, evaluators=evaluators, select_on="validation")
    curve = trainer.roll_out(trainer.tasks, epochs=1, keep=trainer.tasks)
    assert msft.methods.msft.earliest_overfit(curve, trainer.tasks) == ("zebras", 0.25)
    assert (trainer.best.selection, trainer.best.accuracy) == (pytest.approx(0.7), pytest.approx(0.1))
    assert same(trainer.durable.best_weights, validation.seen[1])
    trainer.roll_back(curve, 0.25)
    assert same(snapshot(model), test.seen[1])


# failures -----------------------------------------------------------------------------------------------------


def test_loss_that_is_not_finite_names_stage_step_and_sub_dataset(tmp_path):
    examples = {"a": [Tokens((2, 3, 4), 1)] * 16, "b": [Tokens((2, 3, 50), 1)] * 4}
    model = make_model(vocabulary=64)
    trainer, _ = make_trainer(tmp_path, model, examples=examples, batch_size=4)
    trainer.roll_out(["a"], epochs=1)
    with torch.no_grad():
        model.get_input_embeddings().weight[3] = float("nan")
    with pytest.raises(RunError, match=r"stage 1, step 0 .*in a;"):
        trainer.roll_out(["a"], epochs=1)


def test_only_the_sub_dataset_with_the_bad_loss_is_named(tmp_path):
    examples = {"good": [Tokens((2, 3, 4), 1)] * 12, "bad": [Tokens((5, 6, 7), 2)]}
    model = make_model(vocabulary=64)
    with torch.no_grad():
        model.get_input_embeddings().weight[6] = float("inf")
    trainer, _ = make_trainer(tmp_path, model, examples=examples, batch_size=4)
    place = Passes()
    place.start(trainer, trainer.tasks)
    step = next(s for s in range(place.steps(0)) if 12 in place.batch(0, s))
    with pytest.raises(RunError, match=rf"stage 0, step {step} .*in bad; .*learning_rate"):
        trainer.roll_out(trainer.tasks, epochs=1)


def test_poisoned_weight_leaves_nothing_in_the_journal(tmp_path):
    model = make_model()
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    trainer, _ = make_trainer(tmp_path, model)
    with pytest.raises(RunError, match="not finite"):
        trainer.roll_out(trainer.tasks, epochs=0.25)
    assert not (tmp_path / "journal.jsonl").exists()


# whole runs ---------------------------------------------------------------------------------------------------


def test_equal_settings_give_equal_histories(small_run, small_settings, runs_dir):
    again = msft.run(msft.RunConfig(**small_settings), runs_dir, progress=False)
    assert again.directory.name == small_run.directory.name
    assert again.history.equals(small_run.history)
    for file in ("history.csv", "best/model.safetensors"):
        assert (again.directory / file).read_bytes() == (small_run.directory / file).read_bytes()
    assert again.flops == small_run.flops


def test_token_budget_of_a_whole_run(small_run, small_settings, runs_dir):
    other = msft.run(msft.RunConfig(**small_settings, token_budget=64), runs_dir, progress=False)
    ours, theirs = other.history["train_loss"].dropna(), small_run.history["train_loss"].dropna()
    assert ours.tolist() == pytest.approx(theirs.tolist(), abs=1e-5)


def test_validation_decides_in_a_whole_run(small_settings, runs_dir):
    settings = {**small_settings, "select_on": "validation", "params": {"epochs": 0.5}}
    run = msft.run(msft.RunConfig(**settings), runs_dir, progress=False)
    points = run.journal[0]["result"]["points"]
    assert all(set(point["selection"]) == set(point["accuracy"]) == set(MAKERS) for point in points)
    assert set(run.outputs["part"]) == {"test", "validation"}
    sizes = run.outputs.groupby(["part", "task"])["item"].nunique()
    assert sizes["validation"].unique().tolist() == [4]
    # every validation set has four items, so that all weigh the same, whatever the test sets' sizes
    assert run.result["best"]["selection"] == pytest.approx(run.history.groupby("epoch")["selection"].mean().max())


def test_a_validation_set_counts_by_its_own_sizes():
    from msft.store.state import best_of

    point = {"selection": {"a": 1.0, "b": 0.0}, "selected_from": {"a": 3, "b": 1}}
    point |= {"accuracy": {"a": 0.5, "b": 0.0}, "n": {"a": 2, "b": 2}, "epoch": 0.25}
    best = best_of(point, stage=0, path_epoch=0.25)
    assert (best.selection, best.accuracy) == (0.75, 0.25)
