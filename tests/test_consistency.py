"""Fig. 4 on accuracies made by hand."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from test_main_results import fake_run

from paper_figures.figures import consistency


@pytest.fixture
def table():
    """Two models, two sub-datasets, three methods, in percent."""
    index = pd.MultiIndex.from_product([["a", "b"], ["p", "q"]], names=["model", "task"])
    scores = {"sft": [40.0, 60.0, 50.0, 50.0], "ies": [50.0, 50.0, 50.0, 70.0], "msft": [50.0, 70.0, 50.0, 60.0]}
    return pd.DataFrame(scores, index=index)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_scores_are_those_of_the_reported_checkpoints():
    runs = {
        ("a", "sft"): fake_run("sft", (0.1, 0.2, 0.3, 0.4)),
        ("a", "msft"): fake_run("msft", (0.5, 0.6, 0.7, 0.8)),
        ("b", "sft"): fake_run("sft", (0.2, 0.2, 0.2, 0.2)),
        ("b", "msft"): fake_run("msft", (0.3, 0.3, 0.3, 0.9)),
    }
    table = consistency.scores(runs)
    assert table.index.names == ["model", "task"]
    assert list(table.columns) == ["sft", "msft"]
    assert table.loc[("a", "s")].tolist() == pytest.approx([40, 80])
    assert table.loc[("b", "s")].tolist() == pytest.approx([20, 90])


def test_spread_is_the_sample_deviation_across_sub_datasets(table):
    spread = consistency.spread(table)
    # two values d apart have a sample deviation of d / sqrt(2)
    assert spread.loc["a"].tolist() == pytest.approx([20 / 2**0.5, 0, 20 / 2**0.5])
    assert spread.loc["b", "msft"] == pytest.approx(10 / 2**0.5)
    gains = consistency.gain_spread(table)
    assert list(gains.columns) == ["ies", "msft"]
    assert gains.loc["a"].tolist() == pytest.approx([20 / 2**0.5, 0])


def test_the_interval_of_a_spread_is_that_of_its_items():
    run = fake_run("sft", (0.5, 0.5, 0.5, 0.5))
    half = consistency.spread_halves({("a", "sft"): run, ("b", "sft"): run})
    # four accuracies of 100 items each have errors of 5 points: the spread of a model has 5 / sqrt(2 * 3), of two less
    assert half.sft == pytest.approx(1.96 * 5 / 6**0.5 / 2**0.5, rel=0.1)


def test_first_places_have_the_interval_of_their_pairs(table):
    spans = consistency.place_intervals(table, draws=4000)
    # SFT has a third of one pair in four: drawn anew, from none to all four, but seldom more than three
    assert spans.loc["sft"].tolist() == pytest.approx([0, 1])


def test_ties_are_shared_and_the_places_add_up(table):
    places = consistency.first_places(table)
    # a/p: ies = msft; a/q: msft; b/p: all three; b/q: ies
    assert places.shared.to_dict() == pytest.approx({"sft": 1 / 3, "ies": 1 / 2 + 1 / 3 + 1, "msft": 1 / 2 + 1 + 1 / 3})
    assert places.alone.to_dict() == {"sft": 0, "ies": 1, "msft": 1}
    assert places.tied.to_dict() == {"sft": 1, "ies": 2, "msft": 2}
    assert places.shared.sum() == pytest.approx(len(table))


def test_the_panels_draw_what_the_table_says(table):
    halves = pd.Series({"sft": 1.0, "ies": 2.0, "msft": 3.0})
    left, right = consistency.panels(table, halves, consistency.reported_places())
    assert [bar.get_width() for bar in right.patches] == pytest.approx([1 / 3, 11 / 6, 11 / 6])
    assert [t.get_text() for t in right.texts] == ["0.33", "1.83", "1.83"]
    rings = {line.get_ydata()[0]: line.get_xdata()[0] for line in right.lines if line.get_mfc() == "none"}
    assert rings == {2: 26, 1: 13}
    assert len(left.collections) == 2 * 3
    assert "points" in left.get_xlabel()
    assert "first places of 4" in right.get_xlabel()


def test_numbers_beside_the_picture(table):
    shown = consistency.summary(table)
    assert list(shown.index) == ["SFT", "IES", "mSFT"]
    assert shown.loc["mSFT", "mean accuracy (%)"] == pytest.approx(57.5)
    assert pd.isna(shown.loc["SFT", "std of gain over SFT (points)"])
    halves = pd.Series({"sft": 3.0, "ies": 2.0, "msft": 4.0})
    _, spread = consistency.against_paper(table, halves).itertuples(index=False, name=None)
    # of two models 14.1 and 0 against 14.1 and 7.1 for mSFT: 3.5 more, give or take hypot(3, 4)
    assert spread == ("lower", pytest.approx(5 / 2**0.5), "-1.46 to 8.54", "cannot tell")
    row = consistency.against_paper(table, halves / 5).iloc[1]
    assert row["95 % interval"] == "2.54 to 4.54" and row["same direction"] == "no"
    row = consistency.against_paper(table, halves).iloc[0]
    assert row.tolist()[:2] == pytest.approx([100 * 13 / 60, 0])
    assert row["same direction"] == "cannot tell"
    # without IES mSFT has 1, 1, 1/2 and 1: three halves of four are drawn with probability 13/256, four with 1/256
    row = consistency.against_paper(table.assign(ies=0.0), halves).iloc[0]
    assert row.tolist()[1:] == [pytest.approx(87.5), "62.50 to 100.00", "yes"]


def test_the_finding_names_all_that_tie(table):
    text = consistency.finding(table, draws=2000)
    assert text.startswith("mSFT has 1.83 of 4 first places and IES, the most of the others, 1.83: a lead of +0 %")
    # of two models 14.1 and 0 against 0 and 14.1: the same mean
    assert "lowest standard deviation is that of SFT and IES (7.1 points, mSFT 10.6)" in text
    # the lead is 0, 1, 0 and -1 on the four pairs: half of the draws of four have a mean of a quarter or more either way
    low, high = (float(word) for word in text.split("interval ")[1].split(",")[0].split(" to "))
    assert low == -high and 50 <= high <= 75
