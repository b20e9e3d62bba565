"""Runs of seconds whose accuracies are a hash of the weights, with a record of what was really trained.

Two runs measure the same accuracies only where their weights are the same to the last bit.
"""

import dataclasses
import hashlib

import pytest
import torch

import msft
from msft import evaluation
from msft.evaluation import Scores
from msft.methods import ies
from msft.training import Trainer

PARAMS = {
    "sft": {"epochs": 2},
    "continual_sft": {"budget": 1},
    "dynamix_sft": {"epochs": 2, "updates": 6, "look_ahead_batch": 8},
    "ies": {"epochs": 7, "delta": 0.15},
    "sro_sft": {"epochs": 2},
    "soft_sro_sft": {"epochs": 2},
    "msft": {"budget": 0.75},
}


class WeightsEvaluator:
    """Stands for msft.evaluation.Evaluator: accuracies and tokens of each sub-dataset from a hash of the weights."""

    path = "packed"

    def __init__(self, model, tokenizer, mixture, part, *settings):
        self.model, self.part, self.names = model, part, mixture.names

    def evaluate(self):
        digest = hashlib.sha256(self.part.encode())
        for parameter in self.model.parameters():
            digest.update(parameter.detach().float().cpu().numpy().tobytes())
        found = {}
        for name in self.names:
            byte = hashlib.sha256(digest.digest() + name.encode()).digest()
            right = byte[0] % 51
            found[name] = Scores(right / 50, 50, 40 + byte[1], ["x"] * 50, [i < right for i in range(50)], byte[2] / 50)
        return found


def train(settings, runs_dir, method, params=None):
    """A finished run with the stand-in's accuracies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "Evaluator", WeightsEvaluator)
        params = PARAMS[method] if params is None else params
        config = msft.RunConfig(**{**settings, "method": method, "params": params})
        return msft.run(config, runs_dir, progress=False)


@dataclasses.dataclass
class Recorded:
    """A run and what it trained.

    steps: (stage, indices) of every optimizer step.  look_aheads: (indices, losses before, losses after).
    epochs: under IES, ({index: loss heard}, {index: loss of a forward pass}) of each epoch.
    """

    run: object = None
    steps: list = dataclasses.field(default_factory=list)
    look_aheads: list = dataclasses.field(default_factory=list)
    epochs: list = dataclasses.field(default_factory=list)
    owners: list = dataclasses.field(default_factory=list)
    lengths: list = dataclasses.field(default_factory=list)


def recorded(settings, runs_dir, method, params=None):
    """A run that is trained now and its record."""
    record, looking, heard = Recorded(), [], {}
    gradients, look_ahead, example_losses = Trainer.gradients, Trainer.look_ahead, Trainer.example_losses
    hear, end_epoch = ies.InstanceStops.hear, ies.InstanceStops.end_epoch
    rested = {}

    def recording(self, rows):
        if not record.owners:
            record.owners, record.lengths = self.owners, [len(row.ids) for row in self.rows]
            record.index = {id(row): i for i, row in enumerate(self.rows)}
            record.rows = self.rows  # keeps the ids taken
        if not looking:
            record.steps.append((self.stage, [record.index[id(row)] for row in rows]))
        return gradients(self, rows)

    def look(self, indices):
        looking.append(1)
        before, after = look_ahead(self, indices)
        looking.pop()
        record.look_aheads.append(([int(i) for i in indices], before, after))
        return before, after

    def forward(self, indices):
        losses = example_losses(self, indices)
        rested.update(zip(map(int, indices), losses, strict=True))
        return losses

    def hearing(self, indices, losses):
        heard.update(zip(indices, losses, strict=True))
        hear(self, indices, losses)

    def ending(self, progress):
        end_epoch(self, progress)
        record.epochs.append((dict(heard), dict(rested)))
        heard.clear(), rested.clear()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "gradients", recording)
        patch.setattr(Trainer, "look_ahead", look)
        patch.setattr(Trainer, "example_losses", forward)
        patch.setattr(ies.InstanceStops, "hear", hearing)
        patch.setattr(ies.InstanceStops, "end_epoch", ending)
        record.run = train(settings, runs_dir, method, params)
    return record


def owners_of(record, stage):
    """The sub-datasets that gave gradients in a stage."""
    return {record.owners[i] for s, rows in record.steps if s == stage for i in rows}


def same_weights(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
