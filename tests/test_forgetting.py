import matplotlib.pyplot as plt
import pytest
from figure_runs import msft_run, sft_run

from paper_figures import study
from paper_figures.figures import forgetting


def test_needs_both_methods_of_every_model():
    page = study.Study("08_forgetting", "tiny")
    wanted = forgetting.needs(page)
    assert set(wanted) == {(model, method) for model in page.models for method in ("sft", "msft")}
    assert all(config.model == model and config.method == method for (model, method), config in wanted.items())


def test_parts_by_hand():
    """a: 60 % at the best, 50 % at its own peak, 40 % under SFT; b: 70, 70 and 60."""
    table = forgetting.decompose(sft_run(), msft_run()).set_index("task")
    assert table.forgetting.tolist() == pytest.approx([10, 0])
    assert table.prevention.tolist() == pytest.approx([10, 10])
    assert table.gain.tolist() == pytest.approx([20, 10])
    assert table.peak_epoch.tolist() == [0.25, 0.5]
    assert not table.later.any()


@pytest.mark.parametrize("best", [(0, 0.0), (0, 0.25), (0, 0.5), (1, 0.25), (1, 0.5)])
def test_the_parts_sum_to_the_gain(best):
    table = forgetting.decompose(sft_run(), msft_run(best))
    assert (table.forgetting + table.prevention).tolist() == pytest.approx(table.gain.tolist())


def test_a_peak_after_the_best_checkpoint_is_marked():
    table = forgetting.decompose(sft_run(), msft_run(best=(0, 0.25))).set_index("task")
    assert table.later.to_dict() == {"a": False, "b": True}
    assert table.forgetting.tolist() == pytest.approx([0, -40])
    assert "and 1 sub-datasets peaked after the best checkpoint" in forgetting.finding(table.reset_index())


def test_own_peak_of_a_sub_dataset_that_was_never_dropped():
    table = forgetting.own_peaks(msft_run(ends_by_drop=False)).set_index("task")
    assert table.dropped.to_dict() == {"a": True, "b": False}
    assert table.loc["b", ["stage", "epoch", "path_epoch", "peak"]].tolist() == [1, 0.25, 0.5, 0.7]


def test_a_peak_at_the_start_of_a_stage_is_the_point_that_the_stage_came_from():
    """b is best where stage 1 starts, which is epoch 0.25 of stage 0: the best checkpoint there comes no earlier."""
    run = msft_run(best=(0, 0.25), start_is_peak=True)
    peak = forgetting.own_peaks(run).set_index("task").loc["b"]
    assert (peak.stage, peak.epoch, peak.path_epoch, peak.peak) == (0, 0.25, 0.25, 0.3)
    assert not forgetting.decompose(sft_run(), run).later.any()


def test_bars_draw_both_parts_the_sum_and_the_mean():
    table = forgetting.decompose(sft_run(), msft_run(best=(0, 0.25)))
    ax = forgetting.bars(table)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b *", "mean"]
    grey, coloured = ([bar.get_width() for bar in bars] for bars in ax.containers)
    assert grey == pytest.approx([0, -40, -20])
    assert coloured == pytest.approx([10, 10, 10])
    diamonds = next(line for line in ax.lines if line.get_label() == "gain over SFT")
    assert diamonds.get_xdata().tolist() == pytest.approx([10, -30, -10])
    assert "points" in ax.get_xlabel()
    plt.close("all")


def test_parts_of_one_sign_stand_on_each_other():
    table = forgetting.decompose(sft_run(), msft_run())
    ax = forgetting.bars(table)
    first = ax.containers[1][0]
    assert (first.get_x(), first.get_width()) == pytest.approx((10, 10))
    plt.close("all")


def test_tables_have_the_mean():
    runs = {("m", "sft"): sft_run(), ("m", "msft"): msft_run()}
    shown = forgetting.readable(forgetting.decompose(*runs.values()))
    assert shown.loc["mean", ["forgetting", "prevention", "gain over SFT"]].tolist() == pytest.approx([5, 10, 15])
    row = forgetting.by_model(runs).loc["m"]
    assert row[["forgetting", "prevention", "gain over SFT"]].tolist() == pytest.approx([5, 10, 15])
    # 10 and 0, 10 and 10, 20 and 10: t of one degree of freedom is 12.7
    halves = row[["± of forgetting", "± of prevention", "± of gain"]].tolist()
    assert halves == pytest.approx([63.5, 0, 63.5], abs=0.05)
    assert row[["sub-datasets", "forgetting < 0", "peak after the best"]].tolist() == [2, 0, 0]


def test_the_finding_has_both_parts_with_their_intervals():
    # 10 and 10; 10 and 0; 20 and 10: a deviation of 7.07, and t of one degree of freedom is 12.7
    text = forgetting.finding(forgetting.decompose(sft_run(), msft_run()))
    assert (
        "over-fitting is +10.0 ± 0.0 points and forgetting (Eq. 4) +5.0 ± 63.5, together +15.0 ± 63.5 over SFT" in text
    )
    lost = forgetting.finding(forgetting.decompose(sft_run(), msft_run(best=(0, 0.25))))
    assert "together -10.0" in lost
