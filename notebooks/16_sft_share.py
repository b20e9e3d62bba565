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
# # How much of a model's training is SFT?
#
# Does it matter that a method costs more than SFT? SFT is a vanishing part of a model's training (Fig. 1, Table 4). The
# counts follow appendix A, from what is public on OLMo 2. The first table says which of them are stated and which are
# assumed; the mean lengths among these are parameters of this notebook. Nothing is trained here.

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny", "laptop" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows
# Assumptions on OLMo 2 that the paper's text does not give:
sft_length = 700  # mean tokens of an SFT example, at most 4,096
dpo_length = 650  # mean tokens of a DPO sequence, at most 2,048
sft_examples_32b = 850_000  # SFT examples of the 32B model
mid_tokens_32b = 600e9  # mid-training tokens of the 32B model

# %%
from paper_figures import study
from paper_figures.figures import olmo2

page = study.start("16_sft_share", globals(), *olmo2.ASSUMED)
assumed = {name: globals()[name] for name in olmo2.ASSUMED}
stages = olmo2.stages(**assumed)
page.table(olmo2.counts(**assumed), "counts", item="Table 4", caption=olmo2.COUNTS_CAPTION)

# %%
print(olmo2.finding(stages, olmo2.sensitivity(**assumed)))
page.figure(olmo2.dots(stages), "olmo2", item="Fig. 1", caption=olmo2.DOTS_CAPTION)

# %%
page.table(olmo2.table4(stages), "table4", item="Table 4", caption=olmo2.TABLE4_CAPTION, decimals=3)

# %%
page.table(olmo2.sensitivity(**assumed), "olmo2_lengths", item="Fig. 1", caption=olmo2.SENSITIVITY_CAPTION, decimals=4)
