"""Held-out selection on runs made by hand: answers, gains and what remains of them."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from figure_runs import fake_run, roll_out
from matplotlib.colors import to_rgba

from paper_figures import study, style
from paper_figures.figures import selection

ITEMS = 10


def made(method, accuracies, best, reused=0):
    """A run of the sub-datasets a and b with 10 test items: {epoch: (a, b)} in tenths, base first; the first `accuracy`
    items are right."""
    points = [(epoch, [value / 10 for value in pair], 1.0) for epoch, pair in accuracies.items()]
    journal = [roll_out(0, 0.0, points, n=ITEMS)]
    for point in journal[0]["result"]["points"][:reused]:
        point["reused"] = True
    run = fake_run(method, journal, (0, best))
    run.result["best"]["selection"] = 0.9
    rows = [
        {
            "stage": 0,
            "epoch": epoch,
            "part": part,
            "task": task,
            "item": item,
            "correct": part == "test" and item < right,
        }
        for epoch, pair in accuracies.items()
        for task, right in zip("ab", pair, strict=True)
        for item in range(ITEMS)
        for part in ("test", "validation")
    ]
    run.outputs = pd.DataFrame(rows)
    return run


@pytest.fixture
def runs():
    """Over a base of 10 %: SFT 50 on test and held out; DynamixSFT 60, 55; IES 40, 40; mSFT 70, 60 (two trainings)."""
    base = {0.0: (1, 1)}
    sft, dynamix = {**base, 0.25: (4, 4), 0.5: (5, 5)}, {**base, 0.25: (6, 6), 0.5: (5, 6)}
    ies = {**base, 0.5: (4, 4)}
    return {
        ("sft", "test"): made("sft", sft, 0.5),
        ("sft", "validation"): made("sft", sft, 0.5),
        ("dynamix_sft", "test"): made("dynamix_sft", dynamix, 0.25),
        ("dynamix_sft", "validation"): made("dynamix_sft", dynamix, 0.5),
        ("ies", "test"): made("ies", ies, 0.5),
        ("ies", "validation"): made("ies", ies, 0.5),
        ("msft", "test"): made("msft", {**base, 0.25: (5, 5), 0.5: (8, 6)}, 0.5, reused=1),
        ("msft", "validation"): made("msft", {**base, 0.25: (6, 6)}, 0.25),
    }


@pytest.fixture
def gains(runs):
    return selection.gains(runs, draws=2000)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def row_of(gains, method, over):
    return gains[(gains.method == method) & (gains.over == over)].iloc[0]


def test_each_run_is_needed_once_with_each_choice():
    page = study.Study("x", "tiny")
    needed = selection.needs(page)
    assert set(needed) == {(m, p) for m in ("sft", "dynamix_sft", "ies", "msft") for p in ("test", "validation")}
    assert all(config.select_on == part and config.model == page.focus for (_, part), config in needed.items())
    # the paper's choice is the very run of the other notebooks
    assert needed["sft", "test"] == page.config("sft")


def test_checkpoints_by_hand(runs):
    table = selection.compare(runs).set_index(["method", "part"])
    row = table.loc[("dynamix_sft", "validation")]
    assert row[["accuracy", "base", "gain"]].tolist() == pytest.approx([55, 10, 45])
    assert row.epoch == 0.5
    assert row.chosen_at == 90
    # sqrt(0.5 * 0.5 / 10 + 0.6 * 0.4 / 10) / 2
    assert row.error == pytest.approx(100 * 0.049**0.5 / 2)
    assert row.evaluations == 3
    # a start point that was evaluated before is no further checkpoint
    assert table.loc[("msft", "test")].evaluations == 2
    shown = selection.readable(table.reset_index())
    assert list(shown.index) == ["SFT", "DynamixSFT", "IES", "mSFT"]
    assert shown["chosen on test (%)"].tolist() == pytest.approx([50, 60, 40, 70])
    assert shown["chosen on validation (%)"].tolist() == pytest.approx([50, 55, 40, 60])


def test_what_remains_by_hand(gains):
    assert len(gains) == 4 + 3
    base = row_of(gains, "dynamix_sft", "base")
    assert base[["test", "validation", "change", "remains"]].tolist() == pytest.approx([50, 45, -5, 90])
    over = row_of(gains, "msft", "sft")
    assert over[["test", "validation", "change", "remains"]].tolist() == pytest.approx([20, 10, -10, 50])
    # IES is behind SFT: there is no gain of which a share could remain
    behind = row_of(gains, "ies", "sft")
    assert behind.test == pytest.approx(-10)
    assert np.isnan(behind.remains)
    # nor where a gain is not shown: two items of twenty
    small = row_of(gains, "dynamix_sft", "sft")
    assert small.test > 0 and small.test_low == 0 and np.isnan(small.remains)


def test_gains_over_sft_are_differences_of_gains_over_base(gains):
    over = gains[gains.over == "sft"].set_index("method")
    base = gains[gains.over == "base"].set_index("method")
    for part in selection.PARTS:
        assert over[part].tolist() == pytest.approx((base[part] - base[part]["sft"]).loc[over.index].tolist())


def test_the_mean_gains_are_those_of_the_histories(runs, gains):
    table = selection.compare(runs).set_index(["method", "part"])
    for row in gains[gains.over == "base"].itertuples():
        for part in selection.PARTS:
            assert getattr(row, part) == pytest.approx(table.loc[(row.method, part)].gain)


def test_intervals_are_paired_by_item(gains):
    # over the base model there is an interval too
    assert (gains.test_low < gains.test).all() and (gains.test < gains.test_high).all()
    # the same answers twice: no draw of items moves their difference
    assert row_of(gains, "sft", "base")[["change", "low", "high"]].tolist() == [0, 0, 0]
    # IES misses one more item than SFT in each of two sets of 10, on either choice
    behind = row_of(gains, "ies", "sft")
    assert behind.low == behind.high == behind.change == 0
    assert behind.test_low == behind.validation_low < -10 < behind.test_high == behind.validation_high == 0
    # a wins 3, b wins 1 of 10 items: variance (0.3 * 0.7 + 0.1 * 0.9) / 10, halved by the mean of two
    over = row_of(gains, "msft", "sft")
    width = 2 * 1.96 * 100 * (0.03) ** 0.5 / 2
    assert over.test_high - over.test_low == pytest.approx(width, rel=0.2)
    assert over.low <= over.change <= over.high


def test_only_equal_histories_count_as_one_training(runs):
    assert selection.trained_alike(runs) == ["sft", "dynamix_sft", "ies"]


def test_the_table_says_what_it_compares(gains):
    shown = selection.remains(gains)
    assert shown.index[0] == "SFT over Base"
    assert shown.index[-1] == "mSFT over SFT"
    assert shown["remains (%)"]["mSFT over SFT"] == pytest.approx(50)
    assert shown["95 % interval of the change"]["SFT over Base"] == "+0.0 to +0.0"


def test_the_picture(gains):
    left, right = selection.dumbbells(gains)
    assert [t.get_text() for t in left.get_yticklabels()] == ["SFT", "DynamixSFT", "IES", "mSFT"]
    assert left.get_xlabel() == "gain over the base model\n(points)"
    assert right.get_xlabel() == "gain over SFT\n(points)"
    for axis, expected in ((left, [40, 40, 50, 45, 30, 30, 60, 50]), (right, [10, 5, -10, -10, 20, 10])):
        marks = [line for line in axis.lines if line.get_marker() == "o"]
        assert [line.get_xdata()[0] for line in marks] == pytest.approx(expected)
        # filled on test, open on validation
        assert [line.get_markerfacecolor() == "white" for line in marks] == [False, True] * (len(expected) // 2)
    colours = [line.get_color() for line in right.lines if line.get_marker() == "o"]
    assert to_rgba(colours[-1]) == to_rgba(style.colour("msft"))
    # each method has a joining line, two intervals and two marks, and over SFT there is its line
    assert len(left.lines) == 4 * 5 and len(right.lines) == 3 * 5 + 1
    assert left.figure.legends[0].texts[-1].get_text() == "SFT"


def test_the_finding_names_what_remains(runs, gains):
    text = selection.finding(gains, selection.trained_alike(runs))
    assert text.startswith("mSFT's gain over SFT is +20.0 points where both choose on test items and +10.0 where both")
    assert "a change of -10.0 (95 % interval over test items" in text
    assert "two trainings" in text
    assert "two trainings" not in selection.finding(gains, ["sft", "msft"])


def test_the_finding_of_a_method_that_is_behind(runs):
    runs["msft", "test"] = made("msft", {0.0: (1, 1), 0.5: (5, 4)}, 0.5)
    text = selection.finding(selection.gains(runs, draws=50), [])
    assert text.startswith("mSFT's gain over SFT is -5.0 points")
