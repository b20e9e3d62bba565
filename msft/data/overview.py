"""A mixture as text: what a run would train and test on, what is left out, and how its first examples read."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from msft.data.example import training_text
from msft.data.mixture import PARTS, Mixture


def counts(mixture: Mixture, lengths: Mapping[str, Sequence[int]]) -> pd.DataFrame:
    """Items of each part and tokens of train, totals last. lengths: {sub-dataset: tokens of each train example}."""
    rows = {}
    for sub in mixture:
        rows[sub.name] = {"group": sub.group or "–", **{part: len(getattr(sub, part)) for part in PARTS}}
        rows[sub.name] |= _lengths(lengths[sub.name])
    table = pd.DataFrame.from_dict(rows, orient="index")
    every = [length for name in rows for length in lengths[name]]
    table.loc["all"] = {"group": "–", **{part: table[part].sum() for part in PARTS}, **_lengths(every)}
    return table.rename_axis("sub-dataset")


def _lengths(tokens: Sequence[int]) -> dict[str, float]:
    return {"mean tokens": float(np.mean(tokens)), "longest": max(tokens), "tokens an epoch": sum(tokens)}


def rendered(mixture: Mixture, lengths: Mapping[str, Sequence[int]], count: int = 3, width: int = 110) -> str:
    """The first `count` training texts of each sub-dataset as text: '>' marks what the loss is on, '<EOS>' its end.

    width: characters a line; long lines go on with four more spaces.
    """
    lines = []
    for sub in mixture:
        lines.append(f"== {sub.name}")
        for number, example in enumerate(sub.train[:count], 1):
            prompt, completion = training_text(example)
            end = "" if example.prompt else "<EOS>"  # a chat's completion holds the token that ends the turn
            lines.append(f"-- {number} ({lengths[sub.name][number - 1]} tokens, answer {example.answer})")
            lines += [piece for line in prompt.rstrip("\n").split("\n") for piece in _wrapped("  " + line, width)]
            lines += [piece for line in f"{completion}{end}".split("\n") for piece in _wrapped("> " + line, width)]
        lines.append("")
    return "\n".join(lines)


def _wrapped(line: str, width: int) -> list[str]:
    # white space within a line stays as it is: it is part of what is trained on
    options = {"replace_whitespace": False, "expand_tabs": False, "break_on_hyphens": False}
    return textwrap.wrap(line, width, subsequent_indent="    ", **options) or [line]
