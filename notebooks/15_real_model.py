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
# # Does it hold for a real model on real data?
#
# The paper's hypothesis is that every sub-dataset over-fits at its own time. If that is a property of the sub-dataset, its
# optimal compute comes back with another seed, and a stop for each gains over one stop for all. In the profile `laptop` this
# notebook asks a pre-trained model on the ten benchmarks, in `tiny` the embedded mixture.
#
# A small model on a hundred items moves in steps of a point and by chance; the held-out loss of the gold answers moves
# in smaller steps, and shows over-fitting where accuracy stands still. Both are shown.

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny", "laptop" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows
methods = "sft msft sro_sft ies"  # at the first seed; "ies:40" at one of its own
seeds = 2  # of SFT and mSFT

# %%
from paper_figures import data, study
from paper_figures.figures import overfitting, real_model

page = study.start("15_real_model", globals(), "methods", "seeds")
runs = page.train(real_model.needs(page, methods, seeds))
sft = runs["sft", page.seeds[0]]
about = data.sample({"sft": sft})

# %% [markdown]
# ## Over-fitting, seen by the loss

# %%
page.figure(
    overfitting.curves(sft, measure="loss"),
    "loss_panels",
    item="Fig. 2, by loss",
    caption=overfitting.LOSS_CURVES_CAPTION + about,
)

# %% [markdown]
# ## Do the peaks come back?

# %%
page.figure(
    real_model.optima_plot(runs),
    "optima",
    item="Fig. 2, over seeds",
    caption=real_model.OPTIMA_PLOT_CAPTION + data.sample(real_model.sft_runs(runs)),
)

# %%
table = real_model.methods_table(runs)
print(real_model.finding(runs, table))
page.table(
    real_model.optima_table(runs),
    "optima_table",
    item="Fig. 2, over seeds, as a table",
    caption=real_model.OPTIMA_CAPTION + data.sample(real_model.sft_runs(runs)),
    decimals=2,
)

# %% [markdown]
# ## The methods

# %%
page.table(
    table,
    "methods",
    item="Table 2, one model",
    caption=real_model.METHODS_CAPTION + data.sample(runs),
    decimals=2,
)

# %% [markdown]
# ## What is above guessing

# %%
page.table(
    real_model.chance_table(sft), "chance", item="Table 2, against guessing", caption=real_model.CHANCE_CAPTION + about
)

# %%
page.histories()  # every number above comes from these files
