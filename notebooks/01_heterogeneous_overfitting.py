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
example = runs[page.example]
about = data.sample({"sft": example})

# %% [markdown]
# ## Fig. 2: when each sub-dataset is at its best
# In the `paper` profile this is Qwen3 8B, as in the paper; the paper's own distances stand beside.

# %%
page.figure(overfitting.one_panel(example), "curves", item="Fig. 2", caption=overfitting.ONE_PANEL_CAPTION + about)
page.figure(
    overfitting.distance_bars({page.example: example}),
    "distances",
    item="Fig. 2",
    caption=overfitting.DISTANCES_CAPTION + about,
)

# %%
print(overfitting.finding(example))
page.table(
    overfitting.peak_table(example),
    "peaks",
    item="Fig. 2, as a table",
    caption=overfitting.PEAK_TABLE_CAPTION + about,
    decimals=2,
)

# %% [markdown]
# ## The same, a panel a sub-dataset

# %%
page.figure(overfitting.curves(example), "panels", item="Fig. 2, in panels", caption=overfitting.CURVES_CAPTION + about)

# %% [markdown]
# ## By held-out loss
# The loss of the gold answers moves in smaller steps than an accuracy, which jumps from item to item.

# %%
page.figure(
    overfitting.curves(example, measure="loss"),
    "loss_panels",
    item="Fig. 2, by loss",
    caption=overfitting.LOSS_CURVES_CAPTION + about,
)
page.figure(
    overfitting.distance_bars({page.example: example}, with_paper=False, measure="loss"),
    "loss_distances",
    item="Fig. 2, by loss",
    caption=overfitting.LOSS_DISTANCES_CAPTION + about,
)

# %% [markdown]
# ## Fig. 10, 11: the other models

# %%
others = {model: run for model, run in runs.items() if model != page.example}
for model, run in others.items():
    page.figure(
        overfitting.one_panel(run),
        f"curves_{overfitting.file_name(model)}",
        item="Fig. 10, 11",
        caption=overfitting.ONE_PANEL_CAPTION + data.sample({"sft": run}),
    )
if others:
    page.figure(
        overfitting.distance_bars(others, with_paper=False),
        "distances_others",
        item="Fig. 10, 11",
        caption=overfitting.DISTANCES_CAPTION + data.sample(others),
    )

# %% [markdown]
# ## Optimal compute of each sub-dataset and model

# %%
page.figure(
    overfitting.compute_map(runs),
    "optimal_compute",
    item="Optimal compute by model",
    caption=overfitting.COMPUTE_MAP_CAPTION + data.sample(runs),
)
page.table(
    overfitting.spread(runs),
    "spread",
    item="Fig. 2, 10, 11, as a table",
    caption=overfitting.SPREAD_CAPTION + data.sample(runs),
    decimals=2,
)
