"""Over-fitting under SFT: peaks, spreads and pictures of a history made by hand."""

from types import SimpleNamespace

import matplotlib
from figure_runs import FakeRun

matplotlib.use("agg")

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from paper_figures import study, style
from paper_figures.figures import overfitting

# accuracies at epochs 0, 0.5, 1, 1.5, 2 over 100 items
ACCURACIES = {
    "early": [0.0, 0.8, 0.6, 0.5, 0.4],
    "tied_peak": [0.2, 0.46, 0.5, 0.5, 0.3],
    "late": [0.0, 0.1, 0.2, 0.3, 0.6],
}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def made(accuracies=ACCURACIES, best=2.0, model="tiny-qwen2"):
    """Stands for an SFT run with these accuracies, one evaluation every half epoch."""
    rows = [
        {"stage": 0, "epoch": i / 2, "path_epoch": i / 2, "task": task, "accuracy": value, "n": 100}
        for i in range(len(next(iter(accuracies.values()))))
        for task, value in ((task, values[i]) for task, values in accuracies.items())
    ]
    history = pd.DataFrame(rows)
    accuracy = history[history.epoch == best].accuracy.mean()
    return FakeRun(
        history=history,
        result={"best": {"stage": 0, "epoch": best}},
        best=SimpleNamespace(path_epoch=best, accuracy=accuracy),
        config=SimpleNamespace(method="sft", model=model, seed=20),
    )


def test_the_table_of_peaks_is_that_worked_out_by_hand():
    table = overfitting.peak_table(made(best=1.0))
    assert table["peak epoch"].to_dict() == {"early": 0.5, "tied_peak": 1.0, "late": 2.0}
    # one standard error at 50 % of 100 items is 5 points: 46 % is within it; at 60 % it is 4.9: 30 % is not
    assert table["earliest within 1 s.e."].to_dict() == {"early": 0.5, "tied_peak": 0.5, "late": 2.0}
    assert table["peak (%)"].tolist() == pytest.approx([80, 50, 60])
    assert table["last (%)"].tolist() == pytest.approx([40, 30, 60])
    assert table["loss after the peak (points)"].tolist() == pytest.approx([40, 20, 0])
    assert table["loss at the best mean (points)"].tolist() == pytest.approx([20, 0, 40])


def test_the_spread_has_a_row_a_model():
    level = {task: [0.1, 0.2, 0.3, 0.2, 0.1] for task in ("a", "b")}
    table = overfitting.spread({"Qwen/Qwen2.5-3B": made(best=1.0), "level": made(level, best=1.0)})
    assert table.index.tolist() == ["Qwen2.5 3B", "level"]
    first = table.loc["Qwen2.5 3B"]
    assert first[["sub-datasets", "distinct peaks", "earliest", "latest", "at the end"]].tolist() == [3, 3, 0.5, 2, 1]
    # peaks 0.5, 1, 2: their mean is 7/6, the squares of the distances sum to 7/6
    assert first["standard deviation (epochs)"] == pytest.approx((7 / 18) ** 0.5)
    assert first["cost of one stop (points)"] == pytest.approx(20)
    assert table.loc["level", ["distinct peaks", "cost of one stop (points)"]].tolist() == [1, 0]


def test_curves_star_each_peak_and_are_pale_behind_it():
    run = made(best=1.0)
    axes = overfitting.curves(run)
    assert [axis.get_title() for axis in axes] == ["early: 0.5", "tied peak: 1", "late: 2"]
    for axis, peak, height in zip(axes, (0.5, 1.0, 2.0), (80, 50, 60), strict=True):
        before, after, mean = axis.lines
        assert list(axis.collections[0].get_offsets()[0]) == pytest.approx([peak, height])
        assert max(before.get_xdata()) == min(after.get_xdata()) == peak
        assert after.get_alpha() < 1
        assert list(mean.get_xdata()) == [1.0, 1.0]
    figure = axes[0].figure
    assert (figure.get_supxlabel(), figure.get_supylabel()) == ("epoch", "test accuracy (%)")
    assert len(figure.legends[0].texts) == 4


def test_one_panel_has_all_curves_with_their_peaks_and_the_mixture_s():
    axis = overfitting.one_panel(made(best=1.0))
    drawn = {text.get_text(): line for text, line in zip(axis.texts, axis.lines, strict=False)}
    assert list(drawn) == ["early (0.5)", "tied peak (1)", "late (2)", "mixture (0.5)"]
    assert drawn["mixture (0.5)"].get_ydata().tolist() == pytest.approx(
        [20 / 3, 136 / 3, 130 / 3, 100 / 3 + 10, 130 / 3]
    )
    stars = [tuple(points.get_offsets()[0]) for points in axis.collections]
    assert stars[:3] == [pytest.approx(star) for star in ((0.5, 80), (1.0, 50), (2.0, 60))]
    assert axis.lines[-1].get_xdata() == [1.0, 1.0]
    assert style.said(axis) == "3 sub-datasets peak between epochs 0.5 and 2; the mixture at 1"


def test_ten_sub_datasets_have_ten_colours():
    axis = overfitting.one_panel(made({f"task_{place}": [0.1, 0.2, 0.3, 0.2, 0.1] for place in range(10)}, best=1.0))
    assert len({to_rgba(line.get_color()) for line in axis.lines[:10]}) == 10


def test_distances_from_the_mixture_s_peak_and_the_paper_s_beside():
    run = made(best=1.0)
    assert overfitting.distances(run).to_dict() == {"early": 0.5, "tied peak": 0.0, "late": 1.0}
    theirs = overfitting.reported_distances()
    assert len(theirs) == 10 and theirs.mean() == pytest.approx(1.93, abs=0.005)
    ours, paper = overfitting.distance_bars({"m": run})
    assert [bar.get_width() for bar in ours.patches] == [1.0, 0.5, 0.0]
    assert sorted(bar.get_width() for bar in paper.patches) == sorted(theirs)
    assert [axis.get_title() for axis in (ours, paper)] == [
        f"{name} (dashed)" for name in ("m\nmean 0.50", "the paper, Qwen3 8B\nmean 1.93")
    ]
    assert ours.get_xlim() == paper.get_xlim()
    assert "peak 0.50 ± 1.24 epochs (m) from the mixture's peak; in the paper 1.93" in style.said(ours)
    # the mean as a line too, as in the paper
    assert [axis.lines[-1].get_xdata()[0] for axis in (ours, paper)] == pytest.approx([0.5, theirs.mean()])
    # the paper's sub-datasets stand beside their own
    named = made({"aqua_rat": [0.1, 0.5, 0.2], "sciq": [0.1, 0.2, 0.5]}, best=0.5)
    table = overfitting.peak_table(named)
    assert table["paper, from the mixture's"].tolist() == [1.75, 0.25]
    assert "paper, from the mixture's" not in overfitting.peak_table(run)


def test_curves_draw_on_given_axes():
    _, axes = plt.subplots(1, 3)
    assert overfitting.curves(made(), axes) is axes


def test_optimal_compute_is_a_row_a_model_and_the_map_shows_its_numbers():
    runs = {"one": made(), "two": made({**ACCURACIES, "early": [0.9, 0.8, 0.6, 0.5, 0.4]})}
    table = overfitting.optimal_compute(runs)
    assert table.to_dict("index") == {
        "one": {"early": 0.5, "tied_peak": 1.0, "late": 2.0},
        "two": {"early": 0.0, "tied_peak": 1.0, "late": 2.0},
    }
    axis = overfitting.compute_map(runs)
    assert [text.get_text() for text in axis.texts] == ["0.5", "0", "1", "1", "2", "2"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["early", "tied peak", "late"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["one", "two"]
    colours = axis.collections[0].get_facecolors()
    assert tuple(colours[2]) == tuple(colours[3]) != to_rgba("white")
    # 0.5, 0 and 0 epochs apart
    assert "on the same sub-dataset the 2 models lie 0.2 ± 0.7 epochs apart" in style.said(axis)


def test_the_finding_follows_the_numbers():
    text = overfitting.finding(made(best=1.0))
    assert "the 3 sub-datasets peak between epochs 0.5 and 2," in text
    # 20, 0 and 40 points below the peaks: a mean of 20 and a standard error of 20 / sqrt 3, times t = 4.30
    assert "20.0 ± 49.7 points below" in text and "n = 1 run, 300 test items" in text
    assert "1 of the peaks stand at the last evaluation" in text
    level = overfitting.finding(made({task: [0.1, 0.2, 0.3, 0.2, 0.1] for task in ("a", "b")}, best=1.0))
    assert "peak between epochs 1 and 1, and SFT's one stop leaves them 0.0 ± 0.0 points" in level
    assert "last evaluation" not in level  # no peak stands there
    assert text.count(". ") == 1, "two sentences"


@pytest.mark.parametrize("profile", ["smoke", "tiny", "paper"])
def test_every_model_of_a_profile_is_one_sft_run(profile, tmp_path):
    page = study.Study("01_heterogeneous_overfitting", profile, str(tmp_path))
    needs = overfitting.needs(page)
    assert list(needs) == page.models
    assert {config.method for config in needs.values()} == {"sft"}
    names = [overfitting.file_name(model) for model in needs]
    assert len(set(names)) == len(names)
    assert not any(set(name) & set("./ ") for name in names)
