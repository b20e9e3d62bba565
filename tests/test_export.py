"""Export: a folder that stock transformers loads, a model card that says what it is, nothing half-written."""

import json
import os
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
import vllm_export
import yaml
from lm_eval.models.huggingface import HFLM
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import msft
from msft.cli.main import main
from msft.errors import ConfigError, RunError
from msft.generation import PrefixCachedLM
from msft.results import card, export
from msft.results.run import Run


@pytest.fixture(scope="module")
def exported(small_msft_run, tmp_path_factory):
    return export.export(small_msft_run, tmp_path_factory.mktemp("exports") / "new" / "model")


def front_matter(folder):
    text = open(f"{folder}/README.md", encoding="utf-8").read()
    return yaml.safe_load(text.split("---")[1]), text


def test_stock_transformers_loads_the_best_weights_bit_for_bit(small_msft_run, exported):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(exported), AutoTokenizer.from_pretrained(exported)
    best = load_file(small_msft_run.best.path / "model.safetensors")
    state = model.state_dict()
    assert best.keys() <= state.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in best.items())
    ids = tokenizer("Q: 3 + 1?\nA: ", return_tensors="pt")["input_ids"]
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False)
    assert out.shape[1] > ids.shape[1]


def test_it_is_plain_files_alone(exported):
    names = {path.name for path in msft_path(exported).iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "README.md"} <= names
    assert "curves.png" in names
    assert {name.rsplit(".", 1)[-1] for name in names} <= {"json", "safetensors", "md", "png", "jinja", "txt"}
    assert [path.name for path in msft_path(exported).parent.iterdir()] == ["model"]


def msft_path(folder):
    from pathlib import Path

    return Path(folder)


def test_the_card_tells_method_mixture_settings_results_and_what_is_left_to_fill(small_msft_run, exported):
    run, (facts, text) = small_msft_run, front_matter(exported)
    assert (facts["library_name"], facts["license"], facts["pipeline_tag"]) == (
        "transformers",
        "unknown",
        "text-generation",
    )
    assert "msft" in facts["tags"]
    assert "base_model" not in facts  # a folder of this machine is no name on the hub
    dropped = run.dropped
    for task, sub in run.about["mixture"]["sub_datasets"].items():
        epoch = "–" if dropped[task] is None else f"{dropped[task]:g}" if dropped[task] else "0 (never trained on)"
        assert f"| {task} | {sub['train']} | {sub['test']} | accuracy | {epoch} |" in text
        assert f"data of {task}: source fill in before you publish" in text
    assert f"{100 * run.best.accuracy:.1f} % on average" in text
    assert "chosen on the test items themselves" in text
    assert "![Curves of every sub-dataset](curves.png)" in text
    assert card.command(run.config) in text
    assert str(run.directory.parent) not in text
    assert run.config.model not in text  # the folder's path


def test_dropped_at_is_the_path_epoch_of_the_roll_back(small_msft_run):
    from paper_figures import data

    stages = data.stages(small_msft_run).dropna(subset="dropped")
    dropped = {task: epoch for task, epoch in small_msft_run.dropped.items() if epoch is not None}
    assert dropped == dict(zip(stages.dropped, stages.kept_until, strict=True))
    assert set(small_msft_run.dropped) == set(small_msft_run.metrics)


def test_at_best_are_the_rows_of_the_reported_checkpoint(small_msft_run):
    rows, best = small_msft_run.at_best, small_msft_run.result["best"]
    assert list(rows.task) == list(small_msft_run.metrics)
    assert (rows.accuracy * rows.n).sum() / rows.n.sum() == pytest.approx(small_msft_run.best.accuracy)
    assert set(rows.stage) == {best["stage"]}


def test_the_command_gives_the_run_s_settings_again(small_msft_run):
    import shlex

    config = small_msft_run.config
    words = shlex.split(card.command(config))
    assert words[:4] == ["python", "-m", "msft", "run"]
    flags, params = words[4 : words.index("--params")], words[words.index("--params") + 1 :]
    values = dict(zip([flag[2:].replace("-", "_") for flag in flags[::2]], flags[1::2], strict=True))
    found = msft.RunConfig.from_mapping({**values, "params": dict(pair.split("=") for pair in params)}).to_dict()
    given = config.to_dict()
    same = [name for name in given if name not in ("model", "mixture", "device")]
    assert {name: found[name] for name in same} == {name: given[name] for name in same}


def copy_of(run, folder, **changes):
    """A copy of a finished run whose run.json says something else: changes are of its config, or sub_datasets."""
    shutil.copytree(run.directory, folder)
    about = json.loads((folder / "run.json").read_text())
    for name, facts in changes.pop("sub_datasets", {}).items():
        about["mixture"]["sub_datasets"][name] |= facts
    about["config"] |= changes
    (folder / "run.json").write_text(json.dumps(about))
    return Run(folder)


def test_a_hub_s_model_and_data_are_in_the_front_matter(small_msft_run, tmp_path):
    first, second, _ = small_msft_run.metrics
    source = {"source": {"hub_id": "owner/data", "licence": "mit"}}
    run = copy_of(small_msft_run, tmp_path / "run", model="owner/base", sub_datasets={first: source, second: source})
    text = card.text(run, "mine")
    facts = yaml.safe_load(text.split("---")[1])
    assert (facts["base_model"], facts["datasets"]) == ("owner/base", ["owner/data"])
    assert "--model owner/base" in text and f"- data of {first}: source owner/data, licence mit" in text


def test_a_run_of_an_older_version_is_exported(small_msft_run, tmp_path):
    run = copy_of(small_msft_run, tmp_path / "run", spare_states=1)  # a setting that is gone
    assert run.config == small_msft_run.config
    assert (msft_path(export.export(run, tmp_path / "out")) / "README.md").is_file()


def test_the_card_says_what_is_no_accuracy_and_what_chose_the_checkpoint(small_msft_run, tmp_path):
    task = next(iter(small_msft_run.metrics))
    loss = {"metric": "loss"}
    text = card.text(copy_of(small_msft_run, tmp_path / "run", select_on="validation", sub_datasets={task: loss}), "m")
    assert f"\n\n{task}: no checkable answer; the figure is exp(-held-out loss)" in text
    assert "chosen on held-out validation items. The test figures were not used for any choice.\n\n" in text
    settings = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert settings["select_on"] == "validation" and settings["params"] == small_msft_run.config.params
    assert "device" not in settings  # of this machine


def test_weights_are_converted(small_run, tmp_path):
    folder = export.export(small_run, tmp_path / "half", dtype="bf16")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert model.dtype == torch.bfloat16
    best = load_file(small_run.best.path / "model.safetensors")
    half = load_file(tmp_path / "half" / "model.safetensors")
    assert all(torch.equal(half[name], tensor.bfloat16()) for name, tensor in best.items())
    back = export.export(small_run.directory, tmp_path / "whole", dtype="fp32")
    assert AutoModelForCausalLM.from_pretrained(back, dtype="auto").dtype == torch.float32


def test_an_empty_folder_is_taken_and_a_full_one_is_not(small_run, tmp_path):
    (tmp_path / "empty").mkdir()
    assert export.export(str(small_run.directory), tmp_path / "empty") == str(tmp_path / "empty")
    before = {path.name: path.read_bytes() for path in (tmp_path / "empty").iterdir()}
    with pytest.raises(RunError, match=r"is there and not empty: it holds \w[\w.]+; give a new folder"):
        export.export(small_run, tmp_path / "empty")
    assert {path.name: path.read_bytes() for path in (tmp_path / "empty").iterdir()} == before
    (tmp_path / "killed" / ".killed-x").mkdir(parents=True)  # by an export before; `ls` shows nothing
    with pytest.raises(RunError, match="killed is there and not empty: it holds .killed-x;"):
        export.export(small_run, tmp_path / "killed")
    (tmp_path / "file").write_text("x")
    for target in ("file", "file/below"):
        with pytest.raises(RunError):
            export.export(small_run, tmp_path / target)


def test_an_empty_folder_is_filled_where_it_lies(small_run, tmp_path, monkeypatch):
    """A link stays one, and what a mount stands on is not taken away; nor is it after a failure."""
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    node = (tmp_path / "there").stat().st_ino
    with monkeypatch.context() as patch:
        patch.setattr(card, "text", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(RunError, match="No space left"):
            export.export(small_run, tmp_path / "link")
    assert list((tmp_path / "there").iterdir()) == []
    assert export.export(small_run, tmp_path / "link") == str(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "there").stat().st_ino == node
    whole = export.export(small_run, tmp_path / "new")
    assert sorted(os.listdir(whole)) == sorted(os.listdir(tmp_path / "there"))


def test_a_run_that_is_not_finished_is_an_error(small_run, tmp_path):
    with pytest.raises(RunError, match="is no run"):
        export.export(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "run.json").write_text((small_run.directory / "run.json").read_text())
    with pytest.raises(RunError, match="unfinished; give its command again"):
        export.export(Run(tmp_path / "half"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("target", "wrong", "words"),
    [
        ("out", {"dtype": "fp16"}, "Allowed: bf16, fp32"),
        ("out", {"push": True}, "give owner/name"),
        ("owner/a/b", {"push": True}, "give owner/name"),
    ],
)
def test_wrong_settings_are_errors(small_run, monkeypatch, tmp_path, target, wrong, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=words):
        export.export(small_run, target, **wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "harm", "words"),
    [
        ("model.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-100]), "is damaged"),
        ("model.safetensors", lambda path: path.write_bytes(b""), "is damaged"),
        ("model.safetensors", lambda path: path.unlink(), r"no \*.safetensors"),
        ("config.json", lambda path: path.write_bytes(path.read_bytes()[:-100]), "is damaged"),
        ("tokenizer.json", lambda path: path.write_bytes(b""), "is damaged"),
        ("tokenizer.json", lambda path: path.unlink(), "no vocabulary"),
    ],
    ids=["cut", "empty", "gone", "config", "tokenizer", "no_tokenizer"],
)
def test_a_checkpoint_that_is_not_whole_is_not_exported(small_run, tmp_path, name, harm, words):
    run = copy_of(small_run, tmp_path / "run")
    harm(run.best.path / name)
    with pytest.raises(RunError, match=f"{words}.*delete {run.directory} and run its command again"):
        export.export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(small_run, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "listdir", lambda place: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(RunError, match="best cannot be read: .*Permission denied; see that you may read it"):
        export.export(small_run, tmp_path / "out")


def test_facts_of_other_kinds_are_a_damaged_run_not_a_traceback(small_run, tmp_path):
    run = copy_of(small_run, tmp_path / "run")
    about = json.loads((run.directory / "run.json").read_text())
    about["mixture"]["sub_datasets"] = dict.fromkeys(about["mixture"]["sub_datasets"])
    (run.directory / "run.json").write_text(json.dumps(about))
    with pytest.raises(RunError, match="is damaged .no card can be written: AttributeError.*delete"):
        export.export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_whoever_may_read_the_other_files_may_read_the_weights(small_run, tmp_path):
    folder = Path(export.export(small_run, tmp_path / "out", dtype="bf16"))
    for place in (folder, small_run.best.path):
        rights = {path.name: path.stat().st_mode for path in place.iterdir()}
        assert rights["model.safetensors"] == rights["config.json"]


def test_the_folder_that_one_stands_in_gives_the_card_its_title(small_run, tmp_path, monkeypatch):
    (tmp_path / "my-model").mkdir()
    monkeypatch.chdir(tmp_path / "my-model")
    export.export(small_run, ".")
    assert "\n# my-model\n" in Path("README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("place", ["text", "picture"])
def test_a_failure_leaves_nothing_behind(small_run, tmp_path, monkeypatch, place):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*{"text": (card, "text"), "picture": (card, "draw")}[place], full)
    with pytest.raises(RunError, match="No space left"):
        export.export(small_run, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


class Hub:
    """Stands for huggingface_hub.HfApi."""

    calls: list = []
    error: Exception | None = None
    forbidden: Exception | None = None

    def create_repo(self, repo_id, **options):
        if self.forbidden:
            raise self.forbidden
        self.calls.append(("create", repo_id, options))

    def upload_folder(self, *, folder_path, repo_id, **options):
        if self.error:
            raise self.error
        names = sorted(path.name for path in msft_path(folder_path).iterdir())
        self.calls.append(("upload", repo_id, names))


@pytest.fixture
def hub(monkeypatch):
    """The hub, with a login."""
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "a token")
    monkeypatch.setattr(Hub, "calls", [])


def test_push_uploads_the_same_files(small_run, hub, tmp_path):
    assert export.export(small_run, "owner/mine", push=True) == "https://huggingface.co/owner/mine"
    here = export.export(small_run, tmp_path / "here")
    (_, made, options), (_, filled, names) = Hub.calls
    assert (made, filled) == ("owner/mine", "owner/mine")
    assert options == {"private": True, "exist_ok": True}
    assert names == sorted(path.name for path in msft_path(here).iterdir())


def test_the_command_pushes(small_run, hub, capsys):
    assert main(["export", str(small_run.directory), "owner/mine", "--push", "--public"]) == 0
    assert capsys.readouterr().out == "https://huggingface.co/owner/mine\n"
    assert Hub.calls[0] == ("create", "owner/mine", {"private": False, "exist_ok": True})


@pytest.mark.parametrize(
    ("token", "words"), [(None, "hf auth login.*HF_TOKEN"), ("a", "owner/mine failed: 403 Forbid")]
)
def test_who_may_not_write_there_learns_it_before_the_work(small_run, hub, monkeypatch, token, words):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: token)
    monkeypatch.setattr(Hub, "forbidden", OSError("403 Forbidden\nmore"))
    monkeypatch.setattr(export, "_fill", lambda *_: pytest.fail("the export was made"))
    with pytest.raises(RunError, match=words):
        export.export(small_run, "owner/mine", push=True)
    assert Hub.calls == []


def test_a_failed_upload_is_an_error_with_the_way_out(small_run, hub, monkeypatch):
    monkeypatch.setattr(Hub, "error", OSError("401 Unauthorized\nmore"))
    with pytest.raises(RunError, match=r"upload to owner/mine failed: 401 Unauthorized\. Log in"):
        export.export(small_run, "owner/mine", push=True)


def test_what_is_exported_decodes_greedily_whatever_the_base_model_asked_for(small_settings, tmp_path):
    """Its penalties and sampling are gone, its end of text stays; the end that was trained comes first."""
    base = tmp_path / "base"
    shutil.copytree(small_settings["model"], base)
    own = {"do_sample": True, "temperature": 0.6, "repetition_penalty": 1.3, "eos_token_id": [7], "min_new_tokens": 3}
    (base / "generation_config.json").write_text(json.dumps(own))
    config = msft.RunConfig(**{**small_settings, "model": str(base), "method": "sft", "params": {"epochs": 0.25}})
    run = msft.run(config, tmp_path / "runs", progress=False)
    folder = export.export(run, tmp_path / "out")
    for place in (run.best.path, folder):
        saved = GenerationConfig.from_pretrained(place)
        assert saved.eos_token_id == [AutoTokenizer.from_pretrained(place).eos_token_id, 7]
        assert (saved.do_sample, saved.repetition_penalty, saved.min_new_tokens) == (False, None, None)


def test_an_output_embedding_of_its_own_stays_whatever_the_configuration_says(small_settings, tmp_path):
    """transformers loads both embeddings where they differ; HFLM would tie them by the configuration, and so would whoever
    loads the checkpoint."""
    base = tmp_path / "base"
    shutil.copytree(small_settings["model"], base)
    settings = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**settings, "tie_word_embeddings": True}))
    stored = load_file(base / "model.safetensors")["lm_head.weight"]
    model = AutoModelForCausalLM.from_pretrained(base)
    HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(base))
    assert not torch.equal(model.lm_head.weight, stored)  # what stock does
    model = AutoModelForCausalLM.from_pretrained(base)
    PrefixCachedLM(model, AutoTokenizer.from_pretrained(base))
    assert torch.equal(model.lm_head.weight, stored)
    config = msft.RunConfig(**{**small_settings, "model": str(base), "method": "sft", "params": {"epochs": 0.25}})
    run = msft.run(config, tmp_path / "runs", progress=False)
    for place in (run.best.path, export.export(run, tmp_path / "out", dtype="fp32")):
        model = AutoModelForCausalLM.from_pretrained(place)
        HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(place))
        assert torch.allclose(model.lm_head.weight, stored, atol=0.1)
        assert not torch.allclose(model.lm_head.weight, model.get_input_embeddings().weight, atol=0.1)


def test_every_chat_template_of_the_tokenizer_is_exported(small_settings, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(small_settings["model"], base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = {"default": "{{ messages[0].content }}", "tool_use": "{{ tools }}"}
    tokenizer.save_pretrained(base)
    config = msft.RunConfig(**{**small_settings, "model": str(base), "method": "sft", "params": {"epochs": 0.25}})
    folder = export.export(msft.run(config, tmp_path / "runs", progress=False), tmp_path / "out")
    assert AutoTokenizer.from_pretrained(folder).chat_template == tokenizer.chat_template


@pytest.mark.parametrize("pad", ["[PAD]", None])
def test_a_pad_token_that_the_model_does_not_know_is_not_saved(small_settings, tmp_path, pad):
    """Stock lm-eval pads a batch with it, and would look beyond the embedding."""
    base = tmp_path / "base"
    tokenizer = AutoTokenizer.from_pretrained(small_settings["model"])
    AutoModelForCausalLM.from_pretrained(small_settings["model"]).save_pretrained(base)
    tokenizer.pad_token = None
    if pad:
        tokenizer.add_tokens([f"<extra {i}>" for i in range(100)])
        tokenizer.add_special_tokens({"pad_token": pad})
        assert tokenizer.pad_token_id >= len(AutoModelForCausalLM.from_pretrained(base).get_input_embeddings().weight)
    tokenizer.save_pretrained(base)
    config = msft.RunConfig(**{**small_settings, "model": str(base), "method": "sft", "params": {"epochs": 0.25}})
    run = msft.run(config, tmp_path / "runs", progress=False)
    for place in (run.best.path, export.export(run, tmp_path / "out")):
        saved = AutoTokenizer.from_pretrained(place)
        assert saved.pad_token_id == saved.eos_token_id == GenerationConfig.from_pretrained(place).pad_token_id


def test_no_figure_package_is_needed_to_import(small_run):
    import subprocess
    import sys

    code = "import sys, msft; msft.export; assert not [m for m in sys.modules if m.startswith(('paper_figures', 'matplotlib'))]"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert msft.__version__


def test_what_vllm_said_of_exports_is_what_the_readme_says():
    results = Path(vllm_export.__file__).parent / "results"
    result = json.loads((results / "vllm_export.json").read_text(encoding="utf-8"))
    assert vllm_export.table(result) == (results / "vllm_export.md").read_text(encoding="utf-8")
    assert list(result["found"]) == ["weights", "LoRA, merged"]
    readme = (results.parents[1] / "docs" / "your_mixture.md").read_text(encoding="utf-8")
    for of in result["found"].values():
        assert of["same_prompt_tokens"] == of["items"] > of["different_texts"] > 5
        assert f"{of['equal']} of {of['items']} texts each, of weights and of a merged adapter" in readme
