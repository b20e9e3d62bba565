"""A peak that leads its neighbours by less than its standard error is named, item by item, never guessed."""

import math

import numpy as np
import pandas as pd
import pytest

from msft.results.leads import answers_file, doubts, leads
from msft.results.summary import summary
from msft.store.files import write_gzip

N = 64


def point(epoch, right, reused=False, own=None):
    return {
        "epoch": epoch,
        "reused": reused,
        "selection": {"sums": right / N if own is None else own},
        "selected_from": {"sums": N},
    }


def roll_out(stage, offset, *points):
    return {
        "kind": "roll_out",
        "arguments": {"active": ["sums"]},
        "result": {"stage": stage, "offset": offset, "points": list(points)},
    }


def drop(stage, epoch, task="sums"):
    return {"kind": "roll_back", "arguments": {"stage": stage, "epoch": epoch, "dropped": task}, "result": None}


def write(folder, stage, epoch, right, first=0, part="test"):
    """Answers of which `right` are right, from item `first` on."""
    folder.mkdir(exist_ok=True)
    correct = [first <= i < first + right for i in range(N)]
    rows = [{"part": part, "task": "sums", "item": i, "text": "\u2028", "correct": c} for i, c in enumerate(correct)]
    write_gzip(answers_file(folder, stage, epoch), rows)


def test_one_of_64_items_is_no_clear_lead_and_many_are(tmp_path):
    for epoch, right in ((0.0, 20), (0.25, 40), (0.5, 39)):
        write(tmp_path, 0, epoch, right)
    journal = [roll_out(0, 0.0, point(0.0, 20), point(0.25, 40), point(0.5, 39)), drop(0, 0.25)]
    row = leads(journal, tmp_path, "test").iloc[0]
    difference = np.array([1.0] + [0.0] * (N - 1))
    assert row.lead * N == pytest.approx(1)
    assert row.standard_error == pytest.approx(difference.std(ddof=1) / math.sqrt(N))
    assert row.beside == 0.5 and not row.is_clear
    assert doubts(leads(journal, tmp_path, "test")) == [
        "sums was dropped at epoch 0.25, 1 of 64 items above epoch 0.5, with a standard error of 1"
    ]
    write(tmp_path, 0, 0.5, 20)
    journal[0] = roll_out(0, 0.0, point(0.0, 20), point(0.25, 40), point(0.5, 20))
    found = leads(journal, tmp_path, "test")
    assert found.is_clear.all() and doubts(found) == []


def test_other_items_right_at_both_points_widen_the_error(tmp_path):
    write(tmp_path, 0, 0.0, 20)
    write(tmp_path, 0, 0.25, 24, first=20)
    journal = [roll_out(0, 0.0, point(0.0, 20), point(0.25, 24), point(0.5, 0)), drop(0, 0.25)]
    assert leads(journal, tmp_path, "test").iloc[0].standard_error * N == pytest.approx(6.65, abs=0.1)


def test_a_stage_that_is_left_at_its_start_has_the_answers_of_the_point_before(tmp_path):
    write(tmp_path, 0, 0.25, 40)
    write(tmp_path, 1, 0.25, 38)
    journal = [
        roll_out(0, 0.0, point(0.0, 1), point(0.25, 40)),
        roll_out(1, 0.25, point(0.0, 40, reused=True), point(0.25, 38)),
        drop(1, 0.0),
    ]
    row = leads(journal, tmp_path, "test").iloc[0]
    assert (
        row.path_epoch == 0.25
        and row.beside == 0.5
        and row.lead * N == pytest.approx(2)
        and not math.isnan(row.standard_error)
    )


def test_what_is_no_mean_over_items_has_no_standard_error(tmp_path):
    write(tmp_path, 0, 0.0, 20)
    write(tmp_path, 0, 0.25, 20)
    journal = [
        roll_out(0, 0.0, point(0.0, 0, own=-30.0), point(0.25, 0, own=-25.0), point(0.5, 0, own=-26.0)),
        drop(0, 0.25),
    ]
    found = leads(journal, tmp_path, "test")
    assert found.is_clear.isna().all() and found.lead.iloc[0] == pytest.approx(1)
    assert doubts(found) == [
        "sums: without a standard error, since it was not decided on a mean over items, or their answers are gone"
    ]


def test_a_run_says_so_at_its_end(small_msft_run):
    found = small_msft_run.leads
    assert list(found.task) == [task for task, epoch in small_msft_run.dropped.items() if epoch is not None]
    assert found.standard_error.notna().all() and (found.lead >= 0).all()
    text = " ".join(summary(small_msft_run).split())
    assert all(" ".join(said.split()) in text for said in doubts(found))
    assert isinstance(found, pd.DataFrame)
