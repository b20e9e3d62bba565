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
# FLOPs of tiny models cannot stand beside the paper's; ratios to SFT can, where the settings are alike: the smoke profile
# trains IES for twice SFT's epochs, so its ratios compare nothing.

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny", "laptop" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows

# %%
from paper_figures import data, reported_numbers, study
from paper_figures.figures import compute

page = study.start("11_flops", globals())
runs = page.train(compute.needs(page))
flops, reported = compute.measured(runs), compute.reported()
about = data.sample(runs)

# %%
page.figure(
    compute.panels(flops, reported, reported_numbers.model_label(page.focus)),
    "methods",
    item="Table 7",
    caption=compute.PANELS_CAPTION + about,
)

# %%
page.table(
    compute.table7(flops, reported if page.is_paper else None),
    "table7",
    item="Table 7",
    caption=compute.TABLE7_CAPTION + about,
    decimals=2,
)

# %%
print(compute.finding(flops, reported))
page.table(
    compute.ratios(flops, reported), "ratios", item="Table 7", caption=compute.RATIOS_CAPTION + about, decimals=2
)

# %% [markdown]
# ## Do the numbers agree with themselves?
# Two ratios of Table 7 depend on settings alone, or nearly, whatever the scale. The first depends on the look-ahead batch: the
# `tiny` profile takes a smaller one than the paper, so the value to compare with is the one that its own settings imply.

# %%
page.table(compute.identities(runs), "identities", item="Table 7", caption=compute.IDENTITIES_CAPTION + about)

# %% [markdown]
# The first identity splits SFT of the paper into training and evaluation, and that gives the lengths behind its numbers. The
# last columns show that the paper counts every sub-dataset at every evaluation of Continual SFT. The row of OLMo 2 1B fits
# another number of parameters: with its own 1.48e9 an example would have 68 tokens, where the other five models agree on
# 90; with the 1.18e9 of the first OLMo 1B (last row) it has 86.

# %%
page.table(compute.implied_lengths(), "implied_lengths", item="Table 7", caption=compute.IMPLIED_LENGTHS_CAPTION)

# %% [markdown]
# What cannot be: with a forward pass for every example that sits out, the least that IES can cost is more than Table 7
# reports on four of six models, so the paper counts these passes as nothing, and so does the column IES here. And mSFT of
# Qwen2.5 7B is reported below anything that ten stages of 3 epochs can cost at the tokens of its own row.

# %%
page.table(compute.limits(), "limits", item="Table 7", caption=compute.LIMITS_CAPTION)
