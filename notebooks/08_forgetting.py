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
# # Prevented over-fitting against forgetting
#
# mSFT stops training on a sub-dataset at its peak. That prevents over-fitting, but what is learned afterwards may make
# the model forget. With $\theta^*$ the best overall checkpoint of mSFT and $\theta_i$ the point at which sub-dataset $i$
# peaked in the search, Eq. 4 of the paper takes $acc_i(\theta^*) - acc_i(\theta_i)$ as the effect of exclusion: negative
# where the model forgot, positive where the other sub-datasets still helped. What remains of the gain over SFT is
# prevented over-fitting. The paper finds Eq. 4 mostly negative but small, and outweighed.

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows

# %%
from paper_figures import reported_numbers, study
from paper_figures.figures import forgetting

page = study.start("08_forgetting", globals())
runs = page.train(forgetting.needs(page))
parts = forgetting.decompose(runs[page.focus, "sft"], runs[page.focus, "msft"])

# %% [markdown]
# ## The two parts of every gain
# Grey and colour add up to the diamond. A star after a name: the sub-dataset peaked after the best checkpoint, so its
# grey part is what was still to be learned.

# %%
page.figure(
    forgetting.bars(parts),
    "decomposition",
    item="Fig. 8",
    caption=f"Gain of mSFT over SFT (diamonds, points of test accuracy at the best overall checkpoints) on each of "
    f"{len(parts)} sub-datasets and their mean, split by Eq. 4 into forgetting since the sub-dataset's own peak (grey) and "
    f"prevented over-fitting (colour); * marks a peak after the best checkpoint; "
    f"{reported_numbers.model_label(page.focus)}, n = 1 run a method, seed {page.seeds[0]}.",
)

# %%
print(forgetting.verdict(parts))
page.table(
    forgetting.readable(parts),
    "decomposition_table",
    item="Fig. 8",
    caption="Forgetting (Eq. 4) and prevented over-fitting of each sub-dataset in points of test accuracy, which add up to "
    f"the gain of mSFT over SFT, and where its own peak lies; {reported_numbers.model_label(page.focus)}, n = 1 run a method.",
    decimals=2,
)

# %% [markdown]
# ## Every model
# One caution: an own peak is the highest of many noisy measurements on the items that it is reported on, SFT's one
# checkpoint is not chosen for any single sub-dataset. Noise alone therefore makes prevention positive and Eq. 4
# negative; their sum is free of this.

# %%
page.table(
    forgetting.by_model(runs),
    "by_model",
    item="Fig. 8",
    caption="Means over the sub-datasets in points of test accuracy for every model, how many sub-datasets have a negative "
    f"Eq. 4, and how many peaked after the best checkpoint; n = 1 run a method and model, seed {page.seeds[0]}.",
    decimals=2,
)
