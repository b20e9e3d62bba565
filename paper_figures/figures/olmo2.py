"""Share of the SFT stage in OLMo 2's training compute (Fig. 1, Table 4), from public counts by appendix A.

FLOPs are 6 N D where weights are trained and 2 N D for a forward pass, N parameters and D tokens. What the paper took
from the hub and its text does not give (mean lengths, the 32B's mixtures) is assumed, named and variable.
"""

import math

import matplotlib.pyplot as plt
import pandas as pd

from msft.errors import ConfigError
from msft.results.flops import FORWARD, TRAIN
from paper_figures import reported_numbers
from paper_figures.style import COLUMN, colour, say

SIZES = {"7B": 7e9, "13B": 13e9, "32B": 32e9}
PRE_TOKENS = {"7B": 3.9e12, "13B": 5.0e12, "32B": 6e12}
MID_TOKENS = {"7B": 150e9, "13B": 600e9}  # the 32B's is assumed
SFT_EXAMPLES = {"7B": 939_344, "13B": 939_344}  # the 32B's is assumed
PAIRS = {"7B": 366_700, "13B": 377_700, "32B": 377_900}
EPISODES, EPISODE_TOKENS = 10e6, 2 * 2048  # prompt and response at their caps
TRAINED_MODELS = {"7B": 2, "13B": 2, "32B": 1}  # PPO: policy and value model; GRPO: policy
SFT_EPOCHS, SFT_CAP, DPO_CAP = 2, 4096, 2048
BASE = ("Pre-training", "Mid-training")
POST = ("SFT", "DPO", "RLVR-grad", "RLVR-roll")
# where the paper took the counts of a stage from, in its own words' order
SOURCES = {
    "Pre-training": "OLMo 2 paper, section 2.3",
    "Mid-training": "OLMo 2 paper, section 4.5",
    "SFT": "data set on the hub",
    "DPO": "data set on the hub",
    "RLVR-grad": "training script (tulu3.md)",
    "RLVR-roll": "training script (tulu3.md)",
}
# what the notebook's parameters stand at, and why
ASSUMED = {
    "sft_length": (700, "tokens an SFT example", "public mixture: 3,100 bytes an example, 4.4 bytes a token"),
    "dpo_length": (650, "tokens a DPO sequence", "public preference mixture of Tulu 3: 2,800 bytes a sequence"),
    "sft_examples_32b": (850_000, "SFT examples of the 32B", "its files are 0.9 times as large as the 7B's"),
    "mid_tokens_32b": (600e9, "mid-training tokens of the 32B", "the same annealing runs as the 13B's"),
}


def stages(sft_length=700, dpo_length=650, sft_examples_32b=850_000, mid_tokens_32b=600e9) -> pd.DataFrame:
    """One row a model size and stage: size, stage, tokens (that pass through a model, over all passes), flops.

    Lengths are mean tokens of a sequence, at most the caps of 4,096 (SFT) and 2,048 (DPO). Raises ConfigError for
    values that cannot be.
    """
    limits = {"sft_length": (sft_length, SFT_CAP), "dpo_length": (dpo_length, DPO_CAP)}
    limits |= {"sft_examples_32b": (sft_examples_32b, math.inf), "mid_tokens_32b": (mid_tokens_32b, math.inf)}
    wrong = [f"{name} = {value}" for name, (value, most) in limits.items() if not 0 < value <= most]
    if wrong:
        raise ConfigError(
            f"{', '.join(wrong)}: give positive numbers, sft_length up to {SFT_CAP} and dpo_length up to {DPO_CAP} tokens"
        )
    rows = []
    for size, parameters in SIZES.items():
        trained = {
            "Pre-training": PRE_TOKENS[size],
            "Mid-training": MID_TOKENS.get(size, mid_tokens_32b),
            "SFT": SFT_EXAMPLES.get(size, sft_examples_32b) * sft_length * SFT_EPOCHS,
            "DPO": PAIRS[size] * 2 * dpo_length,
            "RLVR-grad": TRAINED_MODELS[size] * EPISODES * EPISODE_TOKENS,
        }
        for stage, tokens in trained.items():
            rows.append({"size": size, "stage": stage, "tokens": tokens, "flops": TRAIN * parameters * tokens})
        # policy and frozen reference model, one forward pass each
        tokens = 2 * EPISODES * EPISODE_TOKENS
        rows.append({"size": size, "stage": "RLVR-roll", "tokens": tokens, "flops": FORWARD * parameters * tokens})
    table = pd.DataFrame(rows)
    return table.assign(share=table.flops / table.groupby("size").flops.transform("sum"))


COUNTS_CAPTION = "The counts that the compute of OLMo 2 is worked out from, and where each comes from."


def counts(**assumed) -> pd.DataFrame:
    """Every count that the FLOPs rest on: value of each size, and whether the paper states it or it is assumed.

    assumed: the arguments of `stages` that differ from its own.
    """
    values = {name: assumed.get(name, value) for name, (value, *_) in ASSUMED.items()}
    note = {name: f"assumed: {why}" for name, (_, _, why) in ASSUMED.items()}
    changed = {name for name, (value, *_) in ASSUMED.items() if values[name] != value}
    note |= dict.fromkeys(changed, "assumed: a parameter of this notebook")
    stated, every = "stated", list(SIZES)
    rows = [
        ("parameters", SIZES, "assumed: the models' names; shares do not depend on it"),
        ("pre-training tokens", PRE_TOKENS, stated),
        ("mid-training tokens", MID_TOKENS | {"32B": values["mid_tokens_32b"]}, f"32B {note['mid_tokens_32b']}"),
        ("SFT examples", SFT_EXAMPLES | {"32B": values["sft_examples_32b"]}, f"32B {note['sft_examples_32b']}"),
        ("tokens an SFT example", dict.fromkeys(every, values["sft_length"]), note["sft_length"]),
        ("SFT epochs", dict.fromkeys(every, SFT_EPOCHS), stated),
        ("DPO pairs of two sequences", PAIRS, stated),
        ("tokens a DPO sequence", dict.fromkeys(every, values["dpo_length"]), note["dpo_length"]),
        ("RLVR episodes", dict.fromkeys(every, EPISODES), stated),
        ("tokens an episode", dict.fromkeys(every, EPISODE_TOKENS), "assumed: prompt and response at their caps"),
        ("models trained in RLVR", TRAINED_MODELS, "stated; assumed: each episode is trained on once"),
    ]
    wide = [{"count": name, **{size: f"{of[size]:,.0f}" for size in every}, "source": s} for name, of, s in rows]
    return pd.DataFrame(wide).set_index("count")


TABLE4_CAPTION = (
    "Training compute of OLMo 2 by stage in units of 1e18 FLOPs, where the paper has its counts from, and the shares in percent. The cells of the paper's own table "
    "are not in its text, so none stand beside these."
)


def table4(rows: pd.DataFrame) -> pd.DataFrame:
    """Table 4: FLOPs of each stage in units of 1e18 and the shares in percent, one column a model size."""
    wide = rows.pivot(index="stage", columns="size", values="flops").loc[[*BASE, *POST], list(SIZES)]
    post, total, sft = wide.loc[list(POST)].sum(), wide.sum(), wide.loc["SFT"]
    wide.loc["Post total"] = post
    wide /= 1e18
    for name, share in {
        "Post / Total (%)": post / total,
        "SFT / Post (%)": sft / post,
        "SFT / Total (%)": sft / total,
    }.items():
        wide.loc[name] = 100 * share
    wide.insert(0, "source", [SOURCES.get(stage, "–") for stage in wide.index])
    return wide.rename_axis(index="stage (1e18 FLOPs)", columns=None)


SENSITIVITY_CAPTION = (
    "Share of SFT in all training compute of OLMo 2, in percent, by the mean tokens assumed for an SFT example."
)


def sensitivity(lengths=(100, 200, 400, 700, 1000, 2000, SFT_CAP), **assumed) -> pd.DataFrame:
    """SFT's share of all training compute, in percent, by the assumed mean tokens of an SFT example."""
    shares = {}
    for length in lengths:
        rows = stages(**{**assumed, "sft_length": length})
        shares[length] = 100 * rows[rows.stage == "SFT"].set_index("size").share
    return pd.DataFrame(shares).T.rename_axis(index="tokens an SFT example", columns=None)


DOTS_CAPTION = (
    "Training compute of OLMo 2 by stage in FLOPs on a logarithmic scale, and each stage's share of the whole, for three model "
    "sizes, with the mean lengths of the table of counts."
)


def dots(rows: pd.DataFrame, axes=None):
    """Fig. 1: compute of each stage on a logarithmic scale, a panel a model size, the share beside each dot.

    rows: as `stages` gives it; the two parts of RLVR are drawn as one. Returns the axes.
    """
    if axes is None:
        _, axes = plt.subplots(1, len(SIZES), figsize=(COLUMN, 1.5), sharey=True, sharex=True, layout="constrained")
    merged = rows.assign(stage=rows.stage.str.split("-").str[0].where(rows.stage.isin(POST), rows.stage))
    merged = merged.groupby(["size", "stage"], sort=False)[["flops", "share"]].sum()
    for axis, size in zip(axes, SIZES, strict=True):
        values = merged.loc[size]
        for place, (stage, row) in enumerate(values.iterrows()):
            shade = colour("sft") if stage == "SFT" else "0.45"
            axis.plot(row.flops, place, "o", color=shade, ms=3.6 if stage == "SFT" else 3)
            axis.annotate(
                percent(row.share), (row.flops, place), (0, 3), textcoords="offset points", ha="center", color=shade,
            )  # fmt: skip
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(
            lambda flops, _: f"1e{math.log10(flops):.0f}"
        )  # small raised digits are not read
        axis.set_yticks(range(len(values)), values.index)
        axis.set_ylim(len(values) - 0.5, -0.8)
        axis.set_title(f"OLMo 2 {size}")
        axis.margins(x=0.55)  # room for the shares beside the first and the last dot
    axes[0].figure.supxlabel("training compute (FLOPs); labels: share of the whole")
    sft = rows[rows.stage == "SFT"].share
    claim = reported_numbers.claim("share of the SFT stage")
    return say(
        axes,
        f"SFT takes {percent(sft.min())} to {percent(sft.max())} of OLMo 2's training compute, at assumed lengths (the paper: about {claim:g} %)",
    )


def percent(share: float) -> str:
    """A share as percent with two significant digits, one decimal from 10 % on."""
    return f"{100 * share:.1f} %" if share >= 0.1 else f"{100 * share:#.2g} %"


def finding(rows: pd.DataFrame, by_length: pd.DataFrame) -> str:
    """SFT's share beside the paper's, and how it moves with what is assumed. by_length: as `sensitivity` gives it."""
    sft = rows[rows.stage == "SFT"].set_index("size")
    claim = reported_numbers.claim("share of the SFT stage")
    shares = ", ".join(f"{percent(sft.share[size])} ({size})" for size in SIZES)
    # the share is nearly linear in the length, so the length that gives the paper's share can be solved for
    rest = rows[rows.stage != "SFT"].groupby("size").flops.sum()
    needed = claim / 100 / (1 - claim / 100) * rest / sft.flops
    low, high = by_length.to_numpy().min() / 100, by_length.to_numpy().max() / 100
    return (
        f"SFT takes {shares} of the training compute with the lengths assumed here ({percent(low)} to {percent(high)} over lengths "
        f"from {by_length.index.min():,} to {by_length.index.max():,} tokens, n = {len(SIZES)} sizes); the paper says about "
        f"{claim:g} %. This checks little, since no mean length is in the paper's text: its figure needs an SFT example "
        f"{needed.min():.2f} to {needed.max():.2f} times as long as assumed."
    )
