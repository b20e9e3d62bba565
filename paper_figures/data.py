"""From runs to tidy data: what the tables and figures are drawn from."""

import numpy as np
import pandas as pd

from msft.results.flops import FORWARD
from paper_figures.reported_numbers import model_label


def groups_of(run) -> dict[str, list[str]]:
    """{group: sub-datasets} of a run's mixture, in Table 2's order."""
    return run.about["mixture"]["groups"]


def at_best(run, measure: str = "accuracy") -> pd.Series:
    """Test accuracy 0..1, or held-out loss in nats a token, of every sub-dataset at the run's best checkpoint, in mixture order."""
    return run.at_best.set_index("task")[measure]


def drops(run) -> dict[str, float]:
    """{sub-dataset: path epoch at which the method dropped it}, in that order; those that it never dropped left out."""
    return {task: epoch for task, epoch in run.dropped.items() if epoch is not None}


def at_base(run) -> pd.Series:
    """Test accuracy 0..1 of every sub-dataset before training."""
    history = run.history
    return history[(history.stage == 0) & (history.epoch == 0)].set_index("task").accuracy


def by_group(accuracy: pd.Series, groups: dict[str, list[str]]) -> dict[str, float]:
    """Mean accuracy in percent of each group, and of all sub-datasets as 'Average'."""
    rows = {group: 100 * accuracy[tasks].mean() for group, tasks in groups.items()}
    return {**rows, "Average": 100 * accuracy.mean()}


def without_forward_passes(run) -> dict[str, float]:
    """The FLOPs of a run as Table 7 counts IES: an example that sits out costs nothing, its forward pass included."""
    tokens = sum(e["result"]["forward_tokens"] for e in run.journal if e["kind"] == "roll_out")
    spared = FORWARD * run.result["parameters"] * tokens
    return {**run.flops, "train": run.flops["train"] - spared, "total": run.flops["total"] - spared}


def standard_error(run) -> float:
    """Standard error, in points, of the mean accuracy at the best checkpoint: that of drawing the test items."""
    return error_of_mean(run.at_best.accuracy, run.at_best.n)


def error_of_mean(accuracy: pd.Series, n: pd.Series) -> float:
    """Standard error, in points, of the mean of accuracies (0..1), each of n independent items."""
    return 100 * float(np.sqrt((accuracy * (1 - accuracy) / n).sum())) / len(accuracy)


def by_epoch(run, measure: str = "accuracy") -> pd.DataFrame:
    """Accuracy in percent or held-out loss in nats a token of a run's first roll-out: a row an epoch, a column a sub-dataset."""
    first = run.history[run.history.stage == 0]
    table = first.pivot(index="epoch", columns="task", values=measure)[list(first.task.unique())]
    return 100 * table if measure == "accuracy" else table


def optimum(curves, measure: str = "accuracy"):
    """Optimal compute: the earliest epoch of the highest accuracy or the lowest loss, the start point included.

    curves: as `by_epoch` gives them, or one of them, or their mean.
    """
    return curves.idxmax() if measure == "accuracy" else curves.idxmin()


def peaks(run) -> pd.DataFrame:
    """One row a sub-dataset of a single roll-out run: peak_epoch, peak, last, loss_after_peak (accuracies 0..1)."""
    curves = by_epoch(run)
    table = pd.DataFrame({"peak_epoch": optimum(curves), "peak": curves.max() / 100, "last": curves.iloc[-1] / 100})
    return table.assign(loss_after_peak=table.peak - table["last"]).rename_axis("task").reset_index()


def stages(run) -> pd.DataFrame:
    """One row a stage of an mSFT run: stage, start and end (path epochs of its roll-out), kept_until (path epoch that
    the next stage starts from), dropped (the sub-dataset, None where nobody was), active (list)."""
    rows = []
    for entry in run.journal:
        if entry["kind"] == "roll_out":
            result = entry["result"]
            last = result["points"][-1]["epoch"]
            row = {"stage": result["stage"], "start": result["offset"], "end": result["offset"] + last}
            rows.append({**row, "kept_until": row["end"], "dropped": None, "active": entry["arguments"]["active"]})
        elif entry["kind"] == "roll_back":
            rows[-1]["kept_until"] = rows[-1]["start"] + entry["arguments"]["epoch"]
            rows[-1]["dropped"] = entry["arguments"].get("dropped")
    return pd.DataFrame(rows)


def evaluated_at(run, stage: int, epoch: float) -> tuple[int, float]:
    """(stage, epoch) at which a point was evaluated: the start of a later stage is a point of one before it."""
    while epoch == 0 and stage > 0:
        stage, before = stage - 1, stages(run).set_index("stage")
        if stage not in before.index:  # a search, after which a run starts from the base model again
            return 0, 0.0
        left = before.loc[stage]
        epoch = float(left.kept_until - left.start)
    return stage, epoch


def path(run) -> pd.DataFrame:
    """The history along the weights that were kept: of each stage, what lies before its roll-back."""
    history, pieces = run.history, []
    for row in stages(run).itertuples():
        piece = history[(history.stage == row.stage) & (history.path_epoch <= row.kept_until)]
        pieces.append(piece if row.stage == 0 else piece[piece.epoch > 0])
    return pd.concat(pieces, ignore_index=True)


def sample(runs) -> str:
    """The last sentence of a caption: models, seeds and test items behind its numbers.

    runs: {key: Run}.
    """
    models = dict.fromkeys(model_label(run.config.model) for run in runs.values())
    seeds = sorted({run.config.seed for run in runs.values()})
    sizes = sorted({int(count) for run in runs.values() for count in run.history.drop_duplicates("task").n})
    items = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    return (
        f" {', '.join(models)}; n = 1 run a model, setting and seed (seed{'s' * (len(seeds) > 1)} "
        f"{', '.join(map(str, seeds))}); {items} test items a sub-dataset."
    )
