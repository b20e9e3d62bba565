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
# # Training loss
#
# The paper reports that mSFT commonly has the lower training loss, with steps down after exclusions (Fig. 9, 14, 15).
# After an exclusion the two methods train on different mixtures, so their mean losses cannot be compared as they are.
# Here each sub-dataset's loss is kept apart, and at every epoch both methods are averaged over the sub-datasets that
# both still train. The optimizer of mSFT starts afresh after an exclusion.

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny", "laptop" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows

# %%
from paper_figures import data, study
from paper_figures.figures import training_loss

page = study.start("09_training_loss", globals())
runs = page.train(training_loss.needs(page))
others = [model for model in page.models if model != page.example]
about = data.sample(runs)

# %% [markdown]
# ## Fig. 9: the example
# Qwen3 8B in the `paper` profile, as in the paper. mSFT is drawn along the weights that it kept.

# %%
page.figure(
    training_loss.panels_of(runs, [page.example]),
    "loss",
    item="Fig. 9",
    caption=training_loss.PANELS_CAPTION + data.sample({m: runs[page.example, m] for m in training_loss.METHODS}),
)

# %% [markdown]
# ## The other models

# %%
if others:
    page.figure(
        training_loss.panels_of(runs, others),
        "loss_others",
        item="Fig. 14, 15",
        caption=training_loss.PANELS_CAPTION + data.sample({key: runs[key] for key in runs if key[0] in others}),
    )

# %% [markdown]
# ## Which is lower
# Up to the first exclusion both runs train the same batches; compared is what lies behind it.

# %%
table = training_loss.compare(runs)
print(training_loss.finding(table))
page.table(table, "loss_table", item="Fig. 9, 14, 15", caption=training_loss.COMPARE_CAPTION + about, decimals=3)

# %% [markdown]
# ## Beside the paper

# %%
ours = training_loss.against_paper(table)
caption = training_loss.AGAINST_PAPER_CAPTION + about
page.table(ours, "directions", item="Fig. 9, 14, 15", caption=caption, decimals=3) if ours is not None else print(
    "no model has such a difference"
)
