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
# The best checkpoint of the whole search is the result.

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny", "laptop" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows
seed = 0  # 0 stands for the profile's first: 20
budget = 3.0  # C: epochs of a roll-out

# %% [markdown]
# ## A run
# A `RunConfig` holds everything that determines a result. `msft.run` trains it, resumes it where it was killed, or reads it
# once it is finished. In a script of your own you name model, mixture and folder:
# `msft.run(msft.RunConfig(method="msft", model="tiny-qwen2", mixture="tiny"), runs_dir="runs")`; here the profile and the
# settings name them. `page.train` does the same for several runs, and keeps a picture of every sub-dataset up to date
# while they train.

# %%
import matplotlib.pyplot as plt

import msft
from msft.methods.msft import earliest_overfit
from paper_figures import data, study
from paper_figures.figures import quickstart
from paper_figures.live import LiveFigure

page = study.start("00_quickstart", globals(), "seed", "budget")
configs = quickstart.needs(page, seed, budget)  # a RunConfig of each method
runs = page.train(configs, on_evaluation=LiveFigure())
run = msft.run(configs["msft"], runs_dir=page.runs_dir)  # it is finished by now, so it is read
run.history.head()

# %% [markdown]
# ## The rule that decides
# After each roll-out mSFT takes the earliest best evaluation of every active sub-dataset, and of these the first. For the
# first roll-out of this run that is the sub-dataset to drop and the epoch to go back to (None if none has peaked before the
# end).

# %%
roll_out = run.history[run.history.stage == 0]
curve = {epoch: rows.set_index("task").accuracy.to_dict() for epoch, rows in roll_out.groupby("epoch")}
tasks = list(roll_out.task.unique())
earliest_overfit(curve, tasks)

# %% [markdown]
# ## A curve by hand
# The history is a plain data frame, and a picture a few lines.

# %%
task, epoch = earliest_overfit(curve, tasks) or (tasks[0], 0.0)
plt.figure(figsize=(4, 2.2))
plt.plot(list(curve), [100 * accuracy[task] for accuracy in curve.values()], marker="o")
plt.axvline(epoch, ls=":")
plt.title(f"{task}, test accuracy (%) against epoch")
plt.show()

# %% [markdown]
# ## Every sub-dataset over-fits at its own time
# Plain SFT beside mSFT, on the same model and mixture.

# %%
sft, about = runs["sft"], data.sample(runs)
page.figure(
    quickstart.first_picture(sft, run),
    "accuracy_curves",
    item="first picture",
    caption=quickstart.FIRST_PICTURE_CAPTION + about,
)

# %%
page.figure(
    quickstart.stage_timeline(run),
    "stages",
    item="first picture, stages",
    caption=quickstart.STAGE_TIMELINE_CAPTION + about,
)

# %%
print(quickstart.finding(sft, run))
page.table(
    quickstart.comparison(sft, run),
    "comparison",
    item="first table",
    caption=quickstart.COMPARISON_CAPTION + about,
    decimals=2,
)
