"""What a run says while it works: what it does, and the time left, by a clock that the test turns."""

import sys

import pytest

import msft
from msft.results import progress
from msft.results.progress import RunProgress
from msft.store.state import Best

BASE = {"epoch": 0.0, "accuracy": {"a": 0.5}, "n": {"a": 2}, "reused": False}


class Clock:
    """Stands for the module time."""

    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    stands_for_time = Clock()
    monkeypatch.setattr(progress, "time", stands_for_time)
    return stands_for_time


def lines(capsys):
    return capsys.readouterr().err.splitlines()


def test_plain_lines_say_what_is_done_and_the_time_left_one_a_minute(clock, capsys):
    run, points = RunProgress("mine"), []
    with run.stage(0, ["a"], ["a", "b"], 4, 0.0, points) as shown:
        assert lines(capsys) == ["mine: stage 1, 1/2 active; not trained in it: b"]
        shown.evaluating()
        assert lines(capsys) == ["mine: stage 1, 1/2 active, base evaluation"]
        for clock.now in (1030, 1059, 1061, 1100):
            run.beat()
        assert lines(capsys) == ["mine: stage 1, 1/2 active, base evaluation"]
        points.append(BASE)
        shown.evaluated(Best())
        for number in range(1, 8):
            clock.now += 10
            shown.step(number, 37, 1.0, saving=number == 7)
        # 36 steps of 10 s and 4 evaluations of 100 s; a minute later 30 steps
        assert lines(capsys) == [
            "mine: stage 1, 1/2 active, step 1 of 37, 12:40 left in it",
            "mine: stage 1, 1/2 active, step 7 of 37, saving, 11:40 left in it",
        ]
        clock.now += 60
        shown.evaluating()
        assert lines(capsys) == ["mine: stage 1, 1/2 active, evaluation 1 of 4, 11:40 left in it"]
        for epoch in (0.25, 0.5, 0.75, 1.0):
            points.append({**BASE, "epoch": epoch})
            shown.evaluated(Best(accuracy=0.5))
        (line,) = lines(capsys)
        assert line.startswith("mine: stage 1, 1/2 active, epoch 1.00, accuracy 50.0%, best 50.0% at 0.00, ")
    run.beat()
    assert lines(capsys) == []


def test_accuracy_and_best_are_both_over_all_items(clock, capsys):
    point = {**BASE, "epoch": 0.25, "accuracy": {"a": 1.0, "b": 0.0}, "n": {"a": 1, "b": 3}}
    with RunProgress("mine").stage(0, ["a", "b"], ["a", "b"], 1, 0.0, [BASE]) as shown:
        shown.result["points"].append(point)
        shown.evaluated(Best(accuracy=0.25))
    assert "epoch 0.25, accuracy 25.0%, best 25.0% at 0.00" in lines(capsys)[-1]


def test_a_run_that_goes_on_has_seen_no_evaluation_yet(clock, capsys):
    with RunProgress("mine").stage(0, ["a"], ["a"], 8, 0.0, [BASE] * 3) as shown:
        clock.now += 2
        shown.step(6, 10, 2.0, saving=False)
    assert lines(capsys) == ["mine: stage 1, 1/1 active, step 6 of 10, more than 00:28 left in it"]


def test_an_evaluation_that_was_cut_off_is_counted_once(clock, capsys):
    with RunProgress("mine").stage(1, ["a"], ["a"], 2, 0.5, [BASE, {**BASE, "epoch": 0.5}]) as shown:
        shown.evaluating()
    assert lines(capsys) == ["mine: stage 2, 1/1 active, evaluation 2 of 2"]


def test_a_bar_says_the_same(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with RunProgress("mine").stage(0, ["a"], ["a"], 4, 0.0, [BASE]) as shown:
        clock.now += 5
        shown.step(1, 3, 1.0, saving=True)
        shown.bar.refresh()
    assert "step 1 of 3, saving, more than 00:10 left in it" in capsys.readouterr().err


def test_a_piped_run_says_its_first_step_and_that_it_saves(small_settings, tmp_path, capsys):
    msft.run(msft.RunConfig(**small_settings), tmp_path)
    said = [line.split(": ", 1)[1] for line in lines(capsys) if line.startswith("sft-")]
    assert said[1] == "stage 1, 3/3 active, base evaluation"
    assert said[2].startswith("stage 1, 3/3 active, step 1 of 9, ") and said[2].endswith(" left in it")
    assert said[-1] == "saving the end of the run"


def test_a_silent_run_says_nothing(clock, capsys):
    run = RunProgress("mine", shown=False)
    with run.stage(0, ["a"], ["a"], 4, 0.0, []) as shown:
        shown.evaluating()
        clock.now += 500
        run.beat()
        shown.step(1, 3, 1.0, saving=False)
    assert lines(capsys) == []
