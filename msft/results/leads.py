"""How clear the peaks were that sub-datasets were dropped at: their lead over the evaluations beside them, in items.

A peak that is one of 64 items higher than its neighbours may be chance. The standard error is that of the mean difference
of the same items at both points (paired), which is smaller than that of two independent samples.
"""

import math
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from msft.errors import RunError

COLUMNS = ["task", "path_epoch", "beside", "lead", "standard_error", "n", "is_clear"]


def leads(journal: Iterable[Mapping], outputs: Path, part: str) -> pd.DataFrame:
    """One row a drop, in their order; outputs: the folder of a run's answers.  part: what decisions were taken on.

    path_epoch: of the peak.  beside: of the higher one of the evaluations before and after it.  lead: of the peak over that
    one, as the decision saw it.  standard_error: of the lead, over n items; NaN where the decision was no mean over items
    that were written down, as with a loss or a perplexity: is_clear is then None, else whether the lead is larger.
    """
    rows, curves, here, measured_at = [], {}, None, {}
    for entry in journal:
        arguments, result = entry["arguments"], entry.get("result")
        if entry["kind"] in ("roll_out", "search"):
            curves[result["stage"]] = result
            for point in result["points"]:  # a start point is not answered again: its answers lie with an earlier one
                place = result["stage"], point["epoch"]
                here = measured_at[place] = here if point["reused"] else place
        elif entry["kind"] == "restart":
            here = next(iter(measured_at.values()))
        elif entry["kind"] == "roll_back":
            here = measured_at[arguments["stage"], arguments["epoch"]]
            if task := arguments.get("dropped"):
                rows.append(_row(curves[arguments["stage"]], arguments["epoch"], task, measured_at, outputs, part))
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(result: Mapping, epoch: float, task: str, measured_at: Mapping, outputs: Path, part: str) -> tuple:
    points = result["points"]
    at = next(i for i, point in enumerate(points) if point["epoch"] == epoch)
    beside = max((points[i] for i in (at - 1, at + 1) if 0 <= i < len(points)), key=lambda p: p["selection"][task])
    lead = points[at]["selection"][task] - beside["selection"][task]
    peak, other = (_items(outputs, measured_at[result["stage"], p["epoch"]], task, part) for p in (points[at], beside))
    n, error = points[at]["selected_from"][task], math.nan
    # of a loss the items are not what decided
    if len(peak) == len(other) == n > 1 and math.isclose((peak - other).mean(), lead, abs_tol=1e-9):
        error = float((peak - other).std(ddof=1) / math.sqrt(n))
    is_clear = None if math.isnan(error) else lead > error
    return task, result["offset"] + epoch, result["offset"] + beside["epoch"], lead, error, n, is_clear


def _items(outputs: Path, place: tuple[int, float], task: str, part: str) -> np.ndarray:
    """Values of the items [n] of a sub-dataset at an evaluation; of a judged one there is no part but the test's."""
    file = answers_file(outputs, *place)
    rows = answers(file) if file.is_file() else ()
    rows = rows[rows.task == task] if len(rows) else rows
    if not len(rows):
        return np.array([])
    return rows[rows.part == (part if part in set(rows.part) else "test")].correct.to_numpy(float)


def answers(file: Path) -> pd.DataFrame:
    """The rows of an evaluation's answers; texts stay texts, whatever they look like. Raises RunError for a damaged file."""
    try:
        if not file.stat().st_size:
            raise EOFError("it is empty")
        return pd.read_json(file, lines=True, dtype=False, convert_dates=False)
    except (EOFError, OSError, ValueError, zlib.error) as error:
        raise RunError(f"{file} is damaged ({error}); delete {file.parents[1]} and run its command again") from None


def answers_file(outputs: Path, stage: int, epoch: float) -> Path:
    """Where the answers of an evaluation lie."""
    return outputs / f"stage{stage:03d}_epoch{epoch:07.3f}.jsonl.gz"


def doubts(drops: pd.DataFrame) -> list[str]:
    """A sentence for every drop whose peak leads by no more than its standard error, and one for those that cannot be told."""
    said = []
    for row in drops[drops.is_clear.eq(False)].itertuples():
        items, error = row.lead * row.n, f"a standard error of {row.standard_error * row.n:.2g}"
        ahead = f"{items:.3g} of {row.n} items above" if items else f"no higher (of {row.n} items) than"
        said.append(f"{row.task} was dropped at epoch {row.path_epoch:g}, {ahead} epoch {row.beside:g}, with {error}")
    if unknown := list(drops[drops.is_clear.isna()].task):
        why = "since it was not decided on a mean over items, or their answers are gone"
        said.append(f"{', '.join(unknown)}: without a standard error, {why}")
    return said
