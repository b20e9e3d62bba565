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
# # Your own mixture
#
# From a folder of JSON lines to the best checkpoint, the picture of who over-fitted when, a model card and an export.
#
# **What to prepare.** One folder a sub-dataset with `train.jsonl` and `test.jsonl`. A row is either
# `{"question": ..., "answer": ..., "rationale": ...}` (the rationale may be left out) or a conversation,
# `{"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}`, which goes through the
# tokenizer's chat template; the loss is on its last message.
#
# **What a right answer is.** By default each sub-dataset has the paper's scorer. `metric:` in the mixture file may
# say `exact_match` (case, white space and punctuation around the answer do not count), `number_match` (the last number
# counts), or `loss` for texts without a checkable answer: exp(-held-out loss), highest where the loss is lowest.
#
# `mixture_dir` is your folder, `models` your model (a hub id or a folder). Without them the guide makes up a user: four
# sub-datasets, of which one has chats, one free text, one many wrong labels, and one is clean.

# %% tags=["parameters"]
profile = "tiny"  # "smoke", "tiny", "laptop" or "paper"
runs_dir = "runs"
out_dir = ""  # "" stands for paper_figures/out/<profile>
settings = ""  # settings of every run in one text, as the README shows
mixture_dir = ""  # your folder; "" makes one up

# %%
from paper_figures import data, study
from paper_figures.figures import exports, your_mixture

page = study.start("your_mixture", globals(), "mixture_dir")
mixture_file, model = your_mixture.prepare(page, mixture_dir)
print(mixture_file.read_text(encoding="utf-8"))

# %% [markdown]
# ## The checks
# Every mistake in the files is reported at once, with file and line, before a model is loaded. Some that are easy to
# make:

# %%
print(your_mixture.broken_rows(page.runs_dir / "broken_rows"))

# %% [markdown]
# ## The run
# Plain SFT stands beside mSFT here for comparison; mSFT alone is
# `python -m msft run --mixture mixture.yaml --model <your model>`. A killed run goes on where it stopped, a finished
# one is read.

# %%
runs = page.train(your_mixture.needs(page, mixture_dir))
sft, ours = runs["sft"], runs["msft"]

# %% [markdown]
# ## Who over-fitted when
# The sub-datasets stand in the order in which mSFT dropped them. Grey is what was trained and taken back again: where
# it falls behind the dotted line, the sub-dataset over-fitted there.

# %%
page.figure(
    your_mixture.curves(ours, sft=sft),
    "curves",
    item="your own mixture, curves",
    caption=your_mixture.CURVES_CAPTION + data.sample({"msft": ours}),
)

# %%
print(your_mixture.finding(sft, ours))
page.table(
    your_mixture.comparison(sft, ours),
    "comparison",
    decimals=2,
    item="your own mixture, comparison",
    caption=your_mixture.COMPARISON_CAPTION + data.sample(runs),
)

# %% [markdown]
# ## The card and the export
# A folder that stock transformers and vLLM load, with a model card whose licence fields are left to you;
# `--push` and `owner/name` put it on the hub. On the command line: `python -m msft export <run> <folder>`. In Python:
# `msft.export(run, "folder")`.

# %%
folder = exports.exported(ours, page.runs_dir / "exports")
print(exports.head_of_card(folder))
print(exports.answer(folder, mixture_file))

# %% [markdown]
# ## Data where it lies, an adapter, a benchmark of your own
# Your data may not be JSON lines of questions and answers. Here an Alpaca-shaped parquet file, a CSV of four columns and
# a JSONL of chats are one mixture as they are: `format:` names a known shape, `columns:` and `template:` say which columns
# are the answer and the question, `test_split:` is a seeded share of the questions where there is no test file. A data set
# of the hub is read in the same way, by `hub: owner/name` and `split:`. Nothing is guessed.
#
# The metals have no test file either: a task of lm-eval judges them, `metals_told.yaml` in the folder `include_path`,
# written as for the stock command. Any task that lm-eval knows can stand there by its name.
#
# The run trains an adapter in place of the weights: `adapter="lora"`, at ten times the rate (`pip install peft`).
# On the command line: `python -m msft run --mixture mixture.yaml --model <your model> --adapter lora`.
#
# `python -m msft mixture check mixture.yaml --model <your model>` says in seconds, without the weights, what a run would
# see: counts, lengths, what is left out, and how three examples of each sub-dataset read.

# %%
from msft.__main__ import main
from msft.results.summary import summary

mixture_file, needed = your_mixture.own_data(page)
print(mixture_file.read_text(encoding="utf-8"))
print(your_mixture.TASK)
main(["mixture", "check", str(mixture_file), "--model", needed["msft"].model])
ours = page.train(needed)["msft"]
print(summary(ours))
page.figure(
    your_mixture.curves(ours),
    "own_files",
    item="your own files, curves",
    caption=your_mixture.CURVES_CAPTION + data.sample({"msft": ours}),
)
