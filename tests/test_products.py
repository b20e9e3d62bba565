"""Weights laid out for matrix products: what a model answers stays what it was, and so does the model."""

import copy
import warnings

import pytest
import torch
from helpers import KINDS, make_model, requests
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from torch.nn.utils import prune

from msft.config import RunConfig
from msft.generation import PrefixCachedLM
from msft.packing import products
from msft.packing.attention import Pass, packed_attention, wanted_logits
from msft.packing.layers import LaidOutLayer
from msft.packing.probe import why_not_packed, why_not_trained_packed
from msft.packing.products import laid_out, served
from msft.packing.rows import Row, pack


@pytest.fixture(autouse=True)
def small_models_too(monkeypatch):
    monkeypatch.setattr(products, "FEWEST", 1)


def changed(model):
    """Names of the modules that multiply in another way."""
    return {
        name for name, module in model.named_modules() if {"forward", "laid_out", "is_laid_out"} & set(vars(module))
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 2, 59])  # few are padded
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_as_near_to_the_exact_ones_as_those_of_plain_weights(kind, tokens, dtype, monkeypatch):
    model, ids, calls = make_model(kind).to(dtype).eval(), torch.arange(1, 60)[:tokens] % 50, []
    plain_call = LaidOutLayer.__call__
    monkeypatch.setattr(LaidOutLayer, "__call__", lambda self, *given: calls.append(self) or plain_call(self, *given))

    def logits(model):
        packed = pack([Row(ids.tolist(), wanted=range(tokens))], model.device, model.dtype)
        with torch.inference_mode(), packed_attention(model):
            return wanted_logits(model, Pass(packed, [])).double()

    exact, plain = logits(copy.deepcopy(model).double()), logits(model)
    with laid_out(model):
        assert {"lm_head", "model.layers.0", "model.layers.1.self_attn.q_proj"} < changed(model)
        assert not calls
        found = logits(model)
    assert len(calls) == len(model.model.layers) - 1  # all but the last, which runs for few tokens
    assert (found - exact).square().mean() <= 2 * (plain - exact).square().mean()
    assert not changed(model)


def test_weights_that_have_changed_count_the_next_time():
    model, ids = make_model().eval(), torch.arange(1, 9)[None]
    with torch.inference_mode():
        with laid_out(model):
            before = model(ids).logits
        model.lm_head.weight.mul_(2)
        with laid_out(model):
            assert not torch.allclose(model(ids).logits, before, rtol=1e-3)


def test_gradients_are_asked_of_the_plain_layers():
    model, ids = make_model().train(), torch.arange(1, 30)[None]
    other = copy.deepcopy(model)
    model(ids, labels=ids).loss.backward()
    with laid_out(other):
        other(ids, labels=ids).loss.backward()
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fallback_multiplies_with_blocks_in_every_layer(kind):
    model, ids = make_model(kind).eval(), torch.arange(1, 30)[None]
    linear = {name for name, module in model.named_modules() if type(module) is torch.nn.Linear}
    with torch.inference_mode():
        plain = model(ids).logits
        with laid_out(model, packed=False):
            assert changed(model) == {"", *linear}
            torch.testing.assert_close(model(ids).logits, plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("why", ["sampling", "window"])
def test_where_hflm_answers_nothing_is_laid_out_for_packed_passes(why, tokenizer, monkeypatch):
    seen, plain_call = [], PrefixCachedLM._model_generate
    monkeypatch.setattr(
        PrefixCachedLM, "_model_generate", lambda lm, *a, **k: seen.append(changed(lm.model)) or plain_call(lm, *a, **k)
    )
    window = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1} if why == "window" else {}
    model, asked = make_model("qwen2", **window), requests(["Q: 1?"])
    if why == "sampling":
        asked[0].args[1].update(do_sample=True, temperature=0.5)
    with pytest.warns(UserWarning, match="HFLM"):
        PrefixCachedLM(model, tokenizer).generate_until(asked)
    if why == "window":  # as a run measures it
        with served(model, RunConfig(method="sft")), pytest.warns(UserWarning, match="HFLM"):
            PrefixCachedLM(model, tokenizer).generate_until(asked)
    assert len(seen) == 1 + (why == "window")
    assert all({"model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"} < names for names in seen)


@pytest.mark.parametrize("kind", KINDS)
def test_packed_passes_are_shown_equal_there_too(kind):
    model = make_model(kind)
    with laid_out(model):
        assert why_not_packed(model) == why_not_trained_packed(model) == ""


def test_no_tokens_and_another_precision_go_through_the_plain_layer():
    model = make_model()
    layer, size = model.lm_head, model.config.hidden_size
    with laid_out(model), torch.inference_mode():
        assert "forward" in vars(layer)
        assert layer(torch.zeros(1, 0, size)).shape == (1, 0, 400)
        layer.double()
        assert layer(torch.ones(2, size, dtype=torch.float64)).dtype == torch.float64


def test_the_model_is_itself_again_behind_an_error_and_nothing_is_laid_out_twice(monkeypatch):
    model = make_model()
    with pytest.raises(ZeroDivisionError), laid_out(model):
        inner = vars(model.lm_head)["forward"]
        with laid_out(model):
            assert vars(model.lm_head)["forward"] is inner
        assert vars(model.lm_head)["forward"] is inner
        raise ZeroDivisionError
    assert not changed(model)
    monkeypatch.setattr(products, "FEWEST", 10**9)
    with laid_out(model):
        assert not changed(model)
    monkeypatch.setattr(products, "FEWEST", 1)
    with laid_out(model.double()):  # a precision that oneDNN does not have
        assert not changed(model)


def test_texts_and_log_likelihoods_are_hflm_s(taught):
    model, tokenizer = taught
    lm, stock = PrefixCachedLM(model, tokenizer), HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4)
    prompts = [f"Q: {i}+{i}=?\nA:" for i in range(12)]
    asked = requests(prompts, docs=["#### 4"] * 12)
    assert lm.generate_until(asked) == stock.generate_until(asked, disable_tqdm=True)
    pairs = [Instance("loglikelihood", {}, (prompt, " #### 4"), 0) for prompt in prompts]
    ours, theirs = lm.loglikelihood(pairs, disable_tqdm=True), stock.loglikelihood(pairs, disable_tqdm=True)
    assert [value for value, _ in ours] == pytest.approx([value for value, _ in theirs], abs=1e-4)
    assert not changed(model)


def hook(layer):
    """Steers what a layer's MLP says, as studies of activations do."""
    layer.mlp.register_forward_hook(lambda part, given, out: out + 2 * torch.linspace(-1, 1, out.shape[-1]))


def own_class(layer):
    class Half(type(layer.mlp)):
        def forward(self, states):
            return super().forward(states) / 2

    layer.mlp.__class__ = Half


def own_forward(layer):
    inner = layer.input_layernorm.forward
    layer.input_layernorm.forward = lambda states: 2 * inner(states)


def pruned(layer):
    layer.mlp = torch.nn.Identity()


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("change", [hook, own_class, own_forward, pruned])
def test_what_a_user_put_into_a_layer_stays_in_it(change, number, tokenizer):
    plain, model = (make_model("llama", num_hidden_layers=3) for _ in range(2))
    change(model.model.layers[number])
    asked = [Instance("loglikelihood", {}, (f"Q: {i} + 1?\nA:", " #### 4"), 0) for i in range(5)]

    def values(lm):
        return [value for value, _ in lm.loglikelihood(asked, disable_tqdm=True)]

    with warnings.catch_warnings(action="ignore"):  # of the last layer it is seen that it is another: HFLM answers
        found = values(PrefixCachedLM(model, tokenizer))
    assert found == pytest.approx(values(HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1)), abs=1e-3)
    assert found != pytest.approx(values(PrefixCachedLM(plain, tokenizer)), abs=1e-2)


@pytest.mark.parametrize(
    "made", [torch.nn.utils.weight_norm, lambda part: prune.random_unstructured(part, "weight", 0.3)]
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_that_each_pass_makes_anew_are_those_of_now(made, tokenizer):
    """torch's pruning and weight_norm: the weight that lies in the layer between two passes is the former one's."""
    model = make_model("llama", num_hidden_layers=3)
    for layer in model.model.layers:
        made(layer.mlp.up_proj)
    asked = [Instance("loglikelihood", {}, (f"Q: {i} + 1?\nA:", " #### 4"), 0) for i in range(5)]
    lm = PrefixCachedLM(model, tokenizer)
    before = [value for value, _ in lm.loglikelihood(asked)]
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(-1.5)
    now = [value for value, _ in lm.loglikelihood(asked)]
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1).loglikelihood(asked, disable_tqdm=True)
    assert now == pytest.approx([value for value, _ in theirs], abs=1e-3)
    assert now != pytest.approx(before, abs=1e-2)


def test_another_s_code_under_a_known_name_runs_as_it_is(tokenizer):
    """Llama with dropout behind every block, say: evaluations run its own layers, training pads."""
    kind = type(make_model("llama"))
    model = make_model("llama")
    model.__class__ = type("Own", (kind,), {"__module__": "own"})
    asked = requests([f"Q: {i} + 1?\nA: " for i in range(5)])
    lm = PrefixCachedLM(model, tokenizer)
    assert lm.path == "packed"
    with laid_out(model):
        assert "model.layers.0" not in changed(model)
    assert lm.generate_until(asked) == HFLM(pretrained=model, tokenizer=tokenizer).generate_until(
        asked, disable_tqdm=True
    )
    assert why_not_trained_packed(model).endswith("not llama with code of its own")
