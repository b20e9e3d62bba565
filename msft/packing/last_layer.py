"""The last layer for the tokens whose logits are asked for: of all others it computes keys and values alone."""

import torch
from torch import Tensor

# architectures whose layers are laid out as `last_layer` runs them
KINDS = ("llama", "olmo2", "qwen2", "qwen3")


def last_layer(layer, hidden: Tensor, cosine_sine: tuple[Tensor, Tensor], current) -> Tensor:
    """Output [1, w, hidden size] of a decoder layer at the wanted tokens, from its whole input [1, t, hidden size].

    cosine_sine: [1, t, head size] of the rotary embedding.  current: the Pass, which holds the wanted places.
    """
    attention, wanted = layer.self_attn, current.packed.wanted
    post_norm = attention.config.model_type == "olmo2"  # OLMo 2 norms what a block gives, the others what it takes
    inputs = hidden if post_norm else layer.input_layernorm(hidden)
    cosine, sine = cosine_sine
    query = _heads(attention, "q", inputs[:, wanted])  # [1, heads, w, d]
    key, value = (_heads(attention, which, inputs) for which in ("k", "v"))  # [1, heads, t, d]
    query = _rotate(query, cosine[:, wanted], sine[:, wanted])
    key = _rotate(key, cosine, sine)
    hidden = hidden[:, wanted]  # [1, w, hidden size]
    if not len(wanted):  # prefixes: nothing is read off them but keys and values
        current.kept[attention.layer_idx] = (key, value)
        return hidden
    out = current.attend(attention.layer_idx, query, key, value, attention.scaling, tail=True)  # [1, w, heads, d]
    out = attention.o_proj(out.flatten(2))  # [1, w, hidden size]
    if post_norm:
        hidden = hidden + layer.post_attention_layernorm(out)
        return hidden + layer.post_feedforward_layernorm(layer.mlp(hidden))
    hidden = hidden + out
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def _heads(attention, which: str, inputs: Tensor) -> Tensor:
    """Queries, keys or values [1, heads, t, d] before rotation."""
    kind = attention.config.model_type
    projected = getattr(attention, f"{which}_proj")(inputs)  # [1, t, heads x d]
    if kind == "olmo2" and which != "v":
        projected = getattr(attention, f"{which}_norm")(projected)
    heads = projected.unflatten(-1, (-1, attention.head_dim))  # [1, t, heads, d]
    if kind == "qwen3" and which != "v":
        heads = getattr(attention, f"{which}_norm")(heads)
    return heads.transpose(1, 2)


def _rotate(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary embedding of [1, heads, t, d] as the Llama family writes it."""
    first, second = states.chunk(2, -1)
    turned = torch.cat((-second, first), -1)
    return (states * cosine.unsqueeze(1) + turned * sine.unsqueeze(1)).to(states.dtype)
