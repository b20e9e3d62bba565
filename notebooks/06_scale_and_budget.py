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
# # Size of the mixture, and the compute budget C
#
# Section 4.4 of the paper asks two things of mSFT: does its gain hold for mixtures of 5, 10 and 15 sub-datasets (Fig. 5,
# one model), and how much does it depend on its one hyperparameter, the compute budget *C* of a roll-out (Fig. 6; by its
# FLOPs the mean of four models)? The paper finds a gain on every mixture, and at *C* = 1 a gain for fewer FLOPs than SFT
# takes. Here Fig. 6 is the mean of these four models in the `paper` profile. In the others it is **one model**, so that one
# run stands beside a mean of four.

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny", "laptop" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows
budgets = ""  # C of the sweep in epochs, such as "1, 3"; "" stands for the profile's

# %%
from paper_figures import data, study
from paper_figures.figures import scale

page = study.start("06_scale_and_budget", globals(), "budgets")
runs = page.train(scale.needs(page, budgets))
mixtures, sweep = scale.by_mixture(runs), scale.by_budget(runs)
about = data.sample(runs)
reported = scale.reported_budgets()
print(scale.finding(mixtures, sweep))

# %% [markdown]
# ## Mixtures of several sizes

# %%
page.figure(scale.mixture_panels(mixtures), "mixtures", item="Fig. 5", caption=scale.MIXTURE_PANELS_CAPTION + about)

# %%
page.table(
    scale.readable(mixtures),
    "mixtures_table",
    item="Fig. 5",
    caption=scale.MIXTURE_TABLE_CAPTION + about,
    decimals=2,
)

# %% [markdown]
# ## The compute budget C
# In a longer roll-out a sub-dataset has more time to rise above an early high point, and it costs more.

# %%
page.figure(
    scale.budget_panels(sweep, reported, f"here, {sweep.models.max()} model{'s' * (len(page.swept) > 1)}"),
    "budget",
    item="Fig. 6",
    caption=scale.BUDGET_PANELS_CAPTION + about,
)

# %%
page.table(
    scale.budget_table(sweep, reported),
    "budget_table",
    item="Fig. 6",
    caption=scale.BUDGET_TABLE_CAPTION + about,
    decimals=2,
)

# %% [markdown]
# ## Confirmed on items that chose nothing

# %%
page.confirmed("Fig. 5, 6")

# %% [markdown]
# ## Beside the paper
# The paper prints differences of accuracies as percent; they are read as points.

# %%
page.table(
    scale.against_paper(runs, sweep),
    "claims",
    item="Fig. 5, 6",
    caption=scale.AGAINST_PAPER_CAPTION + about,
    decimals=2,
)
