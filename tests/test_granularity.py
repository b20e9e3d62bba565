import re

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from figure_runs import fake_run, msft_run, roll_out, sft_run

from msft.benchmarks import paper_mixtures
from paper_figures import study, style
from paper_figures.figures import granularity


def test_every_subject_is_in_one_of_eleven_groups():
    subjects = ["medmcqa_" + re.sub("[^a-z]+", "_", name.lower()) for name in paper_mixtures.SUBJECTS]
    groups = granularity.broad_groups(subjects, {})
    assert len(granularity.GROUPS) == len(groups) == 11
    assert sorted(task for names in groups.values() for task in names) == sorted(subjects)
    assert len(subjects) == 21


def test_the_papers_two_groups_are_there():
    assert granularity.GROUPS["Pharmacology"] == ["pharmacology"]
    forensic = granularity.GROUPS["Forensic, Psychiatry & Radiology"]
    assert forensic == ["forensic_medicine", "psychiatry", "radiology"]


def test_subjects_that_a_sample_lacks_leave_no_empty_group():
    groups = granularity.broad_groups(["medmcqa_ent", "medmcqa_pharmacology"], {})
    assert groups == {"ENT & Ophthalmology": ["medmcqa_ent"], "Pharmacology": ["medmcqa_pharmacology"]}


def test_another_mixture_has_its_own_groups_or_its_parts():
    groups = {"x": ["a_1"], "y": ["b"]}
    assert granularity.broad_groups(["a_1", "b"], groups) == groups
    assert granularity.broad_groups(["a_1", "b"], {"all": ["a_1", "b"]}) == {"a 1": ["a_1"], "b": ["b"]}


def runs_of(groups=None):
    """SFT a 40 b 60; mSFT a 60 b 70; IES a 40 b 50 %."""
    ies = fake_run("ies", [roll_out(0, 0.0, [(0, [0.4, 0.5], None)])], (0, 0))
    return {"sft": sft_run(groups=groups), "msft": msft_run(), "ies": ies}


def test_gains_by_hand():
    table = granularity.gains(runs_of())
    assert table.gain.tolist() == pytest.approx([20, 10, 0, -10])
    assert table.n.tolist() == [10] * 4
    shown = granularity.by_category(table)
    assert list(shown.index) == ["a", "b", "mean"]
    assert shown.mSFT.tolist() == pytest.approx([20, 10, 15])
    assert shown.IES.tolist() == pytest.approx([0, -10, -5])
    assert shown["items"].tolist() == [10, 10, 20]


def test_a_category_is_the_mean_of_its_sub_datasets_and_the_mean_that_of_all():
    table = granularity.gains(runs_of())
    table["category"] = table.task.map({"a": "x", "b": "x"})
    shown = granularity.by_category(table)
    assert shown.loc["x"].tolist() == pytest.approx([15, -5, 2, 20])
    # a category of two and one of one: the last row is no mean of means
    uneven = table[table.task == "b"].assign(task="c", category="y", gain=0.0)
    assert granularity.by_category(pd.concat([table, uneven])).loc["mean", "mSFT"] == pytest.approx(10)


def test_categories_are_sorted_with_the_mean_last():
    shown = granularity.by_category(granularity.gains(runs_of()))
    ax = granularity.points(shown, granularity.intervals(runs_of(), 200))
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b", "mean"]
    gains = [list(points.lines[0].get_xdata()) for points in ax.containers]
    assert gains == [pytest.approx([20, 10, 15]), pytest.approx([0, -10, -5])]
    assert [text.get_text() for text in ax.texts] == [
        "mSFT +20.0", "IES 0", "mSFT +10.0", "IES −10.0", "mSFT +15.0", "IES −5.0",
    ]  # fmt: skip
    assert "points" in ax.get_xlabel()
    plt.close("all")


def test_sft_s_line_is_seen_and_a_method_that_equals_it_has_no_interval():
    runs = runs_of()
    runs["ies"] = runs["sft"]
    ax = granularity.points(granularity.by_category(granularity.gains(runs)), granularity.intervals(runs, 200))
    assert ax.get_xlim()[0] < 0
    assert style.said(ax).endswith("IES equals SFT") and "IES 0" not in style.said(ax)
    plt.close("all")


def test_categories_without_a_difference_share_a_row():
    table = granularity.gains(runs_of())
    level = [table[table.task == "a"].assign(task=name, category=name, gain=0.0) for name in ("c", "d")]
    shown = granularity.by_category(pd.concat([table, *level]))
    ax = granularity.points(shown, granularity.intervals(runs_of(), 200))
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b", "2 more: as SFT", "mean"]
    plt.close("all")


def test_intervals_are_those_of_the_items():
    spans = granularity.intervals(runs_of(), 4000)
    assert list(spans.index) == ["a", "b", "mean"]
    # mSFT on a: 2 of 10 items gained, none lost: binomial around 20 %; IES on a: no item differs
    low, high = spans.loc["a", "mSFT"]
    assert low == 0 and 40 <= high <= 50
    assert spans.loc["a", "IES"].tolist() == [0, 0]


def test_paper_claims_are_compared_where_the_categories_are_there():
    shown = granularity.by_category(granularity.gains(runs_of()))
    spans = granularity.intervals(runs_of(), 2000)
    claims = granularity.against_paper(shown, spans)
    assert claims["paper (points)"].tolist() == [1.86, 0.29]
    # three of 20 items gained by mSFT, one lost by IES: some draws have none of them
    assert claims["same direction"].tolist() == ["cannot tell", "cannot tell"]
    spans.loc["mean"] = [4.0, 26.0, -9.0, -1.0]
    names = {"a": "Pharmacology", "b": "Forensic, Psychiatry & Radiology"}
    claims = granularity.against_paper(shown.rename(index=names), spans.rename(index=names))
    assert claims["paper (points)"].tolist() == [1.86, 0.29, 6.0, 5.3]
    assert claims["95 % interval"].tolist()[:2] == ["4.00 to 26.00", "-9.00 to -1.00"]
    assert claims["same direction"].tolist() == ["yes", "no", "cannot tell", "cannot tell"]


def test_the_finding_has_both_gains_and_the_room_for_one():
    text = granularity.finding(runs_of())
    assert text.startswith("mSFT is ahead of SFT by 15.0 points (n = 1 pair of runs, 20 test items;")
    assert "above SFT in 2 of 2 categories and below in 0. IES differs from SFT by -5.0 points" in text
    assert "SFT leaves 50.0 points to gain" in text


def test_needs_the_granular_mixture():
    page = study.Study("07_medmcqa_granularity", "paper")
    wanted = granularity.needs(page)
    assert set(wanted) == {"sft", "msft", "ies"}
    assert {config.mixture for config in wanted.values()} == {"medmcqa-21"}
