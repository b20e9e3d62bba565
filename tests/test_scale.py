import matplotlib.pyplot as plt
import numpy as np
import pytest
from figure_runs import fake_run, msft_run, roll_out, sft_run

from msft.errors import ConfigError
from paper_figures import reported_numbers, study
from paper_figures.figures import scale


def test_needs_of_a_profile():
    page = study.Study("06_scale_and_budget", "tiny")
    wanted = scale.needs(page)
    assert {key for key in wanted if key[0] == "mixture"} == {
        ("mixture", name, method) for name in ("tiny-5", "tiny", "tiny-15") for method in ("sft", "ies", "msft")
    }
    assert [key[1] for key in wanted if key[0] == "budget"] == ["sft", 1.0, 2.0, 3.0, 5.0]
    # the default run is part of the sweep and trained once
    assert wanted["budget", 3.0] == page.config("msft") == wanted["mixture", "tiny", "msft"]
    assert wanted["budget", "sft"] == wanted["mixture", "tiny", "sft"]


def test_a_mixture_of_ones_own_is_needed_once():
    wanted = scale.needs(study.Study("06_scale_and_budget", "tiny", mixture="tiny-5"), budgets="1, 2")
    assert {key[1] for key in wanted if key[0] == "mixture"} == {"tiny-5"}
    assert [key[1] for key in wanted if key[0] == "budget"] == ["sft", 1.0, 2.0]


@pytest.mark.parametrize("text", ["one", "1;2", ",", "-1", "0", "inf", "nan"])
def test_budgets_that_are_none(text):
    with pytest.raises(ConfigError, match="budgets: .* give positive numbers"):
        scale.read_budgets(text)


def three():
    """One mixture of two sub-datasets; SFT 50 %, mSFT 65 %, IES 45 %."""
    ies = fake_run("ies", [roll_out(0, 0.0, [(0, [0.4, 0.5], None)])], (0, 0))
    return {("mixture", "m", method): run for method, run in (("msft", msft_run()), ("ies", ies), ("sft", sft_run()))}


def sweep():
    """C=1 with 300 tokens, C=2 with twice 450, SFT with 900; 6 FLOPs a token and parameter."""
    journal = [roll_out(0, 0.0, [(0, [0.4, 0.5], None)], tokens=300)]
    short = fake_run("msft", journal, (0, 0), params={"budget": 1.0}, parameters=10)
    journal = [roll_out(0, 0.0, [(0, [0.6, 0.8], None)], tokens=450)] + [roll_out(1, 0.0, [], tokens=450)]
    long = fake_run("msft", journal, (0, 0), params={"budget": 2.0}, parameters=10)
    sft = fake_run("sft", [roll_out(0, 0.0, [(0, [0.4, 0.6], None)], tokens=900)], (0, 0), parameters=10)
    return {("budget", "sft"): sft, ("budget", 2.0): long, ("budget", 1.0): short}


def test_mixtures_by_hand():
    table = scale.by_mixture(three() | sweep())
    assert table.method.tolist() == ["sft", "ies", "msft"]
    assert table.sub_datasets.tolist() == [2] * 3
    assert table.accuracy.tolist() == pytest.approx([50, 45, 65])
    assert table.gain.tolist() == pytest.approx([0, -5, 15])
    # two sub-datasets of 10 items, 40 and 60 % right
    assert table.error[0] == pytest.approx(100 * np.sqrt(2 * 0.24 / 10) / 2)


def test_sweep_by_hand():
    table = scale.by_budget(sweep())
    assert table.method.tolist() == ["sft", "msft", "msft"]
    assert table.budget.tolist()[1:] == [1.0, 2.0]
    assert table.gain.tolist() == pytest.approx([0, -5, 20])
    assert table.flops.tolist() == [54_000, 18_000, 54_000]
    assert table.flops_to_sft.tolist() == pytest.approx([1, 1 / 3, 1])


def test_budgets_overruled_by_a_setting_are_one_point():
    runs = sweep()
    runs["budget", 2.0] = runs["budget", 1.0]
    assert scale.by_budget(runs).budget.tolist()[1:] == [1.0]


def test_units():
    assert scale.unit_of([2e12, 3e9]) == (1e12, "TFLOPs")
    assert scale.unit_of([491e15]) == (1e15, "PFLOPs")
    assert scale.unit_of([7.0]) == (1.0, "FLOPs")


def test_pictures_draw_what_the_tables_say():
    left, right = scale.mixture_panels(scale.by_mixture(three()))
    assert [bars[0].get_height() for bars in right.containers] == pytest.approx([-5, 15])
    assert [text.get_text() for text in right.texts] == ["−5.0", "+15.0"]
    assert [text.get_text() for text in left.get_xticklabels()] == ["2"]
    assert len(left.containers) == 3 and "%" in left.get_ylabel() and "points" in right.get_ylabel()
    left, right = scale.budget_panels(scale.by_budget(sweep()))
    line = next(line for line in right.lines if line.get_label() == "mSFT")
    assert line.get_xdata().tolist() == [1, 2]
    assert line.get_ydata().tolist() == [18_000, 54_000]
    assert right.get_ylabel() == "total compute (FLOPs)" and "epochs" in left.get_xlabel()
    plt.close("all")


def test_the_papers_claims_agree_with_its_table_7():
    table = reported_numbers.table("table7").set_index("model").drop("Average").dropna()
    assert (table["SFT"] - table["mSFT (C=1)"]).mean() == pytest.approx(
        reported_numbers.claim("FLOPs saved by mSFT at C=1"), abs=0.05
    )


def test_claims_beside_ours():
    claims = scale.against_paper(scale.by_mixture(three()), scale.by_budget(sweep()))
    assert claims.iloc[:, 0].tolist() == pytest.approx([5.4, 3.4, 100 * (1 - 441.25 / 922.57)], abs=0.01)
    assert claims.iloc[:, 1].tolist() == pytest.approx([15, -5, 200 / 3])
    assert claims["same direction"].tolist() == ["yes", "no", "yes"]
    without = {key: run for key, run in sweep().items() if key[1] != 1.0}
    assert len(scale.against_paper(scale.by_mixture(three()), scale.by_budget(without))) == 1


def test_readable_tables():
    shown = scale.readable(scale.by_budget(sweep()), "Qwen/Qwen2.5-3B")
    assert list(shown.index) == ["SFT", "mSFT (C=1)", "mSFT (C=2)"]
    assert shown["paper (PFLOPs)"].tolist()[:2] == [491.72, 223.73] and np.isnan(shown["paper (PFLOPs)"].iloc[2])
    assert "paper (PFLOPs)" not in scale.readable(scale.by_budget(sweep()), "tiny-qwen2")
    assert scale.readable(scale.by_mixture(three())).index.names == ["sub-datasets", "mixture", "method"]
    plt.close("all")


def test_the_finding_has_every_gain_with_its_interval():
    text = scale.finding(three() | sweep())
    assert text.startswith("Over SFT mSFT gains +15.0 (")
    assert "with 2 sub-datasets, and by budget -5.0 (" in text
    # one of the 20 items is lost at C=1: no draw of items puts it above SFT
    assert " to +0.0) at C=1, +20.0 (" in text and "at C=2 (points with 95 % intervals" in text
    assert "1 of 3 intervals leave out 0" in text
