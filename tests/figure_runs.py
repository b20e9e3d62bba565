"""Finished runs made by hand for the tests of figures: a journal in memory, read as a run on disk is."""

from types import SimpleNamespace

import pandas as pd

from msft.results.flops import run_flops
from msft.results.history import history_rows
from msft.results.run import Run


def roll_out(stage, offset, points, tasks=("a", "b"), active=None, n=10, tokens=100):
    """points: [(epoch, accuracies in the order of the tasks, training loss)]; tokens: trained, none are evaluated.

    A training loss may be {sub-dataset: its own}; the loss of all is then their mean.
    """
    rows = []
    for epoch, accuracies, loss in points:
        scores = dict(zip(tasks, accuracies, strict=True))
        own = loss if isinstance(loss, dict) else {}
        loss = sum(own.values()) / len(own) if own else loss
        row = {"epoch": epoch, "accuracy": scores, "selection": scores, "train_loss": loss, "train_losses": own}
        rows.append({**row, "n": dict.fromkeys(tasks, n), "tokens": dict.fromkeys(tasks, 0), "reused": False})
    result = {"stage": stage, "offset": offset, "points": rows, "trained_tokens": tokens}
    result |= {"forward_tokens": 0, "look_ahead_tokens": 0}
    return {"kind": "roll_out", "arguments": {"active": list(active or tasks)}, "result": result}


def roll_back(stage, epoch, dropped):
    return {"kind": "roll_back", "arguments": {"stage": stage, "epoch": epoch, "dropped": dropped}, "result": {}}


class FakeRun(SimpleNamespace):
    """Stands for a Run; what a Run works out from its files is worked out in the same way."""

    at_best, dropped, metrics = Run.at_best, Run.dropped, {}

    def answers(self, stage, epoch):
        return self.outputs[(self.outputs.stage == stage) & (self.outputs.epoch == epoch)]


def answers(history):
    """Test answers as a run keeps them: of each evaluation's items the first are right, as many as its accuracy says."""
    rows = [
        {"stage": row.stage, "epoch": row.epoch, "part": "test", "task": row.task, "item": item}
        | {"correct": item < round(row.accuracy * row.n)}
        for row in history.itertuples()
        for item in range(row.n)
    ]
    return pd.DataFrame(rows)


def fake_run(method, journal, best, groups=None, params=None, parameters=1):
    """A run of `journal` whose best checkpoint is best = (stage, epoch)."""
    history = pd.DataFrame(history_rows(journal))
    rows = history[(history.stage == best[0]) & (history.epoch == best[1])]
    at = SimpleNamespace(accuracy=rows.accuracy.mean(), path_epoch=rows.path_epoch.iloc[0])
    return FakeRun(
        config=SimpleNamespace(method=method, params=params or {}),
        history=history,
        outputs=answers(history),
        journal=journal,
        result={"best": {"stage": best[0], "epoch": best[1]}, "parameters": parameters},
        best=at,
        flops=run_flops(journal, parameters),
        about={"mixture": {"groups": groups or {"all": list(history.task.unique())}}},
    )


START = (0, [0.1, 0.1], None)


def sft_run(**more):
    """Best at epoch 0.5, a 40 % and b 60 %; a peaked at 0.25."""
    points = [START, (0.25, [0.5, 0.3], 2.0), (0.5, [0.4, 0.6], 1.0), (0.75, [0.3, 0.5], 0.5)]
    return fake_run("sft", [roll_out(0, 0.0, points)], (0, 0.5), **more)


def msft_run(best=(1, 0.25), ends_by_drop=True, start_is_peak=False, **more):
    """Drops a at epoch 0.25 of stage 0, then b at 0.25 of stage 1 (path epoch 0.5; its start where start_is_peak)."""
    first = [START, (0.25, [0.5, 0.3], 2.0), (0.5, [0.4, 0.2], 1.0)]
    second = [(0, [0.5, 0.3], None), (0.25, [0.6, 0.2 if start_is_peak else 0.7], 0.8), (0.5, [0.4, 0.1], 0.4)]
    journal = [roll_out(0, 0.0, first), roll_back(0, 0.25, "a"), roll_out(1, 0.25, second, active=["b"])]
    if ends_by_drop:
        journal.append(roll_back(1, 0.0 if start_is_peak else 0.25, "b"))
    return fake_run("msft", journal, best, **more)
