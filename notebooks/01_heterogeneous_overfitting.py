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
# # Every sub-dataset over-fits at its own time
#
# Section 2 of the paper: under SFT on a mixture, each sub-dataset reaches its highest test accuracy, its *optimal
# compute*, at an epoch of its own. One stop for all then comes too late for some and too early for others. In the
# paper's example (Fig. 2a) AQUA-RAT peaks at epoch 1.25 and SciQ at 2.75, and some sub-datasets have not over-fitted
# after ten epochs (appendix E).

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny", "laptop" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows

# %%
from paper_figures import data, study
from paper_figures.figures import overfitting

page = study.start("01_heterogeneous_overfitting", globals())
runs = page.train(overfitting.needs(page))
focus = runs[page.focus]

# %% [markdown]
# ## Fig. 2: accuracy against epoch, the focus model

# %%
page.figure(
    overfitting.curves(focus),
    "curves",
    item="Fig. 2",
    caption=overfitting.CURVES_CAPTION + data.sample({"sft": focus}),
)

# %%
print(overfitting.finding(focus))
page.table(
    overfitting.peak_table(focus),
    "peaks",
    item="Fig. 2, as a table",
    caption=overfitting.PEAK_TABLE_CAPTION + data.sample({"sft": focus}),
    decimals=2,
)

# %% [markdown]
# ## Fig. 10, 11: the other models

# %%
for model, run in runs.items():
    if model != page.focus:
        page.figure(
            overfitting.curves(run),
            f"curves_{overfitting.file_name(model)}",
            item="Fig. 10, 11",
            caption=overfitting.CURVES_CAPTION + data.sample({"sft": run}),
        )

# %% [markdown]
# ## Fig. 12: optimal compute of each sub-dataset and model

# %%
page.figure(
    overfitting.compute_map(runs),
    "optimal_compute",
    item="Fig. 12",
    caption=overfitting.COMPUTE_MAP_CAPTION + data.sample(runs),
)
page.table(
    overfitting.spread(runs),
    "spread",
    item="Fig. 12, as a table",
    caption=overfitting.SPREAD_CAPTION + data.sample(runs),
    decimals=2,
)
