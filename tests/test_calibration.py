"""The figures of benchmarks/calibration.py against values worked out by hand or by another way."""

import argparse
import sys

import calibration
import numpy as np
import pandas as pd
import pytest
import recording
from scipy import stats

from msft import tiny
from paper_figures.instrument import mixtures, table


def test_icc_is_that_of_the_one_way_analysis_of_variance():
    peaks = pd.DataFrame(np.random.default_rng(0).normal(size=(10, 1)) + np.random.default_rng(1).normal(size=(10, 4)))
    f, k = stats.f_oneway(*peaks.to_numpy()).statistic, peaks.shape[1]
    assert calibration.icc(peaks) == pytest.approx((f - 1) / (f + k - 1))


def test_jitter_is_the_mean_step_between_neighbours_from_epoch_three_on():
    curve = pd.DataFrame({"a": [0.0, 50, 52, 49], "b": [0.0, 1, 1, 1]}, index=[1.0, 3.0, 3.25, 3.5])
    assert calibration.jitter(curve).to_dict() == {"a": 2.5, "b": 0.0}


@pytest.mark.parametrize("name", ["tiny", "tiny-15", "tiny-21"])
def test_chance_is_one_over_the_answers_that_there_are(name):
    for row, sub in zip(mixtures.rows_of(name), tiny.make_mixture(name), strict=True):
        answers = {example.answer for example in sub.test + sub.confirmation}
        if row.skill not in ("two_steps", "one_step"):  # sums have no fixed answers
            assert calibration.chance(row) == pytest.approx(100 / len(answers)), row.name
    assert calibration.chance(table.TABLE[-1]) == 0


def test_every_bar_of_a_smoke_run(tmp_path, monkeypatch):
    words = (
        f"--model tiny-smoke --mixture tiny-smoke --seeds 20 30 --processes 1 --runs {tmp_path}/r --results {tmp_path}"
    )
    monkeypatch.setattr(sys, "argv", ["calibration.py", *words.split()])
    monkeypatch.setattr(
        calibration,
        "train",
        lambda jobs, *rest, train=calibration.train: train([{**job, "params": {"epochs": 1.0}} for job in jobs], *rest),
    )
    calibration.main()
    result = pd.read_json(tmp_path / "calibration_mixtures.json", typ="series")
    (found,) = result["bases"].values()
    assert len(found["bars"]) == 9 and {row["met"] for row in found["bars"]} <= {True, False}
    assert set(found["shots"]) == {"five shots", "no shots"}
    curve = pd.DataFrame(found["sub_datasets"]).set_index("sub-dataset")
    assert list(curve.index) == tiny.make_mixture("tiny-smoke").names
    assert "not met" in (tmp_path / "calibration_mixtures.md").read_text(encoding="utf-8")


def test_a_result_names_the_command_that_makes_it():
    defaults = {"rates": False, "seeds": [20, 30], "model": ["m"]}
    options = argparse.Namespace(rates=True, seeds=[20], model=["m"])
    assert (
        recording.command("calibration.py", options, **defaults)
        == "python benchmarks/calibration.py --rates --seeds 20"
    )
    plain = argparse.Namespace(**defaults)
    assert recording.command("calibration.py", plain, **defaults) == "python benchmarks/calibration.py"
