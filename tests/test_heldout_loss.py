"""Held-out loss beside accuracy: equal to plain forward passes, in the history, and what decisions may be taken on."""

import contextlib
import dataclasses
import hashlib
import json
import math
import signal

import helpers
import pytest
import torch
from helpers import MAKERS, FakeEvaluator, killed_run, make_model, make_trainer, mixture_rows, unharmed_run
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast

import msft
from msft import names
from msft.config import ADAPTER
from msft.data.example import Example
from msft.data.example import test_prompt as few_shot_prompt
from msft.data.mixture import Mixture, SubDataset
from msft.errors import ConfigError
from msft.evaluation import Evaluator
from msft.loss.tokens import tokenize
from msft.prepared import prepare
from msft.results.history import history_rows
from msft.results.run import Run
from msft.results.summary import summary
from msft.store import checkpoints

WINDOW = {"sliding_window": 8}  # packed passes cannot be shown for it


def small_mixture():
    parts = ("train", "test", "shots")
    return Mixture("small", [SubDataset(name, *(mixture_rows(name, part) for part in parts)) for name in MAKERS])


@torch.no_grad()
def plain_loss(model, tokenizer, sub, examples):
    """Mean token loss of the gold answers and EOS in their prompts, one forward pass an item."""
    total, count = 0.0, 0
    for example in examples:
        prompt = tokenizer(few_shot_prompt(sub, example))["input_ids"]
        row = tokenize(tokenizer, [example])[0]  # the answer's tokens are those that are trained
        gold = list(row.ids[row.start :])
        ids = torch.tensor([prompt + gold])
        logits = model(input_ids=ids, logits_to_keep=len(gold) + 1).logits[0, :-1]
        total += float(cross_entropy(logits, ids[0, len(prompt) :], reduction="sum"))
        count += len(gold)
    return total / count


def compare(model, tokenizer, mixture, path, limit):
    with pytest.warns(UserWarning, match="HFLM") if path == "HFLM" else contextlib.nullcontext():
        evaluator = Evaluator(model, tokenizer, mixture, "test", limit, 8)
    assert evaluator.path.startswith(path)
    scores = evaluator.evaluate()
    for sub in mixture:
        assert scores[sub.name].loss == pytest.approx(plain_loss(model, tokenizer, sub, sub.test), abs=1e-4)


# the loss -----------------------------------------------------------------------------------------------------


# 4 new tokens at most leave no room for a draft of the whole answer
@pytest.mark.parametrize("limit", [4, 16])
@pytest.mark.parametrize(("kind", "path"), [("qwen2", "packed"), ("olmo2", "packed"), ("mistral", "HFLM")])
def test_it_is_that_of_a_plain_forward_pass(tokenizer, kind, path, limit):
    model = make_model(kind, **(WINDOW if path == "HFLM" else {}))
    compare(model, tokenizer, small_mixture(), path, limit)


@pytest.mark.parametrize(("kind", "path"), [("qwen2", "packed"), ("mistral", "HFLM")])
def test_it_is_that_of_a_plain_forward_pass_on_real_items(shared, kind, path):
    """A hundred items of the ten benchmarks, rationales among them."""
    file = shared / "tokenizers" / "qwen2_tokenizer_converted.json"
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file), eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    sizes = {"train_size": 4, "test_size": 10, "validation_size": 0}
    mixture = msft.load_mixture("paper-10", tokenizer=tokenizer, data_dir=shared / "benchmarks", **sizes)
    assert sum(len(sub.test) for sub in mixture) == 100
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    shape = {"max_position_embeddings": 4096, **ids, **(WINDOW if path == "HFLM" else {})}
    compare(make_model(kind, len(tokenizer), **shape), tokenizer, mixture, path, 3)


def test_the_space_that_a_tokenizer_merges_with_the_answer_is_part_of_it():
    """Behind 'A: ' byte-level tokenizers train ' ####', a token, and never '####'."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(["A: #### 4"] * 9, trainers.BpeTrainer(initial_alphabet=alphabet, special_tokens=["<end>"]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<end>", pad_token="<end>")
    lm = msft.generation.PrefixCachedLM(make_model(vocabulary=len(tokenizer)), tokenizer)
    prompt, gold = lm.gold(helpers.requests(["Q: 1?\nA: #### 7\nQ: 2?\nA: "], docs=["#### 4"])[0])
    assert tokenizer.decode(prompt[-1]) == " "
    assert [tokenizer.decode(token) for token in gold] == [" ####", " 4", "<end>"]
    trained = tokenize(tokenizer, [Example("2?", "#### 4", "4")])[0]
    assert gold == list(trained.ids[trained.start :])


def test_no_space_stands_before_an_answer_that_begins_its_line():
    """Tokenizers of the Llama kind begin a text with a space's token; an answer in the middle of a chat has none."""
    inner = Tokenizer(models.BPE())
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    letters = trainers.BpeTrainer(vocab_size=1, special_tokens=["<end>"])
    inner.train_from_iterator(["<|user|>\nHow many?\n<|assistant|>\n4"], letters)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>", pad_token="<end>")
    lm = msft.generation.PrefixCachedLM(make_model(vocabulary=len(tokenizer)), tokenizer)
    for prompt in ("<|user|>\nHow many?\n<|assistant|>\n", "How many?\n\n"):
        row = tokenize(tokenizer, [Example("How many?", "4<end>", "4", messages=(("user", ""),), prompt=prompt)])[0]
        gold = lm.gold(helpers.requests([prompt], docs=["4"])[0])
        assert (*gold[0], *gold[1]) == row.ids
        assert tokenizer.convert_ids_to_tokens(gold[1]) == ["4", "<end>"]


def test_a_chat_row_s_answer_ends_with_its_turn():
    """Training adds no EOS behind the token that ends a turn; neither does the held-out loss."""
    tokenizer = helpers.make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<end>"]})
    lm = msft.generation.PrefixCachedLM(make_model(vocabulary=len(tokenizer)), tokenizer)
    chat, plain = helpers.requests(["Q: 1?\nA: "] * 2, docs=["4<end>", "4"])
    chat.arguments[1]["until"].append("<end>")
    answer, end = tokenizer("A: 4")["input_ids"][-1], tokenizer.convert_tokens_to_ids("<end>")
    assert lm.gold(chat)[1] == [answer, end]
    assert lm.gold(plain)[1] == [answer, tokenizer.eos_token_id]


def test_texts_alone_cost_no_pass_for_losses(taught):
    lm = msft.generation.PrefixCachedLM(*taught)
    asked = helpers.requests(["Q: 5 + 1?\nA: "], docs=["5 and one, as anyone can see who counts to 6. #### 6"])
    without, withs = (lm.answer(lm.prepare(asked, losses))[0] for losses in (False, True))
    assert without.text == withs.text
    assert without.loss is None
    assert withs.loss > 0


# in a run -----------------------------------------------------------------------------------------------------


def test_the_history_has_it_for_every_evaluation(small_msft_run):
    history = small_msft_run.history
    assert history.loss.notna().all()
    # the start of a later stage is the point that was rolled back to, measured once
    stages = history[history.stage == 1], history[history.stage == 0]
    start = stages[0][stages[0].epoch == 0]
    before = stages[1][stages[1].path_epoch == start.path_epoch.iloc[0]]
    assert start.loss.tolist() == before.loss.tolist()


def test_the_reported_checkpoint_has_the_loss_of_the_history(small_run, mixture_file):
    model = names.load_model(str(small_run.best.path), "fp32")
    tokenizer = names.load_tokenizer(str(small_run.best.path))
    for row in small_run.at_best.itertuples():
        sub = msft.load_mixture(str(mixture_file))[row.task]
        assert row.loss == pytest.approx(plain_loss(model, tokenizer, sub, sub.test), abs=1e-4)


def test_a_run_of_an_older_version_is_read_without_it(small_run):
    journal = small_run.journal
    for entry in journal:
        for point in entry["result"].get("points", []) if entry["kind"] == "roll_out" else []:
            del point["loss"]
    rows = history_rows(journal)
    assert all(math.isnan(row["loss"]) for row in rows)
    assert [row["accuracy"] for row in rows] == small_run.history.accuracy.tolist()


# decisions ----------------------------------------------------------------------------------------------------


def falling(call, task):
    """Lowest at the second evaluation for zebras, at the fourth for the others."""
    return {"zebras": [3.0, 1.0, 2.0, 3.0, 4.0], "adding": [5.0, 4.0, 3.0, 2.0, 2.5], "mottos": [5, 4, 3, 2, 2.5]}[
        task
    ][call]


def test_decisions_are_taken_on_the_loss_and_accuracy_is_reported(tmp_path):
    model = make_model()
    fake = FakeEvaluator(MAKERS, lambda call, task: call / 10, model, loss=falling)
    trainer, _ = make_trainer(tmp_path, model, evaluators={"test": fake}, select_metric="loss")
    curve = trainer.roll_out(trainer.tasks, epochs=1, keep=trainer.tasks)
    assert {task: curve.peak(task) for task in MAKERS} == {"zebras": 0.25, "adding": 0.75, "mottos": 0.75}
    assert msft.methods.msft.earliest_overfit(curve, trainer.tasks) == ("zebras", 0.25)
    # means over sub-datasets: 13, 9, 8, 7, 9 thirds
    assert (trainer.best.epoch, trainer.best.accuracy) == (0.75, pytest.approx(0.3))
    assert trainer.best.selection == pytest.approx(-7 / 3)
    trainer.roll_back(curve, 0.25)
    wanted = fake.seen[1]
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in checkpoints.snapshot(model).items())


def test_they_may_be_taken_on_the_loss_of_validation(tmp_path):
    test = FakeEvaluator(MAKERS, lambda call, task: call / 10)
    validation = FakeEvaluator(MAKERS, loss=falling)
    evaluators = {"test": test, "validation": validation}
    chosen = {"select_on": "validation", "select_metric": "loss"}
    trainer, _ = make_trainer(tmp_path, evaluators=evaluators, **chosen)
    curve = trainer.roll_out(trainer.tasks, epochs=1)
    assert curve[0.5] == {"zebras": -2.0, "adding": -3.0, "mottos": -3.0}
    assert curve.points[2]["loss"] == dict.fromkeys(MAKERS, 1.5)
    assert trainer.best.epoch == 0.75


@pytest.mark.parametrize("method", ["msft", "continual_sft", "sro_sft", "soft_sro_sft"])
def test_every_method_that_looks_for_peaks_finds_those_of_the_loss(settings, tmp_path, method):
    from recorder import train

    run = train({**settings, "select_metric": "loss"}, tmp_path, method)
    history = run.history
    assert history.selection.tolist() == (-history.loss).tolist()
    loss = (run.at_best.loss * run.at_best.n).sum() / run.at_best.n.sum()
    assert f"held-out loss of test items, {loss:.3f} nats a token there" in summary(run)
    for entry in run.journal:
        if entry["kind"] != "roll_back":
            continue
        rows = history[history.stage == entry["arguments"]["stage"]].set_index("epoch")
        task = entry["arguments"].get("dropped") or entry["arguments"]["task"]
        assert rows[rows.task == task].loss.idxmin() == entry["arguments"]["epoch"]
    for note in (entry["arguments"] for entry in run.journal if entry["kind"] == "note"):
        for task, peak in note["peaks"].items() if method != "continual_sft" else ():
            rows = history[(history.stage == 0) & (history.task == task)].set_index("epoch")
            assert rows.loss.idxmin() == peak


def test_a_killed_run_goes_on_to_the_same_losses(settings, tmp_path, children):
    chosen = {"select_metric": "loss", "params": {"budget": 0.5, "max_stages": 3}, "save_share": 1.0}
    settings = {**settings, "method": "msft", **chosen}
    name = prepare(msft.RunConfig(**settings)).name
    for folder, ends in (("whole", [unharmed_run]), ("killed", [killed_run, unharmed_run])):
        for target in ends:
            place = ("after commit", 1) if target is killed_run else ()  # what is written beside training is there
            child = children.Process(target=target, args=(settings, tmp_path / folder, *place))
            child.start()
            child.join()
            assert child.exitcode == (-signal.SIGKILL if target is killed_run else 0)
    whole, killed = (Run(tmp_path / folder / name) for folder in ("whole", "killed"))
    assert killed.result["resumed"]
    assert killed.history.equals(whole.history)
    assert killed.result["best"] == whole.result["best"]


def test_another_metric_is_refused_with_the_two():
    with pytest.raises(ConfigError, match="setting select_metric.*Did you mean 'accuracy'"):
        msft.RunConfig(select_metric="acuracy")


def test_the_default_leaves_the_names_of_runs_as_they_were():
    config = msft.RunConfig()
    newer = ("select_metric", "eval_precision", *ADAPTER)
    older = [f.name for f in dataclasses.fields(config) if f.metadata["result"] and f.name not in newer]
    text = json.dumps([{name: getattr(config, name) for name in older}, []], sort_keys=True)
    assert config.fingerprint() == hashlib.sha256(text.encode()).hexdigest()
    assert config.fingerprint() != dataclasses.replace(config, select_metric="loss").fingerprint()
