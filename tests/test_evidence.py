"""The statistics of benchmarks/evidence.py against values worked out by hand or by another way."""

import itertools
import json
import shutil
import sys

import evidence
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from msft import load_mixture
from msft.tiny import make_mixture


def test_every_run_is_wanted_once():
    jobs = evidence.wanted(["a", "b"], "tiny", (16, 8, 5))
    keys = [(job["model"], job["name"], job["seed"]) for job in jobs]
    assert len(keys) == len(set(keys)) == 2 * 16 + 2 * 8 + 5 * 5
    assert {seed for model, name, seed in keys if (model, name) == ("a", "mSFT")} == set(range(20, 180, 10))


def test_a_generated_mixture_that_is_not_embedded_is_written_as_files(tmp_path):
    assert evidence.mixture_of("tiny-21", tmp_path) == "tiny-21" and not list(tmp_path.iterdir())
    equal, generated = load_mixture(evidence.mixture_of("tiny-21-equal", tmp_path)), make_mixture("tiny-21")
    assert {len(sub.train) for sub in equal} == {48} and min(len(sub.train) for sub in generated) == 8
    for sub, small in zip(equal, generated, strict=True):
        assert sub.train[: len(small.train)] == small.train and not sub.validation
        assert [sub.name, sub.group] == [small.name, small.group]
        assert all(getattr(sub, part) == getattr(small, part) for part in ("test", "confirmation", "shots"))


def test_the_interval_is_that_of_the_paired_t_test():
    rng = np.random.default_rng(0)
    sft = pd.Series(rng.normal(70, 1, 9), index=range(9))
    values = pd.Series(sft + rng.normal(0.5, 1, 9), index=range(9))
    row = evidence.paired(values, sft)
    reference = stats.ttest_rel(values, sft)
    low, high = reference.confidence_interval(0.95)
    assert (row["n"], row["p"]) == (9, pytest.approx(reference.pvalue))
    assert (row["low"], row["high"]) == (pytest.approx(low), pytest.approx(high))


def test_one_pair_has_no_interval():
    row = evidence.paired(pd.Series({20: 71.0}), pd.Series({20: 70.0}))
    assert (row["n"], row["mean"]) == (1, 1.0) and np.isnan([row["low"], row["high"], row["p"]]).all()
    assert evidence.verdict(row) == "cannot tell"


def test_a_stage_s_start_was_measured_before(smoke_msft_run):
    points = smoke_msft_run.history[["stage", "epoch"]].drop_duplicates()
    assert points.stage.nunique() > 1
    assert len(evidence.evaluations(smoke_msft_run)) == len(points) - (points.stage.nunique() - 1)


def test_seeds_are_paired_and_the_rest_is_left_out():
    row = evidence.paired(pd.Series({20: 71.0, 30: 74.0}), pd.Series({30: 72.0, 20: 70.0, 40: 99.0}))
    assert (row["n"], row["mean"]) == (2, 1.5)


@pytest.mark.parametrize(
    ("low", "high", "words"), [(0.1, 1, "ahead of SFT"), (-1, -0.1, "behind SFT"), (-1, 1, "cannot tell")]
)
def test_what_an_interval_says(low, high, words):
    assert evidence.verdict({"low": low, "high": high}) == words


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_expected_best_is_the_mean_over_all_draws(k):
    values = [3.0, 1.0, 4.0, 1.0, 5.0]
    draws = list(itertools.combinations(values, k))
    assert evidence.expected_best(values, k) == pytest.approx(sum(map(max, draws)) / len(draws))
    assert evidence.expected_best(values, 9) == 5.0


def test_time_before_counts_each_method_at_its_own_pace():
    missing = [{"name": "SFT"}, {"name": "mSFT"}, {"name": "IES"}]
    assert evidence.minutes_before(missing, {"SFT": 60.0, "mSFT": 120.0}, 2) == pytest.approx((1 + 2 + 1.5) / 2)
    assert evidence.minutes_before(missing, {}, 2) is None


def test_the_whole_table_on_the_smoke_mixture(tmp_path, monkeypatch, capsys):
    words = f"--model tiny-smoke --mixture tiny-smoke --seeds 2 1 1 --processes 1 --runs {tmp_path}/runs --results {tmp_path}"
    monkeypatch.setattr(sys, "argv", ["evidence.py", *words.split()])
    monkeypatch.setattr(
        evidence,
        "METHODS",
        {
            "SFT": ("sft", {"epochs": 0.5}),
            "mSFT": ("msft", {"budget": 0.25}),
            "DynamixSFT": ("dynamix_sft", {"look_ahead_batch": 2, "epochs": 0.5, "updates": 2}),
        },
    )
    evidence.main()
    result = pd.read_json(tmp_path / "evidence_tiny-smoke.json", typ="series")
    assert len(result["runs"]) == 5
    text = (tmp_path / "evidence_tiny-smoke.md").read_text(encoding="utf-8")
    assert "| tiny-smoke | mSFT | test |" in text and "Fair draws" in text and "on the tiny-smoke mixture" in text
    # added to where the runs are gone: nothing is trained again, and what was measured stands
    shutil.rmtree(tmp_path / "runs")
    evidence.main()
    assert "5 runs, 0 to train" in capsys.readouterr().out and not (tmp_path / "runs").exists()
    assert (tmp_path / "evidence_tiny-smoke.md").read_text(encoding="utf-8") == text


def test_runs_of_another_kind_of_machine_are_not_taken_over(tmp_path, capsys):
    path = tmp_path / "evidence.json"
    assert evidence.measured_before(path, "this one") == {}
    path.write_text(json.dumps({"machine": "this one", "runs": [{"run": "a", "test": 70.0}, {"test": 71.0}]}))
    assert evidence.measured_before(path, "this one") == {"a": {"run": "a", "test": 70.0}}
    assert evidence.measured_before(path, "another") == {}
    assert "1 runs in" in (said := capsys.readouterr().out) and "are of this one, this is another" in said


def test_readme_shows_the_committed_evidence():
    result = json.loads((evidence.RESULTS / "evidence.json").read_text(encoding="utf-8"))
    _, block, _ = evidence.README.read_text(encoding="utf-8").split(evidence.MARK)
    assert block.strip() == evidence.summary(result)


def test_readme_is_told_between_its_marks_alone(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{evidence.MARK}\nold\n{evidence.MARK}\nafter\n", encoding="utf-8")
    row = {"model": "m", "method": "mSFT", "n": 2, "mean": 1.0, "low": 0.5, "high": 1.5}
    evidence.tell_readme({"differences": [{**row, "items": "test"}, {**row, "items": "confirmed"}]}, readme)
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| m | mSFT | 2 | +1.0 (+0.5 to +1.5) | +1.0 (+0.5 to +1.5) | ahead of SFT |" in text
