"""Differences with their intervals worked out by hand, and the sentence that says them."""

import numpy as np
import pandas as pd
import pytest
from figure_runs import fake_run as run_of
from figure_runs import msft_run, roll_out
from test_main_results import TASKS, fake_run

from paper_figures import findings


def with_outputs(run, correct):
    """The run with its generated answers: {epoch: [items] of 0 and 1}, the same for every sub-dataset."""
    rows = [
        {"stage": 0, "epoch": epoch, "part": part, "task": task, "item": item, "correct": bool(right)}
        for epoch, answers in correct.items()
        for task in TASKS
        # written in any order; only the test part counts
        for item, right in reversed(list(enumerate(answers)))
        for part in ("test", "validation")
    ]
    run.outputs = pd.DataFrame(rows)
    run.outputs.loc[run.outputs.part == "validation", "correct"] = False
    return run


def test_items_are_paired_at_the_best_checkpoints():
    runs = {
        ("sft", 20): with_outputs(fake_run("sft", (0.5,) * 4, 1.0), {0.5: [1, 1, 1], 1.0: [1, 0, 0]}),
        ("msft", 20): with_outputs(fake_run("msft", (0.5,) * 4, 2.0), {1.0: [0, 0, 0], 2.0: [0, 1, 0]}),
    }
    correct = {method: findings.correct_at_best(run) for (method, _), run in runs.items()}
    differences = findings.item_differences([(correct["msft"], correct["sft"])])
    assert list(differences) == list(TASKS)
    assert all([values.tolist() for values in rows] == [[-1, 1, 0]] for rows in differences.values())
    gain = findings.difference([(runs["msft", 20], runs["sft", 20])], draws=500)
    assert (gain.points, gain.pairs, gain.items) == (0, 1, 12)
    assert gain.low < 0 < gain.high and not gain.is_shown
    assert gain.span == (0, gain.low, gain.high)


def test_the_base_model_is_the_run_before_training():
    run = fake_run("sft", (0.5,) * 4, base=(0.1, 0.2, 0.0, 0.4))
    assert [items.sum() for items in findings.correct_at_base(run).values()] == [10, 20, 0, 40]


def test_a_run_that_ends_where_its_last_stage_began_has_the_answers_of_the_point_before():
    run = msft_run(best=(1, 0.0))  # as Continual SFT reports it; its start is epoch 0.25 of the stage before
    run.outputs = run.outputs[(run.outputs.stage == 0) | (run.outputs.epoch > 0)]
    correct = findings.correct_at_best(run)
    assert {task: items.sum() for task, items in correct.items()} == {"a": 5, "b": 3}


def test_a_run_that_reports_its_restart_after_a_search_has_the_answers_of_the_base_model():
    search = {**roll_out(0, 0.0, [(0.0, (0.2, 0.4), None), (0.25, (0.9, 0.9), 1.0)]), "kind": "search"}
    run = run_of(
        "soft_sro_sft", [search, roll_out(1, 0.0, [(0.0, (0.2, 0.4), None), (0.25, (0.1, 0.1), 1.0)])], (1, 0.0)
    )
    run.outputs = run.outputs[(run.outputs.stage == 0) | (run.outputs.epoch > 0)]  # a start is not answered again
    assert {task: list(right) for task, right in findings.correct_at_best(run).items()} == {
        task: list(right) for task, right in findings.correct_at_base(run).items()
    }
    assert [right.mean() for right in findings.correct_at_best(run).values()] == pytest.approx([0.2, 0.4])


def test_a_gain_that_no_item_or_run_moves_has_no_width():
    intervals = findings.bootstrap({"p": np.ones((3, 8), int), "q": np.zeros((3, 5), int)}, draws=200)
    assert intervals.items == pytest.approx((50, 50))
    assert intervals.items_and_runs == pytest.approx((50, 50))


def test_runs_widen_the_second_interval_alone():
    # every item of a run alike: drawing items changes nothing
    values = np.repeat([[0], [1], [-1]], 8, axis=1)
    intervals = findings.bootstrap({"p": values}, draws=2000)
    assert intervals.items == pytest.approx((0, 0))
    # three equal draws happen with probability 1/27 each, more than 2.5 %
    assert intervals.items_and_runs == pytest.approx((-100, 100))


def test_the_items_interval_has_the_width_of_the_normal_theory():
    rng = np.random.default_rng(3)
    values = np.repeat(rng.integers(-1, 2, size=(1, 400)), 3, axis=0)
    low, high = findings.bootstrap({"p": values}, draws=4000).items
    # the same items under every seed: three seeds are no more evidence than one
    expected = 2 * 1.96 * 100 * values[0].std() / 400**0.5
    assert high - low == pytest.approx(expected, rel=0.06)
    assert (low + high) / 2 == pytest.approx(100 * values.mean(), abs=0.5)


def test_the_bootstrap_is_seeded():
    values = {"p": np.random.default_rng(0).integers(-1, 2, size=(3, 30))}
    assert findings.bootstrap(values, draws=100) == findings.bootstrap(values, draws=100)
    assert findings.bootstrap(values, draws=100) != findings.bootstrap(values, draws=100, seed=1)


def test_pairs_with_other_numbers_of_items_are_drawn_apart():
    values = {"p": [np.array([1, 0, 0, -1]), np.array([1, 1])], "q": [np.zeros(4, int), np.zeros(3, int)]}
    intervals = findings.bootstrap(values, draws=500)
    # the second pair is 50 points ahead whatever is drawn, the first up to 50 either way
    assert 0 <= intervals.items[0] < 25 < intervals.items[1] <= 50


@pytest.mark.parametrize(
    ("points", "low", "high", "words"),
    [
        (2.0, 0.5, 3.5, "is ahead of SFT by 2.0 points (n = 1 pair of runs, 9 test items; the 95 % interval over items, +0.5 to "
         "+3.5, leaves out 0)."),
        (2.0, -0.5, 3.5, "-0.5 to +3.5, holds 0, so that neither is shown to be better)."),
        (-2.0, -3.5, -0.5, "is behind SFT by 2.0 points"),
        (0.0, 0.0, 0.0, "is level with SFT (n = 1 pair"),
    ],
)  # fmt: skip
def test_the_sentence_says_which_side_and_whether_it_is_shown(points, low, high, words):
    assert words in findings.sentence(findings.Difference(points, low, high, pairs=1, items=9))


def test_all_that_tie_lead():
    assert findings.leaders(pd.Series({"sft": 0.3, "ies": 0.1 + 0.2, "msft": 0.2})) == "SFT and IES"


def test_half_an_interval_of_few_values():
    # t of 0.975 with 2 degrees of freedom is 4.303; 1, 2, 3 have a deviation of 1
    assert findings.half_width([1, 2, 3]) == pytest.approx(4.303 / 3**0.5, abs=1e-3)
    assert np.isnan(findings.half_width([1.0]))
    assert findings.mean([1, 2, 3]) == "2.0 ± 2.5"
    assert findings.mean([1.0], 2, signed=True) == "+1.00 (no interval)"


def test_intraclass_correlation_of_shrout_and_fleiss_with_its_interval():
    # their Table 2: six targets, four judges; ICC(1) 0.17, and -0.13 to 0.72 by R's psych
    scores = pd.DataFrame([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])
    assert findings.icc(scores) == pytest.approx(0.17, abs=0.005)
    assert findings.icc_interval(scores) == pytest.approx((-0.133, 0.723), abs=0.002)
    for without in (scores[[0]], pd.DataFrame([[1, 1], [2, 2]]), pd.DataFrame([[1, 1], [1, 1]])):
        assert np.isnan(findings.icc_interval(without)).all()
