"""The bifurcation of section 3.1 from within: how far the weights of its branches drift apart (Eq. 2, 3), and whether the
gradients of sub-datasets disagree.

Beside the branch without the first over-fitted sub-dataset there is one with everything in another order: the drift
that chance makes. What is measured stands in the journal's notes; a run that is killed within a branch measures that
branch's later epochs alone.
"""

from dataclasses import dataclass
from itertools import combinations

import torch
from torch.nn.functional import cosine_similarity

from msft.methods.msft import earliest_overfit
from msft.schedules import Passes
from msft.settings import setting


@dataclass(frozen=True)
class Params:
    """Settings of the experiment."""

    budget: float = setting(
        3.0, "epochs in which the first over-fitting is looked for", low=0.25, high=1000, epochs=True
    )
    branch: float = setting(6.0, "epochs of each branch", low=1.0, high=1000, epochs=True)


class Watched(Passes):
    """Full passes that keep the weights at the end of every epoch."""

    def __init__(self):
        super().__init__()
        self.weights: list[torch.Tensor] = []  # [parameters] each

    def end_epoch(self, progress) -> None:
        """Called after the last step of an epoch."""
        self.weights.append(weights_of(self.trainer.model))


def weights_of(model) -> torch.Tensor:
    """All parameters in one vector [parameters]."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def gradients_of(trainer) -> dict[str, torch.Tensor]:
    """The gradient [parameters] of each sub-dataset's own loss over all of its training examples."""
    found = {}
    for task in trainer.tasks:
        rows = [row for row, owner in zip(trainer.rows, trainer.owners, strict=True) if owner == task]
        trainer.model.zero_grad(set_to_none=True)
        trainer.gradients(rows)
        found[task] = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
    trainer.model.zero_grad(set_to_none=True)
    return found


def note_conflict(trainer, where: str, first: str | None) -> None:
    """Notes the cosines of all pairs of gradients, and that of `first` with the mean of the others."""
    gradients = gradients_of(trainer)
    pairs = [float(cosine_similarity(a, b, dim=0)) for a, b in combinations(gradients.values(), 2)]
    rest = [gradient for task, gradient in gradients.items() if task != first]
    with_rest = float(cosine_similarity(gradients[first], sum(rest), dim=0)) if first else None
    trainer.note("gradients", where=where, pairs=pairs, first_with_rest=with_rest)


def run(trainer, params: Params) -> None:
    """Full mixture until one over-fits; from there on everything, everything in another order, and without that one."""
    tasks, overfit = list(trainer.tasks), None
    note_conflict(trainer, "base", None)
    while overfit is None:
        curve = trainer.roll_out(tasks, epochs=params.budget, keep=tasks)
        overfit = earliest_overfit(curve, tasks)
    first, epoch = overfit
    trainer.roll_back(curve, epoch, first=first)
    trainer.note("fork", first=first, epoch=curve.offset + epoch)
    note_conflict(trainer, "fork", first)
    start, branches = weights_of(trainer.model), {}
    for name in ("full", "other order", "reduced"):
        active = [task for task in tasks if name != "reduced" or task != first]
        schedule = branches[name] = Watched()
        branch = trainer.roll_out(active, epochs=params.branch, keep_start=True, schedule=schedule)
        if name == "full":
            note_conflict(trainer, "end of the full branch", first)
        trainer.roll_back(branch, 0.0, branch=name)
    full = branches["full"].weights
    for name in ("other order", "reduced"):
        ways = zip(branches[name].weights, full, strict=True)
        distances = [float((one - other).norm() / (other - start).norm()) for one, other in ways]
        trainer.note("drift", branch=name, share_of_way=distances)
