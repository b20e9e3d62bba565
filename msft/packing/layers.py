"""Decoder layers written out: the last one runs for the tokens whose logits are asked for, and all of them with fewer calls
of the processor's kernels where their weights are laid out (products.py)."""

import torch
from torch import Tensor

# architectures whose layers are laid out as `decoder_layer` runs them
KINDS = ("llama", "olmo2", "qwen2", "qwen3")


def decoder_layer(layer, hidden: Tensor, cosine_sine: tuple[Tensor, Tensor], current, wanted: Tensor | None) -> Tensor:
    """Output [1, w, hidden size] of a decoder layer at the wanted tokens, from its whole input [1, t, hidden size].

    cosine_sine: [1, t, head size] of the rotary embedding.  current: the Pass.  wanted: [w] places of the tokens, None for
    all; of the others keys and values alone are computed.
    """
    attention = layer.self_attn
    post_norm = attention.config.model_type == "olmo2"  # OLMo 2 norms what a block gives, the others what it takes
    inputs = hidden if post_norm else layer.input_layernorm(hidden)
    query, key, value = _queries_keys_values(attention, inputs, cosine_sine, wanted)
    if wanted is not None:
        hidden = hidden[:, wanted]  # [1, w, hidden size]
        if not len(wanted):  # prefixes: nothing is read off them but keys and values
            current.kept[attention.layer_idx] = (key, value)
            return hidden
    out = current.attend(attention.layer_idx, query, key, value, attention.scaling, tail=wanted is not None)
    out = attention.o_proj(out.flatten(2))  # [1, w, hidden size] from [1, w, heads, d]
    if post_norm:
        hidden = hidden + layer.post_attention_layernorm(out)
        return hidden + layer.post_feedforward_layernorm(layer.mlp(hidden))
    hidden = hidden + out
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def _queries_keys_values(
    attention, inputs: Tensor, cosine_sine, wanted: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """[1, heads, w, d] and twice [1, heads, t, d], rotated, from [1, t, hidden size]."""
    cosine, sine = cosine_sine
    joined = vars(attention).get("joined")
    if joined is None or wanted is not None or torch.is_grad_enabled():  # it has no gradients
        asked = (inputs, cosine, sine) if wanted is None else (inputs[:, wanted], cosine[:, wanted], sine[:, wanted])
        query = _rotate(_heads(attention, "q", attention.q_proj(asked[0])), *asked[1:])
        key = _rotate(_heads(attention, "k", attention.k_proj(inputs)), cosine, sine)
        return query, key, _heads(attention, "v", attention.v_proj(inputs))
    sizes = [attention.q_proj.out_features, attention.k_proj.out_features, attention.v_proj.out_features]
    *parts, value = joined(inputs).split(sizes, -1)  # [1, t, heads x d] each
    query, key = (_heads(attention, which, part) for which, part in zip("qk", parts, strict=True))
    both = _rotate(torch.cat((query, key), 1), cosine, sine)  # [1, heads of queries and keys, t, d]
    return *both.split([query.shape[1], key.shape[1]], 1), _heads(attention, "v", value)


def _heads(attention, which: str, projected: Tensor) -> Tensor:
    """Queries, keys or values [1, heads, t, d] before rotation, from [1, t, heads x d]."""
    kind = attention.config.model_type
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
