import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from figure_runs import START, fake_run, roll_back, roll_out

from paper_figures import study, style
from paper_figures.figures import training_loss


def sft_run():
    points = [START, *((e, [0.5, 0.5], {"a": a, "b": b}) for e, a, b in [(0.25, 3, 1), (0.5, 2, 0.9), (0.75, 2, 0.7)])]
    return fake_run("sft", [roll_out(0, 0.0, points)], (0, 0.5))


def msft_run():
    """Drops a at epoch 0.25; b goes on from there in stage 1, with losses of its own alone."""
    first = [START, (0.25, [0.5, 0.3], {"a": 3, "b": 1}), (0.5, [0.4, 0.2], {"a": 2, "b": 0.9})]
    second = [(0, [0.5, 0.3], None), (0.25, [0.6, 0.7], {"b": 0.8}), (0.5, [0.4, 0.8], {"b": 0.4})]
    journal = [roll_out(0, 0.0, first), roll_back(0, 0.25, "a"), roll_out(1, 0.25, second, active=["b"])]
    return fake_run("msft", journal, (1, 0.5))


def pair(model="m"):
    return {(model, "sft"): sft_run(), (model, "msft"): msft_run()}


def test_losses_are_those_of_the_sub_datasets_that_both_still_train():
    table = training_loss.losses(sft_run(), msft_run())
    assert table.values.tolist() == [
        [0.25, "a", 3, 3], [0.25, "b", 1, 1], [0.5, "b", 0.9, 0.8], [0.75, "b", 0.7, 0.4],
    ]  # fmt: skip
    # runs of former versions did not note them
    old = sft_run()
    old.history["task_train_loss"] = np.nan
    assert training_loss.losses(old, msft_run()).empty


def test_losses_are_compared_after_the_first_exclusion():
    row = training_loss.compare(pair()).loc["m"]
    assert row["first exclusion"] == 0.25
    assert row["compared"] == 2  # b at epochs 0.5 and 0.75; what SFT still trains of a is no part of it
    assert row["mSFT lower (%)"] == 100
    assert row["difference (nats)"] == pytest.approx((-0.1 - 0.3) / 2)
    assert np.isnan(row.low)  # one sub-dataset has no interval


def test_nothing_to_compare_is_said_plainly():
    table = training_loss.compare({("m", "sft"): sft_run(), ("m", "msft"): sft_run()})
    assert np.isnan(table.loc["m", "first exclusion"])
    assert training_loss.finding(table).startswith("No model has sub-datasets that both runs train")
    assert training_loss.title(table).startswith("Nothing to compare")


def test_the_finding_names_the_sign():
    row = training_loss.compare(pair())
    table = pd.concat([row, 3 * row]).set_index(pd.Index(["m", "o"]))
    # -0.2 and -0.6: a deviation of 0.283, and t of one degree of freedom is 12.7
    assert "lower one on 2 of n = 2 models, by -0.400 ± 2.541 nats" in training_loss.finding(table)
    assert "lower one on 0 of n = 2 models, by +0.400" in training_loss.finding(-table)


def test_the_title_says_what_is_shown_alone():
    row = training_loss.compare(pair())
    assert training_loss.title(row).endswith(
        "cannot tell whose training loss is lower; mSFT minus SFT -0.200 nats (no interval)"
    )
    lower, higher = row.assign(low=-0.3, high=-0.1), -row.assign(low=-0.1, high=-0.3)
    assert training_loss.title(lower).endswith(
        "mSFT's training loss is lower; mSFT minus SFT -0.200 nats (-0.300 to -0.100)"
    )
    assert training_loss.title(higher).endswith(
        "mSFT's training loss is higher; mSFT minus SFT +0.200 nats (+0.100 to +0.300)"
    )
    both = training_loss.title(pd.concat([lower, higher]).set_index(pd.Index(["m", "o"])))
    assert "is lower on 1 and higher on 1 of 2 models; mSFT minus SFT -0.200 nats (m, -0.300 to -0.100), +0.200" in both


def test_the_paper_s_direction_is_lower():
    row = training_loss.compare(pair())
    shown = pd.concat([row.assign(low=-0.3, high=-0.1), -row.assign(low=-0.1, high=-0.3), row.assign(low=-1, high=1)])
    table = training_loss.against_paper(shown.set_index(pd.Index(["l", "h", "o"])))
    assert table.index[0] == "training loss of mSFT over SFT, l"
    assert table["same direction"].tolist() == ["yes", "no", "cannot tell"]
    assert (
        training_loss.against_paper(training_loss.compare({("m", "sft"): sft_run(), ("m", "msft"): sft_run()})) is None
    )


def test_a_panel_a_model():
    axes = training_loss.panels_of(pair("one") | pair("two"), ["one", "two"])
    assert [axis.get_title() for axis in axes] == ["one", "two"]
    figure = axes[0].figure
    assert "nats" in figure.get_supylabel() and "epoch" in figure.get_supxlabel()
    for axis in axes:
        sft, msft = (line.get_ydata().tolist() for line in axis.lines)
        assert sft == pytest.approx([2, 0.9, 0.7]) and msft == pytest.approx([2, 0.8, 0.4])
    assert [text.get_text() for text in figure.legends[0].texts] == ["SFT", "mSFT", "exclusion"]
    assert style.said(axes).startswith("On what both still train, cannot tell")
    plt.close("all")


def test_needs_every_model_once():
    page = study.Study("09_training_loss", "tiny")
    assert {model for model, _ in training_loss.needs(page)} == set(page.models)
