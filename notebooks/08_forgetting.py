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
# # Prevented over-fitting against forgetting
#
# mSFT stops training on a sub-dataset at its peak. That prevents over-fitting, but what is learned afterwards may make
# the model forget. Eq. 4 of the paper takes as the effect of exclusion a sub-dataset's accuracy at the best overall
# checkpoint of mSFT, less its accuracy at the point at which it peaked in the search: negative
# where the model forgot, positive where the other sub-datasets still helped. What remains of the gain over SFT is
# prevented over-fitting. The paper finds Eq. 4 mostly negative but small, and outweighed.

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny", "laptop" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows

# %%
from paper_figures import data, study
from paper_figures.figures import forgetting

page = study.start("08_forgetting", globals())
runs = page.train(forgetting.needs(page))
focus = {method: runs[page.focus, method] for method in ("sft", "msft")}
parts = forgetting.decompose(focus["sft"], focus["msft"])

# %% [markdown]
# ## The two parts of every gain
# Grey and colour add up to the diamond. A star after a name: the sub-dataset peaked after the best checkpoint, so its
# grey part is what was still to be learned.

# %%
page.figure(
    forgetting.bars(parts),
    "decomposition",
    item="Fig. 8",
    caption=forgetting.BARS_CAPTION + data.sample(focus),
)

# %%
print(forgetting.finding(parts))
page.table(
    forgetting.readable(parts),
    "decomposition_table",
    item="Fig. 8",
    caption=forgetting.READABLE_CAPTION + data.sample(focus),
    decimals=2,
)

# %% [markdown]
# ## Every model

# %%
page.table(
    forgetting.by_model(runs),
    "by_model",
    item="Fig. 8",
    caption=forgetting.BY_MODEL_CAPTION + data.sample(runs),
    decimals=2,
)
