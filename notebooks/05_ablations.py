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
# # Ablation: is one search enough?
#
# mSFT searches anew after every drop. The two ablations search once: SRO SFT trains again from the base and drops each
# sub-dataset at the peak that a single roll-out found; Soft SRO SFT samples in proportion to these peaks instead. In the
# paper's Table 3, an average over its six models, SRO SFT comes within 0.3 points of mSFT and Soft SRO SFT close to SFT.

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny", "laptop" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows

# %%
from paper_figures import data, study
from paper_figures.figures import ablations

page = study.start("05_ablations", globals())
runs = page.train(ablations.needs(page))
table, times = ablations.measured(runs), ablations.drop_times(runs)
about = data.sample(runs)

# %% [markdown]
# ## Accuracy

# %%
page.figure(
    ablations.picture(runs, table),
    "ablation",
    item="Table 3",
    caption=ablations.BY_METHOD_CAPTION + about,
)

# %%
print(ablations.finding(runs, times))
page.table(
    ablations.table3(table, page.is_paper),
    "table3",
    item="Table 3",
    caption=ablations.TABLE3_CAPTION + about,
    decimals=2,
)

# %% [markdown]
# ## When each search stops
# If one roll-out saw the same peaks as the search of mSFT, every diamond would lie in its ring.

# %%
page.figure(ablations.drop_panels(times), "drop_times", item="Table 3", caption=ablations.DROP_PANELS_CAPTION + about)

# %% [markdown]
# ## Confirmed on items that chose nothing

# %%
page.confirmed("Table 3")

# %% [markdown]
# ## Beside the paper

# %%
page.table(ablations.against_paper(runs), "directions", item="Table 3", caption=ablations.AGAINST_PAPER_CAPTION + about)
