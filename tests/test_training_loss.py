import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from figure_runs import msft_run, sft_run

from paper_figures import study
from paper_figures.figures import training_loss


def test_curves_follow_the_kept_path():
    assert training_loss.curve(sft_run())[["path_epoch", "train_loss"]].values.tolist() == [
        [0.25, 2.0], [0.5, 1.0], [0.75, 0.5],
    ]  # fmt: skip
    # stage 0 was left at 0.25, stage 1 at its 0.25
    assert training_loss.curve(msft_run()).values.tolist() == [[0, 0.25, 2.0], [1, 0.5, 0.8]]
    assert training_loss.exclusions(msft_run()) == [0.25, 0.5]
    assert training_loss.exclusions(sft_run()) == []


def test_the_way_to_the_best_checkpoint():
    assert training_loss.branch_to_best(msft_run()).values.tolist() == [[0.5, 0.8]]
    off_the_path = training_loss.branch_to_best(msft_run(best=(1, 0.5)))
    assert off_the_path.values.tolist() == [[0.5, 0.8], [0.75, 0.4]]
    assert training_loss.branch_to_best(msft_run(best=(0, 0.0))).empty


def test_losses_are_compared_after_the_first_exclusion():
    row = training_loss.compare({("m", "sft"): sft_run(), ("m", "msft"): msft_run()}).loc["m"]
    assert row["first exclusion"] == 0.25
    assert row["compared"] == 1  # epoch 0.5; mSFT ends there
    assert row["mSFT lower (%)"] == 100
    assert row["difference (nats)"] == pytest.approx(0.8 - 1.0)
    assert row[["at the best of SFT", "at the best of mSFT"]].tolist() == [1.0, 0.8]


def test_nothing_to_compare_is_said_plainly():
    table = training_loss.compare({("m", "sft"): sft_run(), ("m", "msft"): sft_run()})
    assert np.isnan(table.loc["m", "first exclusion"])
    assert training_loss.finding(table).startswith("No model has epochs after a first exclusion")


def test_the_finding_names_the_sign():
    row = training_loss.compare({("m", "sft"): sft_run(), ("m", "msft"): msft_run()})
    table = pd.concat([row, 3 * row]).set_index(pd.Index(["m", "o"]))
    # -0.2 and -0.6: a deviation of 0.283, and t of one degree of freedom is 12.7
    assert "lower one on 2 of n = 2 models, by -0.400 ± 2.541 nats" in training_loss.finding(table)
    assert "lower one on 0 of n = 2 models, by +0.400" in training_loss.finding(-table)


def test_a_panel_a_model():
    runs = {(name, run.config.method): run for name in ("one", "two") for run in (sft_run(), msft_run(best=(1, 0.5)))}
    axes = training_loss.panels_of(runs, ["one", "two"])
    assert [axis.get_title() for axis in axes] == ["one", "two"]
    figure = axes[0].figure
    assert "nats" in figure.get_supylabel() and "epoch" in figure.get_supxlabel()
    for axis in axes:
        assert axis.lines[0].get_ydata().tolist() == [2.0, 1.0, 0.5]
        stars = [c.get_offsets().tolist() for c in axis.collections if len(c.get_offsets())]
        assert [[0.5, 1.0]] in stars and [[0.75, 0.4]] in stars
    assert [text.get_text() for text in figure.legends[0].texts][:2] == ["SFT", "mSFT"]
    plt.close("all")


def test_a_base_model_that_is_best_has_no_star():
    runs = {("m", "sft"): sft_run(), ("m", "msft"): msft_run(best=(0, 0.0))}
    (axis,) = training_loss.panels_of(runs, ["m"])
    stars = [c.get_offsets().tolist() for c in axis.collections if len(c.get_offsets())]
    assert [[0.5, 1.0]] in stars and [[0.75, 0.4]] not in stars
    assert np.isnan(training_loss.compare(runs).loc["m", "at the best of mSFT"])
    plt.close("all")


def test_needs_every_model_once():
    page = study.Study("09_training_loss", "tiny")
    assert {model for model, _ in training_loss.needs(page)} == set(page.models)
