"""The embedded default: what ships is what its recipe makes, and the declared table is what the mixtures are."""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from msft import tiny
from msft.data import example as strings
from msft.errors import DataError, ModelError
from msft.results.provenance import processor
from paper_figures.instrument import bases, mixtures, skills, table
from paper_figures.instrument.__main__ import MADE, digest
from paper_figures.instrument.table import EOS, TABLE

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tokenizer():
    return bases.build_tokenizer()


def test_importing_is_light():
    code = "import sys, msft.tiny; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_mixtures_that_ship_are_those_that_their_table_makes_in_every_process():
    code = "from paper_figures.instrument.mixtures import generated; from msft.tiny import MIXTURES\n"
    code += "print(*(generated(n).fingerprint() for n in MIXTURES))"
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        ).stdout
        for seed in ("1", "2")
    }
    assert printed == {" ".join(tiny.make_mixture(n).fingerprint() for n in tiny.MIXTURES) + "\n"}
    for name in tiny.MIXTURES:
        ours, made = tiny.make_mixture(name), mixtures.generated(name)
        assert [(sub.name, sub.group, sub.train, sub.shots) for sub in ours] == [
            (sub.name, sub.group, sub.train, sub.shots) for sub in made
        ]


@pytest.mark.parametrize("name", tiny.MIXTURES)
def test_parts_are_disjoint_and_as_large_as_declared(name):
    for sub, row in zip(tiny.make_mixture(name), mixtures.rows_of(name), strict=True):
        questions = [example.question for part in tiny.PARTS for example in getattr(sub, part)]
        assert len(questions) == len(set(questions)), sub.name
        sizes = [len(getattr(sub, part)) for part in tiny.PARTS]
        assert sizes == [row.kept or row.train, row.test, row.test, row.confirmation, strings.SHOTS]


def test_groups_styles_and_sizes_of_the_mixtures():
    groups = tiny.make_mixture().groups
    assert [(name, len(members)) for name, members in groups.items()] == [
        ("Science and Knowledge", 4),
        ("Commonsense and Language", 4),
        ("Mathematic and Quantitative", 2),
    ]
    assert {row.style for row in TABLE} == {"letter", "true/false", "open", "rationale"}
    assert tiny.make_mixture().names == [row.name for row in TABLE]
    assert [len(tiny.make_mixture(f"tiny-{n}")) for n in (5, 15, 21)] == [5, 15, 21]


@pytest.mark.parametrize("name", tiny.MIXTURES)
def test_wrong_labels_are_in_train_only_and_hold_for_a_whole_entity(name):
    pairs = zip(tiny.make_mixture(name), mixtures.generated(name, clean=True), mixtures.rows_of(name), strict=True)
    for noisy, clean, row in pairs:
        assert all(getattr(noisy, part) == getattr(clean, part) for part in tiny.PARTS[1:])
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


def test_moved_facts_have_one_other_answer_in_every_part():
    for sub, row in zip(mixtures.generated("tiny-21", clean=True), mixtures.rows_of("tiny-21"), strict=True):
        facts, said = skills.FACTS[row.topic], {}
        for example in (example for part in tiny.PARTS for example in getattr(sub, part)):
            (entity,) = facts.keys() & set(re.findall(r"\w+", example.question))
            said.setdefault(entity, set()).add(re.search(rf"\b{example.answer}\. (\w+)", example.question)[1])
        assert all(len(values) == 1 for values in said.values()) and said.keys() == facts.keys()
        assert sum(said[entity] != {facts[entity]} for entity in facts) == row.moved * len(facts), row.name
    assert {row.moved for row in table.SUBJECTS} == {0, 1}


def test_answers_are_true_by_a_second_way_of_working_them_out():
    mixture, facts = tiny.make_mixture(), skills.FACTS
    for row in TABLE:
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
    for sub in tiny.make_mixture(name):
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
        tiny.make_mixture("tiny-smok")
    with pytest.raises(ModelError, match="Did you mean 'tiny-qwen2'"):
        tiny.base_model("tiny-qwen22")


def test_the_base_models_that_ship_are_those_of_the_recipe():
    made = json.loads(MADE.read_text(encoding="utf-8"))["bases"]
    assert made == {name: {"recipe": bases.identity(name), "weights": digest(name)} for name in tiny.MODELS}


def test_a_base_model_made_anew_is_the_one_that_ships(tmp_path):
    """Bit for bit on its kind of processor with its torch; the tokenizer everywhere."""
    import torch
    from transformers import AutoTokenizer

    state, threads = torch.get_rng_state(), torch.get_num_threads()
    bases.make("tiny-smoke", tmp_path)
    assert torch.equal(state, torch.get_rng_state()) and threads == torch.get_num_threads()
    ours, made = tiny.base_model("tiny-smoke"), json.loads(MADE.read_text(encoding="utf-8"))
    text = "Q: here 3 bakoz ann\nA: #### C"
    assert AutoTokenizer.from_pretrained(tmp_path)(text) == AutoTokenizer.from_pretrained(ours)(text)
    if made["processor"] == processor() and made["torch"] == torch.__version__:
        assert (tmp_path / "model.safetensors").read_bytes() == (ours / "model.safetensors").read_bytes()


def test_the_smoke_model_knows_something():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tiny.base_model("tiny-smoke")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.model_type == "qwen2" and len(tokenizer) <= model.config.vocab_size
    assert tokenizer.decode([tokenizer.eos_token_id]) == EOS
    text = "Q: which?\nA: #### C"
    assert tokenizer(text)["input_ids"] == bases.build_tokenizer()(text)["input_ids"]
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

    kind, shape, _, _ = bases._spec(name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = bases.new_model(kind, shape)
    assert model.config.model_type == name.removeprefix("tiny-")
    text = "Q: ann saw 3 bakoz near. colour?\nA: #### C"
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    bases._keep_own_tokenizer(tmp_path, model.config.model_type)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again(text)["input_ids"] == ids[0].tolist()
    assert torch.equal(
        AutoModelForCausalLM.from_pretrained(tmp_path)(input_ids=ids).logits, model(input_ids=ids).logits
    )


def test_pre_training_meets_no_question_of_a_mixture():
    asked = {
        e.question
        for name in tiny.MIXTURES
        for sub in tiny.make_mixture(name)
        for part in tiny.PARTS
        for e in getattr(sub, part)
    }
    rng = random.Random(0)
    for row in TABLE:
        met = {mixtures.related_text(rng, row)[0].removeprefix("Q: ").removesuffix("\nA: ") for _ in range(2000)}
        assert not met & asked, row.name


def test_identity_changes_with_the_recipe_and_the_text_alone(monkeypatch):
    names = [name for name in tiny.MODELS if name != "tiny-smoke"]
    before = [bases.identity(name) for name in names]
    assert len(set(before)) == 3 and before == [bases.identity(name) for name in names]
    with monkeypatch.context() as patch:
        patch.setitem(bases._RECIPE, "steps", bases._RECIPE["steps"] + 1)
        assert not set(before) & {bases.identity(name) for name in names}
    with monkeypatch.context() as patch:
        patch.setitem(skills.SHARES, "claim", 9.0)
        assert not set(before) & {bases.identity(name) for name in names}


def test_rates_were_tuned_on_the_bases_that_ship():
    recorded = json.loads((ROOT / "benchmarks" / "results" / "learning_rate.json").read_text(encoding="utf-8"))
    assert recorded["bases"] == {name: bases.identity(name) for name in recorded["bases"]}
    for name, found in recorded["best of SFT (%)"].items():
        rates, best = [float(rate) for rate in found], list(found.values())
        assert rates[best.index(max(best))] == tiny.settings(name)["learning_rate"], name
        assert 0 < best.index(max(best)) < len(best) - 1, f"{name}: not an inner optimum"


def test_a_tiny_model_is_the_same_run_where_remote_code_is_trusted():
    from msft import RunConfig
    from msft.prepared import prepare

    config = {"method": "sft", "model": "tiny-smoke", "mixture": "tiny-smoke"}
    assert prepare(RunConfig(**config, trust_remote_code=True)).name == prepare(RunConfig(**config)).name


@pytest.mark.parametrize("merge", [False, True])
def test_an_adapter_of_a_tiny_model_is_exported(tmp_path, merge):
    from transformers import AutoTokenizer

    import msft

    config = msft.RunConfig("sft", "tiny-qwen2", "tiny-smoke", params={"epochs": 0.25}, adapter="lora")
    run = msft.run(config, tmp_path / "runs", progress=False)
    folder = msft.export(run, tmp_path / "out", merge=merge)
    text = "Q: ann saw 3 bakoz near. colour?\nA: #### C"
    base = AutoTokenizer.from_pretrained(tiny.base_model("tiny-qwen2"))
    assert AutoTokenizer.from_pretrained(folder)(text)["input_ids"] == base(text)["input_ids"]
