"""Each comparison again on items that nothing was chosen on: the reported checkpoints, confirmed."""

import numpy as np
import pandas as pd

from paper_figures import data
from paper_figures.reported_numbers import model_label
from paper_figures.style import METHODS as LABELS

CAPTION = (
    "Accuracy (percent, mean of the sub-datasets) of each reported checkpoint on the test items, and on the confirmation items, "
    "which chose nothing; less that of the SFT run with the same model, mixture, seed and choice. Which items chose the checkpoint "
    "is in its column (Continual SFT reports its last one). ± is half of the 95 % interval over drawing other confirmation items, "
    "the runs as they are; of a difference it takes the answers of the two runs as independent, which is wider than paired, so that "
    "equal runs do not show ± 0."
)


def table(runs) -> pd.DataFrame:
    """One row a run of a method of Table 2 or 3 that has confirmation items; empty where none has any.

    The interval of a difference takes the two runs' answers as independent, which is wider than for the same items.
    """
    rows, sft = [], {}
    for run in runs:
        scores, config = run.confirmation, run.config
        if not len(scores) or config.method not in LABELS:
            continue
        place = (config.model, config.mixture, config.seed, config.select_on)
        row = {"Model": model_label(config.model), "Mixture": config.mixture, "Seed": config.seed}
        budget = config.params.get("budget")
        row |= {
            "Method": LABELS[config.method] + (f", C = {budget:g}" if budget else ""),
            "Chosen on": config.select_on,
        }
        row |= {"test": 100 * run.at_best.accuracy.mean(), "confirmed": 100 * scores.best.mean()}
        row["±"] = 1.96 * data.error_of_mean(scores.best, scores.n)
        if config.method == "sft":
            sft[place] = row
        rows.append((place, row))
    for place, row in rows:
        if place in sft and row is not sft[place]:
            both = sft[place]
            row |= {
                "test, less SFT": row["test"] - both["test"],
                "confirmed, less SFT": row["confirmed"] - both["confirmed"],
            }
            row["± of the difference"] = float(np.hypot(row["±"], both["±"]))
    keys = ["Model", "Mixture", "Seed", "Method", "Chosen on"]
    found = pd.DataFrame([row for _, row in rows])
    return found.set_index(keys) if len(found) else found
