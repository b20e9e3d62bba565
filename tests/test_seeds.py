"""Table 6: the paper's own numbers, and intervals worked out by hand."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from test_main_results import TASKS, fake_run

from paper_figures import reported_numbers, study
from paper_figures.figures import seeds


@pytest.fixture
def scores():
    return pd.DataFrame({"sft": [70.0, 71.0, 72.0], "msft": [72.0, 72.0, 75.0]}, index=[20, 30, 40])


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


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


def test_the_papers_mean_std_and_p_follow_from_its_seeds():
    stated = reported_numbers.table("table6").set_index("method")
    table = seeds.table6(seeds.reported())
    for method in ("SFT", "mSFT"):
        assert round(table["mean"][method], 2) == stated["mean"][method]
        assert round(table["std"][method], 2) == stated["std"][method]
    assert table.p["mSFT"] == f"{stated.p_value['mSFT']:.3f}"


def test_runs_are_those_of_the_profiles_seeds_on_the_focus_model():
    page = study.Study("x", "tiny")
    needed = seeds.needs(page)
    assert set(needed) == {(method, seed) for method in ("sft", "msft") for seed in (20, 30, 40)}
    assert {config.model for config in needed.values()} == {page.focus}
    assert all(config.seed == seed for (_, seed), config in needed.items())


def test_accuracies_by_seed():
    runs = {
        ("sft", 20): fake_run("sft", (0.1, 0.2, 0.3, 0.4)),
        ("sft", 30): fake_run("sft", (0.2, 0.2, 0.2, 0.2)),
        ("msft", 20): fake_run("msft", (0.5, 0.5, 0.5, 0.5)),
        ("msft", 30): fake_run("msft", (0.6, 0.6, 0.6, 0.2)),
    }
    table = seeds.accuracies(runs)
    assert table.sft.to_dict() == pytest.approx({20: 25, 30: 20})
    assert table.msft.to_dict() == pytest.approx({20: 50, 30: 50})


def test_table_6_by_hand(scores):
    table = seeds.table6(scores)
    assert table.loc["SFT", "mean"] == 71
    assert table.loc["SFT", "std"] == pytest.approx(1)
    assert table.loc["mSFT", "gain"] == pytest.approx(2)
    # differences 2, 1, 3: t = 2 / (1 / sqrt 3) = 3.46; with 2 degrees of freedom p = 1 - t / sqrt(t^2 + 2)
    t, p = seeds.paired_t([2, 1, 3])
    assert t == pytest.approx(2 * 3**0.5)
    assert p == pytest.approx(1 - t / (t * t + 2) ** 0.5)
    assert table.p["mSFT"] == f"{p:.3f}"
    assert pd.isna(table.loc["SFT", "gain"])
    assert list(seeds.table6(scores, seeds.reported()).index) == ["SFT", "mSFT", "SFT (paper)", "mSFT (paper)"]


@pytest.mark.parametrize("differences", [[1.0], [0.1 + 0.2, 0.3], [0.0, 0.0, 0.0]])
def test_no_variance_no_test(differences):
    assert np.isnan(seeds.paired_t(differences)).all()


def test_the_least_difference_is_the_edge_of_significance():
    # the t of 0.05 with 2 degrees of freedom is 4.303
    assert seeds.least_difference(3) == pytest.approx(4.303 / 3**0.5, abs=1e-3)
    values = np.array([-1.0, 0.0, 1.0]) + seeds.least_difference(3)
    assert seeds.paired_t(values)[1] == pytest.approx(0.05)
    assert "0.25" in seeds.caution(3)


def test_items_are_paired_at_the_best_checkpoints():
    runs = {
        ("sft", 20): with_outputs(fake_run("sft", (0.5,) * 4, 1.0), {0.5: [1, 1, 1], 1.0: [1, 0, 0]}),
        ("msft", 20): with_outputs(fake_run("msft", (0.5,) * 4, 2.0), {1.0: [0, 0, 0], 2.0: [0, 1, 0]}),
    }
    differences = seeds.item_differences(runs)
    assert list(differences) == list(TASKS)
    assert all(values.tolist() == [[-1, 1, 0]] for values in differences.values())


def test_a_gain_that_no_item_or_seed_moves_has_no_width():
    found = seeds.bootstrap({"p": np.ones((3, 8), int), "q": np.zeros((3, 5), int)}, draws=200)
    assert found.items == pytest.approx((50, 50))
    assert found.items_and_seeds == pytest.approx((50, 50))


def test_seeds_widen_the_second_interval_alone():
    # every item of a seed alike: drawing items changes nothing
    values = np.repeat([[0], [1], [-1]], 8, axis=1)
    found = seeds.bootstrap({"p": values}, draws=2000)
    assert found.items == pytest.approx((0, 0))
    # three equal draws happen with probability 1/27 each, more than 2.5 %
    assert found.items_and_seeds == pytest.approx((-100, 100))


def test_the_items_interval_has_the_width_of_the_normal_theory():
    rng = np.random.default_rng(3)
    values = np.repeat(rng.integers(-1, 2, size=(1, 400)), 3, axis=0)
    low, high = seeds.bootstrap({"p": values}, draws=4000).items
    # the same items under every seed: three seeds are no more evidence than one
    expected = 2 * 1.96 * 100 * values[0].std() / 400**0.5
    assert high - low == pytest.approx(expected, rel=0.06)
    assert (low + high) / 2 == pytest.approx(100 * values.mean(), abs=0.5)


def test_the_bootstrap_is_seeded():
    values = {"p": np.random.default_rng(0).integers(-1, 2, size=(3, 30))}
    assert seeds.bootstrap(values, draws=100) == seeds.bootstrap(values, draws=100)
    assert seeds.bootstrap(values, draws=100) != seeds.bootstrap(values, draws=100, seed=1)


def test_the_picture(scores):
    left, right = seeds.seed_plot(scores, seeds.Intervals((0.5, 3.5), (-1.0, 5.0)))
    assert len(left.lines) == 3
    assert {t.get_text() for t in left.texts} == {"seed 20", "seed 30", "seed 40"}
    heights = sorted(t.get_position()[1] for t in left.texts)
    assert np.diff(heights).min() > 0.2, "labels of equal accuracies lie on each other"
    assert [t.get_text() for t in left.get_xticklabels()] == ["SFT", "mSFT"]
    assert right.collections[0].get_offsets()[:, 0].tolist() == [2, 1, 3]
    spans = [list(line.get_xdata()) for line in right.lines if len(line.get_xdata()) == 2]
    assert [0.5, 3.5] in spans
    assert [-1.0, 5.0] in spans
    assert right.get_xlabel() == "gain of mSFT over SFT (points)"


def test_the_verdict_says_whether_0_lies_inside(scores):
    text = seeds.verdict(scores, seeds.Intervals((0.5, 3.5), (-1.0, 5.0)))
    assert "ahead of SFT on 3 of 3 seeds, by +2.00 points" in text
    assert "+0.50 to +3.50 over test items, which leaves out 0" in text
    assert "-1.00 to +5.00 over items and seeds, which holds 0" in text
    level = pd.DataFrame({"sft": [70.0, 70.0], "msft": [70.0, 70.0]}, index=[20, 30])
    assert "paired t test is not defined" in seeds.verdict(level, seeds.Intervals((0, 0), (0, 0)))


def test_directions_take_the_seeds_that_both_have(scores):
    table = seeds.against_paper(scores.rename({40: 50}))
    assert list(table.index) == [f"mSFT over SFT, {what}" for what in ("mean of the seeds", "seed 20", "seed 30")]
    assert table.iloc[0].tolist()[:2] == pytest.approx([0.8667, 2.0], abs=1e-3)
