"""The history of a run, read off its journal."""

import math
from collections.abc import Iterable, Mapping

WATCHED = "watched "  # begins the names of columns


def roll_outs(journal: Iterable[Mapping]) -> list[Mapping]:
    """The entries of a journal that trained: its roll-outs, a search among them."""
    return [entry for entry in journal if entry["kind"] in ("roll_out", "search")]


def history_rows(journal: Iterable[Mapping], metrics: Mapping[str, str] | None = None) -> list[dict]:
    """One row an evaluation and sub-dataset, in the order of the run.

    stage: number of the roll-out.  epoch: within it.  path_epoch: the paper's Ep., epochs behind the weights.
    accuracy: on the test set, 0..1.  n: test items.  active: whether the stage trains the sub-dataset.
    loss: mean token loss of the test set's gold answers in their prompts, in nats (evaluation.Scores).
    train_loss: mean loss of the steps since the evaluation before, in nats.  task_train_loss: of the sub-dataset alone,
    over its target tokens in these steps; NaN where it was not trained.
    selection: what decisions were taken on, the higher the better: an accuracy, or minus a loss.
    Losses that an older version did not record are NaN.
    metrics: what accuracy is of each sub-dataset, '' being the paper's; a column `metric` where one is not ''.
    on_own_scale: a column where a judge's value is no share, such as a perplexity: no mean with others makes sense.
    watched <label>: a column for each judge that nothing is decided on, the same value in all rows of an evaluation.
    """
    named = metrics and any(metrics.values())
    rows = []
    for entry in roll_outs(journal):
        result, active = entry["result"], set(entry["arguments"]["active"])
        for point in result["points"]:
            columns = {f"{WATCHED}{label}": value for label, value in point.get("watched", {}).items()}
            apart = point.get("on_own_scale")
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
                        "loss": point.get("loss", {}).get(task, math.nan),
                        "task_train_loss": point.get("train_losses", {}).get(task, math.nan),
                        **({"metric": metrics.get(task, "")} if named else {}),
                        **({"on_own_scale": task in apart} if apart else {}),
                        **columns,
                    }
                )
    return rows


def kept(history):
    """A Series of booleans: whether each row of a history lies on the path of weights that later stages went on from."""
    starts = history.groupby("stage").path_epoch.min()
    return history.path_epoch <= history.stage.map(starts.shift(-1, fill_value=float("inf")))


def watched(history) -> dict[str, str]:
    """{label of a judge that is only watched: its column} of a history."""
    return {name.removeprefix(WATCHED): name for name in history.columns if name.startswith(WATCHED)}


def own_scales(history) -> set[str]:
    """The sub-datasets whose value is no share: a judge's, such as a perplexity."""
    return set(history.task[history.on_own_scale]) if "on_own_scale" in history else set()


def comparable(history):
    """The rows of a history that a mean is taken over: values on a scale of their own are left out, unless all are."""
    apart = history.task.isin(own_scales(history))
    return history if apart.all() else history[~apart]


def drops(history) -> dict[str, float]:
    """{sub-dataset: path epoch from which on no stage has trained it}, in the order of the stages."""
    starts = history.groupby("stage").path_epoch.min()
    last = history[history.active].groupby("task").stage.max()
    done = last[last < history.stage.max()].sort_values(kind="stable")
    return {task: float(starts[stage + 1]) for task, stage in done.items()}
