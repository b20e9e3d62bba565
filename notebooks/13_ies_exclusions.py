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
# # What IES leaves out
#
# Instance-dependent early stopping (IES) lets an example sit out the next epoch where the second difference of its loss
# over the last three epochs is smaller than a threshold (appendix F.1 [4]). The paper shows the cumulative share of such
# examples over 10 epochs (Fig. 13). The first that can be sat out is epoch 4. An example that sits out is judged anew after
# each epoch, so it can come back: "at least once so far" grows, the share of a single epoch need not.

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows

# %%
from paper_figures import reported_numbers, study
from paper_figures.figures import exclusions

page = study.start("13_ies_exclusions", globals())
runs = page.train(exclusions.needs(page))
table = exclusions.by_model(runs)
thresholds = sorted({run.config.params["delta"] for run in runs.values()})
threshold = " and ".join(f"{delta:g}" for delta in thresholds)

# %% [markdown]
# ## Share of examples that sat out

# %%
print(exclusions.verdict(table))
page.figure(
    exclusions.curves(table),
    "shares",
    item="Fig. 13",
    caption="Training examples that IES left out (percent of all examples of the mixture) by epoch: at least once so far "
    f"(line) and in the epoch itself (bars), threshold {threshold} nats, n = 1 run a model.",
)

# %%
page.table(
    exclusions.summary(table, runs),
    "summary",
    item="Fig. 13",
    caption="IES on each model: examples of the mixture, the first epoch that one of them sat out, the percentage that sat "
    "out at least once and that trained again after it, the percentage of all passes over an example that were skipped, and "
    "the FLOPs saved as a percentage of the same run without exclusions (evaluation included); n = 1 run a model.",
    decimals=2,
)

# %% [markdown]
# ## By sub-dataset

# %%
page.figure(
    exclusions.heat_maps(table),
    "by_sub_dataset",
    item="Fig. 13",
    caption="Examples that have sat out at least once so far (percent of the sub-dataset's training examples) by epoch; all "
    "panels share the colour scale, n = 1 run a model.",
)

# %%
page.table(
    exclusions.by_sub_dataset(table),
    "by_sub_dataset_table",
    item="Fig. 13",
    caption="Examples that sat out at least once in the whole run (percent of the sub-dataset's training examples); n = 1 run "
    "a model.",
)

# %% [markdown]
# ## Beside the paper
#
# The paper prints no number for Fig. 13. What it does print are the FLOPs of SFT and IES (Table 7), whose difference is what
# the exclusions save: both train 10 epochs.

# %%
print(reported_numbers.scale_note(page.is_paper))
page.table(
    exclusions.against_paper(runs),
    "directions",
    item="Fig. 13",
    caption="FLOPs that the exclusions of IES save (percent of the FLOPs of the same training without exclusions): the paper's "
    f"from SFT and IES in its Table 7, here from the n = {len(runs)} run{'s' if len(runs) > 1 else ''} above.",
    decimals=2,
)
