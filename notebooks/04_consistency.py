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
# # Consistency across benchmarks
#
# An average can hide a few outliers. The paper's Fig. 4 therefore shows, for each method, the standard deviation of its
# accuracy across the ten benchmarks, generally the lowest for mSFT, and how often it is first on one of the 60 pairs of
# model and benchmark: mSFT 26 times, IES, the next, 13 times. The runs are those of the main results.

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny", "laptop" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows

# %%
from paper_figures import data, study
from paper_figures.figures import consistency, main_results

page = study.start("04_consistency", globals())
runs = page.train(main_results.needs(page))
table, halves = consistency.scores(runs), consistency.spread_halves(runs)
same_scale = page.is_paper and len(table) == consistency.COMPARISONS
about = data.sample(runs)

# %% [markdown]
# ## Spread and first places
# A tie of k methods gives each 1/k of a first place, so that the places add up to the number of comparisons.

# %%
page.figure(
    consistency.panels(table, halves, consistency.reported_places() if same_scale else None),
    "consistency",
    item="Fig. 4",
    caption=consistency.PANELS_CAPTION + about,
)

# %%
print(consistency.finding(table))
page.table(consistency.summary(table), "consistency_table", item="Fig. 4", caption=consistency.SUMMARY_CAPTION + about)

# %% [markdown]
# ## Beside the paper

# %%
page.table(
    consistency.against_paper(table, halves),
    "directions",
    item="Fig. 4",
    caption=consistency.AGAINST_PAPER_CAPTION + about,
)
