"""Table 6: the paper's own numbers, and intervals worked out by hand."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from test_main_results import fake_run

from paper_figures import reported_numbers, study
from paper_figures.figures import granularity, seeds


@pytest.fixture
def scores():
    return pd.DataFrame({"sft": [70.0, 71.0, 72.0], "msft": [72.0, 72.0, 75.0]}, index=[20, 30, 40])


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


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
    assert right.get_xlabel() == "gain over SFT (points)"


def test_the_finding_has_the_interval_and_what_so_few_seeds_can_tell(scores):
    text = seeds.finding(scores, seeds.Intervals((0.5, 3.5), (-1.0, 5.0)))
    assert "ahead of SFT on 3 of n = 3 seeds, by +2.00 points on average" in text
    assert "items and seeds -1.00 to +5.00; the paired t test gives p = 0.074" in text
    assert (
        "3 equal signs come up by chance with probability 0.25, p < 0.05 needs a mean of 2.5 standard deviations"
        in text
    )
    level = pd.DataFrame({"sft": [70.0, 70.0], "msft": [70.0, 70.0]}, index=[20, 30])
    assert "on 0 of n = 2 seeds, by +0.00 points" in seeds.finding(level, seeds.Intervals((0, 0), (0, 0)))
    assert "paired t test is not defined" in seeds.finding(level, seeds.Intervals((0, 0), (0, 0)))


def test_many_seeds_are_those_of_the_evidence(tmp_path, monkeypatch):
    facts = {"model": "m", "method": "mSFT", "items": "confirmed", "n": 30.0, "mean": -2.0, "low": -3.0, "high": -1.0}
    others = [{**facts, "items": "test"}, {**facts, "method": "IES"}, {**facts, "method": "SFT", "n": None}]
    (tmp_path / "evidence.json").write_text(json.dumps({"differences": [*others, facts]}))
    monkeypatch.setattr(seeds, "EVIDENCE", tmp_path)
    table = seeds.many_seeds(study.Study("x", "tiny"))
    assert list(table.index) == ["mSFT over SFT, m, 30 seeds, fresh items"]
    # the paper's mean gain in Table 2
    assert table.iloc[0].tolist() == [pytest.approx(1.8, abs=0.05), -2.0, "-3.00 to -1.00", "no"]
    assert seeds.many_seeds(study.Study("x", "smoke")) is None
    (tmp_path / "evidence.json").rename(tmp_path / "evidence_tiny-21.json")
    assert seeds.many_seeds(study.Study("x", "tiny")) is None
    table = granularity.many_seeds(study.Study("x", "tiny"))
    # the paper's mean gain on 21 sub-categories
    assert table.iloc[0].tolist() == [1.86, -2.0, "-3.00 to -1.00", "no"] and len(table) == 1
    assert granularity.many_seeds(study.Study("x", "smoke")) is None


def test_the_intervals_pair_the_methods_by_seed():
    runs = {
        ("sft", 20): fake_run("sft", (0.5,) * 4),
        ("sft", 30): fake_run("sft", (0.4,) * 4),
        ("msft", 20): fake_run("msft", (0.6,) * 4),
        ("msft", 30): fake_run("msft", (0.4,) * 4),
    }
    low, high = seeds.intervals(runs).items
    # a gain of 10 points on one seed of two: its items are those from the 51st to the 60th of 100, in each of four sets
    assert low < 5 < high and high - low == pytest.approx(2 * 1.96 * 100 * (0.1 * 0.9 / 400) ** 0.5 / 2, rel=0.1)
    assert seeds.intervals(runs).items_and_runs[0] == pytest.approx(0)


def test_directions_take_the_seeds_that_both_have():
    accuracy = {("sft", 20): 0.5, ("sft", 30): 0.4, ("sft", 50): 0.5}
    accuracy |= {("msft", 20): 0.6, ("msft", 30): 0.4, ("msft", 50): 0.46}
    runs = {key: fake_run(key[0], (value,) * 4) for key, value in accuracy.items()}
    table = seeds.against_paper(runs, seeds.Intervals((1.0, 3.0), (-4.0, 10.0)))
    assert list(table.index) == [f"mSFT over SFT, {what}" for what in ("mean of the seeds", "seed 20", "seed 30")]
    assert table.iloc[0].tolist()[:2] == pytest.approx([0.8667, 2.0], abs=1e-3)
    # the mean takes the interval over seeds too; on seed 30 no item differs
    assert table["95 % interval"].tolist()[0::2] == ["-4.00 to 10.00", "0.00 to 0.00"]
    half = 1.96 * 100 * (0.1 * 0.9 / 400) ** 0.5
    ends = [float(end) for end in table["95 % interval"].iloc[1].split(" to ")]
    assert ends == pytest.approx([10 - half, 10 + half], abs=0.4)
    assert table["same direction"].tolist() == ["cannot tell", "yes", "cannot tell"]
