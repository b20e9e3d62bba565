"""A trainer that counts: a method's own code runs over it, and what it would train and measure is written down.

Nothing is trained, and accuracies are made up (SCENARIOS), so a method that is new, or a user's own, needs no estimate
of its own. The entries have the form of a journal's, and results/flops.py counts both in the same way.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np

from msft import methods
from msft.config import RunConfig
from msft.cost.sizes import SetSize
from msft.seeds import intervals
from msft.store.curve import Curve

_EPOCHS = 10.0  # over which the peaks of the sub-datasets are taken to lie: SFT's in the paper
_ROUNDS = 2  # roll-outs a sub-dataset after which a scenario in which nobody over-fits comes to an end

SCENARIOS = ("spread", "at once", "never", "heaviest first", "lightest first")


class Rehearsal:
    """Stands for the Trainer: the same verbs. entries: what would be in the journal.  held: peaks that wait at a time at
    most, the start point and the best among them.  has_search: whether the finished SFT run is read for the search."""

    def __init__(self, config: RunConfig, sets: Sequence[SetSize], scenario: str, has_search: bool):
        self.config, self.sets = config, {size.name: size for size in sets}
        self.tasks = list(self.sets)
        self._lengths = np.repeat([size.tokens for size in sets], [size.train for size in sets])  # of the examples
        self.scenario, self.has_search = scenario, has_search
        self.stage, self.order_stage, self.offset = 0, 0, 0.0
        self.entries, self.held = [], 0
        self.is_plain = True  # whether no accuracy and no loss was looked at that could have changed the work

    @property
    def spent(self) -> list[dict]:
        """Results of the roll-outs that cost time: a search that is read costs none."""
        kinds = ("roll_out",) if self.has_search else ("roll_out", "search")
        return [entry["result"] for entry in self.entries if entry["kind"] in kinds]

    @functools.cached_property
    def owners(self) -> list[str]:
        """Name of the sub-dataset of each example."""
        return [name for name, size in self.sets.items() for _ in range(size.train)]

    @functools.cached_property
    def rows(self) -> list:
        """An example each, of its sub-dataset's mean length."""
        kinds = {name: SimpleNamespace(ids=range(round(size.tokens))) for name, size in self.sets.items()}
        return [kinds[name] for name in self.owners]

    def _accuracy(self, active: Sequence[str], length: float) -> Callable:
        """(sub-dataset, epoch within a roll-out of `length` epochs) -> the accuracy 0..1 that the scenario makes up.

        spread: highest at the sub-dataset's own epoch; these lie evenly over the length of SFT. But one over-fits in every
        roll-out, at its middle at the latest: the earliest of many noisy peaks comes soon, as in Table 7 at C=1.
        never: best at the end of every roll-out, until no method would wait longer.
        at once, heaviest first, lightest first: all, or one of the active, over-fit at its start, and the others never.
        """
        if self.scenario == "spread":
            step = self.config.params.get("epochs", _EPOCHS) / len(self.tasks)
            peaks = {name: step * (i + 1) - self.offset for i, name in enumerate(self.tasks)}
            late = max(min((peaks[name] for name in active), default=0.0) - length / 2, 0.0)
            return lambda task, epoch: 1 / (1 + abs(epoch - peaks[task] + late))
        work = {name: size.train * size.tokens for name, size in self.sets.items()}
        ranked = sorted(active, key=work.get, reverse=self.scenario == "heaviest first")
        at_start = {"at once": self.tasks, "never": []}.get(self.scenario, ranked[:1])
        rise, offset = (1 if self.stage < _ROUNDS * len(self.tasks) else -1), self.offset
        return lambda task, epoch: 1 / (1 + epoch) if task in at_start else 0.5 + rise * math.atan(offset + epoch) / 4

    # verbs -------------------------------------------------------------------------------------------------

    def roll_out(self, active, epochs, *, keep=(), schedule=None, keep_start=False, **_) -> Curve:
        """Counts a roll-out."""
        active = [task for task in self.tasks if task in set(active)]
        evaluations = intervals(epochs, self.config.evaluations_per_epoch)
        self.held = max(self.held, min(len(keep) + keep_start + 1, evaluations))
        return self._rolled_out("roll_out", active, epochs, schedule)

    def search(self, epochs: float) -> Curve:
        """Counts the search; where the SFT run is there, it costs no time."""
        self.is_plain = False
        return self._rolled_out("search", self.tasks, epochs)

    def restart(self, search: Curve) -> None:
        """The base model again."""
        self.offset, self.order_stage = 0.0, 0

    def roll_back(self, curve: Curve, epoch: float, **_) -> None:
        """Goes back to an evaluated point."""
        self.is_plain = False
        self.entries.append({"kind": "roll_back", "arguments": {"stage": curve.stage, "epoch": epoch}})
        self.offset = curve.offset + epoch

    def note(self, *_, **__) -> None:
        """Nothing is kept."""

    report = note

    def look_ahead(self, indices) -> tuple[list[float], list[float]]:
        """Losses that do not move."""
        return [1.0] * len(indices), [1.0] * len(indices)

    def example_losses(self, indices) -> list[float]:
        """Losses of examples that sit out."""
        return [1.0] * len(indices)

    def _rolled_out(self, kind: str, active, epochs: float, schedule=None) -> Curve:
        position = SimpleNamespace(epoch=0, step=0, forward_tokens=0, look_ahead_tokens=0)
        if schedule is None:
            trained = epochs * sum(self.sets[task].train * self.sets[task].tokens for task in active)
        else:
            trained = self._scheduled(schedule, active, epochs, position)
        tokens = {name: size.items * size.item_tokens for name, size in self.sets.items()}
        accuracy = self._accuracy(active, epochs)
        points, per_epoch = [], self.config.evaluations_per_epoch
        for epoch in (number / per_epoch for number in range(intervals(epochs, per_epoch) + 1)):
            scores = {task: accuracy(task, epoch) for task in self.tasks}
            is_reused = not epoch and bool(self.entries)
            points.append({"epoch": epoch, "selection": scores, "tokens": tokens, "reused": is_reused})
        result = {"stage": self.stage, "offset": self.offset, "points": points, "trained_tokens": trained}
        result |= {"forward_tokens": position.forward_tokens, "look_ahead_tokens": position.look_ahead_tokens}
        self.entries.append({"kind": kind, "arguments": {"active": list(active)}, "result": result})
        curve = Curve(self.stage, self.offset, points)
        self.stage, self.order_stage, self.offset = self.stage + 1, self.order_stage + 1, self.offset + max(curve)
        return curve

    def _scheduled(self, schedule, active, epochs: float, position) -> float:
        """Tokens that a schedule trains: it picks the examples, hears losses and looks ahead as in a real run."""
        schedule.start(self, active)
        self.is_plain = self.is_plain and not schedule.hears
        trained = 0.0
        for epoch in range(math.ceil(epochs)):
            picked = schedule.examples(epoch)
            share = min(1.0, epochs - epoch)
            trained += share * float(self._lengths[picked].sum())
            position.epoch = epoch
            for step in range(math.ceil(share * len(picked) / self.config.batch_size)):
                position.step = step
                schedule.before_step(position)
            # losses that stay, so that everybody may sit out, or that never settle
            schedule.hear(picked, np.full(len(picked), 1.0 if self.scenario == "at once" else 1e9 * (epoch % 2)))
            schedule.end_epoch(position)
        return trained


@functools.cache
def _rehearsed(config: RunConfig, sets: tuple[SetSize, ...], scenario: str, has_search: bool) -> Rehearsal:
    module = methods.load(config.method, config.methods_dir)
    trainer = Rehearsal(config, sets, scenario, has_search)
    module.run(trainer, module.Params(**config.params))
    return trainer


def rehearse(config: RunConfig, sets: tuple[SetSize, ...], has_search: bool = False) -> dict[str, Rehearsal]:
    """{scenario: what the method would do in it}, with the sub-datasets as they are and, as 'expected', with lengths evened
    out, so that it does not matter which of them is dropped when. has_search: as in Rehearsal."""
    names = ("method", "params", "methods_dir", "evaluations_per_epoch", "batch_size")
    work = RunConfig(**{name: getattr(config, name) for name in names}, seed=0)  # all that the work depends on
    tokens = sum(size.train * size.tokens for size in sets) / sum(size.train for size in sets)
    item_tokens = sum(s.all_items * s.item_tokens for s in sets) / sum(s.all_items for s in sets)
    evened = tuple(dataclasses.replace(size, tokens=tokens, item_tokens=item_tokens) for size in sets)
    ways = {"expected": _rehearsed(work, evened, "spread", has_search)}
    if not ways["expected"].is_plain:  # else it is the same in every scenario
        ways |= {scenario: _rehearsed(work, sets, scenario, has_search) for scenario in SCENARIOS}
    return ways
