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
profile = "tiny"  # "smoke", "tiny", "laptop" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows

# %%
from paper_figures import data, study
from paper_figures.figures import seeds

page = study.start("10_seeds", globals())
runs = page.train(seeds.needs(page))
scores, intervals = seeds.accuracies(runs), seeds.intervals(runs)
about = data.sample(runs)

# %% [markdown]
# ## Both methods on every seed

# %%
page.figure(seeds.seed_plot(scores, intervals), "seeds", item="Table 6", caption=seeds.SEED_PLOT_CAPTION + about)

# %%
print(seeds.finding(scores, intervals))
page.table(
    seeds.table6(scores, seeds.reported() if page.is_paper else None),
    "table6",
    item="Table 6",
    caption=seeds.TABLE6_CAPTION + about,
    decimals=2,
)

# %% [markdown]
# ## Confirmed on items that chose nothing

# %%
page.confirmed("Table 6")

# %% [markdown]
# ## Beside the paper

# %%
page.table(
    seeds.against_paper(runs, intervals),
    "directions",
    item="Table 6",
    caption=seeds.AGAINST_PAPER_CAPTION + about,
    decimals=2,
)

# %% [markdown]
# ## Over many more seeds
# Three seeds cannot tell much. `make evidence` trains many more, on the three tiny base models:

# %%
many = seeds.many_seeds(page)
page.table(
    many, "many_seeds", item="Table 6", caption=seeds.MANY_SEEDS_CAPTION, decimals=2
) if many is not None else print("only for the profile tiny")
