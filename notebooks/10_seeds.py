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
# # Seeds
#
# The paper runs SFT and mSFT of one model on three seeds (Table 6): mSFT gains 0.87 points on average, with p = 0.023. The
# test is not named; a two-sided paired t test gives just this p from the accuracies that the table prints.

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows

# %%
from paper_figures import reported_numbers, study
from paper_figures.figures import seeds

page = study.start("10_seeds", globals())
runs = page.train(seeds.needs(page))
scores = seeds.accuracies(runs)
intervals = seeds.bootstrap(seeds.item_differences(runs))
model = reported_numbers.model_label(page.focus)

# %% [markdown]
# ## Both methods on every seed

# %%
page.figure(
    seeds.seed_plot(scores, intervals),
    "seeds",
    item="Table 6",
    caption=f"Left: test accuracy (percent, mean over the sub-datasets) of {model} under SFT and mSFT on n = {len(scores)} "
    "seeds; a line joins a seed, a bar is a mean. Right: gain of mSFT over SFT (points) on each seed, and 95 % paired "
    f"bootstrap intervals of its mean ({seeds.DRAWS:,} draws of test items within each sub-dataset, or of items and seeds).",
)

# %%
print(seeds.verdict(scores, intervals))
page.table(
    seeds.table6(scores, seeds.reported() if page.is_paper else None),
    "table6",
    item="Table 6",
    caption=f"Test accuracy (percent) of {model} on each seed, mean, sample standard deviation, gain over SFT (points) and "
    f"two-sided p of the paired t test over n = {len(scores)} seeds.",
    decimals=2,
)

# %% [markdown]
# ## What so few seeds can tell

# %%
print(seeds.caution(len(scores)))

# %% [markdown]
# ## Beside the paper

# %%
print(reported_numbers.scale_note(page.is_paper))
page.table(
    seeds.against_paper(scores),
    "directions",
    item="Table 6",
    caption=f"Gain of mSFT over SFT (points) on each seed that both have, and the mean: {len(seeds.reported())} seeds in the "
    f"paper, {len(scores)} here.",
    decimals=2,
)
