"""The embedded default: the declared table is what the generated mixture is, and base models build once."""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from msft.data import example as strings
from msft.errors import DataError, ModelError
from msft.tiny import data, skills
from msft.tiny import models as tiny

PARTS = ("train", "test", "validation", "confirmation", "shots")


ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.build_tokenizer()


def test_importing_is_light():
    code = "import sys, msft.tiny; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_mixture_is_the_same_in_every_process():
    code = "from msft.tiny import *; print(*(make_mixture(n).fingerprint() for n in MIXTURES))"
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert printed == {" ".join(data.make_mixture(n).fingerprint() for n in tiny.MIXTURES) + "\n"}


@pytest.mark.parametrize("name", tiny.MIXTURES)
def test_parts_are_disjoint_and_as_large_as_declared(name):
    for sub, row in zip(data.make_mixture(name), tiny.rows_of(name), strict=True):
        questions = [example.question for part in PARTS for example in getattr(sub, part)]
        assert len(questions) == len(set(questions)), sub.name
        sizes = [len(getattr(sub, part)) for part in PARTS]
        assert sizes == [row.train, row.test, row.test, row.confirmation, strings.SHOTS]


def test_groups_styles_and_sizes_of_the_mixtures():
    groups = data.make_mixture().groups
    assert [(name, len(members)) for name, members in groups.items()] == [
        ("Science and Knowledge", 4),
        ("Commonsense and Language", 4),
        ("Mathematic and Quantitative", 2),
    ]
    assert {row.style for row in tiny.TABLE} == {"letter", "true/false", "open", "rationale"}
    assert data.make_mixture().names == [row.name for row in tiny.TABLE]
    assert [len(data.make_mixture(f"tiny-{n}")) for n in (5, 15, 21)] == [5, 15, 21]


@pytest.mark.parametrize("name", tiny.MIXTURES)
def test_wrong_labels_are_in_train_only_and_hold_for_a_whole_entity(name):
    pairs = zip(data.make_mixture(name), data.make_mixture(name, clean=True), tiny.rows_of(name), strict=True)
    for noisy, clean, row in pairs:
        assert all(getattr(noisy, part) == getattr(clean, part) for part in PARTS[1:])
        assert [e.question for e in noisy.train] == [e.question for e in clean.train]
        labels = {}
        for said, right in zip(noisy.train, clean.train, strict=True):
            words = set(re.findall(r"\w+", said.question))
            keys = words & (skills.FACTS[row.topic].keys() if row.topic else {*skills._GIVING, *skills._TAKING})
            labels.setdefault(min(keys, default=said.question), set()).add((said.answer, said.answer == right.answer))
        wrong = sum(not right for answers in labels.values() for _, right in answers)
        if row.skill == "one_step":  # what a sum is asked about cannot be told from its text
            assert wrong
            continue
        assert all(len(answers) == 1 for answers in labels.values()) or not row.wrong, row.name
        assert wrong == round(row.wrong * len(labels)), row.name


def test_answers_are_true_by_a_second_way_of_working_them_out():
    mixture, facts = data.make_mixture(), skills.FACTS
    for row in tiny.TABLE:
        for example in mixture[row.name].test:
            question = example.question
            if row.skill in ("which_value", "ending"):
                (entity,) = facts[row.topic].keys() & set(re.findall(r"\w+", question))
                chosen = re.search(rf'\b{example.answer}\. "?(\w+)', question)[1]
                assert chosen == facts[row.topic][entity], question
            elif row.skill == "open_value":
                (entity,) = facts[row.topic].keys() & set(re.findall(r"\w+", question))
                assert example.answer == facts[row.topic][entity]
            elif row.skill == "claim":
                (entity,) = facts[row.topic].keys() & set(re.findall(r"\w+", question))
                said = re.search(r"(\w+)\?$", question)[1]
                assert example.answer == str(facts[row.topic][entity] == said), question
            elif row.skill == "sum_choice":
                total = sum(map(int, re.findall(r"\d+", question.split(" total")[0])))
                assert f"={total}. #### " in example.target
                assert example.answer == "ABCD"[sum(total > bound for bound in (4, 6, 8))]
            elif row.skill == "two_steps":
                a, b, c = map(int, re.findall(r"\d+", question))
                assert int(example.answer) == a + b + (c if question.count("got") == 2 else -c)


@pytest.mark.parametrize("name", tiny.MIXTURES)
def test_prompt_and_completion_tokenise_as_the_whole_text(name, tokenizer):
    for sub in data.make_mixture(name):
        for example in sub.test[:8]:
            prompt, completion = strings.training_text(example)
            apart = tokenizer(prompt)["input_ids"] + tokenizer(completion)["input_ids"]
            assert apart == tokenizer(prompt + completion)["input_ids"]
        assert len(tokenizer(strings.shots_text(sub.shots))["input_ids"]) <= 260, sub.name  # the paper's are 60 to 260


@pytest.mark.parametrize(
    "text",
    ["", "  two  spaces\t\n\n", "naïve Ω 漢字 🙂\u200d", "####42\r\n#### C.", "".join(map(chr, range(300)))],
)
def test_any_text_comes_back(text, tokenizer):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_unknown_names_are_answered_with_the_near_ones():
    with pytest.raises(DataError, match="Did you mean 'tiny-smoke'"):
        data.make_mixture("tiny-smok")
    with pytest.raises(ModelError, match="Did you mean 'tiny-qwen2'"):
        tiny.base_model("tiny-qwen22")


def test_base_model_is_built_once_and_leaves_the_random_state_alone():
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    state, threads = torch.get_rng_state(), torch.get_num_threads()
    folder = tiny.base_model("tiny-smoke")
    assert torch.equal(state, torch.get_rng_state()) and threads == torch.get_num_threads()
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert tiny.base_model("tiny-smoke") == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.model_type == "qwen2" and len(tokenizer) <= model.config.vocab_size
    assert tokenizer.decode([tokenizer.eos_token_id]) == tiny.EOS
    text = "Q: which?\nA: #### C"
    assert tokenizer(text)["input_ids"] == tiny.build_tokenizer()(text)["input_ids"]
    # it knows something: plain facts in the related format, far above one in six
    facts = skills.FACTS["herbs"]  # which the smoke model knows
    right = 0
    for entity, value in facts.items():
        ids = tokenizer(f"here 3 {entity} ann, cure -> ", return_tensors="pt")["input_ids"]
        right += tokenizer.decode(model(input_ids=ids).logits[0, -1].argmax()) == value
    assert right >= len(facts) // 2


@pytest.mark.parametrize("name", ["tiny-qwen2", "tiny-qwen3", "tiny-olmo2"])
def test_every_architecture_trains_and_reads_our_tokenizer_back(name, tokenizer, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    kind, shape, _, _ = tiny._spec(name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = tiny.new_model(kind, shape)
    assert model.config.model_type == name.removeprefix("tiny-")
    text = "Q: ann saw 3 bakoz near. colour?\nA: #### C"
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    tiny._keep_own_tokenizer(tmp_path, model.config.model_type)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again(text)["input_ids"] == ids[0].tolist()
    assert torch.equal(
        AutoModelForCausalLM.from_pretrained(tmp_path)(input_ids=ids).logits, model(input_ids=ids).logits
    )


def test_pre_training_meets_no_question_of_a_mixture():
    asked = {
        e.question
        for name in tiny.MIXTURES
        for sub in data.make_mixture(name)
        for part in PARTS
        for e in getattr(sub, part)
    }
    rng = random.Random(0)
    for row in tiny.TABLE:
        met = {data.related_text(rng, row)[0].removeprefix("Q: ").removesuffix("\nA: ") for _ in range(2000)}
        assert not met & asked, row.name


def test_identity_changes_with_the_recipe_and_the_text_alone(monkeypatch):
    names = [name for name in tiny.MODELS if name != "tiny-smoke"]
    before = [tiny.identity(name) for name in names]
    assert len(set(before)) == 3 and before == [tiny.identity(name) for name in names]
    with monkeypatch.context() as patch:
        patch.setitem(tiny._RECIPE, "steps", tiny._RECIPE["steps"] + 1)
        assert not set(before) & {tiny.identity(name) for name in names}
    with monkeypatch.context() as patch:
        patch.setitem(skills.SHARES, "claim", 9.0)
        assert not set(before) & {tiny.identity(name) for name in names}


def test_rates_were_tuned_on_the_bases_that_ship():
    recorded = json.loads((ROOT / "benchmarks" / "results" / "learning_rate.json").read_text(encoding="utf-8"))
    assert recorded["bases"] == {name: tiny.identity(name) for name in recorded["bases"]}
    for name, found in recorded["best of SFT (%)"].items():
        rates, best = [float(rate) for rate in found], list(found.values())
        assert rates[best.index(max(best))] == tiny.settings(name)["learning_rate"], name
        assert 0 < best.index(max(best)) < len(best) - 1, f"{name}: not an inner optimum"
