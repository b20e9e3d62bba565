"""What all pictures share: panels in full rows, labels apart, the sentence above."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from paper_figures import output, style


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.mark.parametrize(
    "count, most, columns", [(1, 3, 1), (3, 3, 3), (4, 3, 2), (5, 3, 3), (6, 3, 3), (7, 3, 4), (10, 5, 5), (21, 5, 3)]
)
def test_no_panel_is_alone_in_a_row(count, most, columns):
    assert style.even_columns(count, most) == columns


def test_panels_share_their_axes():
    axes = style.panels(4, "x", "y", columns=3)
    axes[0].plot([0, 1], [0, 50])
    assert len({axis.get_ylim() for axis in axes}) == 1


def test_labels_that_would_touch_are_moved_apart_around_their_places():
    assert style.spread_out([10, 0, 5], 2).tolist() == [10, 0, 5]
    assert style.spread_out([5, 5], 2).tolist() == [4, 6]
    # the third is pushed by the first two; the order stays
    placed = style.spread_out([1.0, 1.2, 2.0, 9.0], 1.0)
    assert np.diff(placed[:3]) == pytest.approx([1, 1]) and placed[:3].mean() == pytest.approx(1.4) and placed[3] == 9


def test_the_finding_stands_above_the_picture_in_the_file_too(tmp_path):
    figure, axis = plt.subplots(layout="constrained")
    axis.plot([0, 1], label="line")
    figure.legend(loc="outside upper center")
    plain = plt.imread(output.save_figure(figure, tmp_path, "plain"))
    assert style.said(axis) == ""
    assert style.say(axis, "From -1.5 to tiny-qwen2 it rises.") is axis
    assert style.said(axis) == "From \N{MINUS SIGN}1.5 to tiny-qwen2 it rises."
    told = plt.imread(output.save_figure(figure, tmp_path, "told"))
    assert told.shape[0] > plain.shape[0]
    # what was drawn stays where it was: below the sentence the pictures are the same
    rows = plain.shape[0] - 10
    dark = lambda image: (image[..., :3].min(axis=2) < 0.5).any(axis=1)  # noqa: E731
    assert (dark(told)[-rows:] == dark(plain)[-rows:]).mean() > 0.98


def test_bars_of_equal_names_are_in_one_order_on_one_axis():
    one, two = pd.Series({"a": 1.0, "b": 3.0}), pd.Series({"a": -2.0, "b": 0.5})
    axes = style.bar_panels({"one": one, "two": two}, "epochs", "red", {"one": 0.5})
    assert [[bar.get_width() for bar in axis.containers[0]] for axis in axes] == [[3, 1], [0.5, -2]]
    assert axes[0].get_xlim() == axes[1].get_xlim() and axes[0].get_xlim()[0] < -2
    other = style.bar_panels({"one": one, "two": two.rename({"a": "c"})}, "epochs", "red")
    assert [[t.get_text() for t in axis.get_yticklabels()] for axis in other] == [["b", "a"], ["b", "c"]]


def test_differences_carry_their_sign():
    assert [style.signed(value) for value in (-0.25, 0.0, 2.0)] == ["\N{MINUS SIGN}0.25", "0", "+2"]
    assert [style.signed(value, 1) for value in (-0.26, 0.01)] == ["\N{MINUS SIGN}0.3", "0"]
