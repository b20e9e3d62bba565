"""Optima by accuracy and by loss: their agreement over seeds, the headroom, and what is above guessing."""

from types import SimpleNamespace

import matplotlib
from figure_runs import FakeRun, answers

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from msft.data.tasks import task_name
from msft.errors import ConfigError
from paper_figures import data, style
from paper_figures.figures import overfitting, real_model

# at epochs 0, 1, 2, 3
ACCURACY = {"early": [0.1, 0.9, 0.5, 0.3], "late": [0.1, 0.2, 0.4, 0.7]}
LOSS = {"early": [3.0, 1.0, 1.5, 2.0], "late": [3.0, 2.0, 1.0, 0.5]}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def made(directory, seed=20, method="sft", accuracy=ACCURACY, loss=LOSS, best=3, most_frequent=0.75):
    rows = [
        {"stage": 0, "epoch": i, "path_epoch": i, "task": task, "accuracy": accuracy[task][i], "loss": loss[task][i]}
        for i in range(4)
        for task in accuracy
    ]
    history = pd.DataFrame(rows).assign(n=100, epoch=lambda rows: rows.epoch.astype(float))
    return FakeRun(
        history=history,
        outputs=answers(history),
        result={"best": {"stage": 0, "epoch": float(best)}},
        best=SimpleNamespace(path_epoch=float(best)),
        config=SimpleNamespace(method=method, model="tiny-qwen2", seed=seed),
        about={"mixture": {"sub_datasets": {"early": {"most_frequent": most_frequent}, "late": {}}}},
        directory=directory,
    )


def test_optima_by_accuracy_and_by_loss(tmp_path):
    other = {"early": [3.0, 1.0, 0.9, 2.0], "late": LOSS["late"]}
    runs = {("sft", 20): made(tmp_path), ("sft", 30): made(tmp_path, 30, loss=other)}
    assert real_model.optima(runs, "accuracy").to_dict("list") == {20: [1, 3], 30: [1, 3]}
    assert real_model.optima(runs, "loss").to_dict("list") == {20: [1, 3], 30: [2, 3]}
    table = real_model.optima_table(runs)
    assert table.loc["early"].tolist() == [1, 1, 1, 2]
    # between: 2 x var(1.5, 3) = 2.25; within: mean(0.5, 0) = 0.25; (2.25 - 0.25) / (2.25 + 0.25)
    assert table.loc["ICC over the seeds"].tolist() == pytest.approx([1, 1, 0.8, 0.8])
    # accuracy: mean of 90 and 70 against the best mean, 55 (epoch 1); loss: mean of 1 and 0.5 against 1.25 (epoch 2 or 3)
    first = table.loc["headroom (points, nats)"]
    assert first[["by accuracy, seed 20", "by loss, seed 20"]].tolist() == pytest.approx([25, 0.5])
    axes = real_model.optima_plot(runs)
    assert (
        "epochs 1 to 3 by accuracy and 1 to 3 by loss; ICC over seeds 1.00 (accuracy), 0.80 (loss, \N{MINUS SIGN}0.62 to 1.00)"
        in style.said(axes)
    )
    assert [text.get_text() for text in axes[0].get_yticklabels()] == ["early", "late"]


@pytest.mark.parametrize("seeds", [1, 2, 4, 7])
def test_every_seed_has_its_mark_in_the_picture_of_the_optima(tmp_path, seeds):
    axes = real_model.optima_plot({("sft", seed): made(tmp_path, seed) for seed in range(seeds)})
    for axis in axes:
        assert [dots.get_label() for dots in axis.collections] == [f"seed {seed}" for seed in range(seeds)]


def test_a_curve_that_never_moves_has_no_optimum(tmp_path):
    still = {**ACCURACY, "late": [0.0] * 4}
    runs = {("sft", 20): made(tmp_path, accuracy=still), ("sft", 30): made(tmp_path, 30)}
    assert np.isnan(real_model.optima(runs, "accuracy").loc["late", 20])
    # one sub-dataset is left, whose optimum comes back: nothing to compare it with
    assert np.isnan(real_model.agreement(real_model.optima(runs, "accuracy"))[0])
    assert real_model.agreement(real_model.optima(runs, "loss"))[0] == 1
    real_model.optima_plot(runs)


def test_one_seed_has_no_agreement(tmp_path):
    runs = {("sft", 20): made(tmp_path)}
    assert np.isnan(real_model.optima_table(runs).loc["ICC over the seeds"]).all()
    assert "ICC" not in style.said(real_model.optima_plot(runs))
    # and SFT alone is compared with nothing
    assert real_model.finding(runs, real_model.methods_table(runs)).endswith("nats against a stop for each.")


def test_methods_against_sft_with_intervals(tmp_path):
    better = {"early": [0.1, 0.9, 0.9, 0.9], "late": ACCURACY["late"]}
    runs = {("sft", 20): made(tmp_path), ("msft", 20): made(tmp_path, method="msft", accuracy=better)}
    table = real_model.methods_table(runs)
    assert table["accuracy (%)"].tolist() == pytest.approx([10, 50, 80])
    assert table["loss (nats)"].tolist() == pytest.approx([3, 1.25, 1.25])
    row = table.loc["mSFT"]
    # 60 and 0 points: mean 30, t(1) 12.706 x sd 42.43 / sqrt(2)
    assert row[real_model.POINTS].tolist() == pytest.approx([30, -351.19, 411.19], abs=0.01)
    # equal losses: no difference, no interval around it that leaves out 0
    assert row[real_model.NATS].tolist() == pytest.approx([0, 0, 0])
    said = real_model.finding(runs, table)
    assert (
        "(one run a method and seed, 95 % interval over the sub-datasets): in accuracy, none of mSFT; in held-out loss, none of"
        in said
    )
    same = {("sft", 20): made(tmp_path), ("ies", 20): made(tmp_path, method="ies")}
    assert "none of IES" in real_model.finding(same, real_model.methods_table(same))


def test_another_seed_is_compared_with_sft_of_that_seed(tmp_path):
    page = SimpleNamespace(seeds=(20, 30, 40), config=lambda method, seed=20: (method, seed))
    assert list(real_model.needs(page, "sft ies", 2)) == [("sft", 20), ("ies", 20), ("sft", 30)]
    own = real_model.needs(page, "sft ies ies:30", 2)
    assert list(own) == [("sft", 20), ("ies", 20), ("ies", 30), ("sft", 30)] and own["ies", 30] == ("ies", 30)
    with pytest.raises(ConfigError, match="'ies:x' is neither a method's name nor"):
        real_model.needs(page, "sft ies:x", 2)
    needed = real_model.needs(page, "sft msft", 2)
    assert list(needed) == [("sft", 20), ("msft", 20), ("sft", 30), ("msft", 30)]
    lower = {task: [value - 0.25 for value in values] for task, values in LOSS.items()}
    losses = {("sft", 30): lower, ("msft", 30): lower}
    runs = {key: made(tmp_path, key[1], loss=losses.get(key, LOSS), method=key[0]) for key in needed}
    table = real_model.methods_table(runs)
    assert list(table.index) == ["before training", "SFT", "mSFT", "SFT (seed 30)", "mSFT (seed 30)"]
    # of the same seed: no difference, though SFT of the first seed is 0.25 nats above
    assert table["loss (nats)"].tolist() == pytest.approx([3, 1.25, 1.25, 1, 1])
    assert table.loc["mSFT (seed 30)", real_model.NATS].tolist() == pytest.approx([0, 0, 0])
    assert "none of mSFT, mSFT (seed 30)." in real_model.finding(runs, table)
    for count in (0, 4):
        with pytest.raises(ConfigError, match=f"seeds = {count}: the page has 20, 30, 40;.*seed=20,30,40"):
            real_model.needs(page, "sft", count)


def test_losses_against_sft_with_their_interval_over_sub_datasets(tmp_path):
    lower = {"early": [3.0, 1.0, 1.5, 1.9], "late": [3.0, 2.0, 1.0, 0.38]}
    runs = {("sft", 20): made(tmp_path), ("msft", 20): made(tmp_path, method="msft", loss=lower)}
    table = real_model.methods_table(runs)
    # -0.10 and -0.12: mean -0.11, t(1) 12.706 x sd 0.01414 / sqrt(2)
    assert table.loc["mSFT", real_model.NATS].tolist() == pytest.approx([-0.11, -0.23706, 0.01706], abs=1e-4)
    lower["early"][3] = 1.8799
    told = real_model.finding(
        runs, real_model.methods_table({**runs, ("msft", 20): made(tmp_path, method="msft", loss=lower)})
    )
    assert "in accuracy, none of mSFT; in held-out loss, mSFT -0.120." in told


def test_guessing_is_the_most_frequent_right_answer(tmp_path):
    table = real_model.chance_table(made(tmp_path))
    assert table["peak (%)"].tolist() == pytest.approx([90, 70])
    assert table["most frequent answer (%)"].tolist() == pytest.approx([75, np.nan], nan_ok=True)
    assert table["above it"].tolist() == ["yes", "not shown"]
    # 100 of 100 right has an interval too, from 96.3 % on, which 97 % lies in
    solved = {**ACCURACY, "early": [0.1, 1.0, 0.5, 0.3]}
    run = made(tmp_path, accuracy=solved, most_frequent=0.97)
    assert real_model.chance_table(run).loc["early", "above it"] == "not shown"


def test_the_loss_version_of_figure_2_stars_the_lowest_losses(tmp_path):
    run = made(tmp_path)
    axes = overfitting.curves(run, measure="loss")
    assert [axis.get_title() for axis in axes] == ["early: 1", "late: 3"]
    assert [tuple(axis.collections[0].get_offsets()[0]) for axis in axes] == [(1, 1.0), (3, 0.5)]
    assert [axis.get_ylim()[1] for axis in axes] == pytest.approx([2.3, 2.3])
    # the mean is lowest at epoch 2, where 'early' is 0.5 and 'late' 0.5 above its own lowest
    assert overfitting.one_stop(run, "loss") == 2
    assert "0.50 ± 0.00 nats above their own lowest losses" in style.said(axes)
    assert overfitting.distances(run, "loss").tolist() == [1, 1]
    assert data.by_epoch(run, "loss").early.tolist() == LOSS["early"]


def test_a_run_says_what_its_most_frequent_answers_reach(small_run):
    said = real_model.most_frequent(small_run)
    assert list(said.index) == list(small_run.metrics)
    for task, share in said.items():
        rows = pd.read_json(small_run.directory / "tasks" / f"{task_name(task)}.jsonl", lines=True, dtype=False)
        assert share == pytest.approx(100 * (rows.answer == rows.answer.mode()[0]).mean()) and share > 0
