"""The history of a run, read off its journal."""

from collections.abc import Iterable, Mapping


def history_rows(journal: Iterable[Mapping]) -> list[dict]:
    """One row an evaluation and sub-dataset, in the order of the run.

    stage: number of the roll-out.  epoch: within it.  path_epoch: the paper's Ep., epochs behind the weights.
    accuracy: on the test set, 0..1.  selection: the accuracy that decisions were taken on.  n: test items.
    active: whether the stage trains the sub-dataset.  train_loss: mean loss since the evaluation before, in nats.
    """
    rows = []
    for entry in journal:
        if entry["kind"] not in ("roll_out", "search"):
            continue
        result, active = entry["result"], set(entry["arguments"]["active"])
        for point in result["points"]:
            for task, accuracy in point["accuracy"].items():
                rows.append(
                    {
                        "stage": result["stage"],
                        "epoch": point["epoch"],
                        "path_epoch": result["offset"] + point["epoch"],
                        "task": task,
                        "accuracy": accuracy,
                        "n": point["n"][task],
                        "active": task in active,
                        "train_loss": point["train_loss"],
                        "selection": point["selection"][task],
                    }
                )
    return rows
