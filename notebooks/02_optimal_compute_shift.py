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
# # Leaving one sub-dataset out moves the optimum of the others
#
# Section 3.1 of the paper: peaks found in one SFT run are not those of a run that drops sub-datasets on the way. The
# experiment trains the full mixture until the first sub-dataset over-fits, forks there, and goes on with and without
# that sub-dataset from the same checkpoint. The paper reports that leaving out a tenth of the data significantly
# alters the optimal stopping points of the other nine (Fig. 3; Fig. 12 for its other models).

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny", "laptop" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows

# %%
from paper_figures import data, study
from paper_figures.figures import shift

page = study.start("02_optimal_compute_shift", globals())
runs = page.train(shift.needs(page))
forked = {key[1]: run for key, run in runs.items() if key[0] == "bifurcation"}
seeds = [run for key, run in runs.items() if key[0] == "sft"]
example, others = forked[page.example], {model: run for model, run in forked.items() if model != page.example}
about = data.sample({"bifurcation": example})

# %% [markdown]
# ## Fig. 3: the shift of the optimal compute
# The grey band is chance: how far the peaks lie apart in SFT runs of the same model that differ in the seed alone. Only the
# focus model is trained with several seeds.

# %%
page.figure(
    shift.shift_bars({page.example: example}, seeds),
    "shift",
    item="Fig. 3",
    caption=shift.SHIFT_BARS_CAPTION + shift.at_the_base_model({page.example: example}, seeds) + about,
)

# %%
print(shift.finding(example, seeds))
page.table(
    shift.shift_table(example),
    "shift_table",
    item="Fig. 3, as a table",
    caption=shift.SHIFT_TABLE_CAPTION + about,
    decimals=2,
)

# %% [markdown]
# ## The curves behind it

# %%
page.figure(
    shift.branch_curves(example), "branches", item="Fig. 3, curves", caption=shift.BRANCH_CURVES_CAPTION + about
)

# %% [markdown]
# ## Fig. 12: the other models

# %%
if others:
    page.figure(
        shift.shift_bars(others, seeds, with_paper=False),
        "shift_others",
        item="Fig. 12",
        caption=shift.SHIFT_BARS_CAPTION + shift.at_the_base_model(others, seeds) + data.sample(others),
    )
page.figure(
    shift.shift_bars(forked, seeds, with_paper=False, measure="loss"),
    "shift_by_loss",
    item="Fig. 3, 12, by loss",
    caption=shift.LOSS_SHIFT_CAPTION + shift.at_the_base_model(forked, seeds) + data.sample(forked),
)
page.table(
    shift.by_model(forked, seeds),
    "shift_by_model",
    item="Fig. 3, 12, as a table",
    caption=shift.BY_MODEL_CAPTION + data.sample(forked),
    decimals=2,
)
