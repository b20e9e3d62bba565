"""The first picture shows what the two runs hold."""

import contextlib
import json
import sys
import types
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

import msft
from paper_figures import data, execute, study
from paper_figures.figures import quickstart


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def drops(run):
    """[(sub-dataset, path epoch)] of the exclusions, off the journal."""
    offset, found = 0.0, []
    for entry in run.journal:
        if entry["kind"] == "roll_out":
            offset = entry["result"]["offset"]
        elif entry["kind"] == "roll_back":
            found.append((entry["arguments"]["dropped"], offset + entry["arguments"]["epoch"]))
    return found


def test_sub_datasets_stand_in_the_order_of_their_exclusion(finished):
    sft, msft = finished("sft").run, finished("msft").run
    expected = drops(msft)
    assert expected
    axes = quickstart.accuracy_curves(sft, msft)
    names = [axis.get_title() for axis in axes]
    assert sorted(names) == sorted(sft.history.task.unique())
    assert names[: len(expected)] == [task for task, _ in expected]
    for axis, (_, epoch) in zip(axes, expected, strict=False):
        _, trained, after, line = axis.lines
        assert list(line.get_xdata()) == [epoch, epoch]
        assert max(trained.get_xdata()) == epoch == min(after.get_xdata())
        assert [text.get_text() for text in axis.texts] == [f"{epoch:g}"]


def test_stars_and_lines_are_the_history_s(finished):
    sft, msft = finished("sft").run, finished("msft").run
    peaks = data.peaks(sft).set_index("task")
    for axis in quickstart.accuracy_curves(sft, msft):
        task = axis.get_title()
        own = sft.history[sft.history.task == task]
        assert np.allclose(axis.lines[0].get_ydata(), 100 * own.accuracy)
        star = axis.collections[0].get_offsets()[0]
        assert list(star) == pytest.approx([peaks.peak_epoch[task], 100 * peaks.peak[task]])


def test_the_mean_ends_in_the_best_checkpoint_of_each(finished):
    sft, msft = finished("sft").run, finished("msft").run
    ax = quickstart.mean_curves(sft, msft)
    for star, text, run in zip(ax.collections, ax.texts, (sft, msft), strict=True):
        best = (run.best.path_epoch, 100 * run.best.accuracy)
        assert list(star.get_offsets()[0]) == pytest.approx(best)
        assert f"best {best[1]:.1f} % at epoch {best[0]:g}" in text.get_text()
        # a line goes through the star
        ends = [(x, y) for line in ax.lines for x, y in zip(*line.get_data(), strict=True)]
        assert any(np.allclose(end, best) for end in ends)


def test_the_first_picture_has_the_mean_and_every_sub_dataset(finished):
    sft, msft = finished("sft").run, finished("msft").run
    figure = quickstart.first_picture(sft, msft)
    top, *rest = figure.axes
    assert top.get_title(loc="left") == "mean of all sub-datasets"
    assert len(rest) == sft.history.task.nunique()
    assert "epoch" in figure.get_supxlabel()
    assert figure.get_supylabel() == "test accuracy (%)"
    names = [text.get_text() for text in figure.legends[0].texts]
    assert names[:3] == ["SFT", "peak under SFT", "mSFT"]


def test_the_timeline_s_bars_end_where_a_sub_dataset_was_dropped(finished):
    msft = finished("msft").run
    top, _ = quickstart.stage_timeline(msft)
    expected = drops(msft)
    bars = dict(zip([t.get_text() for t in top.get_yticklabels()], top.patches, strict=True))
    assert list(bars)[: len(expected)] == [task for task, _ in expected]
    for task, epoch in expected:
        assert bars[task].get_width() == epoch


def test_table_and_words_are_the_runs(finished):
    sft, msft = finished("sft").run, finished("msft").run
    table = quickstart.comparison(sft, msft)
    assert table.index.tolist() == ["Base", "SFT", "mSFT"]
    for run, name in ((sft, "SFT"), (msft, "mSFT")):
        assert table.loc[name, "Average"] == pytest.approx(100 * run.best.accuracy)
        assert table.loc[name, "Best epoch"] == run.best.path_epoch
    gain = 100 * (msft.best.accuracy - sft.best.accuracy)
    words = quickstart.finding(sft, msft)
    assert (f"by {abs(gain):.1f} points" in words) == (gain != 0)
    assert ("ahead of SFT" in words) == (gain > 0)
    assert f"{msft.flops['total'] / sft.flops['total']:.2f} times" in words


def test_the_runs_are_those_of_the_other_notebooks(tmp_path):
    page = study.Study("00_quickstart", "tiny", str(tmp_path))
    needs = quickstart.needs(page)
    assert needs == {"sft": page.config("sft"), "msft": page.config("msft")}
    assert {config.seed for config in quickstart.needs(page, 7).values()} == {7}
    assert quickstart.needs(page, budget=2.0)["msft"].params["budget"] == 2


def test_the_notebook_trains_what_its_needs_list(tmp_path, monkeypatch):
    """In every profile, and under settings: its mSFT beside an SFT of other sizes would be a wrong comparison."""
    notebook = Path(quickstart.__file__).parents[2] / "notebooks" / "00_quickstart.ipynb"
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = next("".join(cell["source"]) for cell in cells if "study.start" in "".join(cell["source"]))
    asked = []
    monkeypatch.setattr(study.Study, "train", lambda page, needs, **more: asked.append(needs) or needs)
    monkeypatch.setattr(msft, "run", lambda config, **more: None)
    monkeypatch.setitem(sys.modules, "paper_figures.live", types.SimpleNamespace(LiveFigure=lambda: None))
    told = {"profile": "laptop", "out_dir": str(tmp_path), "settings": "seed=30 msft.budget=1"}
    variables = {**execute.declared_parameters(notebook), **told}
    with contextlib.suppress(AttributeError):  # what comes back is no run
        exec(code, variables)
    (needs,) = asked
    assert {(method, config.seed, config.train_size, config.precision) for method, config in needs.items()} == {
        ("sft", 30, 200, "mixed"), ("msft", 30, 200, "mixed"),
    }  # fmt: skip
    assert needs["msft"].params["budget"] == 1


def test_what_a_caption_ends_with_is_read_from_the_runs(finished):
    runs = {method: finished(method).run for method in ("sft", "msft")}
    items = {int(count) for run in runs.values() for count in run.history.n}
    words = data.sample(runs)
    assert words.startswith(f" {data.model_label(runs['sft'].config.model)}; n = 1 run")
    assert f"(seed {runs['sft'].config.seed})" in words
    assert f"{min(items)}{f' to {max(items)}' if len(items) > 1 else ''} test items a sub-dataset." in words
