"""The bifurcation: both branches begin at the same weights, and the shift is read off them."""

from types import SimpleNamespace

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from recorder import owners_of, recorded, same_weights, train

from msft.methods.msft import earliest_overfit
from msft.store import checkpoints
from msft.training import Trainer
from paper_figures import study, style
from paper_figures.figures import shift

OWN = {"methods_dir": str(shift.METHODS)}
PARAMS = {"budget": 0.75, "branch": 0.5}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def trained(settings, tmp_path_factory):
    """(record, weights at the start of each roll-out) of a bifurcation that was trained."""
    starts, roll_out = [], Trainer.roll_out

    def watched(self, *args, **kwargs):
        starts.append(checkpoints.snapshot(self.model))
        return roll_out(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "roll_out", watched)
        record = recorded({**settings, **OWN}, tmp_path_factory.mktemp("bifurcation"), "bifurcation", PARAMS)
    return record, starts


def test_both_branches_begin_at_the_same_weights_and_evaluation(trained):
    record, starts = trained
    run = record.run
    assert run.status == "finished"
    assert same_weights(starts[-1], starts[-2])
    rows = shift.branches(run)
    begin = rows[rows.epoch == 0].pivot(index="task", columns="branch", values=["accuracy", "path_epoch"])
    for value in ("accuracy", "path_epoch"):
        assert (begin[value].full == begin[value].reduced).all()
    assert sorted(rows.epoch.unique()) == [0, 0.25, 0.5]
    assert rows.groupby("branch").path_epoch.max().nunique() == 1


def test_the_fork_is_where_the_first_one_over_fits(trained):
    run = trained[0].run
    stage = run.history.stage.max() - 2  # the last one before the branches
    rows = run.history[run.history.stage == stage]
    curve = {epoch: dict(zip(part.task, part.accuracy, strict=True)) for epoch, part in rows.groupby("epoch")}
    first, epoch = earliest_overfit(curve, list(run.history.task.unique()))
    assert shift.fork(run) == shift.Fork(first, rows.path_epoch.min() + epoch)


def test_the_reduced_branch_trains_all_but_the_first(trained):
    record, _ = trained
    tasks, first, last = set(record.run.history.task), shift.fork(record.run).first, record.run.history.stage.max()
    assert owners_of(record, last - 1) == tasks
    assert owners_of(record, last) == tasks - {first}
    # excluded, it is measured all the same
    rows = shift.branches(record.run)
    assert set(rows[(rows.branch == "reduced") & ~rows.active].task) == {first}


def test_a_finished_bifurcation_is_read_and_its_pictures_are_drawn(trained, settings):
    run = trained[0].run
    again = train({**settings, **OWN}, run.directory.parent, "bifurcation", PARAMS)
    assert again.directory == run.directory
    others = run.history.task.nunique() - 1
    assert len(shift.shifts(run)) == len(shift.shift_table(run)) == others
    assert len(shift.branch_curves(run)) == others
    axis, _ = shift.shift_bars({"m": run}, [])
    assert len(axis.get_yticks()) == others


def test_a_budget_in_which_nobody_over_fits_is_followed_by_another(monkeypatch):
    """Accuracies are given; the verbs only note what they were asked for."""
    calls, curves = (
        [],
        iter([{0.0: {"a": 0, "b": 0}, 1.0: {"a": 1, "b": 1}}, {0.0: {"a": 2, "b": 1}, 1.0: {"a": 1, "b": 2}}]),
    )

    class Verbs:
        tasks = ["a", "b"]

        def roll_out(self, active, epochs, **options):
            calls.append(("roll_out", list(active), epochs, options))
            return next(curves, {0.0: {}})

        def roll_back(self, curve, epoch, **why):
            calls.append(("roll_back", epoch, why))

        def note(self, what, **values):
            calls.append(("note", what, values))

    from msft import methods

    method = methods.load("bifurcation", str(shift.METHODS))
    method.run(Verbs(), method.Params(budget=1.0, branch=2.0))
    both = ["a", "b"]
    assert calls == [
        ("roll_out", both, 1.0, {"keep": both}),
        ("roll_out", both, 1.0, {"keep": both}),
        ("roll_back", 0.0, {"first": "a"}),
        ("note", "bifurcation", {"first": "a"}),
        ("roll_out", both, 2.0, {"keep_start": True}),
        ("roll_back", 0.0, {"branch": "reduced"}),
        ("roll_out", ["b"], 2.0, {}),
    ]


CONFIG = SimpleNamespace(model="m", seed=20)


def made(full, reduced, first="gone"):
    """Stands for a bifurcation with these accuracies every half epoch from the fork at 1.5 on."""
    rows = [
        {"stage": stage, "epoch": i / 2, "path_epoch": 1.5 + i / 2, "task": task, "accuracy": value, "n": 100}
        for stage, branch in ((1, full), (2, reduced))
        for task, values in branch.items()
        for i, value in enumerate(values)
    ]
    start = [{**row, "stage": 0, "path_epoch": row["epoch"]} for row in rows if row["stage"] == 1]
    note = {"kind": "note", "arguments": {"what": "bifurcation", "first": first}}
    journal = [{"kind": "roll_out"}, note]
    return SimpleNamespace(history=pd.DataFrame(start + rows), journal=journal, config=CONFIG)


FULL = {"gone": [0.9, 0.5, 0.4], "one_task": [0.1, 0.2, 0.5], "two": [0.3, 0.3, 0.1], "three": [0.1, 0.4, 0.2]}
REDUCED = {"gone": [0.9, 0.3, 0.2], "one_task": [0.1, 0.6, 0.5], "two": [0.3, 0.2, 0.1], "three": [0.1, 0.3, 0.4]}


def test_shifts_are_those_worked_out_by_hand():
    run = made(FULL, REDUCED)
    assert shift.fork(run) == shift.Fork("gone", 1.5)
    table = shift.shifts(run)
    assert table.index.tolist() == ["one_task", "two", "three"]
    assert table.full.tolist() == [1, 0, 0.5]
    assert table.reduced.tolist() == [0.5, 0, 1]
    assert table["shift"].tolist() == [-0.5, 0, 0.5]
    assert table.at_end.tolist() == [True, False, True]
    peaks = shift.shift_table(run)
    assert peaks["peak, full (%)"].tolist() == pytest.approx([50, 30, 40])
    assert peaks["peak, reduced (%)"].tolist() == pytest.approx([60, 30, 40])


def test_the_pictures_show_the_shifts():
    run = made(FULL, REDUCED)
    ours, paper = shift.shift_bars({"m": run}, [])
    assert [label.get_text() for label in ours.get_yticklabels()] == ["three", "two", "one task"]
    assert [bar.get_width() for bar in ours.patches] == [0.5, 0, -0.5]
    assert [text.get_text() for text in ours.texts] == ["+0.5", "0", "\N{MINUS SIGN}0.5"]
    assert [axis.get_title() for axis in (ours, paper)] == [
        "m,\nwithout gone\nmean |shift| 0.33", "the paper,\nwithout ARC-Easy\nmean |shift| 1.19",
    ]  # fmt: skip
    assert sorted(bar.get_width() for bar in paper.patches) == sorted(shift.reported_shifts())
    assert ours.get_xlim() == paper.get_xlim() and "epochs" in ours.figure.get_supxlabel()
    axes = shift.branch_curves(run)
    assert [axis.get_title() for axis in axes] == ["one task", "two", "three"]
    assert [len(axis.lines) for axis in axes] == [2, 2, 2]
    stars = [tuple(map(float, points.get_offsets()[0])) for points in axes[0].collections]
    assert stars == [pytest.approx((1, 50)), pytest.approx((0.5, 60))]


def test_the_title_says_what_chance_does_on_either_side():
    run = made(FULL, REDUCED)
    axes = shift.shift_bars({"m": run}, SEEDS)
    assert style.said(axes).endswith(
        "0.33 ± 0.72 epochs (m); another seed moves them by 0.33 ± 0.72: cannot tell which is larger"
    )
    assert [text.get_text() for text in axes[0].figure.legends[0].texts] == ["less than another seed alone moves them"]
    (band,) = [patch for patch in axes[0].patches if patch.get_facecolor()[:3] == (0.9, 0.9, 0.9)]
    assert band.get_x() == pytest.approx(-1 / 3) and band.get_width() == pytest.approx(2 / 3)
    # equal shifts are shown to be larger than none, and none to be smaller than equal distances
    same = sft({"one_task": 2, "two": 2, "three": 2})
    assert "the shift is larger" in style.said(shift.shift_bars({"m": made(FULL, ALL_FIRST)}, [same, same]))
    apart = [same, sft({"one_task": 2.5, "two": 2.5, "three": 2.5})]
    assert "the shift is smaller" in style.said(shift.shift_bars({"m": made(FULL, FULL)}, apart))


def test_seeds_of_another_model_say_nothing_of_chance():
    axes = shift.shift_bars({"m": made(FULL, REDUCED)}, [sft({"one_task": 2}, "other")] * 2, with_paper=False)
    assert style.said(axes).endswith("epochs (m); no other seeds to tell this from chance")
    assert not axes[0].figure.legends


def test_the_longest_bar_s_number_stands_clear_of_the_names():
    ours, _ = shift.shift_bars({"m": made(FULL, REDUCED)}, [])
    assert ours.get_xlim() == pytest.approx((-1.9 * 2.5, 1.9 * 2.5))  # the paper's SciQ moves by 2.5


def test_a_caption_says_where_the_fork_is_the_base_model():
    run = made(FULL, REDUCED)
    assert shift.at_the_base_model({"m": run}, []) == ""
    run.history.path_epoch -= 1.5
    same_seed = sft({"gone": 3})
    assert "gone counts as the first to over-fit with m" in shift.at_the_base_model({"m": run}, [])
    assert shift.at_the_base_model({"m": run}, [same_seed]).endswith("in the whole SFT run it peaks at epoch 3.")


def test_a_row_a_model_and_the_paper_s():
    table, size = (
        shift.by_model({"m": made(FULL, REDUCED)}, SEEDS),
        [pytest.approx(1 / 3), pytest.approx(0.717, abs=1e-3)],
    )
    assert table.loc["m"].tolist() == ["gone", 1.5, "2 of 3", *size, *size]
    assert table.loc["the paper, Qwen3 8B"].tolist()[:3] == ["ARC-Easy", 0.25, "9 of 9"]
    assert table.loc["the paper, Qwen3 8B", "mean |shift|"] == pytest.approx(1.19, abs=0.005)


def sft(peaks, model="m"):
    """An SFT run of ten epochs with these peaks, evaluated every half epoch."""
    rows = [
        {"stage": 0, "epoch": i / 2, "task": task, "accuracy": float(i / 2 == peak)}
        for task, peak in peaks.items()
        for i in range(21)
    ]
    return SimpleNamespace(history=pd.DataFrame(rows), config=SimpleNamespace(model=model, seed=20))


# within the branches, epochs 1.5 to 2.5, the peaks of three lie apart by 0.5, 0.5 and 0 epochs
SEEDS = [
    sft({"gone": 2, "one_task": 2, "two": 2, "three": 2}),
    sft({"gone": 9, "one_task": 1.5, "two": 2.5, "three": 2}),
]
# every peak moves by half an epoch
ALL_FIRST = {**FULL, "one_task": [0.1, 0.6, 0.5], "two": [0.1, 0.3, 0.1], "three": [0.1, 0.2, 0.4]}


def test_chance_is_the_mean_distance_between_seeds():
    tasks = ["one_task", "two", "three"]
    runs = [sft(dict(zip(tasks, peaks, strict=True))) for peaks in ((1.5, 2, 2), (2, 2, 2), (2.5, 1.5, 2))]
    chance = shift.by_chance(made(FULL, REDUCED), runs)
    # pairs of one_task: 0.5, 1, 0.5; of two: 0, 0.5, 0.5
    assert chance.to_dict() == pytest.approx({"one_task": 2 / 3, "two": 1 / 3, "three": 0})
    assert shift.by_chance(made(FULL, REDUCED), runs[:1]) is None


def test_chance_is_of_the_branches_sub_datasets_and_epochs_alone():
    """A later peak, or one of the sub-dataset that is left out, would be compared with nothing."""
    run = made(FULL, REDUCED)
    assert shift.by_chance(run, SEEDS).to_dict() == {"one_task": 0.5, "two": 0.5, "three": 0}
    # a peak after the branches' end, where all that lies within them is level
    late = sft({"gone": 2, "one_task": 8, "two": 2, "three": 2})
    assert shift.by_chance(run, [SEEDS[0], late])["one_task"] == 0.5


def test_the_finding_follows_the_numbers():
    run = made(FULL, REDUCED)
    text = shift.finding(run, SEEDS)
    assert "Without gone, the first to over-fit (epoch 1.5), 2 of the other 3" in text
    sizes = shift.shifts(run)["shift"].abs()
    assert f"by {sizes.mean():.2f} ± {4.3027 * sizes.std() / 3**0.5:.2f} epochs" in text
    assert "2 have a peak at the end of a branch" in text
    assert "another seed alone moves the same peaks by 0.33 ± 0.72 epochs" in text and text.endswith(
        "cannot tell which is larger."
    )
    assert "0 of the other 3" in shift.finding(made(FULL, FULL), [])
    assert "there is one seed of SFT" in shift.finding(run, [])


@pytest.mark.parametrize("profile", ["smoke", "tiny", "paper"])
def test_the_runs_of_a_profile_are_the_bifurcation_and_sft_at_each_seed(profile, tmp_path):
    page = study.Study("02_optimal_compute_shift", profile, str(tmp_path))
    needs = shift.needs(page)
    for model in page.models:
        forked = needs.pop(("bifurcation", model))
        assert (forked.method, forked.model, forked.seed) == ("bifurcation", model, page.seeds[0])
        assert forked.params == {"budget": page.config("msft").params["budget"], "branch": page.branch}
    assert {config.seed for config in needs.values()} == set(page.seeds)
    assert page.config("sft") in needs.values()


def test_shifts_by_loss_are_those_of_the_lowest_loss(trained):
    run = trained[0].run
    table, rows = shift.shifts(run, "loss"), shift.branches(run)
    for task, row in table.iterrows():
        for branch in ("full", "reduced"):
            curve = rows[(rows.task == task) & (rows.branch == branch)].set_index("epoch").loss
            assert curve[row[branch]] == curve.min()
    axes = shift.shift_bars({"tiny-qwen2": run}, [], with_paper=False, measure="loss")
    assert "lowest losses" in style.said(axes)
