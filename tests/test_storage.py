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
    run.about["started"] = "1970-01-01T00:01:00+00:00"
    events = {"event": ["write weights", "saved", "write best"], "time": [120, 180, 300], "copies": [1.0, 3.0, 1.0]}
    run.disk = pd.DataFrame(events)
    return run


def test_copies_by_hand(run):
    """Stage 0: at 0.25 all peaks are one checkpoint, at 0.5 nobody holds a new one. Stage 1 begins there: b, the overall
    best and the start point."""
    table = storage.replay(run)
    assert table.live.tolist() == [1, 1, 1, 1, 2, 2]
    # a stage of two has three holders, one of one has two; the second keeps two points beside
    assert table.bound.tolist() == [1, 2, 3, 3, 4, 4]
    assert table.trained.tolist() == [0, 0.25, 0.5, 0.5, 0.75, 1.0]


def test_the_mean_is_over_the_run_s_time_from_its_start(run):
    # a minute with nothing on disk, one with one copy, two with three
    assert storage.on_disk_by_time(run).seconds.tolist() == [0, 60, 120, 240]
    assert storage.mean_copies(run) == pytest.approx((1 * 0 + 1 * 1 + 2 * 3) / 4)
    # of files alone, whatever their size: none, then one, and the second as the run ends
    assert storage.mean_copies(run, whole=True) == pytest.approx((1 * 0 + 3 * 1) / 4)


def test_a_short_run_is_said_to_tell_little(run):
    axis = storage.on_disk(run)
    assert axis.get_xlabel().startswith("seconds")
    assert style.said(axis).startswith(
        "A run of 240 seconds that saves its state once, when its training ends, says little"
    )
    run.disk = run.disk.assign(event="saved", time=[120, 180, 3660])
    axis = storage.on_disk(run)
    assert axis.get_xlabel().startswith("minutes")
    assert "over 60 minutes, in which the state was saved 3 times" in style.said(axis)
    plt.close("all")


def test_a_row_a_run_and_a_panel_a_value(run):
    runs = {("model", "Qwen/Qwen2.5-3B"): run, ("mixture", "5"): run, ("mixture", "granular"): run, ("C", "1"): run}
    table = storage.summary(runs)
    # a mixture is named by what it has, whatever the profile calls it
    names = ["Qwen2.5 3B", "2 sub-datasets", "C = 1"]
    assert list(table.index) == [", ".join(names)]
    assert table["on disk, peak"].tolist() == [3] and table["states saved"].tolist() == [1]
    # appendix H for two sub-datasets, beside the peaks of stages with one copy and with two
    assert table["predicted"].tolist() == [3.5] and table["stages' peaks, mean"].tolist() == [1.5]
    axes = storage.live_copies({key: run for key in runs if key[1] != "granular"})
    assert [axis.get_title() for axis in axes] == [f"{name}\nmean 1.3, peaks 1.5\npredicted 3.5" for name in names]
    assert "keeps 1.3 to 1.3 model copies on average (the paper: 4.44)" in style.said(axes)
    assert "below the predicted one in 3 of 3 runs" in style.said(axes)
    plt.close("all")


def test_no_panel_is_cut_off(run, monkeypatch):
    """The panels share an axis: a later one may hold the highest of all."""
    low, high = storage.replay(run), storage.replay(run).assign(bound=9)
    played = iter([low, high])
    monkeypatch.setattr(storage, "replay", lambda _: next(played))
    axes = storage.live_copies({("C", "1"): run, ("C", "3"): run})
    assert all(axis.get_ylim() == pytest.approx((0, 1.05 * 9)) for axis in axes)
    plt.close("all")


def test_the_finding_counts_a_run_once(run):
    text = storage.finding({("model", "m"): run, ("C", "3"): run})
    assert text.startswith("mSFT holds 1.75 (no interval) model copies on disk from a run's start")
    assert "over n = 1 runs) and the paper reports 4.44" in text and "1 of these saved their state once" in text


def test_needs_cover_what_varies():
    page = study.Study("12_storage", "tiny")
    needed = storage.needs(page)
    assert needed["model", page.focus] == needed["C", "3"] == page.config("msft")
    assert {what for what, _ in needed} == {"model", "mixture", "C"}
