"""DynamixSFT: mixture ratios from a bandit that looks one step ahead (Shin et al., 2025; appendix F.1 [3]).

p_k = (1 - gamma) softmax-like[exp(beta Q_k) p0_k] + gamma / K, with p0 the size shares. Every 1 % of all steps, for
each sub-dataset k: losses of a batch of k before and after one virtual optimizer step on it; the reward is their mean
relative fall, scaled to 0..1 over the k; Q is its moving average, 0 at the start. The paper tuned beta and its value
was lost: 4 is DynamixSFT's own at 1B (5 at 8B). The look-ahead batch of 128 is inferred: only it gives 94.9 % overhead.
Of every training example k is drawn from p, then the example uniformly from k.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from msft.errors import RunError
from msft.schedules import Schedule
from msft.seeds import generator
from msft.settings import setting


@dataclass(frozen=True)
class Params:
    """Settings of DynamixSFT."""

    epochs: float = setting(10.0, "epochs' worth of examples", low=0.25, high=1000, epochs=True)
    beta: float = setting(4.0, "sharpness of the preference for a high Q", low=0.0, high=1000)
    gamma: float = setting(0.3, "share of uniform sampling", low=0.0, high=1.0)
    smoothing: float = setting(0.95, "weight of the past in the moving average Q", low=0.0, high=1.0)
    look_ahead_batch: int = setting(128, "examples a sub-dataset and look-ahead", low=1, high=65536)
    updates: int = setting(100, "look-aheads a run, evenly spaced", low=1, high=10**6)


def probabilities(q: np.ndarray, p0: np.ndarray, beta: float, gamma: float) -> np.ndarray:
    """Sampling probabilities [K] from the moving averages [K] and the size shares [K]."""
    preference = np.exp(beta * (q - q.max())) * p0  # the shift cancels; it keeps exp in range
    return (1 - gamma) * preference / preference.sum() + gamma / len(q)


def rewards(before: Sequence[np.ndarray], after: Sequence[np.ndarray], eps: float = 1e-8) -> np.ndarray:
    """Mean relative fall of the loss of each sub-dataset [K], scaled to 0..1 (0 where all are equal)."""
    raw = np.array([np.mean((b - a) / (b + eps)) for b, a in zip(before, after, strict=True)])
    span = raw.max() - raw.min()
    return (raw - raw.min()) / span if span > 0 else np.zeros_like(raw)


class Bandit(Schedule):
    """Examples drawn by probabilities that the look-aheads move."""

    saved = ("q", "p")

    def __init__(self, params: Params):
        super().__init__()
        self.params = params

    def start(self, trainer, active) -> None:
        """Q = 0; p0 are the shares of the sub-datasets' sizes."""
        super().start(trainer, active)
        sizes = np.array([len(members) for members in self.members], dtype=float)
        self.p0, self.q = sizes / sizes.sum(), np.zeros(len(sizes))
        self.p = probabilities(self.q, self.p0, self.params.beta, self.params.gamma)
        self.per_epoch = self.steps(0)
        total = round(self.params.epochs * self.per_epoch)
        self.update_steps = {total * j // self.params.updates for j in range(self.params.updates)}

    def before_step(self, progress) -> None:
        """A look-ahead where one is due."""
        step = progress.epoch * self.per_epoch + progress.step
        if step not in self.update_steps or any(note["step"] == step for note in self.notes):
            return
        trainer, before, after = self.trainer, [], []
        for task, members in zip(self.active, self.members, strict=True):
            draw = generator(trainer.config.seed, "look-ahead", trainer.order_stage, step, task)
            batch = draw.choice(members, min(self.params.look_ahead_batch, len(members)), replace=False)
            first, second = trainer.look_ahead(batch)
            if not np.isfinite([first, second]).all():
                what = f"the loss of a look-ahead is not finite in stage {trainer.stage}, step {step}, in {task}"
                raise RunError(f"{what}; the last saved state is kept. Try a lower learning_rate, or precision fp32")
            before.append(np.array(first))
            after.append(np.array(second))
            progress.look_ahead_tokens += sum(len(trainer.rows[i].ids) for i in batch)
        reward, keep = rewards(before, after), self.params.smoothing
        self.q = keep * self.q + (1 - keep) * reward
        self.p = probabilities(self.q, self.p0, self.params.beta, self.params.gamma)
        row = {"step": step, "before": [b.mean() for b in before], "after": [a.mean() for a in after]}
        self.notes.append({**row, "rewards": reward.tolist(), "q": self.q.tolist(), "p": self.p.tolist()})

    def batch(self, epoch: int, step: int) -> list[int]:
        """Examples drawn by the probabilities as they are now."""
        size, steps = self.trainer.config.batch_size, self.per_epoch
        count = min(size, len(self.indices) - step * size)
        draw = generator(self.trainer.config.seed, "bandit", self.trainer.order_stage, epoch * steps + step)
        picked = draw.choice(len(self.active), count, p=self.p)
        return [int(draw.choice(self.members[k])) for k in picked]


def run(trainer, params: Params) -> None:
    """One roll-out whose mixture the bandit moves."""
    trainer.roll_out(trainer.tasks, epochs=params.epochs, schedule=Bandit(params))
