"""Algorithm 4: who holds which checkpoint, and what is dropped."""

import pytest
import torch

from msft.store.checkpoints import Store
from msft.store.durable import START, Peaks, Writer, holders_after


def test_only_a_strictly_higher_score_takes_over():
    holders = {}
    for epoch, a, b in [(0.0, 0.5, 0.1), (0.25, 0.5, 0.3), (0.5, 0.6, 0.3), (0.75, 0.4, 0.2)]:
        holders = holders_after(holders, epoch, {"a": a, "b": b, "excluded": 1.0}, ["a", "b"])
    assert holders == {"a": [0.5, 0.6], "b": [0.25, 0.3]}


def test_start_point_is_held_by_its_own_name():
    holders = {}
    for epoch in (0.0, 0.25):
        holders = holders_after(holders, epoch, {"a": epoch}, ["a", START])
    assert holders == {"a": [0.25, 0.25], START: [0.0, 0.0]}


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_what_nobody_holds_goes(tmp_path, where):
    store = Store(tmp_path / "state", tmp_path / "disk.jsonl", 40, {"w": torch.zeros(10)})
    peaks = Peaks(store, where, Writer())
    points = {epoch: {"w": torch.full((10,), epoch)} for epoch in (0.0, 0.25, 0.5)}
    for epoch, tensors in points.items():
        peaks.add(epoch, tensors)
    assert peaks.epochs() == ["0.0", "0.25", "0.5"]
    assert peaks.keep_held({"a": [0.25, 0.9], "b": [0.5, 0.1]}) == (where != "memory")
    assert not peaks.keep_held({"a": [0.25, 0.9], "b": [0.5, 0.1]})
    assert peaks.epochs() == ["0.25", "0.5"]
    peaks.writer.wait()
    assert len(list(store.folder.iterdir())) == (0 if where == "memory" else 3)
    assert peaks.weights(0.0) is None
    assert torch.equal(peaks.weights(0.25)["w"], points[0.25]["w"])
    again = Peaks(store, where, Writer())
    again.load(peaks.to_disk())
    assert again.epochs() == peaks.epochs()
    assert torch.equal(again.weights(0.5)["w"], points[0.5]["w"])
    again.clear()
    assert again.epochs() == [] and again.to_disk() == {}
