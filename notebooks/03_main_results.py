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
# # Main results
#
# The paper compares mSFT with plain SFT, Continual SFT, DynamixSFT and IES on six base models and ten benchmarks in three
# groups. In its Table 2 mSFT has the highest average accuracy, 1.8 points above SFT, and is the only method that gains in
# all three groups. Each method reports its best checkpoint, Continual SFT its final one.

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows

# %%
from paper_figures import reported_numbers, study
from paper_figures.figures import main_results

page = study.start("03_main_results", globals())
runs = page.train(main_results.needs(page))
table = main_results.measured(runs)
reported = main_results.reported()
of_paper = reported if page.is_paper else None
n = f"n = 1 run a method and model, seed {page.seeds[0]}"

# %% [markdown]
# ## Every method on every model

# %%
page.figure(
    main_results.by_method(table, of_paper),
    "methods",
    item="Table 2",
    caption="Test accuracy (percent, mean over the sub-datasets) at the reported checkpoint of each method and model, and "
    f"its gain over SFT of the same model (points){main_results.bars_note(page.models)}"
    f"{', the rings those of the paper' if of_paper is not None else ''}; {n}.",
)

# %%
print(main_results.verdict(runs, table))
page.table(
    main_results.side_by_side(table, of_paper),
    "table2",
    item="Table 2",
    caption="Test accuracy (percent) by group of sub-datasets, method and model, and the epoch of the reported checkpoint "
    f"(Ep.; for Continual SFT the mean of the sub-datasets' peaks); {n}.",
    decimals=2,
)

# %% [markdown]
# ## Beside the paper
# Differences in accuracy, averaged over the models of each side.

# %%
print(reported_numbers.scale_note(page.is_paper))
page.table(
    main_results.against_paper(table, reported),
    "directions",
    item="Table 2",
    caption=f"Mean difference in test accuracy (points) between mSFT and each other method, and between mSFT and SFT in "
    f"each group: six models in the paper, {len(page.models)} here; {n}.",
)

# %% [markdown]
# ## The settings behind it
# Every value of this page's runs is read from their own records. The tiny models and their mixture need a higher learning
# rate, smaller batches and shorter answers; in the `paper` profile a "no" is a departure from the paper.

# %%
page.table(
    main_results.settings(runs),
    "table5",
    item="Table 5",
    caption=f"Settings of the paper and of the {len(runs)} runs of this page, as each run's own record has them.",
)

# %% [markdown]
# ## Why one budget for all
# The models that the paper looked up were all fine-tuned for one number of epochs on the whole mixture. This table is
# copied from the paper; nothing in it is measured here.

# %%
page.table(
    main_results.allocation(),
    "table1",
    item="Table 1",
    caption="Allocation of the SFT compute in released models, as the paper states it: the same number of epochs for "
    "every sub-dataset of a mixture, or of a stage.",
)
