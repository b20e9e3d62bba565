import matplotlib.pyplot as plt
import numpy as np
import pytest
from figure_runs import fake_run, msft_run, roll_out, sft_run

from msft.errors import ConfigError
from paper_figures import reported_numbers, study, style
from paper_figures.figures import scale


def test_needs_of_a_profile():
    page = study.Study("06_scale_and_budget", "tiny")
    wanted = scale.needs(page)
    assert {key for key in wanted if key[0] == "mixture"} == {
        ("mixture", name, method) for name in ("tiny-5", "tiny", "tiny-15") for method in ("sft", "ies", "msft")
    }
    assert [key[1:] for key in wanted if key[0] == "budget"] == [("tiny-qwen2", c) for c in ("sft", 1.0, 3.0, 5.0)]
    # the default run is part of the sweep and trained once
    assert wanted["budget", "tiny-qwen2", 3.0] == page.config("msft") == wanted["mixture", "tiny", "msft"]
    assert wanted["budget", "tiny-qwen2", "sft"] == wanted["mixture", "tiny", "sft"]


def test_the_paper_s_sweep_is_on_the_models_that_its_table_7_has_with_c_1():
    page = study.Study("06_scale_and_budget", "paper")
    wanted = {key[1:] for key in scale.needs(page) if key[0] == "budget"}
    table = reported_numbers.table("table7").set_index("model").drop("Average").dropna()
    assert [reported_numbers.model_label(model) for model in page.swept] == list(table.index)
    assert wanted == {(model, c) for model in page.swept for c in ("sft", 1.0, 3.0, 5.0)}


def test_a_mixture_of_ones_own_is_needed_once():
    wanted = scale.needs(study.Study("06_scale_and_budget", "tiny", mixture="tiny-5"), budgets="1, 2")
    assert {key[1] for key in wanted if key[0] == "mixture"} == {"tiny-5"}
    assert [key[2] for key in wanted if key[0] == "budget"] == ["sft", 1.0, 2.0]


@pytest.mark.parametrize("text", ["one", "1;2", ",", "-1", "0", "inf", "nan"])
def test_budgets_that_are_none(text):
    with pytest.raises(ConfigError, match="budgets: .* give positive numbers"):
        scale.read_budgets(text)


def three():
    """One mixture of two sub-datasets; SFT 50 %, mSFT 65 %, IES 45 %."""
    ies = fake_run("ies", [roll_out(0, 0.0, [(0, [0.4, 0.5], None)])], (0, 0))
    return {("mixture", "m", method): run for method, run in (("msft", msft_run()), ("ies", ies), ("sft", sft_run()))}


def sweep():
    """mSFT of two sub-datasets, 100 tokens an epoch of both: C=1 in stages of 100 and 50 tokens, C=2 of 200 and 100; SFT
    trains 300. 10 parameters; 6 FLOPs a token and parameter, and nothing is evaluated."""

    def msft(c, accuracies):
        points = [(0, [0.1, 0.1], None), (c, accuracies, 1.0)]
        journal = [roll_out(0, 0.0, points, tokens=100 * c), roll_out(1, c, points, active=["b"], tokens=50 * c)]
        return fake_run("msft", journal, (0, c), params={"budget": float(c)}, parameters=10)

    sft = fake_run("sft", [roll_out(0, 0.0, [(0, [0.4, 0.6], None)], tokens=300)], (0, 0), parameters=10)
    return {
        ("budget", "m", "sft"): sft,
        ("budget", "m", 2.0): msft(2, [0.6, 0.8]),
        ("budget", "m", 1.0): msft(1, [0.4, 0.5]),
    }


def test_mixtures_by_hand():
    table = scale.by_mixture(three())
    assert table.method.tolist() == ["sft", "ies", "msft"]
    assert table.sub_datasets.tolist() == [2] * 3
    assert table.accuracy.tolist() == pytest.approx([50, 45, 65])
    assert table.gain.tolist() == pytest.approx([0, -5, 15])
    # two sub-datasets of 10 items, 40 and 60 % right
    assert table.error[0] == pytest.approx(100 * np.sqrt(2 * 0.24 / 10) / 2)


def test_sweep_by_hand():
    table = scale.by_budget(sweep())
    assert table.budget.tolist() == [1.0, 2.0]
    assert table.gain.tolist() == pytest.approx([-5, 20])
    assert table.sft.tolist() == [18_000, 18_000]
    # two stages of C epochs of the full mixture, less SFT's 300 tokens; net: 150 C tokens less these
    assert table.overhead.tolist() == pytest.approx([60 * (200 - 300), 60 * (400 - 300)])
    assert table.net.tolist() == pytest.approx([60 * (150 - 300), 0])
    assert table.savings.tolist() == pytest.approx([60 * -50, 60 * -100])
    assert (table.overhead + table.savings).tolist() == pytest.approx(table.net.tolist())


def test_without_exclusion_every_evaluation_counts_all():
    run = sweep()["budget", "m", 2.0]
    for entry in run.journal:
        for place, point in enumerate(entry["result"]["points"]):
            point |= {"tokens": {"a": 7, "b": 3}, "reused": entry["result"]["stage"] == 1 and place == 0}
    # the start of the second stage is the end of the first
    assert scale.without_exclusion(run) == 10 * (6 * 400 + 2 * 3 * 10)


def test_a_mean_over_models_is_that_of_differences():
    runs = sweep()
    runs["budget", "o", "sft"], runs["budget", "o", 1.0] = runs["budget", "m", "sft"], runs["budget", "m", 2.0]
    runs["budget", "o", 1.0].config.params["budget"] = 1.0
    del runs["budget", "m", 2.0]
    (row,) = scale.by_budget(runs).to_dict("records")
    assert (row["models"], row["gain"]) == (2, pytest.approx(7.5))
    assert row["net"] == pytest.approx(60 * -150 / 2)


def test_budgets_overruled_by_a_setting_are_one_point():
    runs = sweep()
    runs["budget", "m", 2.0] = runs["budget", "m", 1.0]
    assert scale.by_budget(runs).budget.tolist() == [1.0]


def test_the_paper_s_figure_6_agrees_with_its_table_7():
    """Net is mSFT's compute less SFT's, a mean over the four models that have C=1; the overhead grows by 2 epochs in 10."""
    theirs, table = scale.reported_budgets().set_index("budget"), reported_numbers.table("table7").set_index("model")
    four = table.drop("Average").dropna()
    for c in (1, 3):
        assert theirs.net[c] / 1e15 == pytest.approx((four[f"mSFT (C={c})"] - four["SFT"]).mean(), abs=0.06)
    assert (theirs.overhead + theirs.savings).tolist() == pytest.approx(theirs.net.tolist(), abs=0.2e15)
    assert theirs.overhead[5] == pytest.approx(2 * theirs.overhead[3], rel=1e-3)
    assert theirs.overhead[3] == pytest.approx(2 * theirs.sft[3], rel=0.02)


def test_units():
    assert scale.unit_of([2e12, 3e9]) == (1e12, "TFLOPs")
    assert scale.unit_of([491e15]) == (1e15, "PFLOPs")
    assert scale.unit_of([7.0]) == (1.0, "FLOPs")


def test_pictures_draw_what_the_tables_say():
    left, right = scale.mixture_panels(scale.by_mixture(three()))
    assert [points.lines[0].get_ydata()[0] for points in right.containers] == pytest.approx([-5, 15])
    assert [text.get_text() for text in right.texts] == ["−5.0", "+15.0"]
    assert ([text.get_text() for text in left.get_xticklabels()], left.get_xlabel()) == (
        ["2"],
        "sub-datasets of the mixture",
    )
    # whiskers of 95 % on both sides, by 1.96 standard errors
    (whisker,) = left.containers[0].lines[2][0].get_segments()
    assert whisker[1, 1] - whisker[0, 1] == pytest.approx(2 * 1.96 * scale.by_mixture(three()).error[0])
    assert left.figure.legends[0].texts[-1].get_text() == "the paper's mean for mSFT, +5.4"
    assert "%" in left.get_ylabel() and "points" in right.get_ylabel()
    axes = scale.budget_panels(scale.by_budget(sweep()), scale.reported_budgets())
    assert [axis.get_title() for axis in axes[0]] == ["here", "the paper, four models"]
    ours, theirs = axes[1]
    assert [label.get_text() for label in ours.get_xticklabels()] == ["1", "2", "3", "5"]
    # overhead, savings and net in percent of SFT's
    heights = [[bar.get_height() for bar in bars] for bars in ours.containers]
    assert heights == [pytest.approx(row, abs=1e-9) for row in ([-100 / 3, 100 / 3], [-50 / 3, -100 / 3], [-50, 0])]
    assert [text.get_text() for text in theirs.texts][:3] == ["0", "+456", "+912"]
    assert ours.get_ylim() == theirs.get_ylim() and axes[0][0].get_ylim() == axes[0][1].get_ylim()
    assert "C = 1 takes 50 % less compute than SFT" in style.said(axes)
    plt.close("all")


def test_the_papers_claims_agree_with_its_table_7():
    table = reported_numbers.table("table7").set_index("model").drop("Average").dropna()
    assert (table["SFT"] - table["mSFT (C=1)"]).mean() == pytest.approx(
        reported_numbers.claim("FLOPs saved by mSFT at C=1"), abs=0.05
    )


def test_claims_beside_ours():
    claims = scale.against_paper(three(), scale.by_budget(sweep()))
    assert list(claims.index) == ["mSFT over SFT, mean over the mixtures", "mSFT with C=1 over SFT"]
    assert claims.iloc[:, 0].tolist() == [5.4, 3.4]
    assert claims.iloc[:, 1].tolist() == pytest.approx([15, -5])
    # three of 20 items gained: a draw has none of them with probability 0.8^10 x 0.9^10 = 0.037
    assert (
        claims["95 % interval"].str.startswith("0.00 to ").iloc[0]
        and claims["95 % interval"].str.endswith(" 0.00").iloc[1]
    )
    assert claims["same direction"].tolist() == ["cannot tell", "cannot tell"]


def test_whether_the_budget_matters_is_asked_of_the_least_and_the_most_that_both_have():
    runs = {**three(), **sweep()}
    runs["budget", "m", 3.0] = runs.pop(("budget", "m", 2.0))
    table = scale.by_budget(sweep())
    claims = scale.against_paper(runs, table.assign(budget=table.budget.replace(2.0, 3.0)))
    last = claims.iloc[-1]
    assert last.name == "mSFT with C=3 over C=1"
    assert last["paper (points)"] == pytest.approx(2.3 - 3.4)
    assert last["here (points)"] == pytest.approx(70 - 45)
    assert last["same direction"] == "no"


def test_a_mean_over_mixtures_draws_the_items_that_they_share_once():
    def run(method, *accuracies):
        tasks = ("a", "b")[: len(accuracies)]
        return fake_run(method, [roll_out(0, 0.0, [(0, accuracies, None)], tasks=tasks, n=100)], (0, 0))

    runs = {
        ("mixture", "small", "sft"): run("sft", 0.4),
        ("mixture", "small", "msft"): run("msft", 0.6),
        ("mixture", "large", "sft"): run("sft", 0.4, 0.6),
        ("mixture", "large", "msft"): run("msft", 0.6, 0.5),
    }
    gain, low, high = scale.mean_gain(runs)
    assert gain == pytest.approx((20 + (20 - 10) / 2) / 2)
    # an item of a counts 1/2 + 1/4 for its two mixtures, one of b 1/4
    half = 1.96 * 100 * (0.75**2 * 0.2 * 0.8 / 100 + 0.25**2 * 0.1 * 0.9 / 100) ** 0.5
    assert [low, high] == pytest.approx([12.5 - half, 12.5 + half], abs=0.4)


def test_readable_tables():
    shown = scale.budget_table(scale.by_budget(sweep()), scale.reported_budgets())
    assert list(shown.index) == [
        ("C = 1", "here"), ("C = 1", "paper"), ("C = 2", "here"), ("C = 3", "paper"), ("C = 5", "paper"),
    ]  # fmt: skip
    assert shown.loc[("C = 3", "paper"), ["overhead", "net", "gain (points)"]].tolist() == pytest.approx(
        [456.1, 103.7, 2.3]
    )
    assert shown.loc[("C = 1", "here"), "net (% of SFT)"] == pytest.approx(-50)
    assert scale.readable(scale.by_mixture(three())).index.names == ["sub-datasets", "mixture", "method"]


def test_the_finding_has_every_gain_with_its_interval():
    text = scale.finding(scale.by_mixture(three()), scale.by_budget(sweep()))
    assert text.startswith("Over SFT mSFT gains +15.0 (")
    assert "with 2 sub-datasets, and by budget -5.0 (" in text
    # one of the 20 items is lost at C=1: no draw of items puts it above SFT
    assert " to +0.0) at C=1, +20.0 (" in text and "at C=2 (points with 95 % intervals" in text
    assert "1 of these 3 gains are shown to differ from 0. It falls short of a rule:" in text
