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
# # Main results
#
# The paper compares mSFT with plain SFT, Continual SFT, DynamixSFT and IES on six base models and ten benchmarks in three
# groups. In its Table 2 mSFT has the highest average accuracy, 1.8 points above SFT, and is the only method that gains in
# all three groups. Each method reports its best checkpoint; Continual SFT, as its epochs in the table suggest, its final one.

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny", "laptop" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows

# %%
from paper_figures import data, study
from paper_figures.figures import main_results

page = study.start("03_main_results", globals())
runs = page.train(main_results.needs(page))
table, reported = main_results.measured(runs), main_results.reported()
same_scale = reported if page.is_paper else None
about = data.sample(runs)

# %% [markdown]
# ## Every method on every model

# %%
page.figure(
    main_results.by_method(table, main_results.gains(runs), same_scale),
    "methods",
    item="Table 2",
    caption=main_results.BY_METHOD_CAPTION + about,
)

# %%
print(main_results.finding(runs, table))
page.table(
    main_results.side_by_side(table, same_scale),
    "table2",
    item="Table 2",
    caption=main_results.SIDE_BY_SIDE_CAPTION + about,
    decimals=2,
)

# %% [markdown]
# ## Confirmed on items that chose nothing

# %%
page.confirmed("Table 2")

# %% [markdown]
# ## Beside the paper

# %%
page.table(
    main_results.against_paper(runs, reported),
    "directions",
    item="Table 2",
    caption=main_results.AGAINST_PAPER_CAPTION + about,
)
page.table(
    main_results.group_gains(runs, reported),
    "groups",
    item="Table 2",
    caption=main_results.GROUP_GAINS_CAPTION + about,
    decimals=1,
)

# %% [markdown]
# ## The settings behind it
# Every value of this page's runs is read from their own records. The tiny models and their mixture need a higher learning
# rate, smaller batches and shorter answers; in the `paper` profile a "no" is a departure from the paper.

# %%
page.table(main_results.settings(runs), "table5", item="Table 5", caption=main_results.SETTINGS_CAPTION)

# %% [markdown]
# ## Why one budget for all
# The models that the paper looked up were fine-tuned for one number of epochs on the whole mixture, Nemotron-4 in two stages
# with one number each.

# %%
page.table(main_results.allocation(), "table1", item="Table 1", caption=main_results.ALLOCATION_CAPTION)
