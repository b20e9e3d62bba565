"""LoRA: peft's own gradients, the adapter alone saved and taken back, runs that go on, exports that others load."""

import copy
import importlib.util
import json
import os
import shutil
import signal
import warnings

import pandas as pd
import pytest
import torch
from helpers import (
    ALWAYS,
    KINDS,
    MAKERS,
    FakeEvaluator,
    killed_run,
    make_model,
    make_tokenizer,
    make_trainer,
    mixture_rows,
    requests,
)
from lm_eval.models.huggingface import HFLM
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import msft
from msft import adapter, names
from msft.__main__ import main
from msft.config import ADAPTER, LORA_SETTINGS
from msft.cost import plan, sizes
from msft.errors import ConfigError, ModelError
from msft.generation import PrefixCachedLM
from msft.loss.losses import TokenLosses
from msft.loss.tokens import Tokens, tokenize
from msft.packing import products
from msft.results.export import export
from msft.store import checkpoints

peft = pytest.importorskip("peft")
LORA = {"adapter": "lora", "learning_rate": 2e-2}


def lora_config(**more):
    return msft.RunConfig(method="sft", **{**LORA, "lora_target_modules": "q_proj,v_proj", **more}).with_defaults({})


def stirred(model):
    """Adapter matrices that change the model's answers: a fresh adapter adds nothing."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in checkpoints.trained(model):
            if "lora_B" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def lora_settings(settings):
    """An untrained model, which an adapter can better: peaks and best lie within the stages."""
    own = {"method": "msft", "params": {"budget": 0.75}, "select_metric": "loss", "max_new_tokens": 12}
    return {**settings, **own, **LORA, "lora_target_modules": "all-linear"}


@pytest.fixture(scope="module")
def lora_run(lora_settings, tmp_path_factory):
    """A finished mSFT run with an adapter, never interrupted."""
    return msft.run(msft.RunConfig(**lora_settings), tmp_path_factory.mktemp("lora"), progress=False)


# the adapter itself -------------------------------------------------------------------------------------------


def test_defaults_are_those_of_peft():
    theirs = peft.LoraConfig()
    ours = {"lora_r": theirs.r, "lora_alpha": theirs.lora_alpha, "lora_dropout": theirs.lora_dropout}
    assert ours == LORA_SETTINGS
    assert theirs.target_modules is None


@pytest.mark.parametrize("kind", [*KINDS, "gpt2"])
@pytest.mark.parametrize("targets", ["q_proj,v_proj", "all-linear"])
def test_gradients_are_those_of_peft_and_plain_transformers(kind, targets):
    tokenizer = make_tokenizer()
    if kind == "gpt2":
        shape = {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 1024}
        base, targets = make_model(kind, **shape).double(), "c_attn" if targets != "all-linear" else targets
    else:
        base = make_model(kind).double()
    config = lora_config(lora_r=4, lora_alpha=12, lora_target_modules=targets, precision="fp32")
    wanted = targets if targets == "all-linear" else targets.split(",")
    theirs = peft.get_peft_model(
        copy.deepcopy(base), peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=12, target_modules=wanted)
    ).double()
    ours = stirred(adapter.added(base, config).double())
    values = dict(checkpoints.trained(ours))
    reference = {n.removeprefix("base_model.model."): p for n, p in theirs.named_parameters() if p.requires_grad}
    assert values.keys() == reference.keys()
    checkpoints.restore(theirs.get_base_model(), {name: p.detach() for name, p in values.items()})
    rows = tokenize(tokenizer, mixture_rows("adding", "train")[:7])
    losses = TokenLosses(ours, 4, 64)
    assert losses.path.startswith("padded" if kind == "gpt2" else "packed")
    loss, _ = losses.gradients(rows)
    expected = 0.0
    for group in (rows[:4], rows[4:]):
        sums = []
        for row in group:
            scores = theirs(torch.tensor([row.ids])).logits[0, row.start - 1 : -1]  # [targets, vocabulary]
            sums.append(cross_entropy(scores, torch.tensor(row.ids[row.start :]), reduction="sum"))
        expected = expected + sum(sums) / sum(row.targets for row in group) / 2
    expected.backward()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-9, atol=1e-12)
    for name, parameter in values.items():
        torch.testing.assert_close(parameter.grad, reference[name].grad, rtol=1e-7, atol=1e-11, msg=name)
    assert all(p.grad is None for p in ours.parameters() if not p.requires_grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fresh_adapter_changes_nothing_is_in_fp32_and_follows_the_seed_alone(dtype):
    model, ids = make_model().to(dtype), torch.tensor([[5, 6, 7]])
    before, state = model(ids).logits, torch.get_rng_state()
    mine = checkpoints.snapshot(adapter.added(model, lora_config()))
    assert torch.equal(model(ids).logits, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert {t.dtype for t in mine.values()} == {torch.float32}
    again, other = (checkpoints.snapshot(adapter.added(make_model().to(dtype), lora_config(seed=s))) for s in (20, 21))
    assert all(torch.equal(mine[name], again[name]) for name in mine)
    assert any(not torch.equal(mine[name], other[name]) for name in mine)


def test_roll_back_and_look_ahead_act_on_the_adapter_alone(tmp_path):
    model = adapter.added(make_model(), lora_config())
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    evaluator = FakeEvaluator(MAKERS, lambda call, task: (0.1, 0.5, 0.3)[call], model)
    trainer, _ = make_trainer(tmp_path, model=model, evaluators={"test": evaluator}, learning_rate=1e-2)
    curve = trainer.roll_out(list(MAKERS), epochs=0.5, keep=list(MAKERS))
    end = checkpoints.snapshot(model)
    trainer.look_ahead([0, 1, 2])
    assert all(torch.equal(tensor, end[name]) for name, tensor in checkpoints.snapshot(model).items())
    trainer.roll_back(curve, 0.25)
    back = checkpoints.snapshot(model)
    assert all(torch.equal(tensor, back[name]) for name, tensor in evaluator.seen[1].items())
    assert any(not torch.equal(tensor, back[name]) for name, tensor in end.items())
    assert end.keys() == back.keys()
    assert all("lora_" in name for name in back)
    now = dict(model.named_parameters())
    assert all(torch.equal(now[name], tensor) for name, tensor in frozen.items())


def test_an_adapter_on_the_output_embedding_is_trained():
    """Fresh, it changes no logits: packed losses would pass it over."""
    model = make_model("llama").double()
    model.add_adapter(peft.LoraConfig(r=4, target_modules=["q_proj", "lm_head"]))
    losses = TokenLosses(model.double(), 2, 64)
    losses.gradients([Tokens(tuple(range(2, 20)), 9)])
    assert losses.path.startswith("padded: its logits are more than the output embedding")
    assert all(p.grad is not None for name, p in model.named_parameters() if "lm_head.lora_" in name)


@pytest.mark.parametrize("kind", ["lora", "embedding", "tokens", "tied head", "tied tokens", "ia3"])
@pytest.mark.parametrize("laid_out", [False, True])
def test_a_model_in_peft_s_wrapper_answers_as_in_hflm_and_stays_whole(kind, laid_out, monkeypatch):
    if laid_out:
        monkeypatch.setattr(products, "FEWEST", 1)
    own = {
        "lora": peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False),
        "embedding": peft.LoraConfig(r=4, target_modules=["q_proj", "embed_tokens"], init_lora_weights=False),
        "tokens": peft.LoraConfig(target_modules=["q_proj"], trainable_token_indices=[50, 55], init_lora_weights=False),
        # in which transformers finds no weight to tie the other by
        "tied head": peft.LoraConfig(target_modules=["q_proj", "lm_head"], init_lora_weights=False),
        "ia3": peft.IA3Config(target_modules=["k_proj"], feedforward_modules=[], init_ia3_weights=False),
    }
    own["tied tokens"] = own["tokens"]
    tokenizer, base = make_tokenizer(), make_model("llama", seed=1, tie_word_embeddings=kind.startswith("tied"))
    asked = requests([f"Q: {i} + 1?\nA: " for i in range(5)])
    plain = HFLM(pretrained=base, tokenizer=tokenizer, batch_size=1).generate_until(asked, disable_tqdm=True)
    torch.manual_seed(0)
    model = peft.get_peft_model(base, own[kind])
    before = model(input_ids=torch.tensor([[3, 4, 5]])).logits
    with warnings.catch_warnings(action="ignore"):
        lm = PrefixCachedLM(model, tokenizer)
    assert lm.path == ("packed" if kind != "ia3" else "HFLM: it is in peft's wrapper for IA3")
    found = lm.generate_until(asked)
    assert found != plain
    assert found == HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1).generate_until(asked, disable_tqdm=True)
    assert torch.equal(model(input_ids=torch.tensor([[3, 4, 5]])).logits, before)


def test_a_wrapper_that_does_more_than_call_the_model_keeps_its_say(tokenizer):
    """aLoRA adapts the tokens behind its invocation alone, which the wrapper finds."""
    own = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], alora_invocation_tokens=[5])
    model = peft.get_peft_model(make_model("llama"), own)
    with pytest.warns(UserWarning, match="through lm-eval's HFLM"):
        assert PrefixCachedLM(model, tokenizer).model is model


# runs ---------------------------------------------------------------------------------------------------------


def test_every_file_of_a_run_holds_the_adapter_alone(lora_run):
    model = make_model()  # the run's
    size = checkpoints.bytes_of(adapter.added(copy.deepcopy(model), lora_run.config))
    state = lora_run.disk[lora_run.disk.event.str.startswith("write ")]
    assert state[state.event != "write best"].change.max() < 2 * 2 * size  # Adam's moments are the largest
    saved = load_file(lora_run.best.path / "adapter_model.safetensors")
    assert all("lora_" in name for name in saved)
    assert sum(tensor.nbytes for tensor in saved.values()) == size
    assert size < checkpoints.bytes_of(model)
    assert not (lora_run.best.path / "model.safetensors").exists()
    assert lora_run.result["paths"] == {"training": "packed", "evaluation": "packed"}
    backs = [entry["arguments"]["epoch"] for entry in lora_run.journal if entry["kind"] == "roll_back"]
    assert any(epoch > 0 for epoch in backs) and lora_run.best.path_epoch > 0


@pytest.mark.parametrize(("where", "dropout"), [("disk", 0.0), ("memory", 0.2)])
def test_a_killed_run_ends_as_if_it_never_was(lora_run, lora_settings, tmp_path, children, where, dropout):
    settings = {**lora_settings, "lora_dropout": dropout}
    whole = lora_run if not dropout else msft.run(msft.RunConfig(**settings), tmp_path / "whole", progress=False)
    settings |= {**ALWAYS, "keep_peaks": where}
    for place, count in [("step", 7), ("after commit", 2), ("evaluation", 2), ("best", 1)]:
        process = children.Process(target=killed_run, args=(settings, tmp_path / "killed", place, count))
        process.start()
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
    run = msft.run(msft.RunConfig(**settings), tmp_path / "killed", progress=False)
    assert run.result["resumed"]
    assert run.directory.name == whole.directory.name
    pd.testing.assert_frame_equal(run.history, whole.history, check_exact=True)
    pd.testing.assert_frame_equal(run.outputs, whole.outputs)
    assert [e["arguments"] for e in run.journal] == [e["arguments"] for e in whole.journal]
    ends = [(r.best.path / "adapter_model.safetensors").read_bytes() for r in (run, whole)]
    assert ends[0] == ends[1]


def test_dropout_is_drawn_in_training(lora_run, lora_settings, tmp_path):
    run = msft.run(msft.RunConfig(**lora_settings, lora_dropout=0.2), tmp_path, progress=False)
    assert run.directory.name != lora_run.directory.name
    first = [r.history[(r.history.stage == 0) & (r.history.epoch == 0.25)].train_loss.iloc[0] for r in (run, lora_run)]
    assert first[0] != first[1]


# export -------------------------------------------------------------------------------------------------------


def logits(model):
    with torch.no_grad():
        return model.eval()(torch.tensor([list(range(40, 60))])).logits


def test_kept_and_merged_exports_load_in_stock_transformers_and_peft(lora_run, tmp_path):
    kept, merged = export(lora_run, tmp_path / "kept"), export(lora_run, tmp_path / "merged", merge=True)
    base = names.load_model(lora_run.about["model"]["source"], "fp32")
    expected = logits(stirred_with_best(base, lora_run))
    assert not torch.equal(expected, logits(names.load_model(lora_run.about["model"]["source"], "fp32")))
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(kept)), expected)
    assert torch.equal(logits(peft.AutoPeftModelForCausalLM.from_pretrained(kept)), expected)
    whole = AutoModelForCausalLM.from_pretrained(merged)
    assert not os.path.exists(f"{merged}/adapter_config.json")
    assert not hasattr(whole, "peft_config")
    torch.testing.assert_close(logits(whole), expected, rtol=1e-4, atol=1e-4)
    for folder, library in ((kept, "peft"), (merged, "transformers")):
        text = open(f"{folder}/README.md", encoding="utf-8").read()
        assert f"library_name: {library}" in text
        assert 'adapter: "lora"' in text
        assert ("It is an adapter" in text) == (library == "peft")
        assert AutoTokenizer.from_pretrained(folder)("3 + 1")["input_ids"]
    export(lora_run, tmp_path / "half", merge=True, dtype="bf16")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "half").dtype == torch.bfloat16


def test_a_merged_export_decodes_as_the_run_did(settings, lora_settings, tmp_path):
    """Whatever the base model's own generation_config asks for; its card says so of the adapter alone."""
    base = shutil.copytree(settings["model"], tmp_path / "base")
    (base / "generation_config.json").write_text('{"do_sample": true, "repetition_penalty": 1.3, "eos_token_id": [7]}')
    own = {"model": str(base), "method": "sft", "params": {"epochs": 0.25}}
    run = msft.run(msft.RunConfig(**{**lora_settings, **own}), tmp_path / "runs", progress=False)
    for more in ({"merge": True}, {"merge": True, "dtype": "bf16"}, {}):
        folder = export(run, tmp_path / "-".join(["out", *more]), **more)
        saved = GenerationConfig.from_pretrained(folder)
        assert saved.eos_token_id == [AutoTokenizer.from_pretrained(folder).eos_token_id, 7]
        assert (saved.do_sample, saved.repetition_penalty) == (False, None)
    assert "generation_config=GenerationConfig.from_pretrained(folder)" in open(f"{folder}/README.md").read()


def stirred_with_best(base, run):
    """A base model with a run's adapter, put there by hand."""
    saved = load_file(run.best.path / "adapter_model.safetensors")
    model = adapter.added(base, run.config)
    weights = {name.replace(".weight", ".default.weight"): tensor for name, tensor in saved.items()}
    checkpoints.restore(model, {name.removeprefix("base_model.model."): tensor for name, tensor in weights.items()})
    return model


def test_eval_measures_the_checkpoint_as_the_run_did(lora_run, capsys):
    assert main(["eval", str(lora_run.best.path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    shown = {words[0]: (float(words[1]), int(words[2])) for words in lines if words[0] in MAKERS}
    assert shown == {r.task: (pytest.approx(r.accuracy, abs=1e-6), r.n) for r in lora_run.at_best.itertuples()}


@pytest.mark.parametrize(
    "is_read", [False, True]
)  # as in its run, and from a checkpoint: peft lets that one need no gradient
def test_an_adapter_stays_in_fp32_beside_weights_that_answer_in_bf16(lora_run, is_read):
    base, config = names.load_model(lora_run.about["model"]["source"], "fp32"), lora_config(precision="mixed")
    model = adapter.loaded(base, lora_run.best.path).get_base_model() if is_read else adapter.added(base, config)
    with products.served(model, config):
        kinds = {("lora_" in name, weight.dtype) for name, weight in model.named_parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}


def test_an_adapter_is_not_added_to_other_weights(lora_run, settings, tmp_path, capsys):
    """The folder of the base model was trained on in the meantime."""
    run = msft.Run(shutil.copytree(lora_run.directory, tmp_path / lora_run.directory.name))
    base = shutil.copytree(settings["model"], tmp_path / "plain")
    told = json.loads((run.directory / "run.json").read_text())
    told["model"]["source"] = told["config"]["model"] = str(base)
    (run.directory / "run.json").write_text(json.dumps(told))
    assert export(run, tmp_path / "before", merge=True)
    stirred_weights = {name: tensor + 0.1 for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(stirred_weights, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=f"the files of the base model in '{base}' are not those"):
        export(run, tmp_path / "after", merge=True)
    assert main(["eval", str(run.best.path)]) == 2
    assert str(base) in capsys.readouterr().err


def test_what_an_export_cannot_do_with_an_adapter(lora_run, settings, tmp_path):
    with pytest.raises(ConfigError, match="merge it too"):
        export(lora_run, tmp_path / "new", dtype="bf16")
    config = msft.RunConfig(**{**settings, "max_new_tokens": 12}, method="sft", params={"epochs": 0.25})
    whole = msft.run(config, tmp_path / "runs", progress=False)
    with pytest.raises(ConfigError, match="without an adapter: there is nothing to merge"):
        export(whole, tmp_path / "new", merge=True)
    assert not (tmp_path / "new").exists()


# cost ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", [None, "all-linear", "q_proj,down_proj"])
def test_plan_counts_gradients_and_adam_of_the_adapter_alone(targets):
    config = msft.RunConfig(method="sft", model="Qwen/Qwen2.5-0.5B", mixture="paper-10")
    whole = plan.estimate(config.with_defaults({}), plan.Rates(1e12, {}))
    lora = msft.RunConfig(**{**vars(config), "adapter": "lora", "lora_r": 16, "lora_target_modules": targets})
    found = plan.estimate(lora.with_defaults({}), plan.Rates(1e12, {}))
    shapes = {"q_proj": (896, 896), "v_proj": (896, 128), "down_proj": (4864, 896)}
    shapes |= {"k_proj": (896, 128), "o_proj": (896, 896), "gate_proj": (896, 4864), "up_proj": (896, 4864)}
    chosen = {None: ["q_proj", "v_proj"], "all-linear": list(shapes)}.get(targets) or targets.split(",")
    trained = 24 * 16 * sum(sum(shapes[name]) for name in chosen)
    assert found.device["weights"] == whole.device["weights"] + 4 * trained
    assert (found.device["gradients"], found.device["adam"]) == (4 * trained, 8 * trained)
    assert found.disk_after < whole.disk_after / 10
    size = whole.device["weights"] / 2
    tokens = whole.expected.flops["train"] / (6 * size)
    assert found.expected.flops["train"] == pytest.approx((4 * size + 6 * trained) * tokens)
    assert found.expected.seconds < whole.expected.seconds


def test_plan_and_run_count_the_same_parameters(lora_run, lora_settings):
    found = sizes.sizes_of(msft.RunConfig(**lora_settings).with_defaults({}))
    assert (found.parameters, found.frozen) == (lora_run.result["parameters"], lora_run.result["frozen"])
    trained = sum(e["result"]["trained_tokens"] for e in lora_run.journal if e["kind"] == "roll_out")
    assert lora_run.flops["train"] == (6 * found.parameters - 2 * found.frozen) * trained


# what can be wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"adapter": "dora"}, ["unknown value 'dora'", "Allowed: lora"]),
        ({"adapter": "lora", "lora_rank": 8}, ["unknown setting 'lora_rank'", "lora_r"]),
        (
            {"adapter": "lora", "lora_r": 0, "lora_dropout": 1.5},
            ["lora_r = 0: must lie in", "lora_dropout = 1.5: must"],
        ),
        ({"adapter": "lora", "lora_target_modules": " , "}, ["setting lora_target_modules is empty"]),
        ({"lora_r": 8, "lora_alpha": 16}, ["lora_r = 8 is for a run with adapter=lora", "lora_alpha = 16 is for"]),
    ],
)
def test_wrong_settings_are_named_at_once(values, words):
    with pytest.raises(ConfigError) as error:
        msft.RunConfig.from_mapping(values)
    assert all(word in str(error.value) for word in words)


def refused(settings, folder, monkeypatch, kind, match):
    """Raised before weights are loaded, and nothing is written."""
    monkeypatch.setattr(names, "load_model", lambda *_, **__: pytest.fail("the weights were loaded"))
    with pytest.raises(kind, match=match):
        msft.run(msft.RunConfig(**settings), folder, progress=False)
    assert not folder.exists()


def test_peft_is_missing(lora_settings, runs_dir, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "peft" else find(name, *more))
    refused(lora_settings, runs_dir, monkeypatch, ConfigError, "needs peft.*pip install peft")


def test_peft_and_transformers_do_not_fit_together(lora_settings, runs_dir, monkeypatch):
    monkeypatch.setattr("transformers.integrations.peft.MIN_PEFT_VERSION", "99.0")
    match = r"takes no adapter as it is \(.*99\.0\): pip install -U peft transformers"
    refused(lora_settings, runs_dir, monkeypatch, ModelError, match)


def test_a_model_lacks_target_modules(lora_settings, runs_dir, monkeypatch):
    settings = {**lora_settings, "lora_target_modules": "q_proj, c_attn, lm_head"}
    match = r"(?s)unknown linear layer 'c_attn'.*Allowed: down_proj, .*q_proj.*Or all-linear alone.*'lm_head'"
    refused(settings, runs_dir, monkeypatch, ConfigError, match)


def test_peft_has_no_target_modules_of_its_own(settings, tokenizer, tmp_path, monkeypatch):
    folder = tmp_path / "olmo2"
    make_model("olmo2").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = {**settings, **LORA, "model": str(folder)}
    refused(settings, tmp_path / "runs", monkeypatch, ModelError, "give lora_target_modules. Allowed.*q_proj")


def test_adapter_and_mixture_are_refused_at_once(lora_settings, tmp_path, monkeypatch):
    path = tmp_path / "mine.yaml"
    path.write_text("sub_datasets: [{name: sums, train: none.jsonl, test: none.jsonl}]")
    settings = {**lora_settings, "mixture": str(path), "lora_target_modules": "q_prj"}
    match = r"(?s)unknown linear layer 'q_prj'. Did you mean 'q_proj'.*none.jsonl: no such file"
    refused(settings, tmp_path / "runs", monkeypatch, ConfigError, match)


def test_dropout_with_several_processes(lora_settings, monkeypatch):
    monkeypatch.setattr("msft.distributed.size", lambda: 2)
    adapter.check(msft.RunConfig(**lora_settings))
    with pytest.raises(ConfigError, match="lora_dropout = 0.1 with 2 processes"):
        adapter.check(msft.RunConfig(**lora_settings, lora_dropout=0.1))


# identity -----------------------------------------------------------------------------------------------------


def test_runs_without_an_adapter_keep_their_names():
    known = "f889f49ea310a016123f9b67ee497dd70737451fbacd3bb49b235fa824a3c5ae"  # from before there were adapters
    assert msft.RunConfig().fingerprint("x") == known
    assert all(getattr(msft.RunConfig().with_defaults({}), name) is None for name in ADAPTER)


def test_the_spelling_of_target_modules_is_not_part_of_a_name():
    one, other = (lora_config(lora_target_modules=text) for text in ("v_proj, q_proj", "q_proj,v_proj,"))
    assert one == other
    assert one.fingerprint() == other.fingerprint() != lora_config(lora_target_modules="q_proj").fingerprint()
    assert one.fingerprint() == lora_config(lora_r=LORA_SETTINGS["lora_r"]).fingerprint()
    assert "--lora-target-modules q_proj,v_proj" in one.command_line()
    assert json.loads(json.dumps(one.to_dict()))["lora_alpha"] == LORA_SETTINGS["lora_alpha"]
