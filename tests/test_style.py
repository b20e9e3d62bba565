"""What all pictures share: letters that are read in print, panels in full rows, labels apart, the sentence above."""

import re
from itertools import combinations
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from paper_figures import markup, output, report, style
from paper_figures.figures import olmo2, quickstart


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


def test_what_follows_a_semicolon_outside_brackets_stands_below_in_plain_letters():
    _, axis = plt.subplots(layout="constrained")
    words = "It rises (on one; the paper 2); cannot tell why; nor when"
    assert style.said(style.say(axis, words)) == words
    plain, bold = axis.figure.texts
    assert (bold.get_text(), plain.get_text()) == ("It rises (on one; the paper 2)", "cannot tell why; nor when")
    assert (bold.get_fontweight(), plain.get_fontweight()) == ("bold", "normal")
    assert bold.get_window_extent().y0 > plain.get_window_extent().y1


def test_bars_of_equal_names_are_in_one_order_on_one_axis():
    one, two = pd.Series({"a": 1.0, "b": 3.0}), pd.Series({"a": -2.0, "b": 0.5})
    axes = style.bar_panels({"one": one, "two": two}, "epochs", "red", {"one": 0.5})
    assert [[bar.get_width() for bar in axis.containers[0]] for axis in axes] == [[3, 1], [0.5, -2]]
    assert axes[0].get_xlim() == axes[1].get_xlim() and axes[0].get_xlim()[0] < -2
    other = style.bar_panels({"one": one, "two": two.rename({"a": "c"})}, "epochs", "red")
    assert [[t.get_text() for t in axis.get_yticklabels()] for axis in other] == [["b", "a"], ["b", "c"]]


def letters(figure) -> list[Text]:
    figure.draw_without_rendering()
    return [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]


def test_letters_are_read_at_the_width_of_a_column(finished):
    """A picture is drawn at the width of its print, where no letter is smaller than SMALLEST, nor cut off."""
    style.use_style()
    series = pd.Series({f"a name of some length {place}": place / 3 for place in range(10)})
    pictures = [
        quickstart.first_picture(finished("sft").run, finished("msft").run),
        style.say(style.bar_panels({"one": series, "the paper's": series}, "epochs", "red"), "A finding. " * 9),
        style.panels(10, "epoch", "test accuracy (%)"),
        olmo2.dots(olmo2.stages()),
    ]
    for figure, width in zip(map(style.figure_of, pictures), (8.5, 8.5, 17.5, 8.5), strict=True):
        assert 2.54 * figure.get_figwidth() == pytest.approx(width)
        drawn = letters(figure)
        assert drawn and min(text.get_fontsize() for text in drawn) >= style.SMALLEST
        assert "$" not in "".join(text.get_text() for text in drawn), "raised digits are smaller"
        box = figure.get_tightbbox()
        assert box.x0 >= 0 and 2.54 * box.x1 <= width


def test_no_figure_asks_for_smaller_letters():
    for path in (Path(style.__file__).parent / "figures").glob("*.py"):
        sizes = re.findall(
            r"(?:fontsize=|labelsize=|\"size\": |\"fontsize\": )([\d.]+)", path.read_text(encoding="utf-8")
        )
        assert all(float(size) >= style.SMALLEST for size in sizes), path.name


def test_committed_pictures_have_the_width_of_one_column_or_two():
    """What sticks out makes a picture wider, and then a column shrinks its letters."""
    for path in report.OUT.glob("*/*.png"):
        width = {1: 8.5, 2: 17.5}[markup.columns(path)]
        assert markup.centimetres(path)[0] == pytest.approx(width, abs=0.05), path


def test_a_key_has_as_few_even_rows_as_fit():
    figure = plt.figure(figsize=(style.COLUMN, 1), layout="constrained")
    lines = [plt.Line2D([], [], label="a name of some length") for _ in range(4)]
    for shown, rows in ((lines[:2], 1), (lines, 2)):
        key = style.legend(figure, shown)
        figure.draw_without_rendering()
        assert len({round(text.get_window_extent().y0) for text in key.get_texts()}) == rows
        assert key.get_window_extent().width <= figure.bbox.width


def test_a_finding_has_lines_of_about_one_length_and_a_number_keeps_its_unit():
    lines = style.wrapped(
        "It is one of the findings that need more than a line: 3.5 ± 2.5 % of all at C = 3", 150
    ).split("\n")
    assert len(lines) > 1 and max(map(len, lines)) - min(map(len, lines)) < 12
    assert any("3.5\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}2.5\N{NO-BREAK SPACE}%" in line for line in lines)
    assert any("C\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}3" in line for line in lines)


def test_differences_carry_their_sign():
    assert [style.signed(value) for value in (-0.25, 0.0, 2.0)] == ["\N{MINUS SIGN}0.25", "0", "+2"]
    assert [style.signed(value, 1) for value in (-0.26, 0.01)] == ["\N{MINUS SIGN}0.3", "0"]


def seen(shade, cones: np.ndarray) -> np.ndarray:
    """A colour as OKLab, times 100, behind a matrix of linear light."""
    channels = np.array(to_rgb(shade))
    light = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    to_cones = [[0.41222, 0.53633, 0.05145], [0.2119, 0.6807, 0.1074], [0.0883, 0.28172, 0.62998]]
    to_lab = [[0.21045, 0.79362, -0.00407], [1.978, -2.42859, 0.45059], [0.0259, 0.78277, -0.80868]]
    return 100 * np.array(to_lab) @ np.cbrt(np.array(to_cones) @ np.clip(cones @ light, 0, 1))


# Machado, Oliveira and Fernandes 2009, severity 1
EYES = {
    "all": np.eye(3),
    "no red": np.array([[0.15229, 1.05258, -0.20487], [0.1145, 0.78628, 0.09922], [-0.00388, -0.04812, 1.052]]),
    "no green": np.array([[0.36732, 0.86065, -0.22797], [0.28009, 0.6725, 0.04741], [-0.01182, 0.04294, 0.96888]]),
    "no blue": np.array([[1.25553, -0.07675, -0.17878], [-0.07841, 0.93081, 0.1476], [0.00473, 0.69137, 0.3039]]),
}


@pytest.mark.parametrize("eyes", EYES)
def test_methods_are_told_apart_by_every_eye(eyes):
    places = [seen(shade, EYES[eyes]) for shade in style.COLOURS.values()]
    assert min(np.linalg.norm(one - other) for one, other in combinations(places, 2)) > 6.5
