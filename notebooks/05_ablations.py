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
# # Ablation: is one search enough?
#
# mSFT searches anew after every drop. The two ablations search once: SRO SFT trains again from the base and drops each
# sub-dataset at the peak that a single roll-out found; Soft SRO SFT samples in proportion to these peaks instead. In the
# paper's Table 3, an average over its six models, SRO SFT comes within 0.3 points of mSFT and Soft SRO SFT close to SFT.

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows

# %%
from paper_figures import reported_numbers, study
from paper_figures.figures import ablations, main_results

page = study.start("05_ablations", globals())
runs = page.train(ablations.needs(page))
table = ablations.measured(runs)
n = f"n = 1 run a method and model, seed {page.seeds[0]}"

# %% [markdown]
# ## Accuracy

# %%
page.figure(
    main_results.by_method(table),
    "ablation",
    item="Table 3",
    caption="Test accuracy (percent, mean over the sub-datasets) at the best checkpoint of SFT, both single roll-out "
    f"searches and mSFT, and the gain over SFT of the same model (points){main_results.bars_note(page.models)}; {n}.",
)

# %%
print(ablations.verdict(table))
page.table(
    ablations.table3(table, page.is_paper),
    "table3",
    item="Table 3",
    caption="Test accuracy (percent) and epoch of the best checkpoint (Ep.; for the single roll-out searches that of their "
    f"second training): mean over the models (here {len(page.models)}) and each model; {n}.",
    decimals=2,
)

# %% [markdown]
# ## When each search stops
# If one roll-out saw the same peaks as the search of mSFT, every diamond would lie in its ring.

# %%
times = ablations.drop_times(runs)
page.figure(
    ablations.drop_panels(times),
    "drop_times",
    item="Table 3",
    caption="Epoch at which a sub-dataset is dropped: by SRO SFT at its peak in one roll-out on all sub-datasets (rings), by "
    "mSFT at its peak in the stage that dropped it (diamonds, along the kept path); the dashed line is the checkpoint "
    f"that mSFT reports; {n}.",
)
print(ablations.reading(times))

# %% [markdown]
# ## Beside the paper

# %%
print(reported_numbers.scale_note(page.is_paper))
page.table(
    ablations.against_paper(table),
    "directions",
    item="Table 3",
    caption=f"Differences in mean test accuracy (points): six models in the paper, {len(page.models)} here; {n}.",
)
