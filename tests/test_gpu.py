"""What only a GPU runs: on one where there is one, else by stand-ins, and in a CUDA build of torch on tensors without values."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from msft.generation import steps
from msft.loss import losses as loss_module
from msft.loss.losses import TokenLosses, make_passes
from msft.loss.tokens import Tokens
from msft.packing import attention, rows
from msft.packing.rows import Row, pack

ROWS = [[7, 3, 9, 4], [5, 5, 8, 2, 6, 1], [9, 1, 4, 4, 3, 2, 8, 8], [3, 2, 2, 9, 1, 6, 5, 4, 7]]
CASES = [(6, 6, True, False), (6, 6, False, False), (6, 13, False, False), (6, 13, False, True), (1, 13, False, True)]


def states(tokens: int, heads: int, device, dtype) -> torch.Tensor:
    """[2, tokens, heads, 16]."""
    return torch.randn(2, tokens, heads, 16, dtype=torch.float32).to(device, dtype)


def mask_of(m: int, n: int, device, dtype) -> torch.Tensor:
    """[2, 1, m, n] of rows that see other numbers of keys."""
    seen = torch.tensor([n - 2, n - 5])[:, None] - torch.arange(m).flip(0)  # [2, m]
    hidden = torch.arange(n) > seen.clamp(min=0)[..., None]  # [2, m, n]
    return torch.zeros(hidden.shape).masked_fill(hidden, -torch.inf)[:, None].to(device, dtype)


def kernel_of_a_gpu(query, key, value, bias, compute_log_sumexp, dropout_p, is_causal, *, scale):
    """As torch's, with what it asks of its inputs and how it fills up its sums."""
    b, heads, m, _ = query.shape
    assert key.shape[1] == value.shape[1] == heads and compute_log_sumexp and not dropout_p
    if bias is not None:
        assert bias.shape == (b, heads, m, key.shape[2]) and bias.dtype == query.dtype
        assert all(step % 8 == 0 for step in bias.stride()[:-1]) and bias.stride(-1) == 1
    out, lse = attention._anywhere(query, key, value, bias, is_causal, scale)
    return out, torch.nn.functional.pad(lse, (0, -m % 32), value=torch.inf), None, None


@pytest.mark.parametrize("heads", [2, 6])
@pytest.mark.parametrize(("m", "n", "causal", "masked"), CASES)
def test_the_fused_kernel_is_given_what_it_takes(monkeypatch, m, n, causal, masked, heads):
    monkeypatch.setattr(torch.ops.aten, "_scaled_dot_product_efficient_attention", kernel_of_a_gpu)
    query, key, value = states(m, heads, "cpu", torch.float32), *(states(n, 2, "cpu", torch.float32) for _ in "kv")
    arguments = query, key, value, mask_of(m, n, "cpu", torch.float32) if masked else None, causal, 0.25
    wanted = attention.partial(*arguments)
    monkeypatch.setattr(attention, "_on_processor", attention._on_gpu)
    for found, right in zip(attention.partial(*arguments), wanted, strict=True):
        torch.testing.assert_close(found, right)


@pytest.mark.parametrize(
    ("change", "is_right"),
    [
        (lambda out, lse: (out, lse), True),
        (lambda out, lse: (out, lse * 1.4427), False),  # sums of another base
        (lambda out, lse: (out * 1.01, lse), False),
        (lambda out, lse: (out.detach(), lse), False),  # no gradients
    ],
)
def test_the_fused_kernel_is_taken_where_it_was_shown_equal(monkeypatch, change, is_right):
    def kernel(*arguments, **options):
        out, lse, *rest = kernel_of_a_gpu(*arguments, **options)
        return *change(out, lse), *rest

    monkeypatch.setattr(torch.ops.aten, "_scaled_dot_product_efficient_attention", kernel)
    # as it is first asked for, in an evaluation or in mixed precision
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = attention.is_fused.__wrapped__(torch.device("cpu"), torch.float32, 16)
    assert found is is_right


def test_attention_written_out_keeps_its_precision_under_autocast():
    inputs = [states(6, 2, "cpu", torch.float32).transpose(1, 2) for _ in "qkv"]
    wanted = attention._anywhere(*inputs, None, True, 0.25)
    with torch.autocast("cpu", torch.bfloat16):
        found = attention._anywhere(*inputs, None, True, 0.25)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == torch.float32 and torch.equal(one, other)


def test_a_device_without_the_fused_kernel_goes_without():
    assert attention.is_fused(torch.device("cpu"), torch.float64, 16) is False


@pytest.fixture
def no_values(monkeypatch):
    """Tensors of a GPU that is not there: shapes, types and devices are checked, nothing is computed."""
    if not torch.version.cuda:
        pytest.skip("this torch is built without CUDA")
    monkeypatch.setattr(attention, "is_fused", lambda *_: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    for module in (rows, loss_module):
        monkeypatch.setattr(module, "on_device", lambda array, device: torch.from_numpy(array).to(device))
    tensor = torch.tensor
    monkeypatch.setattr(torch, "tensor", lambda data, device=None, **kwargs: tensor(data, **kwargs).to(device or "cpu"))
    with FakeTensorMode():
        yield


def model_of(kind: str, dtype: torch.dtype):
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {"vocab_size": 50, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    config = AutoConfig.for_model(kind, **shape, num_attention_heads=4, num_key_value_heads=2)
    with torch.device("cuda"):
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "olmo2", "llama", "gemma"])
def test_answers_on_a_gpu_have_the_right_shapes(no_values, kind, dtype):
    model = model_of(kind, dtype).eval()
    with attention.packed_attention(model), torch.no_grad():
        prefixes = attention.prefix_layers(model, ROWS[:2])
        some = [Row(ids, 4, i // 2, range(2, len(ids))) for i, ids in enumerate(ROWS)]
        some[-1] = Row(ROWS[-1], 4, 1, range(4, 9), branches=((5, 7), (7, 9)))
        logits = attention.wanted_logits(model, attention.Pass(pack(some, model.device, dtype), prefixes))
        assert logits.shape == (sum(len(row.wanted) for row in some), 50) and logits.device.type == "cuda"
        texts = [
            steps.Text(steps.Item(ids, [], lambda out: False, 5), Row(ids[:-1], prefix=i // 2), [7], [])
            for i, ids in enumerate(ROWS)
        ]
        first = attention.Pass(pack([text.row for text in texts], model.device, dtype), prefixes)
        attention.wanted_states(model, first)
        groups = [steps.taken_out(first, texts, part).widened(20) for part in ([0, 2], [1, 3])]
        step = steps._Step(model, prefixes, groups, [[1, 2], [3], [4, 5, 6], [1]])
        assert attention.wanted_logits(model, step).shape == (7, 50)


@pytest.mark.parametrize(("dtype", "mixed"), [(torch.bfloat16, False), (torch.float32, False), (torch.float32, True)])
@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "olmo2", "llama"])
def test_losses_on_a_gpu_have_the_right_shapes(no_values, monkeypatch, kind, dtype, mixed):
    monkeypatch.setattr("msft.loss.losses.why_not_trained_packed", lambda model: "")  # it reads values
    model, examples = model_of(kind, dtype), [Tokens(tuple(ids), 2) for ids in ROWS]
    losses = TokenLosses(model, 4, 16, mixed)
    batches = list(make_passes(examples, 4, 16, model, mixed=mixed))
    assert len(batches) > 1
    for batch in batches:
        loss, tokens = losses._of_tokens(batch)
        assert (loss.shape, tokens.shape, tokens.dtype) == ((), batch.targets.shape, torch.float32)
        assert loss.requires_grad and tokens.device.type == "cuda"


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("size", [24, 64, 128])
def test_the_fused_kernel_is_shown_equal_on_a_gpu(dtype, size):
    assert attention.is_fused(torch.device("cuda"), dtype, size)


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("heads", [2, 6])
@pytest.mark.parametrize(("m", "n", "causal", "masked"), CASES)
def test_attention_on_a_gpu_is_that_of_a_processor(m, n, causal, masked, heads):
    torch.manual_seed(1)
    inputs = [states(m, heads, "cpu", torch.float32), *(states(n, 2, "cpu", torch.float32) for _ in "kv")]
    mask = mask_of(m, n, "cpu", torch.float32) if masked else None
    wanted = attention.partial(*inputs, mask, causal, 0.25)
    found = attention.partial(*(x.cuda() for x in inputs), mask if mask is None else mask.cuda(), causal, 0.25)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.cpu(), other, atol=1e-3, rtol=1e-3)


@gpu
@pytest.mark.gpu
def test_packed_losses_and_gradients_on_a_gpu_are_those_of_padded_rows(tiny_model):
    model = tiny_model[0].float().cuda()
    examples, found = [Tokens(tuple(ids), 2) for ids in ROWS], []
    for path in ("packed", "padded: for this test"):
        losses = TokenLosses(model, 4, 16384)
        losses.path = path
        loss, sums = losses.gradients(examples)
        found.append([loss, sums, *(parameter.grad for parameter in model.parameters())])
        model.zero_grad(set_to_none=True)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
