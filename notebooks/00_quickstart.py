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
# # mSFT in one notebook
#
# Supervised fine-tuning on a mixture gives every sub-dataset the same number of epochs, but they do not over-fit at
# the same time. **mSFT** gives each its own early stop:
#
# 1. **roll out**: train the active sub-datasets for a compute budget of *C* epochs, measuring all of them every
#    quarter epoch;
# 2. **find** the active sub-dataset whose accuracy peaked first: it has over-fitted;
# 3. **roll back** to the checkpoint of that peak, **drop** that sub-dataset, and go on with the others, until none is
#    left.
#
# The best checkpoint of the whole search is the result. Below, plain SFT and mSFT train the same model on the same
# mixture; finished runs are read from disk, and a run that was killed goes on where it stopped. While they train, a
# picture of every sub-dataset so far is kept up to date: pale is what was rolled back, grey who was dropped.

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows
seed = 20

# %%
from paper_figures import live, study
from paper_figures.figures import quickstart

page = study.start("00_quickstart", globals(), "seed")
runs = page.train(quickstart.needs(page, seed), on_evaluation=live.LiveFigure())
sft, ours = runs["sft"], runs["msft"]

# %% [markdown]
# ## Every sub-dataset over-fits at its own time
# On top the mean of all, below every sub-dataset in the order in which mSFT dropped them. A star marks the best epoch
# of a sub-dataset under SFT; the dotted line is where mSFT dropped it, and from there on its line is pale.

# %%
page.figure(
    quickstart.first_picture(sft, ours),
    "accuracy_curves",
    item="first picture",
    caption=quickstart.caption(sft, ours),
)
# %% [markdown]
# ## What mSFT did
# The bars show until when each sub-dataset was trained; below them, every stage's roll-out and the way back.

# %%
page.figure(
    quickstart.stage_timeline(ours),
    "stages",
    item="first picture, stages",
    caption="Epoch along the kept path until which mSFT trained each sub-dataset (top), and the roll-out of every stage "
    "(bottom): kept in colour, rolled back in grey. The dashed line is the best checkpoint.",
)
# %% [markdown]
# ## What it brings
# Accuracy in percent at each method's best checkpoint, by the groups of Table 2.

# %%
page.table(
    quickstart.comparison(sft, ours),
    "comparison",
    item="first table",
    caption="Test accuracy (%) by group, before training and at the best checkpoint of SFT and mSFT, and its epoch; "
    f"one run each with seed {sft.config.seed}.",
    decimals=2,
)

# %%
print(quickstart.verdict(sft, ours))
