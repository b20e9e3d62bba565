import matplotlib.pyplot as plt
import numpy as np
import pytest
from figure_runs import fake_run, roll_out

from paper_figures import reported_numbers, study, style
from paper_figures.figures import compute

PARAMETERS = 10
DYNAMIX = {"epochs": 10.0, "updates": 100, "look_ahead_batch": 8}


def of(method, tokens, evaluated=50, look_ahead=0, params=None, forward=0):
    """A run that trained on `tokens`, evaluated two sub-datasets of `evaluated` tokens each, and looked ahead."""
    entry = roll_out(0, 0.0, [(0, [0.4, 0.5], None)], tokens=tokens)
    entry["result"]["points"][0]["tokens"] = {"a": evaluated, "b": evaluated}
    entry["result"] |= {"look_ahead_tokens": look_ahead, "forward_tokens": forward}
    run = fake_run(method, [entry], (0, 0), params=params, parameters=PARAMETERS)
    run.about["mixture"]["sub_datasets"] = {"a": {"train": 96}, "b": {"train": 4}}
    return run


def runs():
    """SFT takes 6 * 10 * 1000 + 2 * 10 * 100 = 62,000 FLOPs."""
    own = {
        "sft": of("sft", 1000),
        "continual_sft": of("continual_sft", 300),
        "dynamix_sft": of("dynamix_sft", 1000, look_ahead=700, params=DYNAMIX),
        "ies": of("ies", 600, forward=100),
        "sro_sft": of("sro_sft", 1500),
        "soft_sro_sft": of("soft_sro_sft", 2000, 100),
        "msft": of("msft", 1600, params={"budget": 3.0}),
    }
    found = {("m", method): run for method, run in own.items()}
    return found | {("m", "msft", 1.0): of("msft", 500, params={"budget": 1.0})}


def test_needs_of_the_profiles():
    page = study.Study("11_flops", "tiny")
    wanted = compute.needs(page)
    assert len(wanted) == 3 * 7 + 1
    assert wanted["tiny-qwen2", "msft", 1.0] == page.config("msft", params={"budget": 1.0})
    paper = compute.needs(study.Study("11_flops", "paper"))
    # the paper has C=1 on four of its six models
    assert [key[0] for key in paper if len(key) == 3] == [
        "allenai/OLMo-2-0425-1B", "Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-3B",
    ]  # fmt: skip
    smoke = compute.needs(study.Study("11_flops", "smoke"))
    assert smoke["tiny-smoke", "msft", 0.5].params["budget"] == 0.5


def test_flops_by_hand():
    table = compute.measured(runs()).set_index("name")
    assert table.total["SFT"] == 62_000
    assert table.look_ahead["DynamixSFT"] == 8 * 10 * 700
    assert table.ratio["Soft SRO SFT"] == pytest.approx(2)
    # as Table 7 counts it, an example of IES that sits out costs nothing; its forward pass is 2 * 10 * 100 FLOPs
    assert table.total["IES"] == 38_000 and table.total[compute.WITH_PASSES] == 40_000
    assert table.ratio["mSFT (C=1)"] == pytest.approx((30_000 + 2_000) / 62_000)
    assert set(table.index) - {compute.WITH_PASSES} == set(compute.reported().name)


def test_a_budget_overruled_by_a_setting_is_one_row():
    same = runs()
    same["m", "msft", 1.0] = same["m", "msft"]
    assert compute.measured(same).name.tolist().count("mSFT (C=3)") == 1


def test_table_7_has_the_paper_s_columns_and_averages():
    table = compute.table7(compute.measured(runs()))
    assert table.index.name == "model (FLOPs)"
    # with the other way of counting IES as one column more
    assert [n for n in table if n != compute.WITH_PASSES] == list(reported_numbers.table("table7").columns[1:])
    assert table.loc["Average"].tolist() == table.loc["m"].tolist()


def test_table_7_beside_the_paper():
    theirs = compute.reported()
    ours = theirs.assign(total=2 * theirs.total, method="sft")
    both = compute.table7(ours, theirs)
    assert both.index.names == ["model (PFLOPs)", "source"]
    assert both.loc[("Qwen2.5 3B", "paper"), "SFT"] == pytest.approx(491.72)
    assert both.loc[("Qwen2.5 3B", "here"), "SFT"] == pytest.approx(2 * 491.72)
    # the average is the paper's own, and there is none where a model lacks
    reported = reported_numbers.table("table7").set_index("model").loc["Average"]
    assert both.loc[("Average", "paper"), "IES"] == pytest.approx(reported["IES"], abs=0.01)
    assert np.isnan(both.loc[("Average", "paper"), "mSFT (C=1)"])


def test_ratios_beside_the_paper():
    table = compute.ratios(compute.measured(runs()), compute.reported())
    assert list(table.index)[:2] == ["SFT", "Continual SFT"] and list(table.index)[-2:] == ["mSFT (C=1)", "mSFT (C=3)"]
    assert table.loc["Soft SRO SFT", "paper, lowest"] == pytest.approx(2070.22 / 1170.15)
    assert table.loc["Soft SRO SFT", "paper, highest"] == pytest.approx(1993.78 / 937.61)
    assert table.loc["IES", "here, m"] == pytest.approx(38_000 / 62_000)
    text = compute.finding(compute.measured(runs()), compute.reported())
    assert "over n = 1 models" in text and "Soft SRO SFT 2.00 (no interval) (2.00)" in text
    # Continual SFT is below SFT here, above it on average in the paper
    assert "On the other side of SFT than in the paper: Continual SFT;" in text


def test_identities_of_table_7():
    soft = compute.reported()
    soft = soft[soft.name == "Soft SRO SFT"].ratio
    assert (round(soft.min(), 2), round(soft.max(), 2)) == (1.77, 2.13)
    # 8 * 100 * 128 * 10 over 6 * 18,000 * 10
    assert compute.look_ahead_of_paper() == pytest.approx(1_024_000 / 1_080_000)
    assert compute.look_ahead_of_paper() == pytest.approx(
        reported_numbers.claim("look-ahead overhead") / 100, abs=0.002
    )
    table = compute.identities(runs())
    # 56,000 FLOPs of look-aheads over 60,000 of training; batches of 8 and of the 4 that there are
    assert table["here, m"].tolist() == ["0.933", f"{8 * 100 * 12 / (6 * 100 * 10):.3f}", "2.00"]
    assert table["paper"].tolist() == ["0.949", "0.948", "1.77 to 2.13"]


def test_what_table_7_implies():
    table = compute.implied_lengths()
    qwen = table[table.index.str.startswith("Qwen")]
    # the same mixture and tokenizer: equal lengths, whatever the model's size
    assert qwen["tokens a training example"].between(89, 91).all()
    assert table["tokens an evaluated item"].between(100, 385).all()
    other, table = table.iloc[-1], table.iloc[:-1]
    # the row of OLMo 2 1B has lengths like the others' with another number of parameters
    assert table.loc["OLMo 2 1B", "tokens a training example"] == pytest.approx(68, abs=0.5)
    assert other["tokens a training example"] == pytest.approx(86, abs=0.5)
    whole = table["training of SFT (PFLOPs)"] + table["evaluation of SFT (PFLOPs)"]
    assert whole.tolist() == pytest.approx(reported_numbers.table("table7").SFT[:-1].tolist())
    # Continual SFT counts all ten sub-datasets at every evaluation
    assert (table["if all ten are evaluated"] / table["Continual SFT, reported"]).between(1, 1.05).all()
    assert (table["if those not trained count once"] / table["Continual SFT, reported"]).max() < 0.5


def test_what_table_7_cannot_be():
    table = compute.limits()
    # a forward pass for every example that sits out is more than is reported on four models, free ones on none
    too_little = table["IES, reported"] < table["least, with forward passes"]
    assert list(table.index[too_little]) == ["Qwen2.5 1.5B", "Qwen2.5 3B", "Qwen2.5 7B", "Qwen3 8B"]
    assert (table["IES, reported"] > table["least, sitting out is free"]).all()
    impossible = table["mSFT (C=3), reported"] < table["least, longest dropped first"]
    assert list(table.index[impossible]) == ["Qwen2.5 7B"]


def test_the_pictures_draw_the_parts_and_the_ratios():
    table = compute.measured(runs())
    left, right = compute.panels(table, compute.reported(), "m")
    assert [text.get_text() for text in left.get_yticklabels()] == [
        "SFT", "Continual SFT", "DynamixSFT", "IES", "IES,\nwith forward passes", "SRO SFT", "Soft SRO SFT", "mSFT (C=1)",
        "mSFT (C=3)",
    ]  # fmt: skip

    train, look_ahead, evaluate = left.containers
    assert [bar.get_width() for bar in train][:2] == pytest.approx([60_000 / 1, 18_000 / 1])
    assert look_ahead[2].get_x() == pytest.approx(60_000)
    assert evaluate[2].get_x() + evaluate[2].get_width() == pytest.approx(60_000 + 56_000 + 2_000)
    assert left.get_xlabel() == "compute of a run (FLOPs)" and "times SFT" in right.get_xlabel()
    # eight counts here, seven in the paper, and the line of SFT
    assert len(right.lines) == 16
    assert "mSFT takes 0.52 times SFT's compute at C = 1 (1 model; the paper 0.49)" in style.said(left)
    assert sorted(len(line.get_xdata()) for line in right.lines if line.get_mfc() == "none") == [4, 6, 6, 6, 6, 6, 6]
    plt.close("all")
