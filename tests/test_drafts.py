"""Drafts that go on once a text has left its own: they save passes and change nothing."""

import pytest
import torch
from helpers import KINDS, make_model, requests
from lm_eval.models.huggingface import HFLM

from msft.generation import drafts, steps
from msft.generation.drafts import Repeats
from msft.generation.lm import PrefixCachedLM

SHOTS = "Q: 1 + 1?\nA: 1 and one. #### 2\n" * 3
PROMPTS = [f"{SHOTS if shared else ''}Q: {n} and {7 * n}?\nA: " for n in range(4) for shared in (True, False)]


def asked(targets=None, limit=40):
    return requests(PROMPTS, limit=limit, docs=targets)


@pytest.fixture(params=KINDS)
def model(request):
    return make_model(request.param, seed=5)


@pytest.fixture
def wanted(model, tokenizer):
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4).generate_until(asked(), disable_tqdm=True)


def answer(model, lm, prepared):
    """(texts, forward passes)."""
    passes = []
    handle = model.base_model.register_forward_pre_hook(lambda *_: passes.append(1))
    try:
        return [answer.text for answer in lm.answer(prepared)], len(passes)
    finally:
        handle.remove()


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_the_former_answer_saves_passes(model, tokenizer, wanted, batch_size):
    lm = PrefixCachedLM(model, tokenizer, batch_size)
    prepared = lm.prepare(asked())
    texts, first = answer(model, lm, prepared)
    again, second = answer(model, lm, prepared)
    assert texts == again == wanted
    assert second < first


@pytest.mark.parametrize("place", [0, 1, 7, -1])
def test_a_former_answer_that_is_wrong_changes_nothing(model, tokenizer, wanted, place):
    lm = PrefixCachedLM(model, tokenizer, 3)
    for targets in (None, wanted, ["#### 7"] * len(PROMPTS)):
        prepared = lm.prepare(asked(targets))
        lm.answer(prepared)
        for former in prepared.batches.former:
            former[min(place, len(former) - 1)] = (former[place % len(former)] + 1) % 300
        assert answer(model, lm, prepared)[0] == wanted
        prepared.batches.former[:] = [former * 9 for former in reversed(prepared.batches.former)]
        assert answer(model, lm, prepared)[0] == wanted


def test_answers_of_other_weights_change_nothing(model, tokenizer):
    lm = PrefixCachedLM(model, tokenizer, 3)
    prepared, others = lm.prepare(asked()), make_model(model.config.model_type, seed=6)
    before, _ = answer(model, lm, prepared)
    model.load_state_dict(others.state_dict())
    after, _ = answer(model, lm, prepared)
    assert after == HFLM(pretrained=others, tokenizer=tokenizer, batch_size=4).generate_until(
        asked(), disable_tqdm=True
    )
    assert after != before


@pytest.mark.parametrize("limit", [1, 2, 3, 9])
def test_no_draft_is_longer_than_an_answer_may_be(model, tokenizer, limit):
    """A model that learnt its positions has none behind its length."""
    lm = PrefixCachedLM(model, tokenizer, 3)
    places = []
    handle = model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: places.append(int(kwargs["position_ids"].max())), with_kwargs=True
    )
    prepared = lm.prepare(asked(limit=limit))
    for _ in range(2):
        lm.answer(prepared)
    handle.remove()
    assert max(places) < max(len(lm.tok_encode(prompt)) for prompt in PROMPTS) + limit


@pytest.fixture
def four_at_first(monkeypatch):
    monkeypatch.setattr(drafts, "_FIRST", 4)


def test_what_stood_behind_the_longest_match_comes_again(four_at_first):
    text = Repeats([1, 2, 3, 4], [5, 6, 7, 8, 9, 10, 11], [12, 6, 7, 13])
    assert text.draft([5], 10) == [6, 7, 8, 9]
    assert text.draft([12], 10) == [6, 7, 13]
    assert text.draft([5, 6, 7], 2) == [8, 9]
    assert text.draft([1, 2, 3], 1) == [4]
    assert text.draft([20, 6, 7], 9) == text.draft([11], 9) == text.draft([5], 0) == []


def test_drafts_grow_while_they_are_right_and_shrink_where_they_are_not():
    text = Repeats([1, 2, 3], [4, 5, 6, 7, 8, 9, 10, 11, 12, 13])
    tried = text.draft([4], 99)
    text.learn(len(tried), len(tried))
    longer = text.draft([4], 99)
    assert longer[: len(tried)] == tried and len(longer) > len(tried)
    text.learn(len(longer), 0)
    assert 0 < len(text.draft([4], 99)) < len(longer)


def test_where_a_draft_is_free_any_match_will_do_and_its_failure_teaches_nothing(four_at_first):
    text = Repeats([1, 2, 3, 4], [5, 6, 7, 8, 9, 10, 11])
    assert text.draft([20, 9], 9) == [] and text.draft([20, 9], 9, free=2) == [10, 11]
    assert text.draft([20, 21], 9, free=2) == [] and text.draft([20, 9], 1, free=2) == [10]
    text.learn(2, 0)
    sure = text.draft([4, 5, 6], 9, free=1)
    assert sure == [7, 8, 9, 10] == text.draft([4, 5, 6], 9)
    text.learn(len(sure), 0)
    assert text.draft([4, 5, 6], 9) == [] and text.draft([4, 5, 6], 9, free=3) == [7, 8, 9]


def test_a_step_of_few_texts_is_filled_up_with_drafts(model, tokenizer, monkeypatch):
    sizes = []
    plain = steps._Step.__init__

    def noted(self, model, prefixes, groups, tokens):
        sizes.append([len(some) for some in tokens])
        plain(self, model, prefixes, groups, tokens)

    monkeypatch.setattr(steps._Step, "__init__", noted)
    monkeypatch.setattr(drafts, "_SHORTEST", 99)  # never sure
    lm = PrefixCachedLM(model, tokenizer, 3)
    found = [answer(model, lm, lm.prepare(asked()[:rows]))[0] for rows in (1, 3)]
    assert found[0] == found[1][:1]
    for rows in (1, 3):
        assert max(max(some) for some in sizes if len(some) == rows) == steps._FREE // rows


def test_what_comes_again_and_again_goes_on(four_at_first):
    text = Repeats([1, 2])
    assert text.draft([8, 9, 8, 9, 8, 9], 3) == [8, 9, 8]
    assert text.draft([7, 7, 7, 7], 4) == [7, 7, 7, 7]


def test_in_half_precision_answers_come_from_the_weights_alone(model, tokenizer):
    # the shapes of passes show in the rounding: what was answered before must not show in a run that goes on
    model.to(torch.bfloat16)
    lm = PrefixCachedLM(model, tokenizer, 3)
    prepared = lm.prepare(asked())
    first, again = (answer(model, lm, prepared) for _ in range(2))
    assert first == again and lm.path == "packed"
    assert not any(prepared.batches.former)
