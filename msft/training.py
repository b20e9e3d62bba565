"""The trainer and its verbs: roll_out, roll_back, report. The only file that touches the optimizer.

A method is a function over these verbs. Each verb's result goes into the run's journal, and a verb whose result is
there returns it without training: that is how a run that was killed goes on (see journal.py).
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence

import torch

from msft import distributed
from msft.curve import Curve
from msft.errors import RunError, Stopped
from msft.loss.losses import TokenLosses, means
from msft.loss.tokens import Tokens
from msft.schedules import Passes
from msft.seeds import intervals, quarter_ends
from msft.store import checkpoints
from msft.store.peaks import START, Peaks, holders_after
from msft.store.saving import Saving
from msft.store.state import (
    MEASURED,
    Best,
    Interrupted,
    Progress,
    best_of,
    check_finite,
    measured,
    own_randomness,
    pack_progress,
    unpack_progress,
)


class Trainer:
    """Trains and measures one run.

    tasks: names of the sub-datasets in mixture order.  stage: number of roll-outs done.
    Public verbs: roll_out, roll_back, report; `note` records what a method's figure needs.
    """

    def __init__(
        self,
        model,
        tokenizer,
        config,
        examples: Mapping[str, Sequence[Tokens]],
        evaluators: Mapping[str, object],
        run,
    ):
        self.measured, self.model = model, distributed.for_training(model)  # two only where the weights are sharded
        self.tokenizer, self.config, self.device = tokenizer, config, model.device
        self.tasks = list(examples)
        self.rows = [row for task in self.tasks for row in examples[task]]
        self.owners = [task for task in self.tasks for _ in examples[task]]
        self.evaluators, self.run = evaluators, run
        self.stage, self.order_stage, self.offset, self.best = 0, 0, 0.0, Best()
        self._clock = {"train": 0.0, "evaluate": 0.0}
        self.stop_requested, self._stopping = False, False  # of this process; by all
        self.losses = TokenLosses(self.model, config.loss_group, config.token_budget)
        self._optimizer = None
        self._saving = Saving(run, config.save_share)
        self.writer, self._journal = self._saving.writer, self._saving.journal
        self._peaks = Peaks(run.store, config.keep_peaks, self.writer)
        self._best_weights: checkpoints.Weights | None = None
        self._here: dict | None = None  # the evaluation of the weights that the model has now
        self._resumed: Progress | None = None
        self._random: torch.Tensor | None = None  # of a resumed roll-out
        self._is_live = False

    # verbs ------------------------------------------------------------------------------------------------

    def roll_out(
        self,
        active: Sequence[str],
        epochs: float,
        *,
        keep: Sequence[str] = (),
        schedule=None,
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
        Returns the curve, its start point included. Raises RunError for a loss that is not finite.
        """
        active = [task for task in self.tasks if task in set(active)]
        arguments = {"active": active, "epochs": epochs, "keep": list(keep), "candidate": candidate}
        arguments |= {"schedule": type(schedule).__name__ if schedule else "Passes", "optimizer": keep_optimizer}
        if keep_start:
            arguments["keep_start"], keep = True, [*keep, START]
        result = self._journal().replay("roll_out", arguments)
        if result is None:
            self._go_live()
            result = self._train(active, epochs, keep, schedule or Passes(), keep_optimizer, candidate)
            self._journal().add("roll_out", arguments, result)
        return self._rolled_out(arguments["active"], result)

    def search(self, epochs: float) -> Curve:
        """SFT on everything to find the peaks: read from the finished SFT run of the same settings, else trained.

        Its cost is counted either way, and none of its checkpoints is a candidate for the result.
        """
        arguments = {"active": self.tasks, "epochs": epochs}
        result = self._journal().replay("search", arguments)
        if result is None:
            self._go_live()
            result = None if self._resumed else distributed.on_main(lambda: self.run.finished_sft(epochs))
            if result is None:
                result = self._train(self.tasks, epochs, (), Passes(), False, False)
            result |= {"best": dataclasses.asdict(Best())}
            self._journal().add("search", arguments, result)
        return self._rolled_out(arguments["active"], result)

    def restart(self, search: Curve) -> None:
        """The base model again, in the data order of a run that begins."""
        if self._journal().replay("restart", {}) is None:
            self._go_live()
            checkpoints.restore(self.model, self.run.base_weights())
            self._journal().add("restart", {}, {})
        self.offset, self.order_stage, self._here = 0.0, 0, search.points[0]

    def look_ahead(self, indices: Sequence[int]) -> tuple[list[float], list[float]]:
        """Losses of examples before and after one virtual optimizer step on them, which is then undone.

        Weights and optimizer state are bit-identical afterwards (DynamixSFT; 8 FLOPs per parameter and token).
        """
        rows = [self.rows[i] for i in indices]
        with checkpoints.undone(self._optimizer):
            _, sums = self._gradients(rows)
            before = means(sums, rows)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            return before, self.example_losses(indices)

    def _rolled_out(self, active: Sequence[str], result: dict) -> Curve:
        self.run.progress.rolled_out(active, result)
        curve = Curve(result["stage"], result["offset"], result["points"])
        self.stage, self.order_stage = result["stage"] + 1, self.order_stage + 1
        self.offset = result["offset"] + max(curve)
        self._here, self.best = result["points"][-1], Best(**result["best"])
        return curve

    def roll_back(self, curve: Curve, epoch: float, **why) -> None:
        """Puts the weights of an evaluated point of a roll-out back (Algorithm 1, line 10).

        epoch: within the roll-out.  why: what the journal says about it, such as the dropped sub-dataset.
        Raises RunError for a point that no kept sub-dataset peaked at.
        """
        arguments = {"stage": curve.stage, "epoch": epoch, **why}
        if self._journal().replay("roll_back", arguments) is None:
            self._go_live()
            weights = self._peaks.weights(epoch)
            if weights is None:
                kept = self._peaks.epochs()
                raise RunError(f"no weights were kept at epoch {epoch} of stage {curve.stage}; kept: {kept}")
            checkpoints.restore(self.model, weights)
            self._journal().add("roll_back", arguments, {})
        self.offset = curve.offset + epoch
        self._here = next(point for point in curve.points if point["epoch"] == epoch)

    def report(self, path_epoch: float) -> None:
        """Makes the current weights the run's result, whatever was better before (Continual SFT).

        path_epoch: what the paper's Ep. column says of it.
        """
        if self._journal().replay("report", {"path_epoch": path_epoch}) is None:
            self._go_live()
            self._best_weights = checkpoints.snapshot(self.model)
            self._journal().add("report", {"path_epoch": path_epoch}, {})
        self.best = best_of(self._here, self.stage - 1, path_epoch)

    def note(self, what: str, **values) -> None:
        """Records values in the journal that a figure of the method needs."""
        arguments = {"what": what, **values}
        if self._journal().replay("note", arguments) is None:
            self._go_live()
            self._journal().add("note", arguments, {})

    def finish(self) -> None:
        """Puts the end of the run on disk: every verb is in the journal, the best weights are at hand."""
        self._go_live()
        if self._best_weights is None:
            raise RunError(
                f"{self.run.directory}: the best checkpoint was in a damaged file and did not come again. Delete the "
                "folder and give the same command again"
            )
        # the model ends as its best checkpoint, so that one file holds both
        checkpoints.restore(self.model, self._best_weights)
        distributed.refresh(self.measured, self.model)
        self.save()
        self._journal()

    @property
    def best_weights(self) -> checkpoints.Weights:
        """The weights of the reported checkpoint, in host memory."""
        return self._best_weights

    # state -------------------------------------------------------------------------------------------------

    @property
    def clock(self) -> dict[str, float]:
        """Seconds of training, evaluating and saving."""
        return {**self._clock, "save": self._saving.seconds}

    def _go_live(self) -> None:
        """Once all recorded verbs are replayed: the state that the journal names last."""
        if self._is_live:
            return
        self._is_live = True
        state = self.run.saved_state()
        if state is None:
            return
        checkpoints.restore(self.model, self.run.store.get(state["weights"]))
        if state["best_weights"]:
            self._best_weights = self.run.store.get(state["best_weights"])
        self._peaks.load(state["peaks"])
        self.best = Best(**state["best"])
        self._here = state["here"]
        tensors = self.run.store.get(state["optimizer"]) if state["optimizer"] else {}
        if state["progress"]:
            self._resumed, self._random = distributed.same(unpack_progress(state["progress"], tensors))
        if state["optimizer"]:
            self._optimizer = self._fresh_optimizer()
            checkpoints.load_optimizer(self._optimizer, tensors)

    def save(self, progress: Progress | None = None, optimizer: bool = False) -> None:
        """Puts the state on disk, beside training (Saving.put)."""

        def copies():
            plain, tensors = pack_progress(progress, self.device) if progress else (None, {})
            if optimizer and self._optimizer:
                tensors |= checkpoints.optimizer_tensors(self._optimizer)
            told = {"best": dataclasses.asdict(self.best), "here": self._here, "progress": plain}
            peaks = self._peaks.frozen() if progress else None
            return checkpoints.snapshot(self.model), self._best_weights, tensors, peaks, told

        self._saving.put(copies)

    def _fresh_optimizer(self):
        # Table 5 and protocol section 2: Adam, constant rate, no decay, no clipping
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        return torch.optim.Adam(parameters, lr=self.config.learning_rate, betas=(0.9, 0.999), eps=1e-8, fused=True)

    # training ----------------------------------------------------------------------------------------------

    def _train(self, active, epochs, keep, schedule, keep_optimizer, candidate) -> dict:
        per_epoch = self.config.evaluations_per_epoch
        wanted = intervals(epochs, per_epoch)
        resumed, self._resumed = self._resumed, None
        if not (keep_optimizer or resumed) or self._optimizer is None:
            self._optimizer = self._fresh_optimizer()
        schedule.start(self, active)
        progress = resumed or Progress()
        if resumed:
            schedule.load_state(progress.schedule)
        else:
            self._peaks.clear()
            if self._here is not None:  # the very first start point is the base model, which is still there
                self.save(optimizer=keep_optimizer)
        facts = {"stage": self.stage, "bound": min(len(keep) + 1, wanted) + 2 if keep else 1}
        self.writer.submit(lambda: setattr(self.run.store, "facts", facts))  # behind what the last stage still writes
        with (
            own_randomness(self.device, self.config.seed, self.order_stage, self._random),
            self.run.progress.stage(
                self.stage, active, self.tasks, wanted, progress.evaluations, self.offset, progress.points
            ) as shown,
        ):
            self._random = None
            if len(progress.points) <= progress.evaluations:  # the start, or stopped before an evaluation was done
                self._evaluate(progress, keep, candidate, schedule, shown)
            while progress.evaluations < wanted:
                ends = quarter_ends(schedule.steps(progress.epoch), per_epoch)
                first = progress.evaluations - progress.epoch * per_epoch
                for end in ends[first : first + wanted - progress.evaluations]:
                    self._steps(progress, end, keep, schedule, shown)
                    progress.evaluations += 1
                    if progress.evaluations % per_epoch == 0:
                        schedule.end_epoch(progress)
                        progress.epoch, progress.step = progress.epoch + 1, 0
                    self._evaluate(progress, keep, candidate, schedule, shown)
        made = {"stage": self.stage, "offset": self.offset, "best": dataclasses.asdict(self.best)}
        return distributed.same({**made, **progress.made(), "notes": schedule.notes})

    def _steps(self, progress: Progress, end: int, keep, schedule, shown) -> None:
        """Optimizer steps up to the next evaluation."""
        started, saving = time.monotonic(), self._saving.seconds
        self.model.train()
        losses, heard = [], []
        while progress.step < end:
            schedule.before_step(progress)
            indices = schedule.batch(progress.epoch, progress.step)
            rows = [self.rows[i] for i in indices]
            loss, sums = self._gradients(rows)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            if schedule.hears:
                schedule.hear(indices, means(sums, rows))
            losses.append(loss)
            heard.append((progress.step, indices, sums))
            progress.step += 1
            progress.trained_tokens += sum(len(row.ids) for row in rows)
            shown.step()
            self.writer.check()
            if self._must_save(keep) and progress.step < end:
                check_finite(losses, heard, self.owners, self.stage)
                progress.losses += torch.stack(losses).tolist()
                losses, heard = [], []
                self._save_within(progress, schedule)
        check_finite(losses, heard, self.owners, self.stage)
        progress.losses += torch.stack(losses).tolist() if losses else []
        self._clock["train"] += time.monotonic() - started - (self._saving.seconds - saving)

    def _gradients(self, rows: Sequence[Tokens]) -> tuple[torch.Tensor, torch.Tensor]:
        return self.losses.gradients(rows)

    def example_losses(self, indices: Sequence[int]) -> list[float]:
        """Mean target-token loss of each example by a forward pass alone, in nats."""
        return self.losses.of_examples([self.rows[i] for i in indices])

    # evaluation --------------------------------------------------------------------------------------------

    def _evaluate(self, progress: Progress, keep, candidate: bool, schedule, shown) -> None:
        """Measures the weights as they are and notes who holds a peak here (Algorithm 4, line 5)."""
        if progress.evaluations and self._must_save(keep):  # an evaluation is long; what it measures is safe first
            self._save_within(progress, schedule)
        started = time.monotonic()
        epoch = progress.evaluations / self.config.evaluations_per_epoch
        train_loss = sum(progress.losses) / len(progress.losses) if progress.losses else None
        point = {"epoch": epoch, "train_loss": train_loss, "reused": False}
        if not progress.points and self._here is not None:
            # the start point is the very weights that were evaluated before
            point |= {key: self._here[key] for key in MEASURED} | {"reused": True}
        else:
            try:
                point |= self._measure(epoch)
            except Stopped:
                self._stopping = True
                self._save_within(progress, schedule)
        progress.losses = []
        progress.points.append(point)
        self._here = point
        self._clock["evaluate"] += time.monotonic() - started
        started = time.monotonic()
        self._hold(progress, keep, candidate, point)
        self._saving.seconds += time.monotonic() - started
        shown.evaluated(self.best)
        if self._must_save(keep) and progress.evaluations:
            self._save_within(progress, schedule)

    def _measure(self, epoch: float) -> dict:
        distributed.refresh(self.measured, self.model)
        results = {part: evaluator.evaluate() for part, evaluator in self.evaluators.items()}
        self.run.write_outputs(self.stage, epoch, results)
        return measured(results["test"], results[self.config.select_on])

    def _hold(self, progress: Progress, keep, candidate: bool, point: dict) -> None:
        before = progress.holders
        progress.holders = holders_after(before, point["epoch"], point["selection"], keep)
        best = best_of(point, self.stage, self.offset + point["epoch"])
        is_peak, is_best = progress.holders != before, candidate and best.selection > self.best.selection
        here = checkpoints.snapshot(self.model) if is_peak or is_best else None
        if is_peak:
            self._peaks.add(point["epoch"], here)
        if is_best:
            self.best, self._best_weights = best, here
        if self._peaks.keep_held(progress.holders):
            peaks = self._peaks.frozen()
            self.writer.submit(lambda: self.run.prune(peaks.files()))

    # saving ------------------------------------------------------------------------------------------------

    def _must_save(self, keep) -> bool:
        """Whether all processes save now: it is time by the clock of process 0, or one of them was told to stop."""
        # in memory mode a killed stage starts again: its peaks are nowhere else
        within = not keep or self.config.keep_peaks != "memory"
        due = distributed.is_main() and within and self._saving.is_due()
        self._stopping, due = distributed.any_of(self.stop_requested, due)
        return self._stopping or due

    def _save_within(self, progress: Progress, schedule) -> None:
        if progress.evaluations or progress.step:  # nothing was trained yet at the start point
            progress.schedule = schedule.state()
            self.save(progress, optimizer=True)
        if self._stopping:
            distributed.on_main(self.writer.wait)  # the first process that ends takes the others with it
            raise Interrupted(f"stopped and saved in {self.run.directory}. Give the same command again to go on")
