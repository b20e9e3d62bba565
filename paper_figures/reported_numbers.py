"""The numbers that the paper reports, and ours beside them."""

from pathlib import Path

import pandas as pd

from msft.errors import ConfigError, unknown

_FOLDER = Path(__file__).parent / "reported"
# the paper's names of its models
MODELS = {
    "allenai/OLMo-2-0425-1B": "OLMo 2 1B",
    "Qwen/Qwen2.5-0.5B": "Qwen2.5 0.5B",
    "Qwen/Qwen2.5-1.5B": "Qwen2.5 1.5B",
    "Qwen/Qwen2.5-3B": "Qwen2.5 3B",
    "Qwen/Qwen2.5-7B": "Qwen2.5 7B",
    "Qwen/Qwen3-8B-Base": "Qwen3 8B",
}
# what a caption says where reported and measured numbers stand beside each other
SCALE = (
    " Reported for larger models: except in the profile `paper`, those here are 4 to 60 times smaller (`laptop`), or a thousand times on "
    "a generated mixture (`smoke`, `tiny`): compare directions alone."
)


def table(name: str) -> pd.DataFrame:
    """A reported table by its file's name or the start of it, such as 'table2'. Raises ConfigError for another."""
    files = sorted(_FOLDER.glob("*.csv"))
    for path in files:
        if path.stem.startswith(name):
            return pd.read_csv(path)
    raise ConfigError(unknown("reported table", name, [path.stem for path in files]))


def claim(fragment: str) -> float:
    """The value of the paper's text claim whose wording has this fragment. Raises ConfigError unless it is one."""
    claims = table("text_claims")
    rows = claims[claims["claim"].str.contains(fragment, regex=False)]
    if len(rows) != 1:
        raise ConfigError(unknown("claim", fragment, list(claims["claim"])))
    return float(rows["value"].iloc[0])


def model_label(model: str) -> str:
    """The paper's name of a model; a folder's own name for others."""
    return MODELS.get(model, Path(model).name)


def told(over: str) -> str:
    """The end of the caption of a table of `directions` whose intervals are over `over`."""
    return f" The 95 % intervals are over {over}; where one does not leave out 0, the direction cannot be told." + SCALE


def directions(pairs: dict[str, tuple], unit: str = "points") -> pd.DataFrame:
    """What the paper reports and what was measured here, compared by direction alone, since the scale differs.

    pairs: {what is compared: (reported difference, measured one, low, high)}, low to high its 95 % interval, which has
    to leave out 0 for a direction; without low and high for what is counted, not sampled. A reported difference is a
    number, or 'higher' or 'lower' where the paper gives none.
    """
    rows = []
    for what, (theirs, ours, *interval) in pairs.items():
        low, high = interval or (ours, ours)
        is_open, sign = interval and not (low > 0 or high < 0), {"higher": 1, "lower": -1}.get(theirs, theirs)
        same = "cannot tell" if is_open else "yes" if sign * low > 0 and sign * high > 0 else "no"
        row = {"comparison": what, f"paper ({unit})": theirs, f"here ({unit})": ours}
        row["95 % interval"] = f"{low:.2f} to {high:.2f}" if interval else "–"
        rows.append({**row, "same direction": same})
    return pd.DataFrame(rows).set_index("comparison")
