"""lm-eval's own LM, for models whose cache cannot be shared between items."""

import warnings

import torch


class evaluating:
    """Evaluation mode without gradients; the model's training mode comes back at the end."""

    def __init__(self, model):
        self.model, self.training = model, model.training
        self.inference = torch.inference_mode()

    def __enter__(self):
        self.model.eval()
        self.inference.__enter__()

    def __exit__(self, *error):
        self.inference.__exit__(*error)
        self.model.train(self.training)


def quiet_stock_lm(model, tokenizer, batch_size: int):
    """lm-eval's own HFLM over a live model, whose training mode stays as it was."""
    from lm_eval.models.huggingface import HFLM

    training = model.training
    stock = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    model.train(training)  # HFLM leaves the model in evaluation mode
    return stock


def stock_lm(model, tokenizer, batch_size: int):
    """The same, with a warning that says why it is needed."""
    warnings.warn(
        f"{type(model).__name__} has layers whose cache cannot be shared between items (a sliding window or a "
        "recurrent state): the evaluation runs through lm-eval's HFLM, without the shared prefix",
        stacklevel=3,
    )
    return quiet_stock_lm(model, tokenizer, batch_size)
