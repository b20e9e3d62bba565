"""benchmarks/explain.py: drops without a step are counted, branches begin as one, and a table says it."""

import importlib.util
import json
import sys

import explain
import pytest
import torch
from helpers import make_trainer

from msft.methods import load


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain")
    flags = "--model tiny-smoke --mixture tiny-smoke --seeds 2 1 --branch 2 --processes 1".split()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["explain", *flags, "--runs", str(folder / "runs"), "--results", str(folder)])
        explain.main()
    return json.loads((folder / "explain.json").read_text()), (folder / "explain.md").read_text(encoding="utf-8")


def test_nobody_is_dropped_without_a_step_where_the_start_does_not_count(result):
    rows = {row["variant"]: row for row in result[0]["budget one"] if row["items"] == "test"}
    assert rows["SFT"]["dropped"] == rows["the same, none dropped without a step"]["dropped"] == 0
    assert rows["mSFT, C = 1"]["dropped"] > 0
    assert all(row["n"] == 2 for name, row in rows.items() if name != "SFT")


def test_the_branches_drift_and_the_table_says_how_far(result):
    found = result[0]["inside"]["tiny-smoke"]
    for branch in ("reduced", "other order"):
        (distances,) = found["drift"][branch]
        assert len(distances) == 2 and all(distance > 0 for distance in distances)
        assert f"| {distances[-1]:.2f} (no interval) |" in result[1]
    assert set(found["pairs"]) == {"base", "fork", "end of the full branch"}
    assert all(len(pairs) == 6 and all(-1 <= c <= 1 for c in pairs) for (pairs,) in found["pairs"].values())
    assert found["first_with_rest"]["base"] == [None]


def test_gradients_are_those_of_each_sub_dataset_alone(tmp_path):
    load("drift", explain.METHODS_DIR)  # it is a method that loads
    spec = importlib.util.spec_from_file_location("drift", f"{explain.METHODS_DIR}/drift.py")
    drift = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drift)
    trainer, _ = make_trainer(tmp_path)
    found = drift.gradients_of(trainer)
    assert list(found) == trainer.tasks
    assert all(p.grad is None for p in trainer.model.parameters())
    task = trainer.tasks[0]
    trainer.gradients([row for row, owner in zip(trainer.rows, trainer.owners, strict=True) if owner == task])
    torch.testing.assert_close(found[task], torch.cat([p.grad.flatten() for p in trainer.model.parameters()]))
