"""Attention over packed rows, with a shared prefix that is read in place.

A token attends to its own row up to itself, and to all of its row's prefix. The two are attentions of their own,
merged by the logarithm of their sums of exponentials, so the keys and values of a prefix are never copied to the
rows that share it. transformers calls it in every layer of a model, through its AttentionInterface.
"""

import contextlib
import functools
import inspect
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import AttentionInterface

from msft.errors import ModelError
from msft.packing.layers import decoder_layer, is_of_kinds
from msft.packing.rows import Packed, Reads, Row, pack

NAME = "msft_packed"
_log = logging.getLogger(__name__)

# of a fused kernel to attention written out, relative and absolute
_CLOSE_KERNELS = {torch.bfloat16: 5e-2, torch.float16: 1e-2}

Layers = dict[int, tuple[Tensor, Tensor]]  # keys and values [1, heads, t, d] of every layer


@dataclass
class Pass:
    """What the attention of every layer needs in one pass; kept: keys and values of the pass's own tokens."""

    packed: Packed
    prefixes: Sequence[Layers]
    kept: Layers = field(default_factory=dict)
    _rotation: tuple[Tensor, Tensor] | None = None

    def rotation(self, cosine_sine: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Cosines, and sines whose first half is negative, [t, 1, d]: made by the first layer that asks."""
        if self._rotation is None:
            cosine, (left, right) = cosine_sine[0], cosine_sine[1].chunk(2, -1)  # [1, t, d], [1, t, d / 2] each
            self._rotation = cosine[0, :, None], torch.cat((-left, right), -1)[0, :, None]
        return self._rotation

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, tail: bool = False) -> Tensor:
        """[1, q, heads, d] for query [1, heads, q, d], key and value [1, heads, t, d].

        tail: the queries are the wanted tokens, not all of them.
        """
        self.kept[layer] = (key, value)
        reads = self.packed.tail if tail else self.packed.body
        q, k, v = (tokens_first(x) for x in (query, key, value))  # [q, heads, d], [t, heads, d] twice
        outs, sums = zip(*attend_blocks(q, k, v, reads, scale), strict=True)
        out = torch.cat([out.flatten(0, 1) for out in outs])[reads.home]  # [q, heads, d]
        lse = torch.cat([lse.flatten(0, 1) for lse in sums])[reads.home]  # [q, heads]
        return self.with_prefix(layer, q, out, lse, reads.segments, scale).unsqueeze(0)

    def with_prefix(self, layer: int, query: Tensor, out: Tensor, lse: Tensor, segments, scale: float) -> Tensor:
        """Adds what query tokens [t, heads, d] read from their prefixes to what they read from their own rows."""
        for first, last, prefix in segments:
            keys, values = (tokens_first(x)[None] for x in self.prefixes[prefix][layer])  # [1, prefix, heads, d]
            far, far_lse = partial(query[None, first:last], keys, values, None, False, scale)
            share = torch.sigmoid(far_lse[0] - lse[first:last]).unsqueeze(-1).to(out.dtype)  # [segment, heads, 1]
            out[first:last] = torch.lerp(out[first:last], far[0], share)
        return out


def tokens_first(states: Tensor) -> Tensor:
    """[t, heads, d] from [1, heads, t, d]."""
    return states[0].transpose(0, 1)


def attend_blocks(query: Tensor, key: Tensor, value: Tensor, reads: Reads, scale: float) -> list[tuple[Tensor, Tensor]]:
    """`partial` of each block's rows, [b, m, heads, d] and [b, m, heads], from all tokens [t, heads, d]."""
    # all blocks through one index: backward adds a gradient of all tokens up for each
    sizes = [block.b * block.m for block in reads.blocks], [block.b * block.n for block in reads.blocks]
    queries = query[reads.queries].split(sizes[0])  # [b x m, heads, d] each
    keys, values = (states[reads.keys].split(sizes[1]) for states in (key, value))  # [b x n, heads, d] each
    return [
        partial(*(x.unflatten(0, (block.b, -1)) for x in states), block.mask, block.mask is None, scale)
        for block, *states in zip(reads.blocks, queries, keys, values, strict=True)
    ]


def partial(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scale: float):
    """Attention and the logarithm of its sum of exponentials: [b, m, heads, d] and [b, m, heads].

    query: [b, m, heads, d]; key, value: [b, n, heads or a divisor of them, d]; mask: [b, 1, m, n], added.
    """
    repeats = query.shape[2] // key.shape[2]
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))  # [b, heads, m or n, d]
    shape = query.shape
    if repeats > 1 and causal:
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    elif repeats > 1:  # the queries that share keys as further rows of one head: nothing is copied but queries
        query = query.reshape(shape[0], -1, repeats * shape[2], shape[3])  # [b, heads of the keys, repeats x m, d]
        mask = mask if mask is None or mask.shape[2] == 1 else mask.repeat(1, 1, repeats, 1)
    kernel = _on_processor if query.device.type == "cpu" else _anywhere
    if query.device.type == "cuda" and is_fused(query.device, query.dtype, shape[-1]):
        kernel = _on_gpu
    out, lse = kernel(query, key, value, mask, causal, scale)
    return out.reshape(shape).transpose(1, 2), lse.reshape(shape[:3]).transpose(1, 2)


def _on_processor(query, key, value, mask, causal: bool, scale: float):
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return kernel(query, key, value, 0.0, causal, attn_mask=mask, scale=scale)


def _on_gpu(query, key, value, mask, causal: bool, scale: float):
    if mask is not None:  # it wants a mask of its dtype for every head, whose rows begin at multiples of eight numbers
        n = mask.shape[-1]
        mask = pad(mask.to(query.dtype), (0, -n % 8))[..., :n].expand(*query.shape[:3], n)
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    out, lse, *_ = kernel(query, key, value, mask, True, 0.0, causal, scale=scale)
    return out, lse[..., : query.shape[2]]  # it fills up to a multiple of 32 queries


def _anywhere(query, key, value, mask, causal: bool, scale: float):
    # the products in the precision of the states, as in a kernel
    with torch.autocast(query.device.type, enabled=False):
        scores = torch.matmul(query * scale, key.transpose(2, 3)).float()  # [b, heads, m, n]
        if causal:
            scores = scores + torch.full(scores.shape[-2:], -torch.inf, device=scores.device).triu(1)
        elif mask is not None:
            scores = scores + mask
        lse = torch.logsumexp(scores, -1)  # [b, heads, m]
        return torch.matmul((scores - lse.unsqueeze(-1)).exp().to(value.dtype), value), lse


@functools.cache
def is_fused(device: torch.device, dtype: torch.dtype, size: int) -> bool:
    """Whether the fused kernel of a GPU was shown to attend as `_anywhere` does, gradients included, in heads of `size`."""
    close = _CLOSE_KERNELS.get(dtype, 1e-3)

    def states(tokens: int, phase: float) -> Tensor:
        numbers = torch.arange(2 * 3 * tokens * size, device=device).add(phase).mul(0.7).sin()
        return numbers.view(2, 3, tokens, size).to(dtype).requires_grad_()  # [b, heads, tokens, d]

    try:
        with torch.inference_mode(False), torch.enable_grad():
            mask = torch.full((2, 1, 5, 11), -torch.inf, device=device, dtype=dtype).triu(7)
            for n, case in ((5, (None, True)), (11, (None, False)), (11, (mask, False))):
                inputs = states(5, 0.1), states(n, 0.2), states(n, 0.3)
                results = [[*kernel(*inputs, *case, 0.3)] for kernel in (_on_gpu, _anywhere)]
                for tensors in results:  # output and sums, and the gradients of query, key and value
                    tensors.extend(torch.autograd.grad(tensors[0].square().sum(), inputs))
                pairs = zip(*results, strict=True)
                if not all(torch.allclose(one.float(), other.float(), close, close) for one, other in pairs):
                    raise RuntimeError("it gave other values than attention written out")
    except RuntimeError as error:  # it has none for this device, dtype or size, too
        _log.warning("attention goes without the fused kernel on %s, %s, heads of %d: %s", device, dtype, size, error)
        return False
    return True


def refuse_twists(module, options: Mapping) -> None:
    """Raises ModelError for an attention that is more than softmax over all earlier tokens."""
    for twist in ("softcap", "s_aux", "position_bias", "sliding_window"):
        if options.get(twist) is not None:
            raise ModelError(f"{type(module).__name__} attends with {twist}")


def _attention(module, query, key, value, attention_mask, *, scaling: float, current: Pass, **kwargs):
    """The attention function that transformers calls in every layer."""
    refuse_twists(module, kwargs)
    return current.attend(module.layer_idx, query, key, value, scaling), None


AttentionInterface.register(NAME, _attention)


@contextlib.contextmanager
def evaluating(model):
    """Evaluation mode; the model's training mode comes back at the end."""
    with contextlib.ExitStack() as undo:
        undo.callback(model.train, model.training)
        model.eval()
        yield


@contextlib.contextmanager
def packed_attention(model):
    """Within it, the model's layers attend as their `Pass` says, and the last one runs for wanted tokens alone.

    Those that are laid out (products.py) run so, where no gradients are asked for. What was compiled runs as it was written.
    Raises ModelError for a last layer whose forward somebody replaced: accelerate's hooks, say.
    """
    ours = {}
    if is_of_kinds(model):
        *others, last = model.base_model.layers
        if "forward" in vars(last):
            raise ModelError("its last layer has a forward of its own in place of its class's")
        laid_out = [] if torch.is_grad_enabled() else [layer for layer in others if "laid_out" in vars(layer)]
        ours = {**{layer: layer.laid_out for layer in laid_out}, last: functools.partial(decoder_layer, last)}
    with contextlib.ExitStack() as undo:
        undo.callback(setattr, model.config, "_attn_implementation", model.config._attn_implementation)
        model.config._attn_implementation = NAME
        for layer, function in ours.items():
            layer.forward = functools.partial(_forward, layer, function)
            undo.callback(delattr, layer, "forward")
        if "torch._dynamo" in sys.modules:  # to load it takes a second
            undo.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def _forward(layer, function, hidden_states, *, position_embeddings, current: Pass, **kwargs) -> Tensor:
    refuse_twists(layer.self_attn, vars(layer.self_attn))
    return function(hidden_states, position_embeddings, current)


def wanted_states(model, current: Pass) -> Tensor:
    """Last hidden states [w, hidden size] of the wanted tokens; the pass's keys and values are kept in it."""
    hidden = model.base_model(**_inputs(current)).last_hidden_state[0]
    # of KINDS the last layer has run for the wanted tokens alone
    return hidden if is_of_kinds(model) else hidden[current.packed.wanted]


def wanted_logits(model, current: Pass) -> Tensor:
    """Logits [w, vocabulary] of the wanted tokens; those of all other tokens are not computed where the model can."""
    inputs, wanted = _inputs(current), current.packed.wanted
    if is_of_kinds(model):
        return model(**inputs).logits[0]
    if keeps_logits(type(model)):
        return model(**inputs, logits_to_keep=wanted).logits[0]
    return model(**inputs).logits[0, wanted]


def _inputs(current: Pass) -> dict:
    packed = current.packed
    return {"input_ids": packed.ids, "position_ids": packed.positions, "use_cache": False, "current": current}


@functools.cache
def keeps_logits(kind: type) -> bool:
    """Whether a class of models computes logits for asked places alone (`logits_to_keep`)."""
    return "logits_to_keep" in inspect.signature(kind.forward).parameters


def prefix_layers(model, prefixes: Sequence[Sequence[int]]) -> list[Layers]:
    """Keys and values of every prefix, from one pass."""
    packed = pack([Row(tokens) for tokens in prefixes], model.device, model.dtype)
    current = Pass(packed, [])
    wanted_states(model, current)
    return [
        {layer: tuple(x[:, :, first : first + n].contiguous() for x in kv) for layer, kv in current.kept.items()}
        for first, n in zip(packed.starts, packed.lengths, strict=True)
    ]
