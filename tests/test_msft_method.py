"""mSFT's decisions: the earliest peak, ties, stages that drop nobody, the stage cap, the way back."""

import random

import pytest

from msft.methods import msft as method
from msft.store.curve import Curve


def brute_force(curve, active):
    """Algorithm 1, lines 4 to 7, by search: the first evaluation at which an active sub-dataset has its highest value."""
    epochs = sorted(curve)
    for epoch in epochs[:-1]:
        for task in active:
            if all(curve[other][task] <= curve[epoch][task] for other in epochs):
                return task, epoch
    return None


def random_curve(rng, tasks):
    epochs = [k / 4 for k in range(rng.randint(2, 13))]
    levels = rng.choice([1, 2, 3, 200])
    zeros = {task for task in tasks if rng.random() < 0.1}
    points = [(e, {t: 0.0 if t in zeros else rng.randint(0, levels) / levels for t in tasks}) for e in epochs]
    rng.shuffle(points)
    return dict(points)


def test_earliest_overfit_agrees_with_brute_force():
    rng, found = random.Random(0), []
    for _ in range(5000):
        tasks = [f"t{i}" for i in range(rng.randint(1, 6))]
        curve = random_curve(rng, tasks)
        active = rng.sample(tasks, rng.randint(1, len(tasks)))
        result = method.earliest_overfit(curve, active)
        assert result == brute_force(curve, active)
        found.append(result)
    assert found.count(None) > 100
    assert sum(r is not None and r[1] > 0 for r in found) > 100


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"a": [0, 1, 2], "b": [0, 1, 2]}, None),
        ({"a": [0, 0, 0], "b": [0, 1, 2]}, ("a", 0.0)),
        ({"a": [1, 1, 1], "b": [1, 1, 1]}, ("a", 0.0)),
        ({"b": [0, 1, 1], "a": [0, 1, 0]}, ("b", 0.25)),
        ({"a": [0, 1, 2], "b": [2, 1, 0]}, ("b", 0.0)),
        ({"a": [0, 2, 2], "b": [0, 1, 2]}, ("a", 0.25)),
        ({"a": [0, 1, 2], "b": [0, 0, 1]}, None),
    ],
)
def test_earliest_overfit_known_curves(values, expected):
    curve = {k / 4: {task: row[k] / 2 for task, row in values.items()} for k in range(3)}
    assert method.earliest_overfit(curve, list(values)) == expected


def test_earliest_overfit_ignores_excluded():
    curve = {0.0: {"a": 1.0, "b": 0.0}, 0.25: {"a": 0.0, "b": 1.0}}
    assert method.earliest_overfit(curve, ["a", "b"]) == ("a", 0.0)
    assert method.earliest_overfit(curve, ["b"]) is None


class OracleTrainer:
    """Answers every roll-out from a list of curves and records what is asked of it."""

    def __init__(self, tasks, curves):
        self.tasks, self.curves, self.stage, self.offset, self.calls = tasks, curves, 0, 0.0, []

    def roll_out(self, active, epochs, **options):
        self.calls.append(("roll_out", list(active), epochs, list(options["keep"])))
        values = self.curves[self.stage]
        size = len(next(iter(values.values())))
        rows = [{t: values[t][k] if t in values else 0.0 for t in self.tasks} for k in range(size)]
        points = [{"epoch": k * epochs / (size - 1), "selection": row} for k, row in enumerate(rows)]
        curve = Curve(self.stage, self.offset, points)
        self.stage, self.offset = self.stage + 1, self.offset + epochs
        return curve

    def roll_back(self, curve, epoch, **why):
        self.calls.append(("roll_back", curve.stage, epoch, why["dropped"]))
        self.offset = curve.offset + epoch


def decisions(trainer, **params):
    method.run(trainer, method.Params(**params))
    return [call for call in trainer.calls if call[0] == "roll_back"]


def test_stages_drop_one_each_in_the_order_of_their_peaks():
    curves = [
        {"a": [0, 1, 2], "b": [0, 2, 1], "c": [0, 1, 1]},  # b and c peak together: mixture order
        {"a": [0, 1, 2], "c": [1, 0, 0]},
        {"a": [0, 2, 1]},
    ]
    trainer = OracleTrainer(["a", "b", "c"], curves)
    assert decisions(trainer, budget=0.5) == [
        ("roll_back", 0, 0.25, "b"),
        ("roll_back", 1, 0.0, "c"),
        ("roll_back", 2, 0.25, "a"),
    ]
    assert [call[1] for call in trainer.calls if call[0] == "roll_out"] == [["a", "b", "c"], ["a", "c"], ["a"]]
    assert all(call[2] == 0.5 and call[1] == call[3] for call in trainer.calls if call[0] == "roll_out")
    assert trainer.offset == 0.5


def test_stage_without_overfitting_drops_nobody_and_goes_on():
    rising = {"a": [0, 1, 2], "b": [0, 1, 2]}
    trainer = OracleTrainer(["a", "b"], [rising, rising, {"a": [0, 2, 1], "b": [0, 1, 2]}, {"b": [0, 1, 0]}])
    assert decisions(trainer, budget=1.0) == [("roll_back", 2, 0.5, "a"), ("roll_back", 3, 0.5, "b")]
    assert trainer.offset == 1.0 + 1.0 + 0.5 + 0.5


@pytest.mark.parametrize(("max_stages", "expected"), [(0, 4), (1, 1), (3, 3)])
def test_stage_cap(max_stages, expected):
    trainer = OracleTrainer(["a", "b"], [{"a": [0, 1], "b": [0, 1]}] * 9)
    assert decisions(trainer, budget=1.0, max_stages=max_stages) == []
    assert trainer.stage == expected


def test_drops_count_as_stages_too():
    trainer = OracleTrainer(["a", "b"], [{"a": [1, 0], "b": [0, 1]}] + [{"b": [0, 1]}] * 9)
    assert decisions(trainer, budget=1.0) == [("roll_back", 0, 0.0, "a")]
    assert trainer.stage == 4
