"""On one device: attention by the fused kernel and written out, and packed and padded passes of training against fp32."""

import copy
import random
import statistics
import time

import torch
from training import made_up_rows

from msft.loss.losses import TokenLosses
from msft.packing import attention

# (rows, queries, keys, causal): what a block of rows reads of itself, and what all tokens of a pass read of a prefix
READS = {"rows of 120 tokens": (64, 120, 120, True), "a prefix of 500 tokens": (1, 8192, 500, False)}
HEADS, GROUPS, SIZE = 14, 2, 64  # of Qwen2.5 0.5B


def milliseconds(device, function, rounds: int = 10) -> float:
    """Median time of a function with all that it started on the device."""

    def once() -> float:
        wait(device)
        started = time.perf_counter()
        function()
        wait(device)
        return time.perf_counter() - started

    once()
    return 1000 * statistics.median(once() for _ in range(rounds))


def wait(device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def kernels(device) -> dict[str, dict]:
    """{what is read and in which type: times in milliseconds, and differences to attention written out in fp32}."""
    reads = READS if device.type == "cuda" else {name: (1, m // 8, n // 8, c) for name, (_, m, n, c) in READS.items()}
    return {
        f"{name}, {dtype}": kernel(device, getattr(torch, dtype), *read)
        for name, read in reads.items()
        for dtype in ("bfloat16", "float32")
    }


def kernel(device, dtype: torch.dtype, b: int, m: int, n: int, causal: bool) -> dict:
    """The kernel that attention takes here beside attention written out, for [b, heads, m or n, size]."""
    torch.manual_seed(20)
    query = torch.randn(b, HEADS, m, SIZE, device=device, dtype=dtype)
    key, value = (torch.randn(b, HEADS, n, SIZE, device=device, dtype=dtype) for _ in "kv")
    inputs, how = (query, key, value), (None, causal, SIZE**-0.5)
    is_fused = attention.is_fused(device, dtype, SIZE)
    function = attention._on_gpu if is_fused else attention._anywhere
    out, sums = function(*inputs, *how)
    exact, exact_sums = attention._anywhere(*(x.float() for x in inputs), *how)
    case = {"shown equal": is_fused, "plain": milliseconds(device, lambda: attention._anywhere(*inputs, *how))}
    case |= {"fused": milliseconds(device, lambda: function(*inputs, *how))} if is_fused else {}
    return case | {"out": float((out.float() - exact).abs().max()), "sums": float((sums - exact_sums).abs().max())}


def passes(shape: dict, device) -> dict[str, dict]:
    """Relative errors of losses and gradients of one step in bf16, packed and padded, against padded rows in fp32."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(20)
    config = AutoConfig.for_model("qwen2", **shape, pad_token_id=0, eos_token_id=0, bos_token_id=None)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).train()
    rows = random.Random(20).sample(made_up_rows(64, config.vocab_size), 32)
    sums, gradients = step(model, rows, "padded: it is the reference")
    half, found = copy.deepcopy(model).bfloat16(), {"losses of examples": {}, "gradients": {}}
    for name, path in (("packed", "packed"), ("padded", "padded: it is the peer")):
        other, theirs = step(half, rows, path)
        found["losses of examples"][name] = float((other - sums).norm() / sums.norm())
        apart = sum(float((a.float() - b).square().sum()) for a, b in zip(theirs, gradients, strict=True))
        found["gradients"][name] = (apart / sum(float(b.square().sum()) for b in gradients)) ** 0.5
    return found


def step(model, rows, path: str):
    """(summed token losses [n], gradients) of one step."""
    losses = TokenLosses(model, 4, 16384)
    if path == "packed" != losses.path:
        raise RuntimeError(f"not trained packed: {losses.path}")
    losses.path = path
    _, sums = losses.gradients(rows)
    gradients = [parameter.grad for parameter in model.parameters()]
    model.zero_grad(set_to_none=True)
    return sums, gradients
