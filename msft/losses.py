"""The loss of a mixture and its gradients: no logits for prompt tokens, exact weights whatever the batches' shapes."""

from collections.abc import Sequence

import torch
from accelerate import Accelerator

from msft.batching import Batch, Tokens, make_batches
from msft.forward import has_plain_head, selected_logits


class TokenLosses:
    """Cross entropy of a model's target tokens, in nats.

    loss_group: examples a micro-batch of the paper's loss.  token_budget: padded tokens a forward pass at most.
    pad: the padding token.  plain_head: whether logits are needed at target tokens alone.
    """

    def __init__(self, model, accelerator: Accelerator, loss_group: int, token_budget: int, pad: int):
        self.model, self.accelerator, self.pad = model, accelerator, pad
        self.loss_group, self.token_budget = loss_group, token_budget
        self.plain_head = has_plain_head(accelerator.unwrap_model(model))

    def gradients(self, rows: Sequence[Tokens]) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds the gradients of one step's loss; returns (loss, summed token losses [n] of the examples), on the device.

        The loss is the mean over micro-batches of `loss_group` examples of each one's token mean (paper, Table 5).
        """
        sums = torch.zeros(len(rows), device=self.accelerator.device)
        total = torch.zeros((), device=self.accelerator.device)
        for batch in self._batches(rows):
            token_losses = self._of_tokens(batch)
            loss = (token_losses * batch.weights).sum()
            self.accelerator.backward(loss)
            total += loss.detach()
            sums.index_add_(0, batch.examples, token_losses.detach())
        return total, sums

    @torch.no_grad()
    def of_examples(self, rows: Sequence[Tokens]) -> list[float]:
        """Mean target-token loss of each example by a forward pass alone."""
        sums = torch.zeros(len(rows), device=self.accelerator.device)
        for batch in self._batches(rows):
            sums.index_add_(0, batch.examples, self._of_tokens(batch))
        return means(sums, rows)

    def _batches(self, rows: Sequence[Tokens]):
        for batch in make_batches(rows, self.loss_group, self.token_budget, self.pad):
            yield batch.to(self.accelerator.device)

    def _of_tokens(self, batch: Batch) -> torch.Tensor:
        logits = selected_logits(
            self.model, batch.input_ids, batch.rows, batch.columns, self.plain_head, use_cache=False
        )
        return torch.nn.functional.cross_entropy(logits.float(), batch.targets, reduction="none")


def means(sums: torch.Tensor, rows: Sequence[Tokens]) -> list[float]:
    """Mean target-token loss of each example from its sum."""
    return (sums.cpu() / torch.tensor([row.targets for row in rows])).tolist()
