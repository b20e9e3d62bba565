"""The trainer and its verbs: roll_out, roll_back, look_ahead. The only file that touches the optimizer.

A method is a function over these verbs. One step of training, from the verb down:

    roll_out            the verb; where the journal has its result, that is returned and nothing is trained
      _train            a fresh Adam; then every quarter epoch:
        _steps
          schedule.batch      indices of the step's examples (schedules.py)
          losses.gradients    loss/: examples packed into passes, mean over micro-batches of 4 (Table 5)
          _step               Adam: constant rate, no decay, no clipping (Table 5)
          save_within         the state goes to disk beside training, where it is time (store/durable.py)
        _evaluate
          measure             five-shot accuracy of every sub-dataset (evaluation.py)
          hold                copies of the weights at the peaks and at the best point (store/durable.py)
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence

import torch

from msft import distributed
from msft.errors import RunError, Stopped
from msft.loss.losses import TokenLosses, means
from msft.loss.tokens import Tokens
from msft.packing.products import served
from msft.schedules import Passes, Schedule
from msft.seeds import generator, intervals, quarter_ends
from msft.store import checkpoints
from msft.store.curve import Curve
from msft.store.durable import START, Durable, holders_after
from msft.store.state import Best, Progress, best_of, measured, read_losses


@dataclasses.dataclass
class RollOut:
    """One roll-out: what was asked for (see Trainer.roll_out), and how far it has come."""

    active: list[str]
    epochs: float
    keep: list[str] = dataclasses.field(default_factory=list)
    schedule: Schedule = dataclasses.field(default_factory=Passes)
    keep_optimizer: bool = False
    candidate: bool = True
    progress: Progress = dataclasses.field(default_factory=Progress)
    shown: object = None  # the bar of its steps


class Trainer:
    """Trains and measures one run.

    tasks: names of the sub-datasets in mixture order.  rows, owners: all examples, and the sub-dataset of each.
    stage: number of roll-outs done.  offset: the paper's Ep. of the weights that the model has now.
    here: the evaluation of these weights.  best: the best checkpoint so far.  losses: loss and gradients.
    """

    def __init__(self, model, config, examples: Mapping[str, Sequence[Tokens]], evaluators: Mapping[str, object], run):
        self.measured, self.model = model, distributed.for_training(model)  # two only where the weights are sharded
        self.config, self.device = config, model.device
        self.tasks = list(examples)
        self.rows = [row for task in self.tasks for row in examples[task]]
        self.owners = [task for task in self.tasks for _ in examples[task]]
        self.evaluators, self.run = evaluators, run
        self.stage, self.order_stage, self.offset = 0, 0, 0.0
        self.best, self.here = Best(), None
        self.losses = TokenLosses(self.model, config.loss_group, config.token_budget, config.precision == "mixed")
        self.optimizer, self.stop_requested = None, False
        self.durable = Durable(self, run)
        self._clock = {"train": 0.0, "evaluate": 0.0, "save": 0.0}

    @property
    def clock(self) -> dict[str, float]:
        """Seconds of training, evaluating and saving."""
        return {**self._clock, "save": self.durable.seconds + self._clock["save"]}

    # verbs ------------------------------------------------------------------------------------------------

    def roll_out(
        self,
        active: Sequence[str],
        epochs: float,
        *,
        keep: Sequence[str] = (),
        schedule: Schedule | None = None,
        keep_optimizer: bool = False,
        candidate: bool = True,
        keep_start: bool = False,
    ) -> Curve:
        """Trains sub-datasets from the current weights and evaluates all of them on the way.

        active: sub-datasets to train.  epochs: passes over them, a multiple of one evaluation interval.
        keep: sub-datasets whose peaks `roll_back` may be asked for.
        schedule: what is trained when (schedules.py); full passes over `active` by default.
        keep_optimizer: go on with Adam's state instead of a fresh one.
        candidate: whether the best overall checkpoint may come from here.
        keep_start: whether `roll_back` may be asked for the start point, epoch 0.
        Returns the curve, its start point included. Raises RunError for a loss that is not finite, or nothing to train.
        """
        active, keep = list(active), list(keep)  # an iterator is read once
        if not active or not {*active, *keep} <= set(self.tasks):
            what = f"active = {active}, keep = {keep}"
            raise RunError(f"roll_out: {what}; give one or more of: {', '.join(self.tasks)}")
        active, schedule = [task for task in self.tasks if task in active], schedule or Passes()
        arguments = {"active": active, "epochs": epochs, "keep": keep, "candidate": candidate}
        arguments |= {"schedule": type(schedule).__name__, "optimizer": keep_optimizer}
        if keep_start:
            arguments["keep_start"], keep = True, [*keep, START]
        roll_out = RollOut(active, epochs, keep, schedule, keep_optimizer, candidate)
        result = self.durable.once("roll_out", arguments, lambda: self._train(roll_out))
        return self._rolled_out(active, result)

    def search(self, epochs: float) -> Curve:
        """SFT on everything to find the peaks: read from the finished SFT run of the same settings, else trained.

        Its cost is counted either way, and none of its checkpoints is a candidate for the result.
        """

        def find() -> dict:
            result = None if self.durable.resumed else distributed.on_main(lambda: self.run.finished_sft(epochs))
            result = result or self._train(RollOut(self.tasks, epochs, candidate=False))
            return result | {"best": dataclasses.asdict(Best())}

        result = self.durable.once("search", {"active": self.tasks, "epochs": epochs}, find)
        return self._rolled_out(self.tasks, result)

    def restart(self, search: Curve) -> None:
        """The base model again, in the data order of a run that begins."""
        self.durable.once("restart", {}, lambda: checkpoints.restore(self.model, self.run.store.reference))
        self.offset, self.order_stage, self.here = 0.0, 0, search.points[0]

    def roll_back(self, curve: Curve, epoch: float, **why) -> None:
        """Puts the weights of an evaluated point of a roll-out back (Algorithm 1, line 10).

        epoch: within the roll-out.  why: what the journal says about it, such as the dropped sub-dataset.
        Raises RunError for a point that no kept sub-dataset peaked at.
        """
        arguments = {"stage": curve.stage, "epoch": epoch, **why}
        self.durable.once("roll_back", arguments, lambda: self.durable.roll_back(curve.stage, epoch))
        self.offset = curve.offset + epoch
        self.here = next(point for point in curve.points if point["epoch"] == epoch)

    def look_ahead(self, indices: Sequence[int]) -> tuple[list[float], list[float]]:
        """Losses of examples before and after one virtual optimizer step on them, which is then undone.

        Weights and optimizer state are bit-identical afterwards (DynamixSFT; 8 FLOPs per parameter and token).
        """
        rows = [self.rows[i] for i in indices]
        with checkpoints.undone(self.optimizer):
            _, sums = self.gradients(rows)
            before = means(sums, rows)
            self._step()
            return before, self.example_losses(indices)

    def gradients(self, rows: Sequence[Tokens]) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds the gradients of one step's loss; returns it, and the examples' summed token losses [n]."""
        return self.losses.gradients(rows)

    def example_losses(self, indices: Sequence[int]) -> list[float]:
        """Mean target-token loss of each example by a forward pass alone, in nats."""
        return self.losses.of_examples([self.rows[i] for i in indices])

    def report(self, path_epoch: float) -> None:
        """Makes the current weights the run's result, whatever was better before; path_epoch: the paper's Ep. of it."""
        self.durable.once("report", {"path_epoch": path_epoch}, self.durable.report)
        self.best = best_of(self.here, self.stage - 1, path_epoch)

    def confirm(self, evaluator, of_base: Mapping) -> dict[str, dict[str, float]]:
        """{"base", "best": {sub-dataset: accuracy}, and "base_loss", "best_loss"} on items that nothing was chosen on.

        of_base: what is known of the base model already.
        """
        started, scores_of = time.monotonic(), dict(of_base)
        for name in ("best",) if of_base else ("base", "best"):
            weights = self.run.store.reference if name == "base" else self.durable.best_weights
            checkpoints.restore(self.model, weights)
            distributed.refresh(self.measured, self.model)
            try:
                with served(self.measured, self.config):
                    scores = evaluator.evaluate()
            except Stopped:
                self.durable.interrupt()
            scores_of[name] = {task: score.accuracy for task, score in scores.items()}
            scores_of[f"{name}_loss"] = {task: score.loss for task, score in scores.items()}
        self._clock["evaluate"] += time.monotonic() - started
        return scores_of

    def note(self, what: str, **values) -> None:
        """Records values in the journal that a figure of the method needs."""
        self.durable.once("note", {"what": what, **values}, lambda: None)

    def _rolled_out(self, active: Sequence[str], result: dict) -> Curve:
        self.run.progress.rolled_out(active, result)
        curve = Curve(result["stage"], result["offset"], result["points"])
        self.stage, self.order_stage = result["stage"] + 1, self.order_stage + 1
        self.offset = result["offset"] + max(curve)
        self.here, self.best = result["points"][-1], Best(**result["best"])
        return curve

    # training ----------------------------------------------------------------------------------------------

    def _train(self, roll_out: RollOut) -> dict:
        """Steps and evaluations from where the roll-out is to its end; returns what the journal keeps of it."""
        per_epoch = self.config.evaluations_per_epoch
        wanted = intervals(roll_out.epochs, per_epoch)
        self._begin(roll_out, wanted)
        schedule, progress = roll_out.schedule, roll_out.progress
        place = (self.stage, roll_out.active, self.tasks, wanted, self.offset, progress.points)
        with (
            torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []),
            self.run.progress.stage(*place) as roll_out.shown,
        ):
            if len(progress.points) <= progress.evaluations:  # the start, or stopped before an evaluation was done
                self._evaluate(roll_out)
            while progress.evaluations < wanted:
                ends = quarter_ends(schedule.steps(progress.epoch), per_epoch)
                self._steps(roll_out, ends[progress.evaluations % per_epoch])
                progress.evaluations += 1
                if progress.evaluations % per_epoch == 0:
                    schedule.end_epoch(progress)
                    progress.epoch, progress.step = progress.epoch + 1, 0
                self._evaluate(roll_out)
        result = {"stage": self.stage, "offset": self.offset, "best": dataclasses.asdict(self.best)}
        left = ("points", "trained_tokens", "forward_tokens", "look_ahead_tokens")
        result |= {name: getattr(progress, name) for name in left}
        return distributed.same({**result, "notes": schedule.notes})

    def _begin(self, roll_out: RollOut, wanted: int) -> None:
        """Optimizer, schedule and saved state of a roll-out that begins, or goes on after a kill."""
        resumed, self.durable.resumed = self.durable.resumed, None
        if not (roll_out.keep_optimizer or resumed) or self.optimizer is None:
            self.optimizer = self.fresh_optimizer()
        roll_out.schedule.start(self, roll_out.active)
        if resumed:
            roll_out.progress = resumed
            roll_out.schedule.load_state(resumed.schedule)
        else:
            self.durable.peaks.clear()
            # the very first start point is the base model, which is still there
            if self.here is not None and self.durable.is_due():
                self.durable.save(optimizer=roll_out.keep_optimizer)
        bound = min(len(roll_out.keep) + 1, wanted) + 2 if roll_out.keep else 1
        self.durable.announce({"stage": self.stage, "bound": bound})

    def fresh_optimizer(self) -> torch.optim.Adam:
        """Adam without decay, at a constant rate; gradients are not clipped (Table 5, protocol section 2)."""
        parameters = [parameter for _, parameter in checkpoints.trained(self.model)]
        return torch.optim.Adam(parameters, lr=self.config.learning_rate, betas=(0.9, 0.999), eps=1e-8, fused=True)

    def _step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _steps(self, roll_out: RollOut, end: int) -> None:
        """Optimizer steps up to the next evaluation."""
        started, saving = time.monotonic(), self.durable.seconds
        progress, schedule = roll_out.progress, roll_out.schedule
        steps, epochs = schedule.steps(progress.epoch), roll_out.epochs - progress.epoch
        self.model.train()
        unread: list[tuple] = []  # losses stay on the device until an evaluation or a save: no step waits for them
        while progress.step < end:
            # dropout of a step: a function of its place alone, so that a run that goes on has nothing to put back
            place = (self.order_stage, progress.epoch, progress.step)
            torch.manual_seed(int(generator(self.config.seed, "torch", *place).integers(2**62)))
            schedule.before_step(progress)
            indices = schedule.batch(progress.epoch, progress.step)
            rows = [self.rows[i] for i in indices]
            loss, sums = self.gradients(rows)  # [], [examples]
            self._step()
            if schedule.hears:
                schedule.hear(indices, means(sums, rows))
            unread.append((progress.step, indices, loss, sums))
            progress.step += 1
            progress.trained_tokens += sum(len(row.ids) for row in rows)
            roll_out.shown.step(progress.step, steps, epochs, self.durable.writer.busy)
            self.durable.writer.check()
            if self.durable.must_save() and progress.step < end:
                read_losses(progress, unread, self.owners, self.rows, self.stage)
                unread = []
                self.durable.save_within(roll_out)
        read_losses(progress, unread, self.owners, self.rows, self.stage)
        self._clock["train"] += time.monotonic() - started - (self.durable.seconds - saving)

    # evaluation --------------------------------------------------------------------------------------------

    def _evaluate(self, roll_out: RollOut) -> None:
        """Measures the weights as they are and notes who holds a peak here (Algorithm 4, line 5)."""
        progress, durable = roll_out.progress, self.durable
        # an evaluation is long; what it measures is safe first
        if progress.evaluations and durable.must_save():
            durable.save_within(roll_out)
        started = time.monotonic()
        epoch = progress.evaluations / self.config.evaluations_per_epoch
        train_loss = sum(progress.losses) / len(progress.losses) if progress.losses else None
        of_tasks = {task: loss / tokens for task, (loss, tokens) in progress.task_losses.items()}
        point = {"epoch": epoch, "train_loss": train_loss, "train_losses": of_tasks, "reused": False}
        if not progress.points and self.here is not None:
            # the start point is the very weights that were evaluated before
            point = {**self.here, **point, "reused": True}
        else:
            roll_out.shown.evaluating()
            try:
                point |= self.measure(epoch)
            except Stopped:
                durable.stopping = True
                durable.save_within(roll_out)
        progress.losses, progress.task_losses = [], {}
        progress.points.append(point)
        self.here = point
        self._clock["evaluate"] += time.monotonic() - started
        started = time.monotonic()
        self._hold(roll_out, point)
        self._clock["save"] += time.monotonic() - started
        roll_out.shown.evaluated(self.best)
        if durable.must_save() and progress.evaluations:
            durable.save_within(roll_out)

    def measure(self, epoch: float) -> dict:
        """What a point of the curve holds (store/state.py, `measured`), of the weights that the model has now."""
        distributed.refresh(self.measured, self.model)
        with served(self.measured, self.config):
            results = {part: evaluator.evaluate() for part, evaluator in self.evaluators.items()}
        self.run.write_outputs(self.stage, epoch, results)
        selection = {**results["test"], **results[self.config.select_on]}  # a judged sub-dataset has no other part
        return measured(results["test"], selection, self.config.select_metric, results.get("watched", {}))

    def _hold(self, roll_out: RollOut, point: dict) -> None:
        """Keeps the weights where a sub-dataset of `keep` peaks, and where the overall score is the best so far."""
        progress, before = roll_out.progress, roll_out.progress.holders
        progress.holders = holders_after(before, point["epoch"], point["selection"], roll_out.keep)
        best = best_of(point, self.stage, self.offset + point["epoch"])
        is_best = roll_out.candidate and (self.best == Best() or best.selection > self.best.selection)
        if is_best:
            self.best = best
        self.durable.hold(point["epoch"], progress.holders, progress.holders != before, is_best)
