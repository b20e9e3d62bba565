"""Algorithm 4 played over a run made by hand, and the ledger beside it."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from figure_runs import msft_run

from paper_figures import study, style
from paper_figures.figures import storage


@pytest.fixture
def run():
    run = msft_run()
    for entry in run.journal:
        for point in entry["result"].get("points", []):
            point["selected_from"] = point["n"]
    run.directory = "run"
    times, copies = [0, 60, 180], [1.0, 3.0, 1.0]
    run.disk = pd.DataFrame({"time": times, "copies": copies, "bound": [2, 4, 2]})
    return run


def test_copies_by_hand(run):
    """Stage 0: at 0.25 all peaks are one checkpoint, at 0.5 nobody holds a new one. Stage 1 begins there: b, the overall
    best and the start point."""
    table = storage.replay(run)
    assert table.live.tolist() == [1, 1, 1, 1, 2, 2]
    # a stage of two has three holders, one of one has two; the second keeps two points beside
    assert table.bound.tolist() == [1, 2, 3, 3, 4, 4]
    assert table.trained.tolist() == [0, 0.25, 0.5, 0.5, 0.75, 1.0]


def test_the_mean_is_over_time(run):
    # one minute with one copy, two with three
    assert storage.mean_copies(run) == pytest.approx((1 * 1 + 2 * 3) / 3)


def test_a_row_and_a_panel_a_run(run):
    runs = {("model", "Qwen/Qwen2.5-3B"): run, ("mixture", "5"): run, ("C", "1"): run}
    table = storage.summary(runs)
    # a mixture is named by what it has, whatever the profile calls it
    assert list(table.index) == ["Qwen2.5 3B", "2 sub-datasets", "C = 1"]
    assert table["on disk, peak"].tolist() == [3, 3, 3]
    # appendix H for two sub-datasets
    assert table["predicted mean"].tolist() == [3.5] * 3
    axes = storage.live_copies(runs)
    assert [axis.get_title() for axis in axes] == [f"{name}\nmean 1.3, predicted 3.5" for name in table.index]
    assert len({axis.get_ylim() for axis in axes}) == 1
    assert "keeps 1.3 to 1.3 model copies on average, fewer than predicted in 3 of 3 runs" in style.said(axes)
    plt.close("all")


def test_the_finding_counts_a_run_once(run):
    text = storage.finding({("model", "m"): run, ("C", "3"): run})
    assert text.startswith("mSFT holds 2.33 (no interval) model copies on disk")
    assert "over n = 1 runs) and the paper reports 4.44" in text


def test_needs_cover_what_varies():
    page = study.Study("12_storage", "tiny")
    needed = storage.needs(page)
    assert needed["model", page.focus] == needed["C", "3"] == page.config("msft")
    assert {what for what, _ in needed} == {"model", "mixture", "C"}
