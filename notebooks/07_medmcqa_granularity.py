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
# # Sub-categories of one benchmark
#
# A mixture need not consist of different benchmarks. Section 4.4 of the paper takes the 21 subjects of MedMCQA as 21
# sub-datasets and shows the gain over SFT in 11 broad groups (Fig. 7): mSFT gains on average, IES hardly. The paper
# names two of these groups; the other nine are a choice of this package (`granularity.GROUPS`). `smoke` and `tiny`
# have a generated mixture in place of MedMCQA.

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny", "laptop" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows

# %%
from paper_figures import data, study
from paper_figures.figures import granularity

page = study.start("07_medmcqa_granularity", globals())
runs = page.train(granularity.needs(page))
table, spans = granularity.by_category(granularity.gains(runs)), granularity.intervals(runs)
about = data.sample(runs)

# %% [markdown]
# ## Gain over SFT
# A category with few test items moves in large steps.

# %%
page.figure(
    granularity.points(table, spans),
    "gains",
    item="Fig. 7",
    caption=granularity.BARS_CAPTION + about,
)

# %%
print(granularity.finding(runs))
page.table(table, "gains_table", item="Fig. 7", caption=granularity.BY_CATEGORY_CAPTION + about)

# %% [markdown]
# ## Confirmed on items that chose nothing

# %%
page.confirmed("Fig. 7")

# %% [markdown]
# ## Beside the paper

# %%
page.table(
    granularity.against_paper(table, spans),
    "claims",
    item="Fig. 7",
    caption=granularity.AGAINST_PAPER_CAPTION + about,
    decimals=2,
)

# %% [markdown]
# ## Over more seeds
# On the generated mixture, whose sub-datasets that are learnt late are small, and on the same with all of one size:

# %%
many = granularity.many_seeds(page)
page.table(
    many, "many_seeds", item="Fig. 7", caption=granularity.MANY_SEEDS_CAPTION, decimals=2
) if many is not None else print("only for the profile tiny")
