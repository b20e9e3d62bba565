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
# peaks of a stage wait in host memory and go to disk with each saved state, minutes apart, as lossless differences to the
# base model.

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny", "laptop" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows

# %%
from paper_figures import data, study
from paper_figures.figures import storage

page = study.start("12_storage", globals())
runs = page.train(storage.needs(page))
groups = {what: {key: run for key, run in runs.items() if key[0] == what} for what in ("model", "mixture", "C")}
focus = runs["model", page.focus]
print(storage.finding(runs))

# %% [markdown]
# ## What Algorithm 4 keeps alive
# Replayed over the finished runs: how many different checkpoints are held after every evaluation, and the bound. By
# model, by size of the mixture, and by compute budget *C*: a longer stage has more evaluations, and so more room for
# different peaks.

# %%
page.figure(
    storage.live_copies(groups["model"]),
    "live_models",
    item="Fig. 16",
    caption=storage.LIVE_COPIES_CAPTION + data.sample(groups["model"]),
)
page.figure(
    storage.live_copies(groups["mixture"]),
    "live_mixtures",
    item="Fig. 17",
    caption=storage.LIVE_COPIES_CAPTION + data.sample(groups["mixture"]),
)
page.figure(
    storage.live_copies(groups["C"]),
    "live_budgets",
    item="Fig. 18",
    caption=storage.LIVE_COPIES_CAPTION + data.sample(groups["C"]),
)

# %% [markdown]
# ## What is really on disk

# %%
page.figure(
    storage.on_disk(focus),
    "on_disk",
    item="disk ledger",
    caption=storage.ON_DISK_CAPTION + data.sample({"focus": focus}),
)

# %%
page.table(
    storage.summary(runs),
    "copies",
    item="Fig. 16 to 18",
    caption=storage.SUMMARY_CAPTION + data.sample(runs),
    decimals=2,
)

# %% [markdown]
# ## Where the peaks wait
# `keep_peaks` is memory or disk. Measured by `python benchmarks/storage.py`, not by this notebook.

# %%
page.table(storage.modes(), "modes", item="keep_peaks", caption=storage.MODES_CAPTION, decimals=3)
