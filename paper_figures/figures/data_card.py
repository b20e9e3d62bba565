"""The data card of a mixture: what a run would train and test on, what was left out, and where it comes from."""

from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from msft import names, runs
from msft.data import overview
from msft.data.mixture import Mixture
from msft.errors import DataError
from msft.loss import tokens
from paper_figures import profiles
from paper_figures.style import COLUMN, colour, legend, pretty, say


@dataclass(frozen=True)
class Card:
    """A mixture with the train lengths of its sub-datasets, as one tokenizer counts them.

    lengths: {sub-dataset: tokens of each train example, prompt, answer and EOS}, in the order of sub.train.
    max_tokens: what an example of a run may have.
    problem: '' or why no run can start on it with this tokenizer; the mixture is then that before the length rules.
    """

    mixture: Mixture
    lengths: dict[str, list[int]]
    max_tokens: int
    problem: str = ""


def needs(page) -> dict:
    """No runs: a card is of the data alone."""
    return {}


def load(profile: str, *, mixture: str = "", model: str = "", data_dir: str = "", **settings) -> Card:
    """The card of a profile's mixture, or of another; mixture and model '' stand for the profile's.

    model: its tokenizer is used, its weights are not loaded.  data_dir: a folder in hub format in place of the hub.
    Raises DataError where the data cannot be had.
    """
    config = profiles.config(profile, "sft", model=model, mixture=mixture, data_dir=data_dir or None, **settings)
    try:
        prepared = runs.prepare(config)
        limits = prepared.config.max_tokens, prepared.config.max_prompt_tokens
        examples, fitted, _ = tokens.fit_mixture(
            prepared.tokenizer, prepared.mixture, *limits
        )  # whether a model fits or not
        return Card(fitted, _lengths(examples), config.max_tokens)
    except DataError as error:
        problem = str(error)
    # a tokenizer that cuts these texts into very many tokens can leave a sub-dataset empty; the card shows why
    sizes = ("train_size", "test_size", "validation_size", "confirmation_size", "revision")
    asked = {name: getattr(config, name) for name in sizes if getattr(config, name) is not None}
    whole = names.load_mixture(config.mixture, data_dir=config.data_dir, **asked)
    tokenizer = names.load_tokenizer(names.model_source(config.model), config.model_revision)
    examples = {sub.name: tokens.tokenize(tokenizer, sub.train) for sub in whole}
    return Card(whole, _lengths(examples), config.max_tokens, problem)


def _lengths(examples: dict) -> dict[str, list[int]]:
    return {name: [len(row.ids) for row in rows] for name, rows in examples.items()}


COUNTS_CAPTION = (
    "Items of each part of the mixture, mean and longest train example in tokens, and the tokens of an epoch (prompt, answer and EOS, "
    "without padding)."
)


def counts(card: Card) -> pd.DataFrame:
    """Items of each part, mean and longest train example in tokens, and tokens an epoch; a row of totals last."""
    return overview.counts(card.mixture, card.lengths)


LENGTHS_CAPTION = (
    "Train examples of each sub-dataset by their tokens, each row on a scale of its own; the triangle is the mean."
)


def length_histogram(card: Card, axis=None):
    """Histograms of the train lengths on one token axis, a row a sub-dataset from short to long, its mean marked.

    Returns the axes.
    """
    means = pd.Series({name: np.mean(lengths) for name, lengths in card.lengths.items()}).sort_values(kind="stable")
    if axis is None:
        _, axis = plt.subplots(figsize=(COLUMN, 0.2 * len(means) + 0.6), layout="constrained")
    longest = max(max(lengths) for lengths in card.lengths.values())
    # a text many times longer than any run takes would squeeze all others into one bar: it counts in the last
    shown = min(longest, 2 * card.max_tokens)
    width = -(-shown // 50)  # whole tokens
    edges = np.arange(0, shown + 2 * width, width) - 0.5
    for row, (name, mean) in enumerate(means.items()):
        lengths = np.array(card.lengths[name])
        counts = np.histogram(lengths.clip(max=shown), edges)[0]
        # upwards, on an axis that runs down
        axis.bar(edges[:-1], -0.75 * counts / counts.max(), 0.9 * width, row, align="edge", color=colour("sft"), lw=0)
        axis.plot(mean, row + 0.12, "^", color="0.15", ms=2.5, label="mean" if row == 0 else None)
        if (lengths > shown).any():
            more = f"{(lengths > shown).sum()} longer, up to {lengths.max()}"
            axis.text(edges[-1] - 3 * width, row, more, ha="right", va="bottom", color="0.3")
    if longest > card.max_tokens:
        axis.axvline(card.max_tokens, color="0.4", ls=":", label=f"limit of a run ({card.max_tokens} tokens)")
    axis.set_yticks(range(len(means)), map(pretty, means.index), va="bottom")
    axis.tick_params(axis="y", length=0)
    axis.set(xlim=(0, edges[-1]), ylim=(len(means) - 0.6, -0.9))
    axis.set_xlabel("tokens of a training example (prompt, answer, EOS)")
    axis.spines["left"].set_visible(False)
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    legend(axis.figure, *axis.get_legend_handles_labels())
    words = [f"{mean:.0f} ({pretty(name)})" for name, mean in means.items()]
    return say(axis, f"Training examples have {words[0]} to {words[-1]} tokens on average")


LEFT_OUT_CAPTION = (
    "Records that a rule kept out, by sub-dataset and reason; over-long items are counted as far as the draw met them."
)


def left_out(card: Card) -> pd.DataFrame:
    """How many records each rule kept out: a row a sub-dataset, a column a reason that occurs in the mixture."""
    reasons = dict.fromkeys(reason for sub in card.mixture for reason in sub.left_out)
    rows = {sub.name: {reason: sub.left_out.get(reason, 0) for reason in reasons} for sub in card.mixture}
    table = pd.DataFrame(list(rows.values()), list(rows), list(reasons), dtype=int)
    table = table.assign(total=table.sum(axis=1).astype(int)).rename_axis("sub-dataset")
    if card.problem:
        over = {name: sum(length > card.max_tokens for length in lengths) for name, lengths in card.lengths.items()}
        table[f"train: over {card.max_tokens} tokens, shown here"] = pd.Series(over)
    return table


LICENCES_CAPTION = "Source, splits, revision and licence of each sub-dataset."


def licences(card: Card) -> pd.DataFrame:
    """Where each sub-dataset comes from, which splits and revision, and under which licence."""
    rows = {}
    for sub in card.mixture:
        source = sub.source
        rows[sub.name] = {
            "source": source.get("hub_id") or source.get("source") or "one's own files",
            "config": source.get("config", "–"),
            "train from": source.get("train_split", "–"),
            "test from": source.get("test_split", "–"),
            "revision": source.get("revision", "–"),
            "licence": source.get("licence", "not stated"),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("sub-dataset")


def rendered(card: Card, count: int = 3, width: int = 110) -> str:
    """The first `count` training texts of each sub-dataset as text, in lines of `width` characters (overview.rendered)."""
    return overview.rendered(card.mixture, card.lengths, count, width)
