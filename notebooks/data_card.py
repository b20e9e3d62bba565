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
# # Data card of a mixture
#
# What a run trains and tests on: how many examples, how long they are under the model's tokenizer, what was left out
# and why, what the texts look like, and where they come from. Nothing is trained here.

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny", "laptop" or "paper"
runs_dir = "runs"  # not used: a card needs no run
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows

# %%
from paper_figures import study
from paper_figures.figures import data_card

page = study.start("data_card", globals())
card = data_card.load(profile, mixture=page.mixture, model=page.focus, **page.settings)
print(f"{card.mixture.name}: {len(card.mixture)} sub-datasets")
if card.problem:
    print(f"No run can start on it with this tokenizer; shown as it is before the length rules.\n{card.problem}")

# %% [markdown]
# ## Counts and tokens
# An epoch is one pass over the train examples; tokens count prompt, answer and EOS, without padding.

# %%
page.table(
    data_card.counts(card),
    "counts",
    item="data card",
    caption=data_card.COUNTS_CAPTION,
)

# %%
page.figure(
    data_card.length_histogram(card),
    "lengths",
    item="data card, lengths",
    caption=data_card.LENGTHS_CAPTION,
)
# %% [markdown]
# ## What was left out, and why

# %%
page.table(
    data_card.left_out(card),
    "left_out",
    item="data card, left out",
    caption=data_card.LEFT_OUT_CAPTION,
)

# %% [markdown]
# ## Three examples each
# The lines behind `>` are what the loss is on.

# %%
print(data_card.rendered(card))

# %% [markdown]
# ## Sources and licences

# %%
page.table(
    data_card.licences(card),
    "licences",
    item="data card, sources",
    caption=data_card.LICENCES_CAPTION,
)
