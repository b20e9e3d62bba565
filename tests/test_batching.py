"""Tokens and masks, the exact loss weights, the order of a run, batches under a budget, the evaluation grid."""

import copy
import random
import unicodedata

import numpy as np
import pytest
import torch
from helpers import FakeEvaluator, make_model, make_trainer
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from msft.data.example import Example, target_text, training_text
from msft.data.mixture import Mixture, SubDataset
from msft.errors import ModelError
from msft.loss.losses import TokenLosses, make_passes, split_evenly
from msft.loss.tokens import Tokens, deal_out, fit_mixture, loss_weights, tokenize
from msft.packing.probe import why_not_trained_packed
from msft.seeds import order, quarter_ends


def random_rows(count, seed=0, vocabulary=50):
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        length = rng.randint(2, 40)
        ids = tuple(rng.randrange(2, vocabulary) for _ in range(length))
        rows.append(Tokens(ids, rng.randint(1, length - 1)))
    return rows


# the loss ---------------------------------------------------------------------------------------------------


def literal_loss(model, rows, group):
    """The protocol's words: mean over groups of the mean over a group's unmasked tokens, one example at a time."""
    means = []
    for first in range(0, len(rows), group):
        losses = []
        for row in rows[first : first + group]:
            ids = torch.tensor([row.ids])
            log_probs = torch.log_softmax(model(input_ids=ids).logits[0], -1)
            losses += [-log_probs[place - 1, row.ids[place]] for place in range(row.start, len(row.ids))]
        means.append(torch.stack(losses).mean())
    return torch.stack(means).mean()


def gradients(model):
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return grads


@pytest.mark.parametrize(("count", "group"), [(16, 4), (10, 4), (3, 4), (7, 3), (5, 1), (6, 64), (1, 4)])
@pytest.mark.parametrize("budget", [16, 90, 10**6])
@pytest.mark.parametrize("packed", [True, False])
def test_weighted_sum_has_the_literal_loss_and_gradient(tmp_path, count, group, budget, packed):
    model = make_model(vocabulary=50).double()
    rows = random_rows(count, seed=count)
    trainer, _ = make_trainer(
        tmp_path,
        model,
        examples={"a": rows},
        evaluators={"test": FakeEvaluator(["a"])},
        loss_group=group,
        token_budget=budget,
    )
    assert trainer.losses.path == "packed"
    trainer.losses.path = "packed" if packed else "padded: as asked"
    literal = literal_loss(model, rows, group)
    literal.backward()
    literal = literal.detach()
    expected = gradients(model)
    loss, sums = trainer.gradients(rows)
    ours = gradients(model)
    assert float(loss) == pytest.approx(float(literal), rel=1e-12)
    assert expected.keys() == ours.keys()
    for name, wanted in expected.items():
        torch.testing.assert_close(ours[name], wanted, rtol=1e-6, atol=1e-13)
    assert sums.tolist() == pytest.approx(
        [float(literal_loss(model, [row], 1).detach()) * row.targets for row in rows], rel=1e-12
    )


def test_weights_sum_to_one():
    rows = random_rows(11)
    assert sum(w * row.targets for w, row in zip(loss_weights(rows, 4), rows, strict=True)) == pytest.approx(1.0)


def test_loss_is_not_token_weighted():
    rows = [Tokens((2, 3), 1), Tokens(tuple(range(2, 12)), 1)]
    assert loss_weights(rows, 1) == [0.5, 0.5 / 9]
    assert loss_weights(rows, 2) == [0.1, 0.1]


# batches ----------------------------------------------------------------------------------------------------


def test_batches_hold_every_target_once_padded_on_the_right():
    rows, pad = random_rows(13), 0
    batches = list(make_passes(rows, 4, 60, make_model(), padded=True))
    assert len(batches) > 2
    seen = {}
    for batch in batches:
        places = batch.rows
        assert (places.ids[places.rows, places.columns + 1] == batch.targets).all()
        for r, line in enumerate(places.ids.tolist()):
            mine = places.rows == r
            position = batch.examples[mine].unique().item()
            row = rows[position]
            assert tuple(line[: len(row.ids)]) == row.ids
            assert set(line[len(row.ids) :]) <= {pad}
            assert places.columns[mine].tolist() == list(range(row.start - 1, len(row.ids) - 1))
            assert position not in seen
            seen[position] = batch.weights[mine].tolist()
    weights = loss_weights(rows, 4)
    for position, seen_weights in seen.items():
        assert seen_weights == pytest.approx([weights[position]] * rows[position].targets)
    assert sorted(seen) == list(range(len(rows)))


@given(st.lists(st.integers(1, 300), max_size=80), st.integers(1, 1000))
@example([], 16)
@example([17], 16)
def test_batches_keep_to_the_budget(lengths, budget):
    batches = deal_out(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= budget
    widest = [max(lengths[i] for i in batch) for batch in batches]
    assert widest == sorted(widest, reverse=True)


# order ------------------------------------------------------------------------------------------------------


def test_order_is_a_pure_function():
    indices = np.arange(100)
    first = order(20, 0, 0, ["a", "b"], indices)
    np.random.seed(1)
    np.random.random(10)
    assert (order(20, 0, 0, ["a", "b"], indices) == first).all()
    assert sorted(first) == list(range(100))
    assert (indices == np.arange(100)).all()


@pytest.mark.parametrize(
    "key", [(21, 0, 0, ["a", "b"]), (20, 1, 0, ["a", "b"]), (20, 0, 1, ["a", "b"]), (20, 0, 0, ["a"])]
)
def test_order_differs_by_each_of_its_arguments(key):
    indices = np.arange(100)
    assert (order(20, 0, 0, ["a", "b"], indices) != order(*key, indices)).any()


def test_order_known_values():
    """Committed: a run's order must not change with a release of this package or of NumPy."""
    assert order(20, 0, 0, ["a", "b"], np.arange(8)).tolist() == ORDER


ORDER = [6, 1, 3, 2, 0, 4, 7, 5]


# the evaluation grid ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "ends"),
    [
        (282, [71, 141, 212, 282]),
        (4, [1, 2, 3, 4]),
        (3, [1, 2, 3, 3]),
        (2, [1, 1, 2, 2]),
        (1, [1, 1, 1, 1]),
        (9, [3, 5, 7, 9]),
    ],
)
def test_quarter_ends(steps, ends):
    assert quarter_ends(steps, 4) == ends


@given(st.integers(1, 5000), st.integers(1, 50))
def test_quarter_ends_rise_to_the_end(steps, evaluations):
    ends = quarter_ends(steps, evaluations)
    assert len(ends) == evaluations
    assert ends == sorted(ends)
    assert ends[0] >= 1
    assert ends[-1] == steps


# tokens and masks -------------------------------------------------------------------------------------------

REAL = {
    "olmo2": ("olmo2_dolma2_tokenizer.json", "<|endoftext|>", "<|pad|>"),
    "qwen2": ("qwen2_tokenizer_converted.json", "<|endoftext|>", "<|endoftext|>"),
}


@pytest.fixture(scope="module", params=["small", *REAL])
def any_tokenizer(request):
    if request.param == "small":
        return request.getfixturevalue("tokenizer")
    file, eos, pad = REAL[request.param]
    path = request.getfixturevalue("shared") / "tokenizers" / file
    return PreTrainedTokenizerFast(tokenizer_file=str(path), eos_token=eos, pad_token=pad)


def composed(text):
    """One form for texts that a tokenizer may normalise (Qwen2: NFC)."""
    return unicodedata.normalize("NFC", text)


def check_mask(tokenizer, item):
    """No token of the prompt alone is in the loss; all of the completion and EOS is."""
    prompt, completion = training_text(item)
    (row,) = tokenize(tokenizer, [item])
    assert row.ids[-1] == tokenizer.eos_token_id
    assert 1 <= row.start < len(row.ids)
    before, learnt = (
        composed(tokenizer.decode(row.ids[: row.start])),
        composed(tokenizer.decode(row.ids[row.start : -1])),
    )
    first = composed(prompt)
    assert before + learnt == composed(prompt + completion)
    # the masked part is prompt alone; at most the token that straddles the boundary is learnt beyond the completion
    assert first.startswith(before)
    assert learnt.endswith(composed(completion))
    assert composed(tokenizer.decode(row.ids[: row.start + 1])) != first
    assert list(row.ids[:-1]) == tokenizer.encode(prompt + completion)


TEXTS = [
    Example("Pick one.\noptions: A. x, B. y", "#### B", "B"),
    Example("What is 2 + 2?", target_text("4", "Two and two.\nThat is <<2+2=4>>4."), "4"),
    Example("q", " #### B", "B"),
    Example("q", "  two spaces", "x"),
    Example("q", "\n#### B", "B"),
    Example("q", "\n\n  #### B", "B"),
    Example("q", "\t#### B", "B"),
    Example("naïve café ☃ 日本語 \U0001f40b", "#### 日本語 \U0001f40b☃", "x"),
    Example("ends in spaces   ", "#### ½ é", "½"),
    Example("combining", "e\u0301 #### a\u030a", "x"),
    Example("Q: nested?\nA: ", "#### Q: x\nA: y", "x"),
    Example("", "#### .", "."),
    Example("numbers 123456", "123456 7 #### 1,234.50", "1,234.50"),
    Example("zero width \u200b", "\u200b#### x", "x"),
    Example("x" * 300, "#" * 40, "x"),
]


@pytest.mark.parametrize("item", TEXTS, ids=range(len(TEXTS)))
def test_mask(any_tokenizer, item):
    check_mask(any_tokenizer, item)


text = st.text(st.characters(exclude_categories=("Cs", "Cn", "Mn", "Mc", "Me", "Co")), max_size=30)


@given(text, text, text.filter(str.strip))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
def test_mask_of_any_text(any_tokenizer, question, rationale, answer):
    item = Example(question, target_text(answer, rationale), answer)
    whole = "".join(training_text(item))
    assume(composed(whole) == whole and "<" not in whole)
    check_mask(any_tokenizer, item)


def test_many_examples_at_once_are_the_same_as_one_by_one(any_tokenizer):
    assert tokenize(any_tokenizer, TEXTS) == [tokenize(any_tokenizer, [item])[0] for item in TEXTS]
    assert tokenize(any_tokenizer, []) == []


def test_many_rows_are_the_rows_one_by_one_and_share_their_token_ids(tokenizer):
    examples = [Example(f"What is {n} + 1?", f"#### {n + 1}", str(n + 1)) for n in range(2050)]
    rows = tokenize(tokenizer, examples)
    assert rows[995:1005] + rows[-60:] == [tokenize(tokenizer, [e])[0] for e in examples[995:1005] + examples[-60:]]
    ids = [i for row in rows for i in row.ids]
    # a row of own objects would take 36 bytes a token, not 8
    assert max(ids) > 256 and len(set(map(id, ids))) == len(set(ids))


def test_tokenizer_that_adds_bos_and_eos_itself(tokenizer):
    from tokenizers import Tokenizer, processors

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing(
        single="<pad> $A <eos>", special_tokens=[("<pad>", 0), ("<eos>", 1)]
    )
    both = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<pad>")
    (bare,), (row,) = tokenize(tokenizer, TEXTS[:1]), tokenize(both, TEXTS[:1])
    assert row.ids == (0, *bare.ids)
    assert row.start == bare.start + 1
    # a prompt would end with it too, and nothing be answered behind it
    mixture = Mixture("one", [SubDataset("a", TEXTS[:1], TEXTS[:1], shots=TEXTS[:1] * 5)])
    with pytest.raises(ModelError, match="ends every text with '<eos>'.*add_eos_token=False"):
        fit_mixture(both, mixture, 512, 512)


def test_tokenizer_without_eos_is_refused(tokenizer):
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(ModelError, match="EOS"):
        tokenize(bare, TEXTS[:1])


def test_tokenizer_that_trims_its_offsets(tokenizer):
    """GPT-2's post-processor reports tokens of white space as empty spans."""
    from tokenizers import Tokenizer, processors

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    trimming = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<pad>")
    assert tokenize(trimming, TEXTS) == tokenize(tokenizer, TEXTS)


# packed passes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "olmo2", "llama"])
def test_packed_rows_have_the_gradient_of_padded_ones(kind):
    model = make_model(kind, vocabulary=50).double()
    rows, results = random_rows(9), {}
    for packed in (True, False):
        losses = TokenLosses(model, 4, 60)
        assert losses.path == "packed"
        losses.path = "packed" if packed else "padded: as asked"
        loss, sums = losses.gradients(rows)
        results[packed] = (float(loss), sums.tolist(), gradients(model))
    assert results[True][0] == pytest.approx(results[False][0], rel=1e-12)
    assert results[True][1] == pytest.approx(results[False][1], rel=1e-12)
    for name, wanted in results[False][2].items():
        torch.testing.assert_close(results[True][2][name], wanted, rtol=1e-6, atol=1e-13)


@pytest.mark.parametrize("path", ["packed", "padded: as asked"])
@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "olmo2", "llama"])
def test_mixed_precision_is_near_full_precision_with_gradients_in_it(kind, path):
    model, rows, results = make_model(kind, vocabulary=50), random_rows(9), {}
    for mixed in (False, True):
        losses = TokenLosses(model, 4, 60, mixed)
        losses.path = path
        loss, sums = losses.gradients(rows)
        results[mixed] = (float(loss), sums, torch.cat([g.flatten() for g in gradients(model).values()]))
        assert {p.dtype for p in model.parameters()} == {results[mixed][2].dtype} == {torch.float32}
    assert results[True][0] == pytest.approx(results[False][0], rel=1e-2)
    assert results[True][0] != results[False][0]
    torch.testing.assert_close(results[True][1], results[False][1], rtol=2e-2, atol=0)
    assert float(torch.nn.functional.cosine_similarity(results[True][2], results[False][2], dim=0)) > 0.995


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "olmo2", "llama"])
def test_half_precision_attends_in_full_precision_on_a_processor(kind, monkeypatch):
    """What goes in and comes out is rounded alone: gradients are as near to the exact ones as the stock model's."""
    from msft.loss import losses as loss_module

    model, rows, results, seen = make_model(kind, vocabulary=50).to(torch.bfloat16), random_rows(24), [], set()
    attend = loss_module.attend_blocks
    monkeypatch.setattr(loss_module, "attend_blocks", lambda *states: seen.add(states[0].dtype) or attend(*states))
    for weights, path in ((copy.deepcopy(model).double(), "padded: "), (model, "padded: "), (model, "packed")):
        losses = TokenLosses(weights, 4, 200)
        losses.path = path
        losses.gradients(rows)
        results.append(torch.cat([gradient.flatten().double() for gradient in gradients(weights).values()]))
    exact, padded, packed = results
    assert float((packed - exact).norm()) < 1.2 * float((padded - exact).norm()) < 0.1 * float(exact.norm())
    assert seen == {torch.float32}


def test_a_model_with_dropout_is_not_packed():
    model = make_model(vocabulary=50)
    assert why_not_trained_packed(model) == ""
    model.config.attention_dropout = 0.1
    assert "dropout" in why_not_trained_packed(model)


@given(st.lists(st.integers(2, 300), max_size=80), st.integers(16, 2000), st.integers(1, 3))
def test_passes_are_even_and_complete(lengths, budget, processes):
    rows = [Tokens((1,) * n, 1) for n in lengths]
    ranked = sorted(range(len(rows)), key=lambda i: (-len(rows[i].ids), i))
    dealt = [split_evenly(rows, ranked[first::processes], budget) for first in range(processes)]
    assert sorted(i for passes in dealt for part in passes for i in part) == list(range(len(rows)))
    longest = max(lengths, default=0)
    for passes in dealt:
        assert all(passes)
        assert all(sum(lengths[i] for i in part) <= budget + longest for part in passes)


def varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size, enable_gqa=True):
    """What torch's kernel computes, row by row; causal from the right."""
    assert window_size == (-1, 0) and enable_gqa
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    outs, counts = [], []
    for (a, b), (c, d) in zip(
        zip(cu_seq_q, cu_seq_q[1:], strict=False), zip(cu_seq_k, cu_seq_k[1:], strict=False), strict=True
    ):
        q, k, v = (x.transpose(0, 1) for x in (query[a:b], key[c:d], value[c:d]))
        k, v = (x.repeat_interleave(q.shape[0] // k.shape[0], 0) for x in (k, v))
        seen = torch.ones(b - a, d - c, dtype=torch.bool).tril(int((d - c) - (b - a)))
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale)
        outs.append(out.transpose(0, 1))
        counts.append((int(b - a), int(d - c)))
    assert (max_q, max_k) == tuple(max(n) for n in zip(*counts, strict=True))
    return torch.cat(outs)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "olmo2"])
def test_variable_length_kernel_is_given_the_same_attention(kind, monkeypatch):
    """The kernel needs a GPU; what it is given is checked with its definition in its place."""
    from torch.nn.attention import varlen

    from msft.loss import losses as loss_module

    model = make_model(kind, vocabulary=50).double()
    losses, rows = TokenLosses(model, 4, 60), random_rows(9)
    wanted = losses.gradients(rows)
    expected = gradients(model)
    monkeypatch.setattr(loss_module, "_varies", lambda model: True)
    monkeypatch.setattr(varlen, "varlen_attn", varlen_attn)
    loss, sums = losses.gradients(rows)
    assert float(loss) == pytest.approx(float(wanted[0]), rel=1e-12)
    assert sums.tolist() == pytest.approx(wanted[1].tolist(), rel=1e-12)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-6, atol=1e-13)


def test_a_tokenizer_without_an_end_is_named_with_the_mend(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.eos_token = None
    with pytest.raises(
        ModelError, match="no EOS token, with which answers end: set its eos_token, then .*save_pretrained"
    ):
        tokenize(tokenizer, [Example("1 + 1?", "#### 2", "2")])
