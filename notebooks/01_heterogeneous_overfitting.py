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
profile = "tiny"  # "smoke", "tiny" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows

# %%
from paper_figures import reported_numbers, study
from paper_figures.figures import overfitting

page = study.start("01_heterogeneous_overfitting", globals())
runs = page.train(overfitting.needs(page))
print(reported_numbers.scale_note(page.is_paper))

# %% [markdown]
# ## Fig. 2: accuracy against epoch, the focus model

# %%
page.figure(
    overfitting.curves(runs[page.focus]),
    "curves",
    item="Fig. 2",
    caption=overfitting.caption(runs[page.focus], page.focus),
)

# %%
print(overfitting.reading(runs, page.focus))
page.table(
    overfitting.peak_table(runs[page.focus]),
    "peaks",
    item="Fig. 2, as a table",
    caption="Peak epoch of each sub-dataset under SFT of the focus model, the earliest epoch within one standard error "
    "of the peak, accuracy (%) at the peak and at the last epoch, and the points below the peak at the last epoch and "
    "at the best checkpoint of the mean.",
    decimals=2,
)

# %% [markdown]
# ## Fig. 10, 11: the other models

# %%
others = [model for model in page.models if model != page.focus]
print(f"{len(others)} other models in the profile {profile}.")
for model in others:
    page.figure(
        overfitting.curves(runs[model]),
        f"curves_{overfitting.file_name(model)}",
        item="Fig. 10, 11",
        caption=overfitting.caption(runs[model], model),
    )

# %% [markdown]
# ## Fig. 12: optimal compute of each sub-dataset and model

# %%
page.figure(
    overfitting.compute_map(runs),
    "optimal_compute",
    item="Fig. 12",
    caption=f"Optimal compute (epoch of the earliest best test accuracy under SFT) of each sub-dataset, for {len(runs)} "
    f"model{'s' * (len(runs) > 1)}, one run each.",
)
page.table(
    overfitting.spread(runs),
    "spread",
    item="Fig. 12, as a table",
    caption="How far the optimal compute of the sub-datasets lies apart under SFT, by model: distinct peak epochs, "
    "earliest, latest, standard deviation, sub-datasets at their best at the last evaluation, the epoch of the best "
    "mean, and the mean distance in points from each sub-dataset's own peak there.",
    decimals=2,
)
