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
# # Sub-categories of one benchmark
#
# A mixture need not consist of different benchmarks. Section 4.4 of the paper takes the 21 subjects of MedMCQA as 21
# sub-datasets and shows the gain over SFT in 11 broad groups (Fig. 7): mSFT gains on average, IES hardly. The paper
# names two of these groups; the other nine are a choice of this package (`granularity.GROUPS`). The small profiles have
# a mixture of their own in place of MedMCQA.

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows

# %%
from paper_figures import reported_numbers, study
from paper_figures.figures import granularity

page = study.start("07_medmcqa_granularity", globals())
runs = page.train(granularity.needs(page))
gains = granularity.gains(runs)
table = granularity.by_category(gains)

# %% [markdown]
# ## Gain over SFT
# Every method stands at its own best overall checkpoint. A category with few test items moves in large steps.

# %%
page.figure(
    granularity.bars(table),
    "gains",
    item="Fig. 7",
    caption=f"Gain over SFT, in points of test accuracy, of mSFT and IES on {page.granular} "
    f"({gains.task.nunique()} sub-datasets in {len(table) - 1} categories, {int(table['items'].iloc[-1])} test items) with "
    f"{reported_numbers.model_label(page.focus)}, sorted by the gain of mSFT; the mean is that over sub-datasets; n = 1 "
    f"run a method, seed {page.seeds[0]}.",
)

# %%
print(granularity.verdict(gains))
page.table(
    table,
    "gains_table",
    item="Fig. 7",
    caption="Gain over SFT in points of test accuracy by category, with its number of sub-datasets and of test items; n = 1 "
    "run a method.",
)

# %% [markdown]
# ## Beside the paper

# %%
print(reported_numbers.scale_note(page.is_paper))
page.table(
    granularity.against_paper(table),
    "claims",
    item="Fig. 7",
    caption="Gains over SFT that section 4.4 of the paper names, in points, and what was measured here. "
    + reported_numbers.scale_note(page.is_paper),
    decimals=2,
)
