"""The loss of a mixture and its gradients: no logits for prompt tokens, exact weights whatever the batches' shapes."""

from collections.abc import Iterator, Sequence

import torch

from msft import distributed
from msft.loss.passes import Padded, TargetPass, make_passes, target_losses, upcast
from msft.loss.tokens import Tokens
from msft.packing.attention import keeps_logits
from msft.packing.probe import begin_row, mixes_rows, why_not_trained_packed


class TokenLosses:
    """Cross entropy of a model's target tokens, in nats; every process computes its share of the rows.

    loss_group: examples a micro-batch of the paper's loss.  token_budget: tokens a forward pass, padding included.
    mixed: weights of fp32 are multiplied in bf16 (torch.autocast); attention and the sums stay in fp32.
    path: 'packed' where rows are packed without padding (passes.py), else 'padded: ' and why.
    """

    def __init__(self, model, loss_group: int, token_budget: int, mixed: bool = False):
        self.model, self.device = model, model.device
        self.loss_group, self.mixed = loss_group, mixed
        self._dtype = torch.promote_types(model.dtype, torch.float32)
        sharded = "its weights are sharded" if distributed.is_sharded(model) else ""
        reason = sharded or why_not_trained_packed(model)
        self.token_budget = 1 if mixes_rows(model) else token_budget  # one row a pass, whatever its length
        self.path = f"padded: {reason}" if reason else "packed"

    def gradients(self, rows: Sequence[Tokens]) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds the gradients of one step's loss; returns (loss, summed token losses [n] of the examples), on the device.

        The loss is the mean over micro-batches of `loss_group` examples of each one's token mean (paper, Table 5).
        """
        # what all processes add to goes through one sum
        both = torch.zeros(1 + len(rows), device=self.device, dtype=self._dtype)
        total, sums = both[0], both[1:]
        for batch in self._batches(rows):
            loss, token_losses = self._of_tokens(batch)
            distributed.backward(loss, self.model)
            total += loss.detach()
            sums.index_add_(0, batch.examples, token_losses.detach().to(self._dtype))
        distributed.add_up_gradients(self.model)
        distributed.add_up(both)
        return total, sums

    @torch.no_grad()
    def of_examples(self, rows: Sequence[Tokens]) -> list[float]:
        """Mean target-token loss of each example by a forward pass alone."""
        sums = torch.zeros(len(rows), device=self.device, dtype=self._dtype)
        for batch in self._batches(rows):
            sums.index_add_(0, batch.examples, self._of_tokens(batch)[1].to(self._dtype))
        return means(distributed.add_up(sums), rows)

    def _batches(self, rows: Sequence[Tokens]) -> Iterator[TargetPass]:
        share, padded = (distributed.rank(), distributed.size()), self.path != "packed"
        return make_passes(rows, self.loss_group, self.token_budget, self.model, share, self.mixed, padded)

    def _of_tokens(self, batch: TargetPass) -> tuple[torch.Tensor, torch.Tensor]:
        """The share of a pass in the step's loss, and the losses of its target tokens."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            if self.path == "packed":
                return target_losses(self.model, batch)
            logits = self._padded_logits(batch.rows)  # [k, vocabulary]
        losses = torch.nn.functional.cross_entropy(upcast(logits), batch.targets, reduction="none")  # [k]
        return (losses * batch.weights).sum(), losses

    def _padded_logits(self, batch: Padded) -> torch.Tensor:
        """Logits [k, vocabulary] of the places in a padded batch that predict a target."""
        begin_row(self.model)
        if not keeps_logits(type(self.model)):
            return self.model(input_ids=batch.ids, use_cache=False).logits[batch.rows, batch.columns]
        asked, columns = batch.columns.unique(return_inverse=True)  # [c], [k]
        output = self.model(input_ids=batch.ids, use_cache=False, logits_to_keep=asked)
        return output.logits[batch.rows, columns]  # from [b, c, vocabulary]


def means(sums: torch.Tensor, rows: Sequence[Tokens]) -> list[float]:
    """Mean target-token loss of each example from its sum."""
    return (sums.cpu() / torch.tensor([row.targets for row in rows])).tolist()
