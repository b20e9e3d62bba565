"""Table 3 on runs made by hand."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from test_main_results import fake_run

from paper_figures import study, style
from paper_figures.figures import ablations, main_results


def roll_out(stage, offset, end, active):
    return {
        "kind": "roll_out",
        "arguments": {"active": active},
        "result": {"stage": stage, "offset": offset, "points": [{"epoch": 0.0}, {"epoch": end}]},
    }


def roll_back(epoch, dropped):
    return {"kind": "roll_back", "arguments": {"epoch": epoch, "dropped": dropped}, "result": {}}


@pytest.fixture
def runs():
    """One model. mSFT drops p at 0.5, then q at 0.5 + 1.0, and ends at its cap with r and s never dropped."""
    made = {
        ("a", "sft"): fake_run("sft", (0.4, 0.4, 0.4, 0.4), 2.0),
        ("a", "sro_sft"): fake_run("sro_sft", (0.5, 0.5, 0.5, 0.5), 1.5),
        ("a", "soft_sro_sft"): fake_run("soft_sro_sft", (0.3, 0.3, 0.3, 0.3), 2.5),
        ("a", "msft"): fake_run("msft", (0.6, 0.6, 0.6, 0.6), 1.0),
    }
    peaks = {"p": 0.5, "q": 2.0, "r": 1.0, "s": 3.0}
    made["a", "sro_sft"].journal.append({"kind": "note", "arguments": {"what": "drop times", "peaks": peaks}})
    made["a", "msft"].journal.extend(
        [
            roll_out(0, 0.0, 3.0, ["p", "q", "r", "s"]),
            roll_back(0.5, "p"),
            roll_out(1, 0.5, 3.0, ["q", "r", "s"]),
            roll_back(1.0, "q"),
        ]
    )
    return made


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_the_paper_averages_over_the_models_of_table_2():
    # SFT and mSFT of Table 3 are the averages of Table 2, so every model is needed
    theirs = ablations.reported().set_index("method")
    main = main_results.reported()
    main = main[(main.group == "Average") & (main.model == "Average")].set_index("method")
    for method in ("sft", "msft"):
        assert theirs.accuracy[method] == main.accuracy[method]
        assert theirs.epoch[method] == main.epoch[method]
    page = study.Study("x", "tiny")
    needed = ablations.needs(page)
    assert set(needed) == {(model, method) for model in page.models for method in ablations.METHODS}
    # the runs of SFT and mSFT are those of Table 2
    assert needed["tiny-qwen3", "msft"] == main_results.needs(page)["tiny-qwen3", "msft"]


def test_table_3_in_the_papers_order_with_its_numbers_beside(runs):
    table = ablations.measured(runs)
    shown = ablations.table3(table)
    assert list(shown.index) == ["SFT", "SRO SFT", "Soft SRO SFT", "mSFT"]
    assert shown.Average.tolist() == pytest.approx([40, 50, 30, 60])
    assert shown["Average Ep."].tolist() == [2.0, 1.5, 2.5, 1.0]
    shown = ablations.table3(table, with_paper=True)
    assert shown["Average, paper"].tolist() == [61.9, 63.4, 62.1, 63.7]
    assert shown["Average Ep., paper"].tolist() == [3.88, 3.75, 3.79, 4.12]


def test_directions(runs):
    table = ablations.against_paper(runs)
    assert table.loc["SRO SFT over SFT", "paper (points)"] == pytest.approx(1.5)
    assert table.loc["SRO SFT over SFT", "here (points)"] == pytest.approx(10)
    # 10 of 100 items in each of four sub-datasets
    half = 1.96 * 100 * (0.1 * 0.9 / 400) ** 0.5
    ends = [float(end) for end in table.loc["SRO SFT over SFT", "95 % interval"].split(" to ")]
    assert ends == pytest.approx([10 - half, 10 + half], abs=0.4)
    assert table.loc["SRO SFT over SFT", "same direction"] == "yes"
    assert table.loc["Soft SRO SFT over SFT", "same direction"] == "no"
    assert table.loc["mSFT over SRO SFT", "here (points)"] == pytest.approx(10)


def test_the_title_tells_msft_from_the_single_searches(runs):
    axes = ablations.picture(runs, ablations.measured(runs))
    said = style.said(axes).replace("\n", " ")
    assert said.endswith("; mSFT is 10.0 points ahead of SRO SFT and 30.0 points ahead of Soft SRO SFT")


def test_drop_times_are_path_epochs(runs):
    table = ablations.drop_times(runs).set_index("task")
    assert table.sro_sft.to_dict() == {"p": 0.5, "q": 2.0, "r": 1.0, "s": 3.0}
    assert table.msft.tolist() == pytest.approx([0.5, 1.5, np.nan, np.nan], nan_ok=True)
    assert set(table.best) == {1.0}


def test_one_panel_a_model(runs):
    table = ablations.drop_times(runs)
    axes = ablations.drop_panels(table)
    assert [axis.get_title() for axis in axes] == ["a"]
    many = pd.concat([table.assign(model=name) for name in "abcd"])
    axes = ablations.drop_panels(many)
    assert [axis.get_title() for axis in axes] == list("abcd")
    rings = axes[0].collections[1].get_offsets()
    assert rings[:, 0].tolist() == [0.5, 2.0, 1.0, 3.0]
    assert [t.get_text() for t in axes[0].get_yticklabels()] == ["p", "q", "r", "s"]
    assert len(axes[0].figure.legends[0].get_texts()) == 3


def test_the_finding_compares_the_two_searches(runs):
    text = ablations.finding(runs, ablations.drop_times(runs))
    assert text.startswith("mSFT is ahead of SRO SFT by 10.0 points (n = 1 pair of runs, 400 test items;")
    # p at the same epoch, q half an epoch earlier; r and s were never dropped
    assert "0.25 ± 3.18 epochs apart (n = 2 of 4 that both drop)" in text
