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
# # What IES leaves out
#
# Instance-dependent early stopping (IES) lets an example sit out the next epoch where the second difference of its loss
# over the last three epochs is smaller than a threshold (appendix F.1 [4]). The paper shows the cumulative share of such
# examples over 10 epochs (Fig. 13). The first that can be sat out is epoch 4. An example that sits out is judged anew after
# each epoch, so it can come back: "at least once so far" grows, the share of a single epoch need not.

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny", "laptop" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows

# %%
from paper_figures import data, study
from paper_figures.figures import exclusions

page = study.start("13_ies_exclusions", globals())
runs = page.train(exclusions.needs(page))
table = exclusions.by_model(runs)
about = data.sample(runs)

# %% [markdown]
# ## Share of examples that sat out

# %%
print(exclusions.finding(table, runs))
page.figure(exclusions.curves(table), "shares", item="Fig. 13", caption=exclusions.CURVES_CAPTION + about)

# %%
page.table(
    exclusions.summary(table, runs),
    "summary",
    item="Fig. 13",
    caption=exclusions.SUMMARY_CAPTION + about,
    decimals=2,
)

# %% [markdown]
# ## By sub-dataset

# %%
page.figure(exclusions.heat_maps(table), "by_sub_dataset", item="Fig. 13", caption=exclusions.HEAT_MAPS_CAPTION + about)

# %%
page.table(
    exclusions.by_sub_dataset(table),
    "by_sub_dataset_table",
    item="Fig. 13",
    caption=exclusions.BY_SUB_DATASET_CAPTION + about,
)

# %% [markdown]
# ## Beside the paper
# The paper prints no number for Fig. 13. What it does print are the FLOPs of SFT and IES (Table 7), whose difference is what
# the exclusions save.

# %%
page.table(
    exclusions.against_paper(runs),
    "directions",
    item="Fig. 13",
    caption=exclusions.AGAINST_PAPER_CAPTION + about,
    decimals=2,
)
