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
# The loss here is the mean over the optimizer steps between two evaluations. It is measured on what is being trained:
# after an exclusion the mixture is another one, so a step can also come from what was left out, and the optimizer
# starts afresh.

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows

# %%
from paper_figures import reported_numbers, study
from paper_figures.figures import training_loss

page = study.start("09_training_loss", globals())
runs = page.train(training_loss.needs(page))
others = [model for model in page.models if model != page.focus]

# %% [markdown]
# ## The model of the further analyses
# mSFT is drawn along the weights that it kept. A star is the best checkpoint of a method; where mSFT found it in a part
# of a roll-out that was rolled back, a thin dashed line leads there.

# %%
page.figure(
    training_loss.panels_of(runs, [page.focus]),
    "loss",
    item="Fig. 9",
    caption=f"Training loss in nats (logarithmic, mean since the evaluation before) of SFT and of mSFT along its kept path "
    f"against epochs, for {reported_numbers.model_label(page.focus)}; stars: best checkpoints, ticks below: exclusions; "
    f"n = 1 run a method, seed {page.seeds[0]}.",
)

# %% [markdown]
# ## The other models

# %%
if others:
    page.figure(
        training_loss.panels_of(runs, others),
        "loss_others",
        item="Fig. 14, 15",
        caption=f"Training loss in nats (logarithmic, mean since the evaluation before) of SFT and of mSFT along its kept path "
        f"against epochs, for the other models of the profile ({len(others)}); stars: best checkpoints, ticks below: "
        f"exclusions; n = 1 run a method, seed {page.seeds[0]}.",
    )
else:
    print("This profile has one model.")

# %% [markdown]
# ## Which is lower
# Up to the first exclusion both runs train the same batches; compared are the intervals behind it that both have.

# %%
table = training_loss.compare(runs)
print(training_loss.verdict(table))
page.table(
    table,
    "loss_table",
    item="Fig. 9, 14, 15",
    caption="Training loss of mSFT against SFT at the same epochs: the epoch of the first exclusion, the intervals compared "
    "behind it, the share in which mSFT is lower, the mean difference mSFT minus SFT, and the losses of the intervals that "
    "end at the best checkpoints, in nats.",
    decimals=3,
)
