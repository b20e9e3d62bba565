"""PrefixCachedLM gives lm-eval's own HFLM's texts and log-likelihoods, at a fraction of its work."""

import contextlib
import copy
import dataclasses
import random
import re
import warnings

import numpy as np
import pytest
import torch
from helpers import KINDS, MAKERS, make_model, mixture_rows, requests, taught_examples
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from msft.data.scoring import decided, score
from msft.errors import ModelError, Stopped
from msft.generation import decoding
from msft.generation.lm import PrefixCachedLM
from msft.generation.prefixes import shared_prefixes
from msft.packing import attention
from msft.store.checkpoints import snapshot


def stock(model, tokenizer, batch_size=4):
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)


def prompts(count=9, shared=True):
    """Prompts of varied lengths, with and without a common beginning."""
    shots = "Q: 1 + 1?\nA: 1 and one. #### 2\n" * 3
    rng = random.Random(count)
    tails = [
        "Q: " + " ".join(str(rng.randint(0, 99)) for _ in range(rng.randint(1, 12))) + "?\nA: " for _ in range(count)
    ]
    return [(shots if shared else "") + tail for tail in tails]


def forwards(model):
    """A list that grows by the batch shape of every forward pass of the model's body."""
    shapes = []
    handle = model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    return shapes, handle


# generate_until ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("until", [[], ["\n", "7"], [" ", "#"]], ids=["no stop", "stops", "early stops"])
def test_texts_equal_stock(kind, until, tokenizer):
    model = make_model(kind, seed=1)
    wanted = stock(model, tokenizer).generate_until(requests(prompts(), until), disable_tqdm=True)
    assert len(set(wanted)) > 1
    for batch_size in (1, 3, 32):
        assert PrefixCachedLM(model, tokenizer, batch_size).generate_until(requests(prompts(), until)) == wanted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("drafts", ["right", "wrong", "partly right", "long", "special", "mixed"])
def test_drafts_do_not_change_texts(kind, drafts, tokenizer):
    model = make_model(kind, seed=2)
    wanted = stock(model, tokenizer).generate_until(requests(prompts()), disable_tqdm=True)
    texts = {
        "right": wanted,
        "wrong": ["#### 7"] * 9,
        "partly right": [text[: 1 + len(text) // 2] + "zzz" for text in wanted],
        "long": [text * 20 for text in wanted],
        "special": ["<eos>", "<pad>", "a<eos>b", "", " ", "\n", "#", "é", "\U0001f40b"],
    }
    texts["mixed"] = [texts[name][i] for i, name in enumerate([*texts, *texts][:9])]
    docs = [{"target": text} for text in texts[drafts]]
    for batch_size in (1, 3, 32):
        ours = PrefixCachedLM(model, tokenizer, batch_size).generate_until(requests(prompts(), docs=docs))
        assert ours == wanted


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_short_limits(limit, tiny_model):
    model, tokenizer = tiny_model
    docs = [{"target": "#### 12345"}] * 9
    wanted = stock(model, tokenizer).generate_until(requests(prompts(), limit=limit), disable_tqdm=True)
    assert PrefixCachedLM(model, tokenizer).generate_until(requests(prompts(), limit=limit, docs=docs)) == wanted


def test_no_shared_prefix_one_item_equal_items_and_none(tiny_model):
    model, tokenizer = tiny_model
    lm, hf = PrefixCachedLM(model, tokenizer), stock(model, tokenizer)
    for texts in (prompts(shared=False), prompts(1), prompts(1) * 4, ["Q", "Q: a much longer one?\nA: "]):
        assert lm.generate_until(requests(texts)) == hf.generate_until(requests(texts), disable_tqdm=True)
    assert lm.generate_until([]) == []


def test_several_tasks_and_options_in_one_call(tiny_model):
    model, tokenizer = tiny_model
    mixed = [
        *requests(prompts(5), [], 12, task="one"),
        *requests(prompts(4, shared=False), ["\n"], 7, task="two"),
        *requests(prompts(3), ["9"], 20, [{"answer": "5"}] * 3, task="one"),
    ]
    random.Random(0).shuffle(mixed)
    wanted = stock(model, tokenizer).generate_until(mixed, disable_tqdm=True)
    for batch_size in (1, 2, 64):
        assert PrefixCachedLM(model, tokenizer, batch_size).generate_until(mixed) == wanted


def test_prompts_longer_than_the_model(tokenizer):
    model = make_model(max_position_embeddings=64)
    assert max(len(tokenizer.encode(p)) for p in prompts()) > 64
    wanted = stock(model, tokenizer, 1).generate_until(requests(prompts()), disable_tqdm=True)
    assert PrefixCachedLM(model, tokenizer).generate_until(requests(prompts())) == wanted
    with pytest.raises(ModelError, match="leaves no room"):
        PrefixCachedLM(model, tokenizer).generate_until(requests(prompts(), limit=64))


def test_tokenizer_that_adds_bos(tokenizer):
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing(single="<pad> $A", special_tokens=[("<pad>", 0)])
    with_bos = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<pad>", eos_token="<eos>", pad_token="<pad>"
    )
    model = make_model("llama", seed=3)
    for texts in (prompts(), ["<pad>" + text for text in prompts()]):
        wanted = stock(model, with_bos).generate_until(requests(texts), disable_tqdm=True)
        assert PrefixCachedLM(model, with_bos).generate_until(requests(texts)) == wanted


def test_model_with_several_ends(taught):
    """Chat models end a text with more than one token: generation_config.eos_token_id is a list."""
    model, tokenizer = copy.deepcopy(taught[0]), taught[1]
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.encode("####")[0]]
    texts = [prompt for prompt, _ in taught_examples()]
    wanted = stock(model, tokenizer).generate_until(requests(texts), disable_tqdm=True)
    assert wanted != stock(taught[0], tokenizer).generate_until(requests(texts), disable_tqdm=True)
    assert PrefixCachedLM(model, tokenizer).generate_until(requests(texts)) == wanted


def test_a_model_that_answers(taught):
    """Accepted drafts, refused drafts and ends of text all occur, and the texts are stock's."""
    model, tokenizer = taught
    parts = {
        task: taught_examples()[first : first + 7] for task, first in (("zebras", 0), ("adding", 7), ("mottos", 14))
    }
    targets = [target for pairs in parts.values() for _, target in pairs]

    def asked(texts):
        texts = iter(texts)
        return [
            request
            for task, pairs in parts.items()
            for request in requests([p for p, _ in pairs], docs=[next(texts) for _ in pairs], task=task)
        ]

    wanted = stock(model, tokenizer).generate_until(asked(targets), disable_tqdm=True)
    assert sum(w == t for w, t in zip(wanted, targets, strict=True)) > 15  # it has learnt them, and to stop there
    shapes, handle = forwards(model)
    try:
        for size in (1, 3, 32):
            lm = PrefixCachedLM(model, tokenizer, size)
            passes = 1 + -(-20 // size)  # all prefixes in one pass, and one pass a batch, whatever tasks are in it
            shapes.clear()
            assert lm.generate_until(asked(wanted)) == wanted
            assert len(shapes) == passes  # every draft was taken whole, EOS too
            lengths = [len(tokenizer.encode(text)) + 1 for text in wanted]
            assert sum(lm.generated_tokens.values()) == sum(lengths)
            assert set(lm.generated_tokens) == set(parts)
            questions = [shape[1] for shape in shapes[1:]]
            shapes.clear()
            assert lm.generate_until(asked(["#### wrong"] * 10 + wanted[10:])) == wanted
            assert len(shapes) > passes
            # what was refused went on by tokens, or by several where a draft went on
            assert len(shapes) - passes <= sum(lengths[:10]) / min(size, 10) + max(lengths[:10])
            assert sum(questions) <= sum(len(tokenizer.encode(p)) for pairs in parts.values() for p, _ in pairs) / 2
    finally:
        handle.remove()


def test_stop_when_decided_keeps_every_score(taught):
    model, tokenizer = taught
    items = [(name, e) for name in MAKERS for e in mixture_rows(name, "test")]
    texts = [taught_examples()[0][0].rsplit("Q: ", 1)[0] + f"Q: {e.question}\nA: " for _, e in items]
    # a model that does not know when to stop: EOS never comes, so only the decision ends a text
    endless = copy.deepcopy(model)
    with torch.no_grad():
        endless.lm_head.weight[tokenizer.eos_token_id] = 0.0
        newline = tokenizer.encode("\n")[0]
        endless.lm_head.weight[newline] = model.lm_head.weight[tokenizer.eos_token_id]
    docs = [{"target": e.target} for _, e in items]
    for subject in (model, endless):
        whole = PrefixCachedLM(subject, tokenizer).generate_until(requests(texts, limit=40, docs=docs))
        lm = PrefixCachedLM(subject, tokenizer, stop_when=decided)
        short = lm.generate_until(requests(texts, limit=40, docs=docs))
        answers = [e.answer for _, e in items]
        assert [score(t, a) for t, a in zip(short, answers, strict=True)] == [
            score(t, a) for t, a in zip(whole, answers, strict=True)
        ]
        assert all(w.startswith(s) for w, s in zip(whole, short, strict=True))
    assert sum(map(len, short)) < sum(map(len, whole))


# log-likelihood ---------------------------------------------------------------------------------------------


def pair_requests(pairs):
    return [Instance("loglikelihood", {}, pair, 0, ("t", i, 1)) for i, pair in enumerate(pairs)]


PAIRS = [
    *[(p, a) for p in prompts(6) for a in (" yes", "7", " a longer continuation #### 12")],
    *[(p, " x") for p in prompts(4, shared=False)],
    ("", "no context at all"),
    ("a", "b"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_loglikelihood_equals_stock(kind, tokenizer):
    model = make_model(kind, seed=4)
    wanted = stock(model, tokenizer).loglikelihood(pair_requests(PAIRS), disable_tqdm=True)
    for batch_size in (1, 3, 32):
        ours = PrefixCachedLM(model, tokenizer, batch_size).loglikelihood(pair_requests(PAIRS))
        assert [v for v, _ in ours] == pytest.approx([v for v, _ in wanted], abs=1e-4)
        assert [g for _, g in ours] == [g for _, g in wanted]


def test_loglikelihood_of_greedy_answers(taught):
    model, tokenizer = taught
    pairs = [
        (("", ""), tokenizer.encode(p), [*tokenizer.encode(t), tokenizer.eos_token_id]) for p, t in taught_examples()
    ]
    wanted = stock(model, tokenizer)._loglikelihood_tokens(pairs, disable_tqdm=True)
    ours = PrefixCachedLM(model, tokenizer)._loglikelihood_tokens(pairs)
    assert sum(g for _, g in wanted) > 15
    assert [g for _, g in ours] == [g for _, g in wanted]
    assert [v for v, _ in ours] == pytest.approx([v for v, _ in wanted], abs=1e-4)


# batches, prefixes and stopping -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*KINDS, "mistral"])
def test_texts_equal_stock_with_several_prefixes_in_a_batch(kind, tokenizer, monkeypatch):
    """Tasks of different shots, items of very different lengths, passes of few tokens."""
    window = {"sliding_window": None} if kind == "mistral" else {}
    model = make_model(kind, seed=6, **window)
    texts = [f"Q: task {n} has shots.\nA: {n} #### {n}\n" * 3 + tail for n in range(4) for tail in prompts(5, False)]
    texts += ["Q", "Q: " + "a long question of its own " * 9 + "\nA: "]
    docs = [{"target": f"#### {i}"} for i in range(len(texts))]
    wanted = stock(model, tokenizer).generate_until(requests(texts), disable_tqdm=True)
    for tokens in (40, 1024):
        monkeypatch.setattr(decoding, "PASS_TOKENS", {"cpu": tokens})
        for size in (2, 32):
            lm = PrefixCachedLM(model, tokenizer, size)
            assert len(lm.prepare(requests(texts)).batches.prefixes) == 4
            assert lm.generate_until(requests(texts, docs=docs)) == wanted


def test_prepared_requests_serve_other_weights_and_repeats_bit_by_bit(tokenizer):
    model, other = make_model(seed=7), make_model(seed=8)
    lm = PrefixCachedLM(model, tokenizer)
    prepared = lm.prepare(requests(prompts(), docs=["#### 7"] * 9))
    first = lm.answer(prepared)
    model.load_state_dict(other.state_dict())
    changed = lm.answer(prepared)
    assert [answer.text for answer in changed] == stock(other, tokenizer).generate_until(
        requests(prompts()), disable_tqdm=True
    )
    assert changed != first
    scores = lm.loglikelihood(pair_requests(PAIRS))
    lm.generate_until(requests(prompts(4)))
    assert lm.loglikelihood(pair_requests(PAIRS)) == scores
    assert lm.answer(prepared) == changed


def test_the_models_own_attention_comes_back(tiny_model):
    model, tokenizer = tiny_model
    implementation = model.config._attn_implementation
    tokens = torch.tensor([[3, 4, 5]])
    before = model(input_ids=tokens).logits
    lm = PrefixCachedLM(model, tokenizer, 2)
    lm.generate_until(requests(prompts()))
    lm.should_stop = True
    with pytest.raises(Stopped):
        lm.generate_until(requests(prompts()))
    assert model.config._attn_implementation == implementation
    assert torch.equal(model(input_ids=tokens).logits, before)


@pytest.mark.parametrize("call", ["generate", "loglikelihood"])
def test_stops_between_batches_and_the_next_call_is_whole(call, tokenizer):
    model = make_model(seed=9)
    lm = PrefixCachedLM(model, tokenizer, 2)

    def asked():
        return lm.generate_until(requests(prompts())) if call == "generate" else lm.loglikelihood(pair_requests(PAIRS))

    wanted = asked()
    shapes, handle = forwards(model)
    try:
        asked()
        whole = len(shapes)
        for passes in (0, 1, 3, whole - 1):
            shapes.clear()
            lm.should_stop = lambda passes=passes: len(shapes) >= passes
            with pytest.raises(Stopped):
                asked()
            assert len(shapes) == passes
            lm.should_stop = None
            assert asked() == wanted
    finally:
        handle.remove()


@pytest.mark.parametrize("heads", [4, 2])
@pytest.mark.parametrize("how", ["causal", "mask", "all"])
def test_attention_anywhere_is_the_processors(how, heads):
    """The two ways to attend, on a processor and on any other device."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(3, 5, n, 8, generator=generator) for n in (4, heads, heads))
    mask = torch.zeros(3, 1, 5, 5).masked_fill(torch.ones(5, 5).triu(2) == 1, -torch.inf) if how == "mask" else None
    here = attention.partial(q, k, v, mask, how == "causal", 0.3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "_on_processor", attention._anywhere)
        anywhere = attention.partial(q, k, v, mask, how == "causal", 0.3)
    for a, b in zip(here, anywhere, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kernel", ["_on_processor", "_anywhere"])
@pytest.mark.parametrize("masked", [None, 1, 5], ids=["all", "one mask for all queries", "a mask for each"])
def test_grouped_queries_attend_as_with_repeated_keys(masked, kernel, monkeypatch):
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(3, n, heads, 8, generator=generator) for n, heads in ((5, 6), (7, 2), (7, 2)))
    monkeypatch.setattr(attention, "_on_processor", getattr(attention, kernel))
    mask = None
    if masked:
        seen = torch.rand(3, 1, masked, 7, generator=generator) < 0.6
        mask = torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)
        mask[..., 0] = 0  # every query reads something
    grouped = attention.partial(q, k, v, mask, False, 0.3)
    repeated = attention.partial(q, *(x.repeat_interleave(3, 2) for x in (k, v)), mask, False, 0.3)
    for a, b in zip(grouped, repeated, strict=True):
        torch.testing.assert_close(a, b)


def test_half_precision(tokenizer):
    model = make_model("llama", seed=10).bfloat16()
    lm = PrefixCachedLM(model, tokenizer)
    assert lm.path == "packed"
    wanted = stock(model, tokenizer).loglikelihood(pair_requests(PAIRS), disable_tqdm=True)
    assert [v for v, _ in lm.loglikelihood(pair_requests(PAIRS))] == pytest.approx([v for v, _ in wanted], rel=0.1)
    assert len(lm.generate_until(requests(prompts(), docs=["#### 7"] * 9))) == 9


def test_a_model_whose_attention_has_a_twist_falls_back(tokenizer):
    shape = {"head_dim": 8, "layer_types": ["full_attention"] * 2, "attn_logit_softcapping": 1.0}
    model = make_model("gemma2", seed=11, **shape)
    with pytest.warns(UserWarning, match="softcap"):
        lm = PrefixCachedLM(model, tokenizer)
    wanted = stock(model, tokenizer).generate_until(requests(prompts()), disable_tqdm=True)
    assert lm.generate_until(requests(prompts())) == wanted


def test_choices_of_an_item_are_one_row(tiny_model):
    """The question goes through the model once for all its choices, the shots once for all items."""
    model, tokenizer = tiny_model
    lm = PrefixCachedLM(model, tokenizer)
    pairs = [(p, a) for p in prompts(6) for a in (" yes", " maybe", " a longer one", " yes")]
    shapes, handle = forwards(model)
    try:
        lm.loglikelihood(pair_requests(pairs))
    finally:
        handle.remove()
    contexts = [tokenizer.encode(p) for p in prompts(6)]
    longest = sum(len(tokenizer.encode(a)) for a in (" yes", " maybe", " a longer one"))
    shared = shapes[0][1]
    assert len(shapes) == 2
    assert shapes[1][1] <= sum(len(c) - shared + longest for c in contexts)


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([[1] * 50 + [i] for i in range(4)], [(50, {0, 1, 2, 3})]),
        ([[1] * 50 + [i] for i in range(2)] + [[2] * 60 + [i] for i in range(2)], [(50, {0, 1}), (60, {2, 3})]),
        # two tasks that begin with the same words keep their own, longer prefixes
        ([[9] * 10 + [k] * 90 + [i] for k in (1, 2) for i in range(3)], [(100, {0, 1, 2}), (100, {3, 4, 5})]),
        ([[1, 2, 3], [1, 2, 4]], [(0, {0, 1})]),  # too short to be worth it
        ([[1] * 34, [1] * 34], [(33, {0, 1})]),  # the last token stays with its row
        ([[1] * 33, [1] * 33], [(0, {0, 1})]),  # saves no more than a group costs
        ([[1] * 20] * 4 + [[1, 2]], [(19, {0, 1, 2, 3}), (0, {4})]),
        ([[1] * 90], [(0, {0})]),
        ([], []),
    ],
)
def test_shared_prefixes(rows, wanted):
    groups = shared_prefixes(rows)
    assert [(len(prefix), set(members)) for prefix, members in groups] == wanted
    for prefix, members in groups:
        assert all(rows[i][: len(prefix)] == prefix and len(prefix) < len(rows[i]) for i in members)


def test_rows_of_ever_longer_beginnings_are_grouped_at_once():
    rows = [[1] * n + [2] for n in range(1, 1500)]
    groups = shared_prefixes(rows[::-1])
    assert sorted(i for _, members in groups for i in members) == list(range(len(rows)))
    assert sum(len(prefix) * (len(members) - 1) for prefix, members in groups) > 400_000


# what must stay as it was -----------------------------------------------------------------------------------


def random_states():
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("call", ["generate", "loglikelihood"])
def test_mode_random_states_and_weights_are_left_alone(tokenizer, training, call):
    model = make_model(attention_dropout=0.5)
    lm = PrefixCachedLM(model, tokenizer)
    model.train(training)
    before, weights = random_states(), snapshot(model)
    if call == "generate":
        lm.generate_until(requests(prompts()))
    else:
        lm.loglikelihood(pair_requests(PAIRS))
    assert model.training == training
    assert all(module.training == training for module in model.modules())
    assert random_states() == before
    assert all(torch.equal(w, weights[n]) for n, w in snapshot(model).items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_making_one_for_a_model_in_training_mode(tokenizer):
    model = make_model(attention_dropout=0.5).train()
    before = random_states()
    lm = PrefixCachedLM(model, tokenizer)
    assert random_states() == before
    assert lm.path == "packed"
    assert model.training


def test_dropout_is_off_while_generating(tokenizer):
    model = make_model(attention_dropout=0.5)
    wanted = PrefixCachedLM(model, tokenizer).generate_until(requests(prompts()))
    assert PrefixCachedLM(model.train(), tokenizer).generate_until(requests(prompts())) == wanted


def test_mode_comes_back_after_an_error(tiny_model):
    model, tokenizer = tiny_model
    lm = PrefixCachedLM(model.train(), tokenizer, draft_of=lambda request: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        lm.generate_until(requests(prompts()))
    assert model.training
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_training_goes_on_after_generating(tiny_model):
    model, tokenizer = tiny_model
    PrefixCachedLM(model, tokenizer).generate_until(requests(prompts()))
    model(input_ids=torch.tensor([[3, 4, 5]]), labels=torch.tensor([[3, 4, 5]])).loss.backward()
    assert all(p.grad is not None for p in model.parameters())


# models that cannot share a cache ---------------------------------------------------------------------------

SLIDING = {
    "mistral": {"sliding_window": 8},
    "gemma2": {"sliding_window": 8, "head_dim": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "qwen2": {
        "use_sliding_window": True,
        "sliding_window": 8,
        "max_window_layers": 1,
        "layer_types": ["full_attention", "sliding_attention"],
    },
}


def sliding_lm(kind, tokenizer, **shape):
    model = make_model(kind, seed=5, **SLIDING[kind], **shape)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lm = PrefixCachedLM(model, tokenizer, 3)
    return model, lm, [str(w.message) for w in caught if "HFLM" in str(w.message)]


@pytest.mark.parametrize(
    "kind",
    [
        "mistral",
        "gemma2",
        "qwen2",
    ],
)
def test_sliding_window_falls_back_with_equal_texts(kind, tokenizer):
    model, lm, said = sliding_lm(kind, tokenizer)
    assert len(said) == 1
    assert "HFLM" in said[0]
    wanted = stock(model, tokenizer, 3).generate_until(requests(prompts()), disable_tqdm=True)
    assert lm.generate_until(requests(prompts(), docs=[{"target": w} for w in wanted])) == wanted
    wanted = stock(model, tokenizer, 3).loglikelihood(pair_requests(PAIRS), disable_tqdm=True)
    assert [v for v, _ in lm.loglikelihood(pair_requests(PAIRS))] == pytest.approx([v for v, _ in wanted], abs=1e-4)


def test_fallback_leaves_mode_alone_and_has_dropout_off(tokenizer):
    model, lm, _ = sliding_lm("gemma2", tokenizer, attention_dropout=0.5)
    wanted = lm.generate_until(requests(prompts()))
    pairs = lm.loglikelihood(pair_requests(PAIRS))
    model.train()
    assert lm.generate_until(requests(prompts())) == wanted
    assert lm.loglikelihood(pair_requests(PAIRS)) == pairs
    assert model.training


def test_fallback_counts_generated_tokens(tokenizer):
    _, lm, _ = sliding_lm("gemma2", tokenizer)
    lm.generate_until(requests(prompts(), limit=5))
    assert lm.generated_tokens.get("t", 0) > 0


def test_rolling_has_dropout_off(tokenizer):
    model = make_model(attention_dropout=0.5)
    lm = PrefixCachedLM(model, tokenizer)
    text = [Instance("loglikelihood_rolling", {}, (prompts(1)[0],), 0, ("t", 0, 1))]
    wanted = lm.loglikelihood_rolling(text)
    model.train()
    assert lm.loglikelihood_rolling(text) == wanted


# options ----------------------------------------------------------------------------------------------------


def with_options(**options):
    every = {"until": [], "max_gen_toks": 6, **options}
    return [Instance("generate_until", {}, (prompt, dict(every)), 0, ("t", i, 1)) for i, prompt in enumerate(prompts())]


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True, "temperature": 0.7},
        {"repetition_penalty": 3.0},
        {"num_beams": 3},
        {"no_repeat_ngram_size": 1},
        {"suppress_tokens": list(range(5, 200))},
        {"min_new_tokens": 6},
        {"begin_suppress_tokens": list(range(3, 300))},
    ],
    ids=lambda options: "-".join(options),
)
@pytest.mark.parametrize("where", ["request", "checkpoint"])
def test_options_beyond_greedy_decoding_are_obeyed_as_stock_obeys_them(options, where, tokenizer):
    model = make_model(seed=3)
    greedy = PrefixCachedLM(model, tokenizer).generate_until(with_options(do_sample=False))
    asked = with_options(**options) if where == "request" else with_options()
    if where == "checkpoint":
        model.generation_config.update(**options)
    torch.manual_seed(0)
    wanted = stock(model, tokenizer, 4).generate_until(asked, disable_tqdm=True)
    torch.manual_seed(0)
    lm = PrefixCachedLM(model, tokenizer, 4)
    is_ignored = where == "checkpoint" and "do_sample" in options  # stock decodes greedily where a request says nothing
    with (
        contextlib.nullcontext() if is_ignored else pytest.warns(UserWarning, match="go through lm-eval's HFLM, since")
    ):
        assert lm.generate_until(asked) == wanted
    assert is_ignored or "min_new_tokens" in options or wanted != greedy


@pytest.mark.parametrize("falls_back", [False, True])
def test_a_misspelt_option_names_the_nearest(falls_back, tokenizer):
    lm = sliding_lm("gemma2", tokenizer)[1] if falls_back else PrefixCachedLM(make_model(), tokenizer)
    with pytest.raises(ModelError, match="'repetition_penlty'. Did you mean 'repetition_penalty'"):
        lm.generate_until(with_options(repetition_penlty=1.2))


@pytest.mark.parametrize("until", [None, 5, ["a", None], ("a",)])
@pytest.mark.parametrize("falls_back", [False, True])
def test_a_stop_that_is_no_text_is_named(until, falls_back, tokenizer):
    """An `until:` with nothing behind it in a task file is None."""
    lm = sliding_lm("gemma2", tokenizer)[1] if falls_back else PrefixCachedLM(make_model(), tokenizer)
    with pytest.raises(ModelError, match=re.escape(f"until = {until!r}; give a text or a list of texts")):
        lm.generate_until(with_options(until=until))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_lenght": 16}, "unknown option of HFLM 'max_lenght'. Did you mean 'max_length'"),
        ({"load_in_4bit": True}, "unknown option of HFLM 'load_in_4bit'"),
        ({"peft": "folder"}, "peft = 'folder' is of a model that HFLM loads itself"),
    ],
)
def test_an_option_that_a_live_model_would_not_heed_is_an_error(options, words, tokenizer):
    with pytest.raises(ModelError, match=re.escape(words)):
        PrefixCachedLM(make_model(), tokenizer, **options)
    PrefixCachedLM(make_model(), tokenizer, peft=None, device="cpu", dtype="auto")  # what they say is so


@pytest.mark.parametrize("name", ["max_gen_toks", "max_new_tokens"])
@pytest.mark.parametrize("limit", [0, -1])
@pytest.mark.parametrize("falls_back", [False, True])
def test_a_limit_below_one_token_is_named(name, limit, falls_back, tokenizer):
    lm = sliding_lm("gemma2", tokenizer)[1] if falls_back else PrefixCachedLM(make_model(), tokenizer)
    asked = [Instance("generate_until", {}, ("Q: 1?", {"until": [], name: limit}), 0, ("t", 0, 1))]
    with pytest.raises(ModelError, match=f"max_gen_toks {limit} asks for no token"):
        lm.generate_until(asked)


@pytest.mark.parametrize("limit", [2, 11])  # fewer and more than the six that are asked for
def test_a_checkpoint_s_limit_goes_before_a_request_s_as_in_stock(limit, tokenizer):
    model = make_model(seed=3)
    greedy = PrefixCachedLM(model, tokenizer).generate_until(with_options())
    model.generation_config.max_new_tokens = limit
    wanted = stock(model, tokenizer, 4).generate_until(with_options(), disable_tqdm=True)
    assert wanted != greedy
    lm = PrefixCachedLM(model, tokenizer)
    with pytest.warns(UserWarning, match=f"max_new_tokens = {limit}, which goes before max_gen_toks = 6"):
        assert lm.generate_until(with_options()) == wanted
    assert set(lm.generated_tokens.values()) == {limit * len(wanted)}


@pytest.mark.parametrize("end", ["1", [1, "2"], 1.5])
@pytest.mark.parametrize("falls_back", [False, True])
def test_an_end_that_is_no_token_id_is_named(end, falls_back, tokenizer):
    lm = sliding_lm("gemma2", tokenizer)[1] if falls_back else PrefixCachedLM(make_model(), tokenizer)
    lm.model.generation_config.eos_token_id = end
    with pytest.raises(ModelError, match=f"eos_token_id = {re.escape(repr(end))}, .* a number or a list of numbers"):
        lm.generate_until(with_options())


@pytest.mark.parametrize("method", ["foo", None])
def test_an_unknown_quantization_is_named(method, tokenizer):
    model = make_model()
    model.config.quantization_config = {"quant_method": method, "bits": 4}
    with pytest.raises(ModelError, match=f"quant_method = {method!r}, .* delete quantization_config"):
        PrefixCachedLM(model, tokenizer)


@pytest.mark.parametrize("name", ["max_new_tokens", "max_tokens", "max_completion_tokens"])
def test_every_name_of_the_most_tokens_is_known_and_packed(name, tiny_model):
    model, tokenizer = tiny_model
    asked = [Instance("generate_until", {}, (p, {"until": [], name: 5}), 0, ("t", 0, 1)) for p in prompts()]
    lm = PrefixCachedLM(model, tokenizer)
    assert lm.generate_until(asked) == stock(model, tokenizer).generate_until(asked, disable_tqdm=True)
    assert sum(lm.generated_tokens.values()) == 5 * len(asked)
    with warnings.catch_warnings(action="error"):
        lm.prepare(asked)


def test_options_that_only_hflm_knows_send_all_to_it(tiny_model):
    model, tokenizer = tiny_model
    answer = stock(model, tokenizer).generate_until(requests(prompts()), disable_tqdm=True)[0]
    options = {"think_end_token": answer[2]}  # all up to its last place is cut off
    with pytest.warns(UserWarning, match="made with think_end_token"):
        lm = PrefixCachedLM(model, tokenizer, 4, **options)
    hf = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, **options)
    wanted = hf.generate_until(requests(prompts()), disable_tqdm=True)
    assert answer not in wanted
    assert lm.generate_until(requests(prompts())) == wanted


# requests as tasks really make them -------------------------------------------------------------------------


def pair(context, continuation):
    return Instance("loglikelihood", {}, (context, continuation), 0, ("t", 0, 1))


def test_many_continuations_of_an_empty_context_are_rows_of_their_own(tokenizer):
    model = make_model(seed=4)
    asked = [pair("", text[:60]) for text in prompts(9)] * 4
    lm = PrefixCachedLM(model, tokenizer)
    shapes, handle = forwards(model)
    try:
        scores = lm.loglikelihood(asked)
    finally:
        handle.remove()
    wanted = stock(model, tokenizer, 1).loglikelihood(asked, disable_tqdm=True)
    assert [v for v, _ in scores] == pytest.approx([v for v, _ in wanted], abs=1e-3)
    assert max(n for _, n in shapes) <= 1024


@pytest.mark.parametrize(
    ("context", "continuation"),
    [([], [5, 6]), ([3, 4], []), ([3], [5] * 2000)],
    ids=["context", "continuation", "long"],
)
def test_a_request_without_tokens_is_named_whatever_stands_beside_it(context, continuation, tokenizer):
    lm = PrefixCachedLM(make_model(), tokenizer)
    beside = (("a", "b"), [3, 4], [5])
    with pytest.raises(ModelError, match="'mine'"):
        lm._loglikelihood_tokens([beside, (("mine", "b"), context, continuation), beside])


def test_documents_that_are_no_mappings_have_no_draft(tokenizer):
    model = make_model()
    wanted = stock(model, tokenizer).generate_until(requests(prompts(2)), disable_tqdm=True)
    asked = [dataclasses.replace(r, doc=doc) for r, doc in zip(requests(prompts(2)), ("a text", 7), strict=True)]
    assert PrefixCachedLM(model, tokenizer).generate_until(asked) == wanted


def test_a_stop_that_is_a_special_token_ends_each_row_at_any_batch_size(tokenizer):
    """Also where HFLM decodes: it looks for stops in texts, and special tokens are not in them."""
    model = make_model(seed=6)
    greedy = PrefixCachedLM(model, tokenizer).generate_until(requests(prompts(), limit=12))
    word = tokenizer.encode(greedy[0], add_special_tokens=False)[2]
    special = copy.deepcopy(tokenizer)
    special.add_special_tokens({"additional_special_tokens": [tokenizer.convert_ids_to_tokens(word)]})
    stop = special.convert_ids_to_tokens(word)
    texts = {}
    for size in (1, 5):
        lm = PrefixCachedLM(model, special, size)
        texts["packed", size] = lm.generate_until(requests(prompts(), [stop], limit=12))
        lm.path = "HFLM: as asked"
        texts["stock", size] = lm.generate_until(requests(prompts(), [stop], limit=12))
    assert len({tuple(answers) for answers in texts.values()}) == 1


def test_an_end_that_a_request_names_takes_no_eos_away_at_any_batch_size(tokenizer):
    model, special = make_model(seed=9), copy.deepcopy(tokenizer)
    greedy = PrefixCachedLM(model, tokenizer).generate_until(requests(prompts(), limit=12))
    word = tokenizer.encode(greedy[0], add_special_tokens=False)[2]
    special.add_special_tokens({"eos_token": tokenizer.convert_ids_to_tokens(word)})
    asked = with_options(max_gen_toks=12, eos_token_id=tokenizer.eos_token_id)
    wanted = stock(model, special, 1).generate_until(asked, disable_tqdm=True)
    assert len(wanted[0]) < len(greedy[0])
    for size in (1, 5):
        with pytest.warns(UserWarning, match="it asks for eos_token_id"):
            assert PrefixCachedLM(model, special, size).generate_until(asked) == wanted


def test_answers_go_to_the_cache_as_they_come(tokenizer):
    lm, kept = PrefixCachedLM(make_model(), tokenizer), []
    lm.cache_hook.add_partial = lambda *row: kept.append(row)
    asked = requests(prompts(3))
    texts = lm.generate_until(asked)
    lm.loglikelihood([pair("a", "b")])
    assert [row[:1] + row[2:] for row in kept[:3]] == [("generate_until", text) for text in texts]
    assert kept[3][:2] == ("loglikelihood", ("a", "b"))


def test_prompts_that_are_cut_are_counted_once(tokenizer):
    lm = PrefixCachedLM(make_model(max_position_embeddings=32), tokenizer)
    with pytest.warns(UserWarning, match="9 prompts were longer than 16 tokens") as caught:
        lm.generate_until(requests(prompts(9), limit=16))
    assert len([w for w in caught if "cut off" in str(w.message)]) == 1


def test_the_callers_tokenizer_gets_no_padding_token(tokenizer):
    bare = copy.deepcopy(tokenizer)
    bare.pad_token = None
    PrefixCachedLM(make_model(), bare)
    assert bare.pad_token is None


@pytest.mark.parametrize("size", ["auto", 3])
def test_batch_size_and_chat_template_as_hflm_has_them(size, tokenizer):
    chats = copy.deepcopy(tokenizer)
    chats.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    model = make_model()
    lm = PrefixCachedLM(model, chats, size)
    assert lm.apply_chat_template([{"role": "user", "content": "hi"}]) == "user: hi\n"
    wanted = stock(model, tokenizer).generate_until(requests(prompts()), disable_tqdm=True)
    assert lm.generate_until(requests(prompts())) == wanted


# through simple_evaluate ------------------------------------------------------------------------------------


def test_simple_evaluate(taught, monkeypatch):
    import lm_eval
    import lm_eval.evaluator
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks import TaskManager

    monkeypatch.setattr(lm_eval.evaluator, "add_env_info", lambda results: None)  # it asks pip, for long
    own_tasks = TaskManager(include_defaults=False)  # lm-eval's own are thousands of files to read
    model, tokenizer = taught
    rows = [{"prompt": p, "target": t} for p, t in taught_examples()]

    def accuracy(lm):
        task = ConfigurableTask(
            config={
                "task": "small",
                "test_split": "test",
                "output_type": "generate_until",
                "doc_to_text": "prompt",
                "doc_to_target": "target",
                "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)},
                "generation_kwargs": {"until": ["\n"], "max_gen_toks": 24, "do_sample": False},
                "process_results": lambda doc, texts: {"acc": float(texts[0] == doc["target"])},
                "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
            }
        )
        results = lm_eval.simple_evaluate(model=lm, tasks=[task], bootstrap_iters=0, task_manager=own_tasks)
        return results["results"]["small"]["acc,none"], [s["resps"] for s in results["samples"]["small"]]

    ours = accuracy(PrefixCachedLM(model, tokenizer))
    assert ours == accuracy(stock(model, tokenizer))
    assert ours[0] > 0.7
