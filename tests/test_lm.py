"""The interface that lm-eval's tasks use: every call of PrefixCachedLM answers as HFLM's, on its packed path and off it."""

import copy
import warnings

import pytest
import torch
from helpers import make_model
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast

from msft.errors import ModelError
from msft.generation import PrefixCachedLM

SHAPES = {"packed": {"kind": "llama"}, "HFLM": {"kind": "mistral", "sliding_window": 8}}
TEXTS = ["foo bar", "", " ", "Q: 1 + 1?\nA: ", "caf\u00e9 \U0001f40b\n\n", "<eos>", "a<eos>b", "#### 12"]
QUESTION = "choices: ab, cd, ef, gh\nQ: motto {}?\nA:"
QUESTIONS = [QUESTION.format("x " * n) for n in (1, 9, 4, 30)]
CHOICES = [" ab", " cd and a good deal more", " ef", " ab"]  # two are equal
ARTICLE = "Mottos of the week: first come, first served. 12 zebras, caf\u00e9s and 7 more.\n" * 6


@pytest.fixture(params=SHAPES)
def pair_of(request, tokenizer):
    """pair_of(batch_size, options): ours and lm-eval's LM over one model; HFLM takes each row alone."""

    def make(batch_size=1, seed=7, tokenizer=tokenizer, positions=512, **options):
        model = make_model(**SHAPES[request.param], seed=seed, max_position_embeddings=positions)
        with warnings.catch_warnings(action="ignore"):
            ours = PrefixCachedLM(model, tokenizer, batch_size, **options)
        assert ours.path.split(":")[0] == request.param
        return ours, HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, **options)

    return make


def instances(kind, arguments):
    return [Instance(kind, {}, args, 0, ("t", i, 1)) for i, args in enumerate(arguments)]


def values(scores):
    return [value for value, _ in scores]


@pytest.mark.parametrize("batch_size", [1, 3, 64, "auto"])
def test_choices_have_stock_s_log_likelihoods_and_the_same_one_is_best(pair_of, batch_size):
    ours, theirs = pair_of(batch_size)
    asked = instances("loglikelihood", [(q, c) for q in QUESTIONS for c in CHOICES])
    scores, wanted = ours.loglikelihood(asked), theirs.loglikelihood(asked, disable_tqdm=True)
    assert values(scores) == pytest.approx(values(wanted), abs=1e-4)
    assert [greedy for _, greedy in scores] == [greedy for _, greedy in wanted]
    best = [torch.tensor(values(s)).view(-1, len(CHOICES)).argmax(1).tolist() for s in (scores, wanted)]
    assert best[0] == best[1]
    assert all(value < 0 for value in values(scores))


def test_a_greedy_continuation_is_told_as_greedy(pair_of):
    ours, theirs = pair_of(4)
    context = ours.tok_encode(QUESTIONS[1])
    ids = ours._model_generate(torch.tensor([context]), max_length=len(context) + 3, stop=[])[
        0, len(context) :
    ].tolist()
    asked = [(None, context, ids), (None, context, [*ids[:-1], ids[-1] ^ 1])]
    for lm in (ours, theirs):
        assert [greedy for _, greedy in lm._loglikelihood_tokens(asked, disable_tqdm=True)] == [True, False]


def test_spaces_between_context_and_continuation_belong_where_stock_puts_them(pair_of):
    ours, theirs = pair_of(8)
    asked = instances("loglikelihood", [("a b  ", "c"), ("a b", "  c"), ("", "a b c"), ("a b \n", "c d"), ("a", "b")])
    wanted = theirs.loglikelihood(asked, disable_tqdm=True)
    assert values(ours.loglikelihood(asked)) == pytest.approx(values(wanted), abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 5, "auto"])
@pytest.mark.parametrize(
    "options",
    [
        {"until": ["\n\n"], "max_gen_toks": 10},
        {"until": "a", "max_gen_toks": 10},
        {"until": ["", "7", "ab"], "max_gen_toks": 12, "do_sample": False, "temperature": 0.0},
        {"until": [], "max_gen_toks": 1},
        {"max_gen_toks": 5},
        {"until": ["\n"]},
    ],
    ids=["list", "text", "several", "one token", "no stop named", "no limit named"],
)
def test_texts_are_stock_s_in_the_order_of_the_requests(pair_of, options, batch_size):
    ours, theirs = pair_of(batch_size)
    asked = instances("generate_until", [(q, dict(options)) for q in [*QUESTIONS, QUESTIONS[0], *QUESTIONS[::-1]]])
    before = copy.deepcopy([request.args for request in asked])
    texts = ours.generate_until(asked)
    assert [request.args for request in asked] == before
    assert texts == theirs.generate_until(asked, disable_tqdm=True)
    assert len(set(texts)) > 1


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("positions", [16, 37, 512])
def test_rolling_log_likelihoods_over_many_windows(pair_of, positions, batch_size):
    ours, theirs = pair_of(batch_size, positions=positions)
    texts = [ARTICLE, ARTICLE[:200], "a", ARTICLE[:60] + "\U0001f40b"]
    assert positions == 512 or len(ours.tok_encode(ARTICLE)) > 3 * positions
    asked = instances("loglikelihood_rolling", [(text,) for text in texts])
    wanted = theirs.loglikelihood_rolling(asked, disable_tqdm=True)
    assert ours.loglikelihood_rolling(asked) == pytest.approx(wanted, rel=1e-5, abs=1e-3)


@pytest.mark.parametrize("options", [{"positions": 40}, {"max_length": 40}], ids=["model", "option"])
def test_what_is_too_long_loses_its_beginning_as_in_stock(pair_of, options):
    ours, theirs = pair_of(3, **options)
    assert ours.max_length == theirs.max_length == 40
    long = [ARTICLE[:n] for n in (60, 300)]
    pairs = instances("loglikelihood", [(text, c) for text in [*long, "a"] for c in (" ab", ARTICLE[:20])])
    wanted = theirs.loglikelihood(pairs, disable_tqdm=True)
    assert values(ours.loglikelihood(pairs)) == pytest.approx(values(wanted), abs=1e-4)
    asked = instances("generate_until", [(text, {"until": [], "max_gen_toks": 8}) for text in [*long, "a"]])
    assert ours.generate_until(asked) == theirs.generate_until(asked, disable_tqdm=True)


# tokens -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["bare", "adds bos"])
def any_tokenizer(request, tokenizer):
    if request.param == "bare":
        return tokenizer
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing(single="<pad> $A", special_tokens=[("<pad>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<pad>", eos_token="<eos>", pad_token="<pad>")


@pytest.mark.parametrize("bos", [None, True, False])
def test_encoding_and_decoding_are_stock_s(pair_of, any_tokenizer, bos):
    ours, theirs = pair_of(tokenizer=any_tokenizer, add_bos_token=bos)
    for text in [*TEXTS, "<pad>already there", *TEXTS]:  # the second time from memory
        for options in ({}, {"add_special_tokens": True}, {"add_special_tokens": False}, {"left_truncate_len": 3}):
            assert ours.tok_encode(text, **options) == theirs.tok_encode(text, **options)
        ids = ours.tok_encode(text)
        for skip in (True, False):
            decoded = ours.tok_decode(ids, skip_special_tokens=skip)
            assert decoded == theirs.tok_decode(ids, skip_special_tokens=skip)
    assert ours.tok_decode(ours.tok_encode("foo bar", add_special_tokens=False)) == "foo bar"
    assert (ours.prefix_token_id, ours.eot_token_id) == (theirs.prefix_token_id, theirs.eot_token_id)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("length", [None, 4])
def test_batches_of_tokens_are_stock_s(pair_of, any_tokenizer, side, length):
    ours, theirs = pair_of(tokenizer=any_tokenizer)
    texts = ["foo bar", "bar foo and more of it", "x"]
    for one, other in zip(*(lm.tok_batch_encode(texts, side, length) for lm in (ours, theirs)), strict=True):
        assert torch.equal(one, other)
    assert any_tokenizer.padding_side == ours.tokenizer.padding_side


def test_the_model_s_own_generate_and_logits_are_stock_s(pair_of):
    ours, theirs = pair_of()
    context, mask = theirs.tok_batch_encode(["foo bar", "bar foo and more of it"])
    pair = [
        lm._model_generate(context, max_length=context.shape[1] + 8, stop=["\n\n"], attention_mask=mask)
        for lm in (ours, theirs)
    ]
    assert pair[0].tolist() == pair[1].tolist()
    assert pair[0].shape[1] > context.shape[1]
    assert torch.equal(ours._model_call(context), theirs._model_call(context))


def test_a_prompt_that_has_its_bos_changes_nothing_for_those_beside_it(pair_of, tokenizer):
    """HFLM asks the first prompt of a batch whether it has one, and adds none, or one more, to all of them."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing(single="<pad> $A", special_tokens=[("<pad>", 0)])
    own = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<pad>", eos_token="<eos>", pad_token="<pad>")
    ours, theirs = pair_of(4, tokenizer=own)
    for options in ({"max_gen_toks": 8}, {"max_gen_toks": 8, "repetition_penalty": 1.5}):  # packed, where it can be
        asked = instances(
            "generate_until", [(p, dict(options)) for p in (*QUESTIONS, f"<pad>{QUESTIONS[0]}", "<pad>x")]
        )
        alone = [theirs.generate_until([request], disable_tqdm=True)[0] for request in asked]
        with warnings.catch_warnings(action="ignore"):
            assert ours.generate_until(asked) == ours.generate_until(asked[::-1])[::-1] == alone


def test_a_tokenizer_without_an_end_is_named(pair_of, tokenizer):
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, bos_token="<pad>", pad_token="<pad>")
    ours, theirs = pair_of(4, tokenizer=bare)
    with pytest.raises(ModelError, match="has no EOS token"):
        ours.generate_until(instances("generate_until", [(QUESTIONS[0], {})]))
    asked = instances("loglikelihood", [(q, c) for q in QUESTIONS for c in CHOICES])
    assert values(ours.loglikelihood(asked)) == pytest.approx(values(theirs.loglikelihood(asked)), abs=1e-4)
