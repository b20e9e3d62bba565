"""Table 2, its figure and the settings, on runs made by hand."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from figure_runs import FakeRun, answers
from matplotlib.colors import to_rgba

import msft
from msft.results.run import BestCheckpoint
from paper_figures import reported_numbers, study, style
from paper_figures.figures import main_results

TASKS = ("p", "q", "r", "s")
GROUPS = {"Science and Knowledge": ["p", "q"], "Mathematic and Quantitative": ["r", "s"]}


def fake_run(method, accuracy, epoch=1.0, base=(0.0,) * 4, model="m", sizes=None, **settings):
    """A finished run of four sub-datasets: its accuracies (0..1) before training and at its best checkpoint."""
    points = [(0.0, base), (epoch, accuracy)]
    rows = [
        {"stage": 0, "epoch": e, "path_epoch": e, "task": task, "accuracy": value, "n": 100}
        for e, values in points
        for task, value in zip(TASKS, values, strict=True)
    ]
    mixture = {"groups": GROUPS, "sub_datasets": {t: {"train": (sizes or {}).get(t, 1800)} for t in TASKS}}
    config = msft.RunConfig(method=method, model=model, **settings).with_defaults({})
    best = {"stage": 0, "epoch": epoch, "path_epoch": epoch, "accuracy": float(np.mean(accuracy))}
    return FakeRun(
        config=config,
        about={"mixture": mixture},
        history=pd.DataFrame(rows),
        outputs=answers(pd.DataFrame(rows)),
        result={"best": best},
        best=BestCheckpoint(None, best["accuracy"], epoch),
        journal=[],
    )


@pytest.fixture
def runs():
    """Two models; mSFT ahead of SFT by 20 points on the first, level on the second."""
    return {
        ("a", "sft"): fake_run("sft", (0.5, 0.3, 0.2, 0.2), 2.0, (0.1, 0.1, 0.2, 0.0)),
        ("a", "msft"): fake_run("msft", (0.9, 0.7, 0.2, 0.2), 4.0),
        ("b", "sft"): fake_run("sft", (0.5, 0.5, 0.5, 0.5), 1.0, (0.2, 0.2, 0.2, 0.2)),
        ("b", "msft"): fake_run("msft", (0.5, 0.5, 0.4, 0.6), 3.0),
    }


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def cell(table, group, method, model, column="accuracy"):
    rows = table[(table.group == group) & (table.method == method) & (table.model == model)]
    return rows[column].item()


def test_groups_averages_and_epochs_by_hand(runs):
    table = main_results.measured(runs)
    assert len(table) == 3 * 3 * 3
    assert cell(table, "Science and Knowledge", "sft", "a") == pytest.approx(40)
    assert cell(table, "Average", "sft", "a") == pytest.approx(30)
    assert cell(table, "Average", "base", "a") == pytest.approx(10)
    assert cell(table, "Average", "msft", "Average") == pytest.approx((50 + 50) / 2)
    assert cell(table, "Mathematic and Quantitative", "msft", "Average") == pytest.approx((20 + 50) / 2)
    assert cell(table, "Average", "msft", "Average", "epoch") == pytest.approx(3.5)
    assert np.isnan(cell(table, "Average", "base", "Average", "epoch"))
    assert "base" not in set(main_results.measured(runs, base=False).method)


def test_the_papers_numbers_come_in_the_same_form():
    table = main_results.reported()
    assert list(table.columns) == ["group", "method", "model", "accuracy", "epoch"]
    assert set(table.method) == set(main_results.METHODS)
    assert cell(table, "Average", "msft", "Average") == 63.7
    assert cell(table, "Average", "sft", "Qwen2.5 3B", "epoch") == 5.0


def test_table_2_keeps_the_papers_order_and_has_two_columns_a_model(runs):
    wide = main_results.side_by_side(main_results.measured(runs))
    assert list(wide.columns) == [
        "a", "a Ep.", "b", "b Ep.", "Average", "Average Ep.", "Average over SFT",
    ]  # fmt: skip
    assert wide.index.names == ["Group", "Method"]
    assert [m for g, m in wide.index if g == "Average"] == ["Base", "SFT", "mSFT"]
    assert list(dict.fromkeys(g for g, _ in wide.index)) == [*GROUPS, "Average"]
    assert wide.loc[("Average", "SFT"), "a"] == pytest.approx(30)
    assert wide.loc[("Average", "mSFT"), "b Ep."] == 3.0
    assert wide.loc[("Average", "mSFT"), "Average over SFT"] == pytest.approx(10)
    assert wide.loc[("Science and Knowledge", "mSFT"), "Average over SFT"] == pytest.approx(20)


def test_reported_rows_stand_below_ours_for_the_models_that_the_paper_has(runs):
    hub = {"a": "Qwen/Qwen2.5-3B", "b": "my-own"}
    table = main_results.measured({(hub[model], method): run for (model, method), run in runs.items()})
    wide = main_results.side_by_side(table, main_results.reported())
    pair = wide.sort_index().xs(("Average", "SFT"))
    assert list(pair.index) == ["here", "paper"]
    assert pair.loc["paper", "Qwen2.5 3B"] == 73.2
    # neither of a model that the paper lacks, nor an average over other models
    assert pair.loc["paper", ["my-own", "Average"]].isna().all()
    assert "Average" not in set(main_results.comparable(table, main_results.reported()).model)


def test_directions_are_differences_of_the_averages_over_models(runs):
    table = main_results.against_paper(runs, main_results.reported())
    assert list(table.index[:2]) == ["mSFT over Base", "mSFT over SFT"]
    assert table.loc["mSFT over SFT", "paper (points)"] == pytest.approx(63.7 - 61.9)
    assert table.loc["mSFT over SFT", "here (points)"] == pytest.approx(10)
    assert table.loc["mSFT over Base", "here (points)"] == pytest.approx((40 + 30) / 2)
    assert table.loc["mSFT over SFT, Science and Knowledge", "here (points)"] == pytest.approx(20)
    # over the models: half a point an item on 40 of p's and q's 100 items, and on 10 of r's and s's
    half = 1.96 * 100 * 0.5 * (2 * 0.4 * 0.6 / 100 + 2 * 0.1 * 0.9 / 100) ** 0.5 / 4
    ends = [float(end) for end in table.loc["mSFT over SFT", "95 % interval"].split(" to ")]
    assert ends == pytest.approx([10 - half, 10 + half], abs=0.2)
    # r loses what s gains
    assert table.loc["mSFT over SFT, Mathematic and Quantitative", "here (points)"] == pytest.approx(0)
    assert table["same direction"].tolist() == ["yes", "yes", "yes", "cannot tell"]
    assert "mSFT over SFT, Commonsense and Language" not in table.index


def test_who_gains_in_all_groups_is_said_beside_the_paper(runs):
    table = main_results.group_gains(runs, main_results.reported())
    assert list(table.index) == ["mSFT"]
    row = table.loc["mSFT"]
    assert row["Science and Knowledge"].startswith("+20.0 (+16.") and row[
        "Science and Knowledge, paper"
    ] == pytest.approx(0.7)
    # r loses what s gains: neither a gain nor a loss is shown
    assert row["Mathematic and Quantitative"].startswith("+0.0 (-") and row["all groups"] == "cannot tell"
    assert row["all groups, paper"] == "yes"  # of the two groups that these runs have
    worse = {**runs, ("a", "ies"): fake_run("ies", (0.9, 0.7, 0.0, 0.0)), ("b", "ies"): fake_run("ies", (0.5,) * 4)}
    better = {**runs, ("a", "ies"): fake_run("ies", (0.9, 0.7, 0.9, 0.9)), ("b", "ies"): fake_run("ies", (0.9,) * 4)}
    verdicts = [main_results.group_gains(r, main_results.reported()).loc["IES", "all groups"] for r in (worse, better)]
    assert verdicts == ["no", "yes"]


def test_the_picture_has_a_point_a_model_and_a_bar_a_method(runs):
    left, right = main_results.by_method(main_results.measured(runs), main_results.gains(runs))
    assert [t.get_text() for t in left.get_yticklabels()] == ["Base", "SFT", "mSFT"]
    assert right.get_shared_y_axes().joined(left, right)  # one order of rows, named once
    assert [float(p.get_offsets()[0][0]) for p in right.collections] == pytest.approx([20, 0])
    assert style.said(left) == "With one seed, shown to differ from SFT: mSFT +10.0 points"
    assert right.lines[0].get_xdata()[0] == pytest.approx(10)
    assert to_rgba(right.lines[0].get_color()) == to_rgba(style.colour("msft"))
    assert left.get_xlabel() == "test accuracy (%)"
    assert [t.get_text() for t in left.figure.legends[0].get_texts()] == [
        "a",
        "b",
        "mean of the models",
        "95 % interval",
    ]


def test_rings_are_drawn_only_where_all_of_the_papers_models_are_there(runs):
    left, _ = main_results.by_method(main_results.measured(runs), {}, main_results.reported())
    assert "mean in the paper" not in [t.get_text() for t in left.figure.legends[0].get_texts()]
    whole = {(m, method): runs["a", method] for m in reported_numbers.MODELS for method in ("sft", "msft")}
    left, right = main_results.by_method(main_results.measured(whole), {}, main_results.reported())
    rings = [line.get_xdata()[0] for line in left.lines if line.get_marker() == "o"]
    assert rings == pytest.approx([27.1, 61.9, 63.7])
    assert [line.get_xdata()[0] for line in right.lines if line.get_marker() == "o"] == pytest.approx([1.8])


def test_one_model_has_no_bar(runs):
    one = main_results.measured({key: run for key, run in runs.items() if key[0] == "a"})
    left, _ = main_results.by_method(one, {})
    # its interval over the test items alone
    assert all(len(set(line.get_ydata())) == 1 for line in left.lines)


def test_what_lies_far_below_stands_at_the_edge():
    _, axis = plt.subplots()
    table = pd.DataFrame({"base": [10.0, 12.0], "sft": [70.0, 72.0], "ies": [71.0, 73.0], "msft": [70.0, 76.0]})
    main_results.dots(axis, table)
    assert [text.get_text() for text in axis.texts] == ["\N{LEFTWARDS ARROW} 11.0"]
    assert 65 < axis.get_xlim()[0] < 70
    # nobody is far: the axis is that of all
    _, axis = plt.subplots()
    main_results.dots(axis, table.assign(base=[66.0, 67.0]))
    assert not axis.texts and axis.get_xlim()[0] < 66


def test_more_models_than_markers_are_all_drawn():
    _, axis = plt.subplots()
    main_results.dots(axis, pd.DataFrame({"sft": range(11)}, dtype=float))
    assert [float(p.get_offsets()[0][0]) for p in axis.collections] == list(range(11))


def test_a_wrong_setting_shows(runs):
    table = main_results.settings(runs)
    assert (table.same[["batch size (examples a step)", "SFT: epochs", "mSFT: budget C (epochs)"]] == "yes").all()
    # no run of these methods is there to tell
    assert table.loc["IES: threshold delta", ["here", "same"]].tolist() == ["–", "no"]
    wrong = fake_run("msft", (0.5,) * 4, batch_size=32, params={"budget": 2}, sizes={"p": 900})
    table = main_results.settings({**runs, "x": wrong})
    assert table.loc["batch size (examples a step)", ["paper", "here", "same"]].tolist() == ["64", "32, 64", "no"]
    assert table.loc["mSFT: budget C (epochs)", "here"] == "2, 3"
    assert table.loc["train examples a sub-dataset", "here"] == "900, 1800"


def test_the_paper_profile_has_the_papers_settings():
    page = study.Study("x", "paper")
    configs = [config.with_defaults({}) for config in main_results.needs(page).values()]
    fakes = {
        i: fake_run(c.method, (0.5,) * 4, model=c.model, mixture=c.mixture, seed=c.seed, params=c.params)
        for i, c in enumerate(configs)
    }
    assert len(fakes) == 6 * 5
    assert set(main_results.settings(fakes).same) == {"yes"}


def test_table_1_is_the_papers():
    table = main_results.allocation()
    assert table.loc["mSFT"].tolist() == ["Heterogeneous", "Dynamic"]
    assert len(table) == 10


def test_the_finding_names_whoever_won(runs):
    text = main_results.finding(runs, main_results.measured(runs))
    assert text.startswith("mSFT is ahead of SFT by 10.0 points (n = 2 pairs of runs, 400 test items;")
    assert "that of mSFT (50.0 %); one seed" in text
    behind = {(model, {"sft": "msft", "msft": "sft"}[method]): run for (model, method), run in runs.items()}
    text = main_results.finding(behind, main_results.measured(behind))
    assert text.startswith("mSFT is behind SFT by 10.0 points")
    assert "that of SFT (50.0 %, mSFT 40.0 %)" in text
