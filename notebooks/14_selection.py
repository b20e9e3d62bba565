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
# # Held-out selection
#
# The paper chooses the checkpoint that it reports on the test items themselves, and mSFT also takes its decisions on them. The
# more checkpoints there are to choose among, the more such a choice flatters. Beyond the paper: the same runs with
# `select_on="validation"`, where a validation set of the same kind chooses and the test items are only read. How much of the
# gains remains?

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny", "laptop" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows

# %%
from paper_figures import data, study
from paper_figures.figures import selection

page = study.start("14_selection", globals())
runs = page.train(selection.needs(page))
gains = selection.gains(runs)
about = data.sample(runs)

# %% [markdown]
# ## Each gain under both choices

# %%
print(selection.finding(gains, selection.trained_alike(runs)))
page.figure(
    selection.dumbbells(gains),
    "dumbbells",
    item="Held-out selection",
    caption=selection.DUMBBELLS_CAPTION + about,
)

# %%
page.table(selection.remains(gains), "remains", item="Held-out selection", caption=selection.REMAINS_CAPTION + about)

# %% [markdown]
# ## The checkpoints that were chosen

# %%
page.table(
    selection.readable(selection.compare(runs)),
    "checkpoints",
    decimals=2,
    item="Held-out selection",
    caption=selection.READABLE_CAPTION + about,
)

# %% [markdown]
# ## Confirmed on items that chose nothing

# %%
page.confirmed("Held-out selection")
