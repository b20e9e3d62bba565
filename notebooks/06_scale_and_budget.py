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
# Section 4.4 of the paper asks two things of mSFT, on one model: does its gain hold for mixtures of 5, 10 and 15
# sub-datasets (Fig. 5), and how much does it depend on its one hyperparameter, the compute budget *C* of a roll-out
# (Fig. 6)? The paper finds a gain on every mixture, and at *C* = 1 a gain for fewer FLOPs than SFT takes.

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows
budgets = ""  # C of the sweep in epochs, such as "1, 3"; "" stands for the profile's

# %%
from paper_figures import reported_numbers, study
from paper_figures.figures import scale

page = study.start("06_scale_and_budget", globals(), "budgets")
runs = page.train(scale.needs(page, budgets))
mixtures, sweep = scale.by_mixture(runs), scale.by_budget(runs)

# %% [markdown]
# ## Mixtures of several sizes
# Whiskers are standard errors over the test items; the right panel is the difference to SFT on the same mixture.

# %%
page.figure(
    scale.mixture_panels(mixtures),
    "mixtures",
    item="Fig. 5",
    caption=f"Test accuracy at each method's best checkpoint (left, percent, mean over sub-datasets, whiskers: standard "
    f"error over the test items) and the gain over SFT (right, points) by number of sub-datasets in the mixture, for "
    f"{reported_numbers.model_label(page.focus)}; n = 1 run a point, seed {page.seeds[0]}.",
)

# %%
print(scale.verdict_mixtures(mixtures))
page.table(
    scale.readable(mixtures),
    "mixtures_table",
    item="Fig. 5",
    caption="Accuracy at the best checkpoint in percent, its standard error and the gain over SFT in points, the epoch of "
    "that checkpoint and the compute of the whole run, by mixture and method; n = 1 run a row.",
    decimals=2,
)

# %% [markdown]
# ## The compute budget C
# A longer roll-out sees over-fitting that a shorter one takes for a peak, and costs more. SFT is the dashed line, with
# its standard error shaded.

# %%
page.figure(
    scale.budget_panels(sweep),
    "budget",
    item="Fig. 6",
    caption=f"Test accuracy (left, percent, whiskers and band: standard error over the test items) and training plus "
    f"evaluation compute by appendix F (right) of mSFT against its compute budget C in epochs, with SFT for reference, "
    f"for {reported_numbers.model_label(page.focus)}; n = 1 run a point, seed {page.seeds[0]}.",
)

# %%
print(scale.verdict_budgets(sweep))
page.table(
    scale.readable(sweep, page.focus),
    "budget_table",
    item="Fig. 6",
    caption="Accuracy at the best checkpoint in percent, its standard error and the gain over SFT in points, the epoch of "
    "that checkpoint, the compute of the whole run, and how many times that of SFT it is, by compute budget C; n = 1 run "
    "a row.",
    decimals=2,
)

# %% [markdown]
# ## Beside the paper
# The paper prints differences of accuracies as percent; they are read as points. The compute that *C* = 1 saves is that
# of the four models for which Table 7 has it.

# %%
print(reported_numbers.scale_note(page.is_paper))
page.table(
    scale.against_paper(mixtures, sweep),
    "claims",
    item="Fig. 5, 6",
    caption="What section 4.4 and Table 7 of the paper report and what was measured here: differences of accuracy in "
    "points, saved compute in percent of SFT's. " + reported_numbers.scale_note(page.is_paper),
    decimals=2,
)
