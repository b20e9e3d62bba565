"""Fig. 13 from notes made by hand."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from figure_runs import fake_run, roll_out

from msft.errors import RunError
from paper_figures import reported_numbers, study
from paper_figures.figures import exclusions

# ten examples, four of a and six of b; example 3 sits out twice, 0 and 9 once
RESTED = [[], [], [], [3], [0, 3], [9]]


def ies_run(rested=RESTED, sizes=(("a", 4), ("b", 6)), of=10, tokens=100, forward=40, parameters=1):
    entry = roll_out(0, 0.0, [(0, [0.1, 0.1], None), (float(len(rested)), [0.5, 0.5], 1.0)], tokens=tokens)
    entry["result"]["forward_tokens"] = forward
    entry["result"]["notes"] = [{"epoch": e, "sat_out": out, "of": of} for e, out in enumerate(rested, 1)]
    run = fake_run("ies", [entry], (0, float(len(rested))), params={"delta": 1e-3}, parameters=parameters)
    run.about["mixture"]["sub_datasets"] = {name: {"train": count} for name, count in sizes}
    return run


@pytest.fixture
def runs():
    return {"Qwen/Qwen2.5-3B": ies_run(), "other": ies_run(rested=[[]] * 6, forward=0)}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def of_task(table, task, column):
    return table[table.task == task][column].tolist()


def test_runs_are_those_of_every_model():
    page = study.Study("x", "tiny")
    needed = exclusions.needs(page)
    assert list(needed) == page.models
    assert all(config.method == "ies" and config.model == model for model, config in needed.items())


def test_shares_by_hand():
    table = exclusions.sat_out(ies_run())
    assert list(dict.fromkeys(table.task)) == [exclusions.ALL, "a", "b"]
    assert of_task(table, exclusions.ALL, "resting") == pytest.approx([0, 0, 0, 10, 20, 10])
    assert of_task(table, exclusions.ALL, "ever") == pytest.approx([0, 0, 0, 10, 20, 30])
    # 0 and 3 train again in epoch 6; 9 has no epoch after its own
    assert of_task(table, exclusions.ALL, "back") == pytest.approx([0, 0, 0, 0, 0, 20])
    # indices 0 to 3 are a's, in mixture order
    assert of_task(table, "a", "ever") == pytest.approx([0, 0, 0, 25, 50, 50])
    assert of_task(table, "b", "ever") == pytest.approx([0, 0, 0, 0, 0, 100 / 6])
    assert of_task(table, "b", "n") == [6] * 6


def test_the_whole_is_the_weighted_mean_of_its_parts():
    rng = np.random.default_rng(0)
    rested = [sorted(rng.choice(10, size=count, replace=False).tolist()) for count in (0, 0, 0, 2, 5, 7)]
    table = exclusions.sat_out(ies_run(rested))
    parts = table[table.task != exclusions.ALL]
    for column in ("resting", "ever", "back"):
        mean = (parts[column] * parts.n).groupby(parts.epoch).sum() / 10
        assert mean.tolist() == pytest.approx(of_task(table, exclusions.ALL, column))


def test_sizes_that_do_not_add_up_leave_the_whole_alone():
    table = exclusions.sat_out(ies_run(sizes=(("a", 4), ("b", 7))))
    assert set(table.task) == {exclusions.ALL}
    table["model"] = "m"
    assert list(exclusions.by_sub_dataset(table).index) == ["all sub-datasets"]
    assert len(exclusions.heat_maps(table)) == 1


def test_a_run_without_notes_is_refused():
    other = fake_run("sft", [roll_out(0, 0.0, [(0, [0.1, 0.1], None)])], (0, 0))
    with pytest.raises(RunError, match="the sft run has no note .* give a finished run of ies"):
        exclusions.sat_out(other)


def test_compute_saved_by_hand():
    # 100 tokens trained, 40 passed forward: 600 as Table 7 counts, in place of 840 FLOPs a parameter
    assert exclusions.saved(ies_run()) == pytest.approx(100 * 240 / 840)
    assert exclusions.saved(ies_run(parameters=7)) == pytest.approx(100 * 240 / 840)
    assert exclusions.saved(ies_run(forward=0)) == 0


def test_summary_and_sub_datasets(runs):
    table = exclusions.by_model(runs)
    shown = exclusions.summary(table, runs)
    # 4 of 60 passes skipped
    assert shown.loc["Qwen2.5 3B"].tolist() == [
        "0.001",
        10,
        "4",
        *map(pytest.approx, (30, 20, 100 * 4 / 60, 100 * 240 / 840)),
    ]
    assert shown.loc["other"].tolist() == ["0.001", 10, "–", 0, 0, 0, 0]
    wide = exclusions.by_sub_dataset(table)
    assert list(wide.index) == ["a", "b", "all sub-datasets"]
    assert list(wide.columns) == ["Qwen2.5 3B", "other"]
    assert wide["Qwen2.5 3B"].tolist() == pytest.approx([50, 100 / 6, 30])


def test_the_curves_draw_the_shares(runs):
    axes = exclusions.curves(exclusions.by_model(runs))
    assert [axis.get_title() for axis in axes] == ["Qwen2.5 3B", "other"]
    assert axes[0].lines[0].get_ydata().tolist() == pytest.approx([0, 0, 0, 10, 20, 30])
    assert [bar.get_height() for bar in axes[0].patches] == pytest.approx([0, 0, 0, 10, 20, 10])
    # one scale, so that the panels can be compared
    assert axes[0].get_ylim() == axes[1].get_ylim()
    assert {t.get_text() for t in axes[0].figure.legends[0].get_texts()} == {"at least once so far", "in this epoch"}


def test_the_heat_maps_draw_the_shares(runs):
    axes = exclusions.heat_maps(exclusions.by_model(runs))
    assert len(axes) == 2
    image = axes[0].images[0]
    assert image.get_array()[:, -1].tolist() == pytest.approx([50, 100 / 6, 30])
    assert image.get_clim() == axes[1].images[0].get_clim() == (0, pytest.approx(50))
    assert [t.get_text() for t in axes[0].get_yticklabels()] == ["a", "b", "all sub-datasets"]


def test_long_runs_keep_their_labels_apart():
    axes = exclusions.heat_maps(exclusions.by_model({"m": ies_run(rested=[[]] * 25)}))
    assert [t.get_text() for t in axes[0].get_xticklabels()][:3] == ["1", "8", "15"]


def test_a_run_in_which_nobody_sat_out_still_has_a_scale():
    table = exclusions.by_model({"m": ies_run(rested=[[]] * 4)})
    assert exclusions.curves(table)[0].get_ylim()[1] > 1
    assert exclusions.heat_maps(table)[0].images[0].get_clim() == (0, 1)


def test_the_finding_by_hand(runs):
    text = exclusions.finding(exclusions.by_model(runs), runs)
    # 30 and 0 %: a deviation of 21.2, and t of one degree of freedom is 12.7
    assert text.startswith("IES lets 15.0 ± 190.6 % of the examples sit out at least once and saves 14.3 ±")
    theirs = reported_numbers.table("table7").set_index("model").drop("Average")
    assert f"implies {(100 * (1 - theirs['IES'] / theirs['SFT'])).mean():.1f} %" in text


def test_the_papers_saving_is_that_of_its_table(runs):
    theirs = reported_numbers.table("table7").set_index("model").loc["Qwen2.5 3B"]
    table = exclusions.against_paper(runs)
    assert list(table.index) == ["saved by IES, mean of the models", "saved by IES, Qwen2.5 3B"]
    row = table.loc["saved by IES, Qwen2.5 3B"]
    assert row["paper (% of FLOPs)"] == pytest.approx(100 * (theirs["SFT"] - theirs["IES"]) / theirs["SFT"])
    assert row["here (% of FLOPs)"] == pytest.approx(100 * 240 / 840)
    assert row[["95 % interval", "same direction"]].tolist() == ["–", "yes"]
    # the mean of the two runs
    assert table.iloc[0]["here (% of FLOPs)"] == pytest.approx(50 * 240 / 840)


def test_the_notes_of_the_method_are_what_is_read():
    """The schedule of IES writes the notes that `sat_out` reads, with indices over all train examples."""
    from msft.methods.ies import InstanceStops

    owners = ["a"] * 2 + ["b"] * 2
    schedule = InstanceStops(delta=0.1)
    rows = [SimpleNamespace(ids=[0] * 3) for _ in owners]
    schedule.start(
        SimpleNamespace(owners=owners, rows=rows, example_losses=lambda indices: np.ones(len(indices))), "ab"
    )
    for epoch in range(1, 5):
        schedule.hear(schedule.examples(epoch), np.array([1.0, epoch**2, 2**epoch, 3.0])[schedule.examples(epoch)])
        schedule.end_epoch(SimpleNamespace(forward_tokens=0))
    run = ies_run()
    run.journal[0]["result"]["notes"] = schedule.notes
    run.about["mixture"]["sub_datasets"] = {"a": {"train": 2}, "b": {"train": 2}}
    table = exclusions.sat_out(run)
    # straight losses (0 and 3) sit out epoch 4, bent ones do not
    assert of_task(table, "a", "ever") == [0, 0, 0, 50]
    assert of_task(table, "b", "ever") == [0, 0, 0, 50]
