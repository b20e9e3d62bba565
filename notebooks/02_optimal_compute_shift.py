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
# alters the optimal stopping points of the other nine (Fig. 3).

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
forked = runs.pop("bifurcation")
about = data.sample({"bifurcation": forked})

# %% [markdown]
# ## Fig. 3: the shift of the optimal compute

# %%
page.figure(shift.shift_plot(forked), "shift", item="Fig. 3", caption=shift.SHIFT_PLOT_CAPTION + about)

# %%
print(shift.finding(forked, runs.values()))
page.table(
    shift.shift_table(forked),
    "shift_table",
    item="Fig. 3, as a table",
    caption=shift.SHIFT_TABLE_CAPTION + about,
    decimals=2,
)

# %% [markdown]
# ## The curves behind it

# %%
page.figure(shift.branch_curves(forked), "branches", item="Fig. 3, curves", caption=shift.BRANCH_CURVES_CAPTION + about)
