# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What each method costs
#
# A method that searches pays for it in compute. The paper counts FLOPs by appendix F, 6 *N D* for training and 2 *N D* for
# a forward pass of *D* tokens through *N* parameters, and finds mSFT at *C* = 3 above SFT, at *C* = 1 below it (Table 7).
# It then asks what that matters: SFT is a vanishing part of a model's training (Fig. 1, Table 4). FLOPs of tiny models
# cannot stand beside the paper's; ratios to SFT can, where the settings are alike: the smoke profile trains IES for twice
# SFT's epochs, so its ratios compare nothing.

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows
# Assumptions on OLMo 2 that the paper's text does not give:
sft_length = 700  # mean tokens of an SFT example, at most 4,096
dpo_length = 650  # mean tokens of a DPO sequence, at most 2,048
sft_examples_32b = 850_000  # SFT examples of the 32B model
mid_tokens_32b = 600e9  # mid-training tokens of the 32B model

# %%
from IPython.display import display

from paper_figures import reported_numbers, study
from paper_figures.figures import compute, olmo2

page = study.start("11_flops", globals(), "sft_length", "dpo_length", "sft_examples_32b", "mid_tokens_32b")
runs = page.train(compute.needs(page))
flops, reported = compute.measured(runs), compute.reported()
focus = reported_numbers.model_label(page.focus)

# %%
page.figure(
    compute.panels(flops, reported, focus),
    "methods",
    item="Table 7",
    caption=f"Left: compute of one run of each method on {focus}, counted from the tokens really trained and evaluated "
    f"(appendix F). Right: over the compute of SFT on the same model, a dot for each of {flops.model.nunique()} models here "
    f"and a ring for each of {reported.model.nunique()} in the paper; n = 1 run a dot, seed {page.seeds[0]}.",
)

# %%
table7, unit = compute.table7(flops, reported if page.is_paper else None)
shown = page.table(
    table7,
    "table7",
    item="Table 7",
    caption=f"Training, look-ahead and evaluation compute of a run in {unit} by model and method; n = 1 run a cell.",
    decimals=2,
)
display(shown)
print(compute.verdict(flops, reported))
page.table(
    compute.ratios(flops, reported),
    "ratios",
    item="Table 7",
    caption="Compute over that of SFT on the same model: mean, lowest and highest of the paper's models, and each model "
    "here. Ratios have no scale, but they depend on how long the evaluated answers are beside the training examples.",
    decimals=2,
)

# %% [markdown]
# ## Do the numbers agree with themselves?
# Two identities hold in Table 7 whatever the scale. The first depends on the look-ahead batch: the `tiny` profile takes a
# smaller one than the paper, so the value to compare with is the one that its own settings imply. In the paper it splits
# SFT into training and evaluation, and that gives the lengths behind the second table. Its last columns show that the paper
# counts every sub-dataset at every evaluation of Continual SFT.

# %%
shown = page.table(
    compute.identities(runs),
    "identities",
    item="Table 7",
    caption="Identities of Table 7, in the paper and measured here. The second row is what the settings imply when all "
    "examples are equally long; for the paper, look-ahead batches of 128 over 10 epochs of 18,000 examples.",
)
display(shown)
page.table(
    compute.implied_lengths(),
    "implied_lengths",
    item="Table 7",
    caption="What the paper's Table 7 implies: the training and evaluation parts of SFT, the tokens of a training example "
    "and of an evaluated item, and Continual SFT as reported beside two ways of counting its evaluations. Parameters as the "
    "model cards state them; nothing here is measured.",
)

# %% [markdown]
# ## How much of a model's training is SFT?
# Counted from what is public on OLMo 2. The table says which counts the paper states and which are assumed; the mean
# lengths are parameters of this notebook.

# %%
assumed = {
    "sft_length": sft_length,
    "dpo_length": dpo_length,
    "sft_examples_32b": sft_examples_32b,
    "mid_tokens_32b": mid_tokens_32b,
}
stages = olmo2.stages(**assumed)
page.table(
    olmo2.counts(**assumed),
    "counts",
    item="Table 4",
    caption="The counts that the compute of OLMo 2 is worked out from, and where each comes from.",
)

# %%
print(olmo2.verdict(stages))
page.figure(
    olmo2.dots(stages),
    "olmo2",
    item="Fig. 1",
    caption="Training compute of OLMo 2 by stage in FLOPs on a logarithmic scale, and each stage's share of the whole, for "
    f"three model sizes, with {sft_length:,} tokens an SFT example and {dpo_length:,} a DPO sequence assumed.",
)

# %%
shown = page.table(
    olmo2.table4(stages),
    "table4",
    item="Table 4",
    caption="Training compute of OLMo 2 by stage in units of 1e18 FLOPs, and the shares in percent. The cells of the "
    "paper's own table are not in its text, so none stand beside these.",
    decimals=3,
)
display(shown)
page.table(
    olmo2.sensitivity(**assumed),
    "olmo2_lengths",
    item="Fig. 1",
    caption="Share of SFT in all training compute of OLMo 2, in percent, by the mean tokens assumed for an SFT example; "
    f"the paper says about {reported_numbers.claim('share of the SFT stage'):g} %.",
    decimals=4,
)
