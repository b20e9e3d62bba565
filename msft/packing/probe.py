"""The rule: a path is taken where it was shown equal on this very model; else its fall-back is, with the true reason.

Packed attention, with prefixes that are read in place, and the last layer for wanted tokens alone are shown against the
model's own forward pass, on a probe of few tokens. What so few tokens cannot show (windows, states, rotations that turn
with the length) the configuration tells. In half precision the rounding of a deep model grows from layer to layer until
two right passes have little in common, so the model's first and last layer alone are shown, in its own rounding.
"""

import contextlib
from collections.abc import Iterator

import torch
from transformers import GenerationConfig

from msft.errors import ModelError
from msft.packing.attention import Pass, evaluating, packed_attention, prefix_layers, wanted_logits, wanted_states
from msft.packing.layers import KINDS, is_of_kinds
from msft.packing.rows import Row, pack

_TOKENS, _PREFIX = 40, 24  # of the probe's text, and of it before the rows part
_CLOSE = {torch.float64: 1e-6, torch.float32: 1e-3}  # largest difference, as a share of the largest value
_TEXTS = 5  # that experts in half precision are tried on at most
_CLOSE_HALF = 0.03  # two layers round by about 0.01
_WINDOWS = ("sliding_window", "max_window_layers")  # what else is known of them tells whether they are used
_MANY_ROTATIONS = ("longrope", "dynamic")


def vocabulary(model) -> int:
    """Token ids that a model has an embedding for, whatever of peft's stands around it."""
    return len(next(model.get_input_embeddings().parameters()))


def keep_apart(model) -> None:
    """Lets the configuration of a model whose output embedding has weights of its own say so: HFLM and what loads a saved
    checkpoint tie the two embeddings by it, and the output embedding's weights would be gone. So too where peft's layer
    stands in place of one, in which transformers finds no weights to tie."""
    first, last = model.get_input_embeddings(), model.get_output_embeddings()
    weights = [dict(part.named_parameters(recurse=False)).get("weight") for part in (first, last) if part is not None]
    if last is not None and (weights[0] is None or weights[0] is not weights[1]):
        model.config.tie_word_embeddings = model.config.get_text_config(decoder=True).tie_word_embeddings = False


def mixes_rows(model) -> bool:
    """Whether what a model makes of a row depends on the longest one beside it: such a row must go alone."""
    kinds = getattr(model.config.get_text_config(decoder=True), "layer_types", None) or ()
    # an indexer chooses among tokens that it finds alike by the width of the batch
    return "indexed_attention" in kinds or not _rotations(model).isdisjoint(_MANY_ROTATIONS)


def sees_later_tokens(model) -> bool:
    """Whether logits change with the tokens that follow, as in an encoder, whatever its configuration says of it."""
    *ids, last, another = _ordinary_tokens(model)[:9]
    with evaluating(model), torch.inference_mode():
        rows = (torch.tensor([[*ids, end]], device=model.device) for end in (last, another))  # [1, 8]
        one, other = (model(input_ids=row).logits[0, :-1] for row in rows)  # [7, vocabulary]
    # of what comes before no bit changes, but for experts, who multiply as many tokens as they are given
    slack = _CLOSE_HALF * float(one.nan_to_num().abs().max()) if _is_routed(model) else 0.0
    return bool((~torch.isclose(one, other, rtol=0.0, atol=slack, equal_nan=True)).float().mean() > 0.1)


def reads_padding(model) -> bool:
    """Whether a row's logits change with what pads it: at its right, where HFLM masks nothing, or masked at its left."""
    *row, other = _ordinary_tokens(model)[:9]
    exact = model.dtype in _CLOSE
    options = {"max_new_tokens": 2, "min_new_tokens": 2, "do_sample": False}
    config = GenerationConfig(**options, output_logits=True, return_dict_in_generate=True, pad_token_id=0)

    def logits(padding: list[int]) -> torch.Tensor:
        """[2, vocabulary] behind the row."""
        ids = torch.tensor([padding + row], device=model.device)
        mask = torch.tensor([[0] * len(padding) + [1] * len(row)], device=model.device)
        return torch.cat(model.generate(input_ids=ids, attention_mask=mask, generation_config=config).logits)

    try:
        with evaluating(model), torch.inference_mode():
            # in half precision another shape rounds otherwise: there padding is compared with other padding
            one, two = logits([] if exact else [0] * 4), logits([other] * 4)
        return _apart(model, two, one) > 0 or sees_later_tokens(model) or changes_in_a_batch(model)
    except Exception:  # what fails here fails in HFLM, which says so
        return False


def changes_in_a_batch(model) -> bool:
    """Whether a row's logits change with the rows beside it, or with what pads it at its right: of an encoder, and where
    experts choose among all tokens of a batch."""
    try:
        with _few_layers(model), torch.inference_mode():
            return all(_apart(model, *_in_two_batches(model, ids)) > 0 for ids in _texts(model))
    except Exception:  # what fails here fails in training, which says so
        return False


def _in_two_batches(model, ids: list[int]) -> list[torch.Tensor]:
    """Logits [8, vocabulary] of one row, twice: with other tokens behind it and another row beside it."""
    row, others = ids[:8], (ids[8:20], ids[20:32])
    batches = [[[*row, *other[:4]], other] for other in others]  # [2, 12] each
    if model.dtype in _CLOSE:  # in half precision another shape rounds otherwise
        batches[1] = [row]
    passes = (model(input_ids=torch.tensor(batch, device=model.device), use_cache=False) for batch in batches)
    return [output.logits[0, :8] for output in passes]


def begin_row(model) -> None:
    """Lets a rotary embedding that turns with the longest row so far (dynamic NTK) forget the rows before this one."""
    for module in model.modules() if "dynamic" in _rotations(model) else ():
        for name, first in [*module.named_buffers(recurse=False)]:
            if name.endswith("original_inv_freq"):  # with a kind of layer before it where each has its own
                kind = name.removesuffix("original_inv_freq")
                setattr(module, f"{kind}inv_freq", first)
                setattr(module, f"{kind}max_seq_len_cached", module.original_max_seq_len)


def _rotations(model) -> set:
    """Types of a model's rotary embeddings: one, or one for each kind of layer."""
    rope = getattr(model.config.get_text_config(decoder=True), "rope_parameters", None) or {}
    return {some.get("rope_type") for some in (rope, *rope.values()) if isinstance(some, dict)}


def why_not_packed(model) -> str:
    """Why packed passes are not the model's own, or '' where they were shown to be."""
    if reason := beyond_the_probe(model):
        return reason
    try:
        return difference if all(difference := _difference(model, ids) for ids in _texts(model)) else ""
    except ModelError as error:
        return str(error)
    except Exception as error:  # a model's own code can fail in any way on what it was not written for
        first = (str(error).splitlines() or [""])[0]
        return f"its own code does not take packed rows ({type(error).__name__}: {first})"


def why_not_trained_packed(model) -> str:
    """Why training on packed rows does not give the gradients of padded ones, or '' where its losses were shown equal."""
    kind = model.config.model_type
    if not is_of_kinds(model):
        note = " with code of its own" * (kind in KINDS)
        return f"packed training knows the architectures {', '.join(KINDS)}, not {kind}{note}"
    if model.config.attention_dropout:
        return "it has attention dropout"
    return why_not_packed(model) or _other_head(model)


def beyond_the_probe(model) -> str:
    """What a probe of few tokens cannot show, or ''."""
    if wrapper := getattr(model, "peft_type", None):
        return f"it is in peft's wrapper for {str(wrapper).rpartition('.')[2]}"
    config = model.config.get_text_config(decoder=True)
    layers, window = getattr(config, "layer_types", None) or [], getattr(config, "sliding_window", None)
    others = sorted(set(layers) - {"full_attention"})
    if getattr(model, "_is_stateful", False):
        return "it keeps a recurrent state"
    if others:
        count = sum(kind in others for kind in layers)
        return f"{count} of its {len(layers)} layers are of the kind {', '.join(others)}"
    if not layers and window and getattr(config, "use_sliding_window", True):
        return f"its layers attend to a sliding window of {window} tokens"
    for name, value in vars(config).items():
        is_other = "window" in name and "pattern" not in name and name not in _WINDOWS
        if is_other and type(value) is int and value > 0:
            return f"it has {name} = {value}, which may show in rows longer than the probe's {_TOKENS} tokens"
    if mixes_rows(model):
        return "its rotary embedding depends on the longest row of a batch; rows go one at a time"
    return "" if model._supports_attention_backend else "its attention cannot be replaced from outside"


def _difference(model, ids: list[int]) -> str:
    """What the packed pass of a probe's text gets wrong, or ''."""
    rows = [Row(ids[_PREFIX:], _PREFIX, 0, [14, 15]), Row(ids[_PREFIX : _PREFIX + 9], _PREFIX, 0, [8])]
    places = [row.start + column for row in rows for column in row.wanted]
    with _few_layers(model), torch.inference_mode():
        whole = torch.tensor([ids], device=model.device)  # [1, t]
        states = model.base_model(input_ids=whole, use_cache=False).last_hidden_state[0, places]  # [w, hidden size]
        logits = model(input_ids=whole, use_cache=False).logits[0, places]  # [w, vocabulary]
        with packed_attention(model):
            prefixes = prefix_layers(model, [ids[:_PREFIX]])
            packed = pack(rows, model.device, model.dtype)
            pairs = {
                "hidden states": (wanted_states(model, Pass(packed, prefixes)), states),
                "logits": (wanted_logits(model, Pass(packed, prefixes)), logits),
            }
    for what, (ours, theirs) in pairs.items():
        if apart := _apart(model, ours, theirs):
            return f"{what} of packed rows differ by {apart:.2g} of the largest one"
    return ""


def _apart(model, ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference as a share of the largest value, 0 where rounding explains it; NaN stays."""
    apart = float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-30))
    return 0.0 if apart <= _CLOSE.get(model.dtype, _CLOSE_HALF) else apart


def _is_routed(model) -> bool:
    """Whether a router sends tokens to experts; how they would be run is in every configuration."""
    names = [*vars(model.config.get_text_config(decoder=True)), *dict(model.named_modules())]
    return any("expert" in name or "moe" in name for name in names if not name.startswith("_"))


def _other_head(model) -> str:
    """Why logits are not the output embedding of the last hidden state alone (soft cap, scaling, bias, adapter), or ''."""
    head = model.get_output_embeddings()
    whole = torch.tensor([_ordinary_tokens(model)[:4]], device=model.device)  # [1, 4]
    with _few_layers(model), torch.inference_mode():
        logits = model(input_ids=whole, use_cache=False).logits
        states = model.base_model(input_ids=whole, use_cache=False).last_hidden_state
        apart = _apart(model, states @ head.weight.T, logits)
    # while a model answers its head may multiply in another order (products.py)
    is_same = type(head) is torch.nn.Linear and head.bias is None and not apart
    return "" if is_same else "its logits are more than the output embedding of the last hidden state"


def _texts(model) -> Iterator[list[int]]:
    """Texts to probe with, of which one that comes out right is enough: in half precision rounding may send a token to
    another expert, where a router has a near tie; another text has other ties."""
    count = _TEXTS if _is_routed(model) and model.dtype not in _CLOSE else 1
    return (_ordinary_tokens(model, text) for text in range(count))


def _ordinary_tokens(model, text: int = 0) -> list[int]:
    """Ids from all over the vocabulary; special tokens, which stand at its ends, are seldom among them."""
    size = vocabulary(model)
    # a fixed stride that shares no factor with most sizes: neighbours have nothing to do with each other
    return [(size // 7 + 7919 * i) % size for i in range(text * _TOKENS, (text + 1) * _TOKENS)]


@contextlib.contextmanager
def _few_layers(model):
    """In half precision the model's first and last layer alone, where they can be; evaluation mode; all undone at the end."""
    base = model.base_model
    name = next((n for n in ("layers", "h", "blocks") if isinstance(getattr(base, n, None), torch.nn.ModuleList)), None)
    layers = getattr(base, name) if name else ()
    # layers that read the keys of another one, or inputs of their own, do not stand alone
    is_joined = any(getattr(model.config, n, 0) for n in ("num_kv_shared_layers", "hidden_size_per_layer_input"))
    is_cut = model.dtype not in _CLOSE and len(layers) > 2 and not is_joined
    # evaluating: dropout would tell the two passes apart, and draw random numbers
    with evaluating(model), contextlib.ExitStack() as undo:
        if is_cut:
            undo.callback(setattr, base, name, layers)
            undo.callback(setattr, model.config, "num_hidden_layers", model.config.num_hidden_layers)
            setattr(base, name, torch.nn.ModuleList([layers[0], layers[-1]]))
            model.config.num_hidden_layers = 2
        yield
