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
# # mSFT in one notebook
#
# Supervised fine-tuning on a mixture gives every sub-dataset the same number of epochs, but they do not over-fit at
# the same time. **mSFT** gives each its own early stop:
#
# 1. **roll out**: train the active sub-datasets for a compute budget of *C* epochs, measuring all of them every
#    quarter epoch;
# 2. **find** the active sub-dataset whose accuracy peaked first: it has over-fitted;
# 3. **roll back** to the checkpoint of that peak, **drop** that sub-dataset, and go on with the others, until none is
#    left.
#
# The best checkpoint of the whole search is the result. Below, plain SFT and mSFT train the same model on the same
# mixture; finished runs are read from disk, and a run that was killed goes on where it stopped.

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
model = ""  # "" stands for the profile's first model
mixture = ""  # "" stands for the profile's mixture
seed = 20

# %%
import msft
from paper_figures import output, profiles, quickstart, style

style.use_style()
out_dir = out_dir or f"paper_figures/out/{profile}"
configs = {m: profiles.config(profile, m, model=model, mixture=mixture, seed=seed) for m in ("sft", "msft")}

# %%
sft = msft.run(configs["sft"], runs_dir)
ours = msft.run(configs["msft"], runs_dir)

# %% [markdown]
# ## Every sub-dataset over-fits at its own time
# A star marks the best epoch of a sub-dataset under SFT, the dotted line the point where mSFT dropped it.

# %%
axes = quickstart.accuracy_curves(sft, ours)
output.save_figure(axes[0].figure, out_dir, "00_accuracy_curves").name
# %% [markdown]
# ## What mSFT did
# The bars show until when each sub-dataset was trained; below them, every stage's roll-out and the way back.

# %%
axes = quickstart.stage_timeline(ours)
output.save_figure(axes[0].figure, out_dir, "00_stages").name
# %% [markdown]
# ## What it brings
# Accuracy in percent at each method's best checkpoint, by the groups of Table 2.

# %%
table = quickstart.comparison(sft, ours)
output.save_table(table, out_dir, "00_comparison", decimals=2)
table.style.format("{:.2f}", na_rep="–")

# %%
print(quickstart.verdict(sft, ours))
