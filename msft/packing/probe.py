"""Which models may run on packed rows: those where packed passes were shown equal, on this very model.

Packed attention, with prefixes that are read in place, and the last layer for wanted tokens alone are held against the
model's own forward pass on ordinary tokens. In half precision the rounding of a deep model grows from layer to layer
until two right passes have little in common, so it is looked at on the model's first and last layer alone, in the
model's own rounding.
"""

import contextlib

import torch

from msft.errors import ModelError
from msft.packing.attention import Pass, evaluating, packed_attention, prefix_layers, wanted_logits, wanted_states
from msft.packing.last_layer import KINDS
from msft.packing.rows import Row, pack

_TOKENS, _PREFIX = 40, 24  # of the probe's text, and of it before the rows part
_CLOSE = {torch.float64: 1e-6, torch.float32: 1e-3}  # largest difference, as a share of the largest value
_CLOSE_HALF = 0.03  # two layers round by about 0.01
_MANY_ROTATIONS = ("longrope", "dynamic")


def mixes_rows(model) -> bool:
    """Whether what a model makes of a row depends on the longest one beside it: such a row must go alone."""
    config = model.config.get_text_config(decoder=True)
    return (getattr(config, "rope_parameters", None) or {}).get("rope_type") in _MANY_ROTATIONS


def why_not_packed(model) -> str:
    """Why packed passes are not the model's own, or '' where they were shown to be."""
    config = model.config.get_text_config(decoder=True)
    layers = getattr(config, "layer_types", None) or []
    window = getattr(config, "sliding_window", None)
    if getattr(model, "_is_stateful", False):
        return "it keeps a recurrent state"
    if others := sorted(set(layers) - {"full_attention"}):
        return (
            f"{sum(kind in others for kind in layers)} of its {len(layers)} layers are of the kind {', '.join(others)}"
        )
    if not layers and window and getattr(config, "use_sliding_window", True):
        return f"its layers attend to a sliding window of {window} tokens"
    if mixes_rows(model):
        return "its rotary embedding depends on the longest row of a batch; rows go one at a time"
    if not model._supports_attention_backend:
        return "its attention cannot be replaced from outside"
    try:
        return _difference(model)
    except ModelError as error:
        return str(error)
    except Exception as error:  # a model's own code can fail in any way on what it was not written for
        first = (str(error).splitlines() or [""])[0]
        return f"a packed pass fails in it: {type(error).__name__}: {first}"


def why_not_trained_packed(model) -> str:
    """Why training on packed rows does not give the gradients of padded ones, or ''."""
    kind = model.config.model_type
    if kind not in KINDS:
        return f"packed training knows the architectures {', '.join(KINDS)}, not {kind}"
    if model.config.attention_dropout:
        return "it has attention dropout"
    return why_not_packed(model) or _other_head(model)


def _difference(model) -> str:
    """What the probe's packed pass gets wrong, or ''."""
    ids = _ordinary_tokens(model)
    rows = [Row(ids[_PREFIX:], _PREFIX, 0, [14, 15]), Row(ids[_PREFIX : _PREFIX + 9], _PREFIX, 0, [8])]
    with _few_layers(model), torch.inference_mode():
        whole = torch.tensor([ids], device=model.device)
        states = model.base_model(input_ids=whole, use_cache=False).last_hidden_state[0]
        logits = model(input_ids=whole, use_cache=False).logits[0]
        with packed_attention(model):
            prefixes = prefix_layers(model, [ids[:_PREFIX]])
            current = [Pass(pack(rows, model.device, model.dtype), prefixes) for _ in range(2)]
            packed = wanted_states(model, current[0]), wanted_logits(model, current[1])
    wanted = [_PREFIX + 14, _PREFIX + 15, _PREFIX + 8]
    for what, one, other in zip(("hidden states", "logits"), packed, (states[wanted], logits[wanted]), strict=True):
        apart = float((one - other).abs().max() / other.abs().max().clamp_min(1e-30))
        if not apart <= _CLOSE.get(model.dtype, _CLOSE_HALF):  # NaN too
            return f"{what} of packed rows differ by {apart:.2g} of the largest one"
    return ""


def _other_head(model) -> str:
    """Why logits are not the output embedding of the last hidden state alone (soft cap, scaling, bias), or ''."""
    head = model.get_output_embeddings()
    whole = torch.tensor([_ordinary_tokens(model)[:4]], device=model.device)
    with _few_layers(model), torch.inference_mode():
        logits = model(input_ids=whole, use_cache=False).logits
        states = model.base_model(input_ids=whole, use_cache=False).last_hidden_state
        same = torch.equal(states @ head.weight.T, logits)
    return "" if same else "its logits are more than the output embedding of the last hidden state"


def _ordinary_tokens(model) -> list[int]:
    """Ids from all over the vocabulary; special tokens, which stand at its ends, are seldom among them."""
    size = model.get_input_embeddings().num_embeddings
    # a fixed stride that shares no factor with most sizes: neighbours have nothing to do with each other
    return [(size // 7 + 7919 * i) % size for i in range(_TOKENS)]


@contextlib.contextmanager
def _few_layers(model):
    """In half precision the model's first and last layer alone; evaluation mode; all of it undone at the end."""
    base = model.base_model
    name = next((n for n in ("layers", "h", "blocks") if isinstance(getattr(base, n, None), torch.nn.ModuleList)), None)
    layers = getattr(base, name) if name else None
    is_cut = model.dtype not in _CLOSE and layers is not None and len(layers) > 2
    count = model.config.num_hidden_layers if is_cut else None
    with evaluating(model):  # dropout would tell the two passes apart, and draw random numbers
        try:
            if is_cut:
                setattr(base, name, torch.nn.ModuleList([layers[0], layers[-1]]))
                model.config.num_hidden_layers = 2
            yield
        finally:
            if is_cut:
                setattr(base, name, layers)
                model.config.num_hidden_layers = count
