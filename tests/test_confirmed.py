"""The table of confirmed accuracies against values worked out by hand."""

from types import SimpleNamespace

import pandas as pd
import pytest

from paper_figures.figures import confirmed


def run(method, best, seed=20, n=100):
    return SimpleNamespace(
        config=SimpleNamespace(
            method=method,
            model="m",
            mixture="x",
            seed=seed,
            select_on="test",
            params={"budget": 1.0} if method == "msft" else {},
        ),
        confirmation=pd.DataFrame({"task": ["a", "b"], "n": n, "base": 0.0, "best": best}),
        at_best=pd.DataFrame({"task": ["a", "b"], "accuracy": [0.9, 0.7]}),
    )


def test_differences_are_those_to_sft_of_the_same_seed():
    found = confirmed.table([run("msft", [0.6, 0.8]), run("sft", [0.5, 0.5]), run("msft", [0.9, 0.9], seed=30)])
    first, sft, other = found.reset_index().to_dict("records")
    assert (first["Method"], first["test"], first["confirmed"]) == ("mSFT, C = 1", pytest.approx(80), pytest.approx(70))
    assert (first["test, less SFT"], first["confirmed, less SFT"]) == (pytest.approx(0), pytest.approx(20))
    assert pd.isna(sft["confirmed, less SFT"]) and pd.isna(other["confirmed, less SFT"])  # no SFT run of that seed
    # two independent shares of a half on 100 items: 1.96 sqrt(2 x 0.25 / 100) / 2 = 6.93 points
    assert sft["±"] == pytest.approx(6.93, abs=0.01)
    assert first["± of the difference"] == pytest.approx((first["±"] ** 2 + sft["±"] ** 2) ** 0.5)


def test_runs_without_confirmation_items_make_no_table():
    assert not len(confirmed.table([]))
    bare = run("sft", [0.5, 0.5])
    bare.confirmation = bare.confirmation.iloc[:0]
    assert not len(confirmed.table([bare]))
