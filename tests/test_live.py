"""The live picture shows the history so far, is drawn seldom, and is one output of its cell."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from msft.results.progress import Event
from paper_figures import live
from paper_figures.style import colour

ROWS = [  # stage 0 to epoch 1, back to 0.5 without b; stage 1 to path epoch 1.5
    *[(0, e, e, t, a, True) for e, a in ((0.0, 0.2), (0.5, 0.6), (1.0, 0.4)) for t in "ab"],
    *[(1, e, e + 0.5, t, a, t == "a") for e, a in ((0.0, 0.6), (0.5, 0.7), (1.0, 0.8)) for t in "ab"],
]
HISTORY = pd.DataFrame(ROWS, columns=["stage", "epoch", "path_epoch", "task", "accuracy", "active"]).assign(n=10)
END = Event("msft-x", "msft", 1, 1.0, 1.5, 0.8, 1.5)


@pytest.fixture
def shown(monkeypatch):
    """Pictures that a notebook was told to display, and those that took the place of one."""
    found, clock = {"display": [], "update": [], "now": 0.0}, live.time

    class Handle:
        def update(self, image):
            found["update"].append(image)

    def display(image, display_id):
        assert display_id
        found["display"].append(image)
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr(live, "is_notebook", lambda: True)
    monkeypatch.setattr(live, "time", type("clock", (), {"monotonic": staticmethod(lambda: found["now"])}))
    assert live.time is not clock
    return found


def lines(axis):
    """[(x, y, alpha)] of the lines that have points."""
    found = []
    for line in axis.lines:
        x, y = (np.asarray(data, dtype=float) for data in line.get_data())
        there = ~np.isnan(y)
        if there.any():
            found.append((x[there].tolist(), y[there].round(6).tolist(), line.get_alpha() or 1.0))
    return found


def test_kept_path_what_was_rolled_back_and_who_was_dropped():
    picture = live.LiveFigure()
    picture.runs["msft-x"] = HISTORY, END
    figure = picture.draw()
    top, first, second = figure.axes
    assert [axis.get_title() for axis in (first, second)] == ["a", "b"]
    assert lines(first) == [
        ([0.0, 0.5, 0.5, 1.0, 1.5], [20.0, 60.0, 60.0, 70.0, 80.0], 1.0),
        ([0.5, 1.0], [60.0, 40.0], live._PALE),
    ]
    trained, after, back, drop = lines(second)
    assert trained[:2] == ([0.0, 0.5, 0.5], [20.0, 60.0, 60.0])
    assert after == ([0.5, 1.0, 1.5], [60.0, 70.0, 80.0], 0.5)
    assert back[:2] == ([0.5, 1.0], [60.0, 40.0])
    assert drop[0] == [0.5, 0.5]
    assert second.get_facecolor()[:3] == pytest.approx([0.95] * 3) != first.get_facecolor()[:3]
    assert lines(top)[-1][0] == [0.5, 0.5]  # the second stage begins
    assert top.collections[0].get_offsets().tolist() == [[1.5, 80.0]]
    assert "mSFT: stage 2, epoch 1.5, best 80.0 at 1.5" in top.get_title(loc="left")
    assert figure.get_supylabel() == "test accuracy (%)" and "epoch" in figure.get_supxlabel()


def test_two_runs_share_the_picture_in_their_colours():
    picture = live.LiveFigure()
    picture.runs["msft-x"] = HISTORY, dataclasses.replace(END, finished=True)
    picture.runs["sft-x"] = HISTORY[HISTORY.stage == 0], dataclasses.replace(END, run="sft-x", method="sft", stage=0)
    figure = picture.draw()
    top, _, second = figure.axes
    assert {to_rgb(line.get_color()) for line in second.lines} == {to_rgb(colour("msft")), to_rgb(colour("sft"))}
    assert second.get_facecolor()[:3] == (1, 1, 1)  # the run that dropped it is over
    assert "mSFT: finished" in top.get_title(loc="left") and "SFT: stage 1" in top.get_title(loc="left")
    names = [text.get_text() for text in figure.legends[0].texts]
    assert names[:2] == ["mSFT", "SFT"]


def test_one_output_drawn_seldom_and_at_the_end(shown, monkeypatch):
    draw, cost = live.LiveFigure.draw, 0.1
    drawn = []

    def costly(self):
        drawn.append(shown["now"])
        shown["now"] += cost
        return draw(self)

    monkeypatch.setattr(live.LiveFigure, "draw", costly)
    picture = live.LiveFigure()
    for second in range(60):
        shown["now"] = float(max(second, shown["now"]))
        picture(HISTORY, END)
    assert len(shown["display"]) == 1
    assert len(drawn) == 6  # a tenth of a second each in a minute: a hundredth of it
    picture(HISTORY, dataclasses.replace(END, finished=True))
    assert len(drawn) == 7 == 1 + len(shown["update"])
    assert shown["update"][-1].data[:4] == b"\x89PNG"


def test_outside_of_a_notebook_nothing_is_drawn(monkeypatch):
    monkeypatch.setattr(live.LiveFigure, "draw", lambda self: pytest.fail("drawn for nobody"))
    live.LiveFigure()(HISTORY, END)


def test_many_sub_datasets_fill_rows_of_five():
    tasks = [f"set_{number}" for number in range(12)]
    table = pd.concat([HISTORY[HISTORY.task == "a"].assign(task=task) for task in tasks])
    picture = live.LiveFigure()
    picture.runs["x"] = table.sort_values(["stage", "epoch"], kind="stable"), END
    figure = picture.draw()
    assert len(figure.axes) == 13
    assert [axis.get_title() for axis in figure.axes[1:]] == [task.replace("_", " ") for task in tasks]


def test_watched_judges_and_own_scales_have_panels_of_their_own_and_no_part_in_the_mean():
    history = HISTORY.assign(on_own_scale=HISTORY.task == "b", **{"watched lm_eval:hellaswag acc": 0.25})
    history.loc[history.on_own_scale, "accuracy"] = 30.0
    picture = live.LiveFigure()
    picture.runs["msft-x"] = history, END
    top, first, second, watched = picture.draw().axes
    assert watched.get_title() == "hellaswag acc, watched"
    assert {y for _, ys, _ in lines(watched) for y in ys} == {0.25}
    assert max(y for _, ys, _ in lines(second) for y in ys) == 30.0  # the dotted line of its drop goes from 0 to 1
    assert max(y for _, ys, _ in lines(top) for y in ys) == 80.0
    assert first.get_ylim() != second.get_ylim()


def test_the_top_is_over_all_items_as_the_best_beside_it():
    history = HISTORY[HISTORY.stage == 0].copy()
    history.loc[history.task == "b", ["accuracy", "n"]] = [0.0, 30]
    picture = live.LiveFigure()
    picture.runs["msft-x"] = history, END
    assert lines(picture.draw().axes[0])[0][1] == [5.0, 15.0, 10.0]
