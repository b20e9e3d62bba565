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
# # Held-out selection
#
# The paper chooses the checkpoint that it reports on the test items themselves, and mSFT also takes its decisions on them. The
# more checkpoints there are to choose among, the more such a choice flatters. Beyond the paper: the same runs with
# `select_on="validation"`, where a validation set of the same kind chooses and the test items are only read. How much of the
# gains remains?

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows

# %%
from paper_figures import reported_numbers, study
from paper_figures.figures import selection

page = study.start("14_selection", globals())
runs = page.train(selection.needs(page))
scores = selection.compare(runs)
gains = selection.gains(runs)
model = reported_numbers.model_label(page.focus)
items = int(runs["sft", "test"].history.drop_duplicates("task").n.sum())

# %% [markdown]
# ## Each gain under both choices

# %%
print(selection.verdict(gains))
page.figure(
    selection.dumbbells(gains),
    "dumbbells",
    item="Held-out selection",
    caption=f"Gain in test accuracy (points, mean over the sub-datasets) of {model}, over the base model (left) and over SFT "
    "(right), where the checkpoint is chosen on the test items (filled) and on validation items (open); lines on the right: "
    f"95 % paired bootstrap intervals over the {items} test items. n = 1 run a method and choice.",
)

# %%
page.table(
    selection.remains(gains),
    "remains",
    item="Held-out selection",
    caption=f"Gain in test accuracy of {model} under each choice of the checkpoint, its change with a 95 % paired bootstrap "
    f"interval over the {items} test items, and the percentage of the gain that remains (a dash where there is none to "
    "keep, negative where it turns into a loss); n = 1 run a method and choice.",
)

# %% [markdown]
# ## The checkpoints that were chosen

# %%
page.table(
    selection.readable(scores),
    "checkpoints",
    item="Held-out selection",
    caption=f"Test accuracy of {model} at the checkpoint that each part chose, its epoch (Ep.), the number of evaluations to "
    "choose among, the validation accuracy at the checkpoint chosen on it, and the standard error of its test accuracy; "
    "n = 1 run a method and choice.",
)

# %% [markdown]
# ## What one seed can tell

# %%
print(selection.caution(scores, selection.trained_alike(runs), items), selection.yardstick(runs))
print(reported_numbers.scale_note(page.is_paper))
