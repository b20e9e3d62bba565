"""Forward passes that compute no logits beyond those that are asked for."""

import torch
from torch import Tensor

_FULL_ATTENTION = {"full_attention"}


def has_plain_head(model) -> bool:
    """Whether logits are just the output embedding of the last hidden state (no soft cap, no scaling).

    Checked by computing both on a few tokens, so that an architecture with a twist in its head is not
    silently trained on other logits than its own.
    """
    head = model.get_output_embeddings()
    if head is None or getattr(model, "base_model", model) is model:
        return False
    tokens = torch.arange(1, 5, device=model.device).unsqueeze(0)
    training = model.training
    model.eval()  # dropout would tell the two passes apart, and draw random numbers
    try:
        with torch.no_grad():
            whole = model(input_ids=tokens, use_cache=False).logits
            ours = head(model.base_model(input_ids=tokens, use_cache=False).last_hidden_state)
    finally:
        model.train(training)
    return torch.equal(whole, ours)


def shares_cache(model) -> bool:
    """Whether keys and values of a prefix can be computed once and read by many items."""
    config = model.config.get_text_config(decoder=True)
    kinds = set(getattr(config, "layer_types", None) or _FULL_ATTENTION)
    if not getattr(config, "layer_types", None) and getattr(config, "sliding_window", None):
        return False  # Mistral: every layer slides, and its configuration lists none
    stateless = not getattr(model, "_is_stateful", False)
    return stateless and kinds == _FULL_ATTENTION and model._supports_sdpa


def selected_logits(model, input_ids: Tensor, rows: Tensor, columns: Tensor, plain: bool, **kwargs) -> Tensor:
    """Logits [k, vocabulary] at k (row, column) places of a batch [b, t]; kwargs go to the model."""
    if not plain:
        return model(input_ids=input_ids, **kwargs).logits[rows, columns]
    hidden = model.base_model(input_ids=input_ids, **kwargs).last_hidden_state
    return model.get_output_embeddings()(hidden[rows, columns])
