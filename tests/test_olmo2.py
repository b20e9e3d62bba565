import matplotlib.pyplot as plt
import pytest

from msft.errors import ConfigError
from paper_figures.figures import olmo2


def flops_of(rows, size, stage):
    return rows[(rows["size"] == size) & (rows.stage == stage)].flops.item()


def test_stages_by_hand():
    rows = olmo2.stages(sft_length=500, dpo_length=400, sft_examples_32b=1000, mid_tokens_32b=1e9)
    assert flops_of(rows, "7B", "Pre-training") == pytest.approx(6 * 7e9 * 3.9e12)
    assert flops_of(rows, "13B", "Mid-training") == pytest.approx(6 * 13e9 * 600e9)
    assert flops_of(rows, "32B", "Mid-training") == pytest.approx(6 * 32e9 * 1e9)
    # two epochs
    assert flops_of(rows, "7B", "SFT") == pytest.approx(6 * 7e9 * 939_344 * 500 * 2)
    assert flops_of(rows, "32B", "SFT") == pytest.approx(6 * 32e9 * 1000 * 500 * 2)
    # two sequences a pair
    assert flops_of(rows, "32B", "DPO") == pytest.approx(6 * 32e9 * 377_900 * 2 * 400)
    # PPO trains a policy and a value model, GRPO the policy; rollout and reference are forward passes
    assert flops_of(rows, "13B", "RLVR-grad") == pytest.approx(6 * 13e9 * 1e7 * 4096 * 2)
    assert flops_of(rows, "32B", "RLVR-grad") == pytest.approx(6 * 32e9 * 1e7 * 4096)
    assert flops_of(rows, "32B", "RLVR-roll") == pytest.approx(2 * 32e9 * 1e7 * 4096 * 2)


def test_shares_add_up_and_table_4_has_its_rows():
    rows = olmo2.stages()
    assert rows.groupby("size").share.sum().tolist() == pytest.approx([1, 1, 1])
    table = olmo2.table4(rows)
    assert list(table.columns) == ["source", "7B", "13B", "32B"]
    assert table.source["Pre-training"] == "OLMo 2 paper, section 2.3" and table.source["Post total"] == "–"
    table = table.drop(columns="source").astype(float)
    post = table.loc[["SFT", "DPO", "RLVR-grad", "RLVR-roll"]].sum()
    assert table.loc["Post total"].tolist() == pytest.approx(post.tolist())
    whole = post + table.loc[["Pre-training", "Mid-training"]].sum()
    assert table.loc["SFT / Total (%)"].tolist() == pytest.approx((100 * table.loc["SFT"] / whole).tolist())
    product = table.loc["Post / Total (%)"] * table.loc["SFT / Post (%)"] / 100
    assert table.loc["SFT / Total (%)"].tolist() == pytest.approx(product.tolist())


def test_the_share_is_that_of_the_paper_within_the_lengths_that_can_be():
    table = olmo2.sensitivity()
    assert (table.iloc[0] < 0.01).all() and (table.iloc[-1] > 0.01).all()
    assert table.index[-1] == 4096 and (table.diff().dropna() > 0).all().all()
    # even at the cap it is a vanishing part
    assert table.max().max() < 0.2


@pytest.mark.parametrize(
    "wrong", [{"sft_length": 4097}, {"dpo_length": 0}, {"sft_examples_32b": -1}, {"mid_tokens_32b": float("nan")}]
)
def test_assumptions_that_cannot_be_are_named(wrong):
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} = .*sft_length up to 4096"):
        olmo2.stages(**wrong)


def test_every_assumption_is_named_as_one():
    table = olmo2.counts(sft_length=300)
    assert table.loc["tokens an SFT example"].tolist() == ["300"] * 3 + ["assumed: a parameter of this notebook"]
    assert table.loc["tokens a DPO sequence", "source"].startswith("assumed: public preference mixture")
    assert table.loc["SFT examples", "source"].startswith("32B assumed")
    assert table.loc["pre-training tokens", "source"] == "stated"
    # what the table says is what is counted with
    defaults = {name: value for name, (value, *_) in olmo2.ASSUMED.items()}
    assert olmo2.stages(**defaults).equals(olmo2.stages())
    shown = olmo2.counts().loc["mid-training tokens", "32B"].replace(",", "")
    assert float(shown) == defaults["mid_tokens_32b"]


def test_the_picture_draws_every_stage_with_its_share():
    rows = olmo2.stages()
    axes = olmo2.dots(rows)
    assert [axis.get_title() for axis in axes] == ["OLMo 2 7B", "OLMo 2 13B", "OLMo 2 32B"]
    assert [text.get_text() for text in axes[0].get_yticklabels()] == [
        "Pre-training", "Mid-training", "SFT", "DPO", "RLVR",
    ]  # fmt: skip
    assert axes[0].get_xscale() == "log"
    drawn = [line.get_xdata()[0] for line in axes[2].lines]
    rlvr = flops_of(rows, "32B", "RLVR-grad") + flops_of(rows, "32B", "RLVR-roll")
    assert drawn[2] == flops_of(rows, "32B", "SFT") and drawn[4] == pytest.approx(rlvr)
    share = rows[(rows["size"] == "13B") & (rows.stage == "SFT")].share.item()
    assert axes[1].texts[2].get_text() == olmo2.percent(share)
    plt.close("all")


def test_shares_are_written_with_two_digits():
    assert [olmo2.percent(share) for share in (0.937, 0.09, 0.000316)] == ["93.7 %", "9.0 %", "0.032 %"]


def test_the_finding_says_what_the_paper_s_share_would_need():
    said = olmo2.finding(olmo2.stages(sft_length=700), olmo2.sensitivity())
    assert "the paper says about 0.01 %" in said and "from 100 to 4,096 tokens, n = 3 sizes" in said
    # solved for the length, the share is the paper's
    factor = float(said.split("example ")[1].split(" to ")[0])
    rows = olmo2.stages(sft_length=700 * factor)
    assert rows[(rows["size"] == "7B") & (rows.stage == "SFT")].share.item() == pytest.approx(1e-4, rel=0.02)
