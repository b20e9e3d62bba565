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
profile = "tiny"  # "smoke", "tiny" or "paper"
runs_dir = "runs"  # not used: a card needs no run
out_dir = ""  # "" stands for paper_figures/out/<profile>
mixture = ""  # "" stands for the profile's mixture
model = ""  # "" stands for the profile's first model; its tokenizer counts
data_dir = ""  # a folder in hub format; "" stands for the hub

# %%
from paper_figures import data_card, output, style

style.use_style()
out_dir = out_dir or f"paper_figures/out/{profile}"
card = data_card.load(profile, mixture=mixture, model=model, data_dir=data_dir)
print(f"{card.mixture.name}: {len(card.mixture)} sub-datasets")
if card.problem:
    print(f"No run can start on it with this tokenizer; shown as it is before the length rules.\n{card.problem}")

# %% [markdown]
# ## Counts and tokens
# An epoch is one pass over the train examples; tokens count prompt, answer and EOS, without padding.

# %%
counts = data_card.counts(card)
output.save_table(counts, out_dir, "data_card_counts")
counts.style.format({"mean tokens": "{:.1f}"}, thousands=",")

# %%
axes = data_card.length_histogram(card)
output.save_figure(axes[0].figure, out_dir, "data_card_lengths").name
# %% [markdown]
# ## What was left out, and why
# Over-long items are counted as far as the draw met them.

# %%
left_out = data_card.left_out(card)
output.save_table(left_out, out_dir, "data_card_left_out")
left_out

# %% [markdown]
# ## Three examples each
# The lines behind `>` are what the loss is on.

# %%
print(data_card.rendered(card))

# %% [markdown]
# ## Sources and licences

# %%
licences = data_card.licences(card)
output.save_table(licences, out_dir, "data_card_licences")
licences
