"""Decoder layers written out: the last one runs for the tokens whose logits are asked for, the others in fewer calls where
their weights are laid out (products.py)."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

# architectures whose layers are built as `decoder_layer` runs them
KINDS = ("llama", "olmo2", "qwen2", "qwen3")


def is_of_kinds(model) -> bool:
    """Whether a model is transformers' own of KINDS: code that another brings along may do more under the same name."""
    kind = model.config.model_type
    return kind in KINDS and type(model).__module__ == f"transformers.models.{kind}.modeling_{kind}"


def decoder_layer(layer, hidden: Tensor, cosine_sine: tuple[Tensor, Tensor], current) -> Tensor:
    """Output [1, w, hidden size] of a decoder layer at the wanted tokens, from its whole input [1, t, hidden size].

    cosine_sine: [1, t, head size] of the rotary embedding.  current: the Pass; of the tokens that it does not want keys and
    values alone are computed.
    """
    wanted = current.packed.wanted  # [w]
    attention = layer.self_attn
    post_norm = attention.config.model_type == "olmo2"  # OLMo 2 norms what a block gives, the others what it takes
    inputs = hidden if post_norm else layer.input_layernorm(hidden)
    cosine, sine = cosine_sine
    query = _heads(attention, "q", attention.q_proj(inputs[:, wanted]))
    query = _rotate(query, cosine[:, wanted], sine[:, wanted])  # [1, heads, w, d]
    key = _rotate(_heads(attention, "k", attention.k_proj(inputs)), cosine, sine)  # [1, heads, t, d]
    value = _heads(attention, "v", attention.v_proj(inputs))  # [1, heads, t, d]
    hidden = hidden[:, wanted]  # [1, w, hidden size]
    if not len(wanted):  # prefixes: nothing is read off them but keys and values
        current.kept[attention.layer_idx] = (key, value)
        return hidden
    out = current.attend(attention.layer_idx, query, key, value, attention.scaling, tail=True)
    out = attention.o_proj(out.flatten(2))  # [1, w, hidden size] from [1, w, heads, d]
    if post_norm:
        hidden = hidden + layer.post_attention_layernorm(out)
        return hidden + layer.post_feedforward_layernorm(layer.mlp(hidden))
    hidden = hidden + out
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def _heads(attention, which: str, projected: Tensor) -> Tensor:
    """Queries, keys or values [1, heads, t, d] before rotation, from [1, t, heads x d]."""
    norm, of_all = getattr(attention, f"{which}_norm", None), attention.config.model_type == "olmo2"
    if norm and of_all:  # OLMo 2 norms all heads of a token together, Qwen3 each
        projected = norm(projected)
    heads = projected.unflatten(-1, (-1, attention.head_dim))  # [1, t, heads, d]
    return (norm(heads) if norm and not of_all else heads).transpose(1, 2)


def _rotate(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary embedding of [1, heads, t, d] as the Llama family writes it."""
    first, second = states.chunk(2, -1)
    turned = torch.cat((-second, first), -1)
    return (states * cosine.unsqueeze(1) + turned * sine.unsqueeze(1)).to(states.dtype)


class LaidOutLayer:
    """A decoder layer for all tokens of a pass, its parts bound once: equal but for the order of sums, and in fewer calls.

    product: makes one function of linear layers that multiply the same states, [..., sum of outs] of [..., in].
    """

    def __init__(self, layer, product: Callable):
        attention, mlp = layer.self_attn, layer.mlp
        self.kind, self.index = attention.config.model_type, attention.layer_idx
        self.scaling, self.size = attention.scaling, attention.head_dim
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.heads = [projection.out_features // self.size for projection in projections]
        self.project, self.put_out = product(*projections), product(attention.o_proj)
        self.gates, self.put_down = product(mlp.gate_proj, mlp.up_proj), product(mlp.down_proj)
        self.activate = mlp.act_fn
        names = ("input_layernorm", "post_attention_layernorm", "post_feedforward_layernorm")
        self.norms = [_norm(getattr(layer, name)) for name in names if hasattr(layer, name)]
        self.head_norms = [_norm(getattr(attention, name)) for name in ("q_norm", "k_norm") if hasattr(attention, name)]

    def __call__(self, hidden: Tensor, cosine_sine: tuple[Tensor, Tensor], current) -> Tensor:
        """[1, t, hidden size] of [1, t, hidden size]; further arguments as in `decoder_layer`."""
        first, second = self.norms
        if self.kind == "olmo2":
            hidden = first(self._attend(hidden, cosine_sine, current)).add_(hidden)
            return second(self._feed(hidden)).add_(hidden)
        hidden = self._attend(first(hidden), cosine_sine, current).add_(hidden)
        return self._feed(second(hidden)).add_(hidden)

    def _attend(self, states: Tensor, cosine_sine: tuple[Tensor, Tensor], current) -> Tensor:
        heads = self.project(states)[0].unflatten(-1, (-1, self.size))  # [t, heads of q, k and v, d]
        turned, value = heads.split([sum(self.heads[:2]), self.heads[2]], 1)
        if self.head_norms:
            both = zip(self.head_norms, turned.split(self.heads[:2], 1), strict=True)
            turned = torch.cat([self._normed(norm, heads) for norm, heads in both], 1)
        cosine, signed_sine = current.rotation(cosine_sine)  # [t, 1, d] each
        turned = torch.addcmul(turned * cosine, turned.roll(self.size // 2, -1), signed_sine).to(turned.dtype)
        query, key = turned.split(self.heads[:2], 1)  # [t, heads, d] each
        query, key, value = (some.transpose(0, 1)[None] for some in (query, key, value))  # [1, heads, t, d]
        return self.put_out(current.attend(self.index, query, key, value, self.scaling).flatten(2))

    def _normed(self, norm: Callable, heads: Tensor) -> Tensor:
        """Queries or keys [t, heads, d]: OLMo 2 norms all heads of a token together, Qwen3 each."""
        return norm(heads.flatten(1)).view_as(heads) if self.kind == "olmo2" else norm(heads)

    def _feed(self, states: Tensor) -> Tensor:
        gate, up = self.gates(states).chunk(2, -1)  # [1, t, intermediate size] each
        return self.put_down(self.activate(gate).mul_(up))


def _norm(norm) -> Callable[[Tensor], Tensor]:
    """An RMSNorm of transformers as one call."""
    options = {"normalized_shape": norm.weight.shape, "weight": norm.weight, "eps": norm.variance_epsilon}
    return functools.partial(torch.rms_norm, **options)
