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
# # Disk
#
# To roll back, mSFT must have kept the checkpoint of every peak. The paper deletes a checkpoint as soon as nobody holds it
# (Algorithm 4) and still keeps 4.44 model copies on average, where SFT keeps one (appendix I, Fig. 16 to 18). Here the
# peaks of a stage wait in host memory, and what goes to disk is a lossless difference to the base model: a killed stage
# begins again, with the same result.

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows

# %%
from paper_figures import study
from paper_figures.figures import storage

page = study.start("12_storage", globals())
runs = page.train(storage.needs(page))
groups = {what: {key: run for key, run in runs.items() if key[0] == what} for what in ("model", "mixture", "C")}

# %% [markdown]
# ## What Algorithm 4 keeps alive
# Played over the finished runs: after every evaluation, how many different checkpoints somebody holds, and the bound.

# %%
page.figure(
    storage.live_copies(groups["model"]),
    "live_models",
    item="Fig. 16",
    caption="Model copies that Algorithm 4 keeps alive after each evaluation (line), their mean (dotted) and the bound "
    "(dashed) against the epochs trained, for mSFT on each model of the profile.",
)

# %%
page.figure(
    storage.live_copies(groups["mixture"]),
    "live_mixtures",
    item="Fig. 17",
    caption=f"The same for mixtures of different size, mSFT on {page.focus}.",
)

# %%
page.figure(
    storage.live_copies(groups["C"]),
    "live_budgets",
    item="Fig. 18",
    caption=f"The same for different compute budgets C (epochs a stage), mSFT on {page.focus}: a longer stage has more "
    "evaluations, and so more room for different peaks.",
)

# %% [markdown]
# ## What is really on disk

# %%
run = runs["model", page.focus]
page.figure(
    storage.on_disk(run),
    "on_disk",
    item="disk ledger",
    caption=f"Copies of the weights on disk during one mSFT run on {page.focus} (the run's ledger: saved states, one spare "
    "state, and at the end the best checkpoint), the mean over its time, the mean of Algorithm 4 and the paper's.",
)
print(storage.verdict(run))

# %%
page.table(
    storage.summary(runs),
    "copies",
    item="Fig. 16 to 18",
    caption="Model copies of every mSFT run: by Algorithm 4 (mean over evaluations, peak, bound) and really on disk (mean "
    "over the run's time, peak).",
    decimals=2,
)

# %% [markdown]
# ## Where the peaks wait
# `keep_peaks` is memory, delta or disk. Measured by `python benchmarks/storage.py`, not by this notebook.

# %%
page.table(
    storage.modes(),
    "modes",
    item="keep_peaks",
    caption="mSFT with its peaks in memory, as differences to the base on disk (delta), and as whole files (disk): copies of "
    "the weights on disk, size of a difference beside the weights, and share of the run's time spent on saving.",
    decimals=3,
)
