"""Bad inputs as a user gives them: each is refused with a message that helps, and leaves nothing behind.

Every case goes through `msft.run` and through the command line; after both the folder of runs is not there.
"""

import json
import os
import re
import shutil

import helpers
import pytest
import yaml

import msft
from msft.__main__ import main
from msft.errors import ConfigError, DataError, ModelError, RunError

START = "the run cannot start with these settings:"


@pytest.fixture(scope="module")
def base(settings):
    """Settings that would train a run of a second."""
    return {**settings, "method": "sft", "params": {"epochs": 0.25}}


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """The folder that a user stands in."""
    folder = tmp_path / "lab"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def tree(folder):
    """Every path below a folder with its time of change; Python's own byte code left out."""
    paths = [path for path in folder.rglob("*") if "__pycache__" not in path.parts]
    return {str(path): path.lstat().st_mtime_ns for path in paths if not path.is_dir()} | dict.fromkeys(
        str(path) for path in paths if path.is_dir()
    )


def called(argv):
    """Exit code of a command."""
    try:
        return main([str(word) for word in argv])
    except SystemExit as stop:  # argparse
        return stop.code


@pytest.fixture
def refused(lab, tmp_path, capsys):
    """refused(settings, error, fragments): by `msft.run`, by the command line, and without a trace."""

    def check(settings, error, fragments, runs_dir=None):
        runs_dir = lab / "runs" if runs_dir is None else runs_dir
        before = tree(lab)
        with pytest.raises(error) as caught:
            msft.run(msft.RunConfig(**settings), runs_dir, progress=False)
        told = [str(caught.value)]
        file = tmp_path / "settings.yaml"
        file.write_text(yaml.safe_dump(settings))
        capsys.readouterr()
        code = called(["run", "--config", file, "--runs-dir", runs_dir, "--quiet"])
        told.append(capsys.readouterr().err)
        for message in told:
            for fragment in fragments:
                assert fragment in message
            assert "Traceback" not in message
        assert code == (1 if error is RunError else 2)
        assert tree(lab) == before
        assert not (lab / "runs").exists()

    return check


# settings -----------------------------------------------------------------------------------------------------

SETTINGS = [
    ({"seed": "twenty"}, ["setting seed = 'twenty'", "type int"]),
    ({"seed": 2**31}, ["setting seed = 2147483648", "[0, 2147483647]"]),
    ({"seed": [20]}, ["setting seed = [20]", "type int"]),
    ({"learning_rate": float("nan")}, ["setting learning_rate = nan", "[1e-30, 10.0]"]),
    ({"learning_rate": float("-inf")}, ["setting learning_rate = -inf", "[1e-30, 10.0]"]),
    ({"learning_rate": 0}, ["setting learning_rate = 0.0", "[1e-30, 10.0]"]),
    ({"learning_rate": -1e-5}, ["setting learning_rate = -1e-05", "[1e-30, 10.0]"]),
    ({"batch_size": 64.5}, ["setting batch_size = 64.5", "type int or none"]),
    ({"loss_group": 0}, ["setting loss_group = 0", "[1, 65536]"]),
    ({"max_tokens": ""}, ["setting max_tokens = ''", "type int"]),
    ({"threads": 0}, ["setting threads = 0", "[1, 1024]"]),
    ({"precision": "fp16"}, ["unknown value 'fp16'", "Did you mean 'bf16'?", "bf16, fp32"]),
    ({"select_on": "valdation"}, ["setting select_on", "Did you mean 'validation'?"]),
    ({"keep_peaks": "memmory"}, ["setting keep_peaks", "Did you mean 'memory'?", "memory, disk"]),
    ({"trust_remote_code": "yes"}, ["setting trust_remote_code = 'yes'", "type bool"]),
    ({"save_share": float("inf")}, ["setting save_share = inf", "[0.0, 1.0]"]),
    ({"model": " "}, ["setting model is empty"]),
    ({"mixture": ""}, ["setting mixture is empty"]),
    ({"mixture": ["tiny"]}, ["setting mixture = ['tiny']", "type str"]),
    ({"params": [3]}, ["setting params = [3]", "type dict"]),
    ({"params": {"epoch": 3}}, ["unknown parameter of sft 'epoch'", "Did you mean 'epochs'?"]),
    ({"params": {"epochs": "ten"}}, ["parameter of sft epochs = 'ten'", "type float"]),
    ({"params": {"epochs": float("nan")}}, ["parameter of sft epochs = nan", "[0.25, 1000]"]),
    ({"params": {"epochs": 0.3}}, ["sft epochs = 0.3", "multiple of 1/4", "evaluations_per_epoch = 4"]),
    ({"params": {"epochs": 0.25}, "evaluations_per_epoch": 2}, ["sft epochs = 0.25", "multiple of 1/2"]),
    ({"method": "msft", "params": {"budget": 1.1}}, ["msft budget = 1.1", "multiple of 1/4"]),
    ({"method": "sro_stf", "params": {}}, ["unknown method 'sro_stf'", "Did you mean 'sro_sft'?", "dynamix_sft"]),
    ({"method": "../sft", "params": {}}, ["unknown method '../sft'"]),
    ({"methods_dir": "no/such/folder"}, ["methods_dir 'no/such/folder' is no folder"]),
    (
        {"seed": -1, "batch_size": 0, "precision": "int8", "params": {"epoch": 1}},
        ["seed = -1", "batch_size = 0", "'int8'", "'epoch'"],
    ),
]


@pytest.mark.parametrize(("change", "fragments"), SETTINGS, ids=[str(change) for change, _ in SETTINGS])
def test_setting(refused, base, change, fragments):
    refused({**base, **change}, ConfigError, [START, *fragments])


PARAMS = "import dataclasses\n@dataclasses.dataclass\nclass Params:\n    epochs: float = 1\n"
RUN = "def run(trainer, params):\n    pass\n"
METHODS = [
    ("syntax", "def run(:\n", ["own.py cannot be imported: SyntaxError", "line 1"]),
    ("raises", "1 / 0\n", ["own.py cannot be imported: ZeroDivisionError: division by zero"]),
    ("import", "import no_such_module\n", ["own.py cannot be imported: ModuleNotFoundError", "no_such_module"]),
    ("bytes", "\0", ["own.py cannot be imported: SyntaxError"]),
    ("no Params", RUN, ["own.py has no 'Params'", "Params and run(trainer, params)"]),
    ("no run", PARAMS, ["own.py has no 'run'", "Params and run(trainer, params)"]),
    ("Params no dataclass", "class Params:\n    epochs = 1\n" + RUN, ["own.py: Params must be a dataclass"]),
    ("run no function", PARAMS + "run = 3\n", ["run a function of (trainer, params)"]),
    ("run of one", PARAMS + "def run(trainer):\n    pass\n", ["run a function of (trainer, params)"]),
    ("ends Python", "import sys\nsys.exit(3)\n", ["own.py cannot be imported: SystemExit: 3"]),
    (
        "no default",
        PARAMS.replace(" = 1", "") + RUN,
        ["method own", "'epochs'", "give every field of Params a default"],
    ),
]


@pytest.mark.parametrize(("text", "fragments"), [m[1:] for m in METHODS], ids=[m[0] for m in METHODS])
def test_method_file(refused, base, lab, text, fragments):
    (lab / "own.py").write_text(text)
    refused({**base, "method": "own", "methods_dir": str(lab), "params": {}}, ConfigError, [START, *fragments])


def test_method_that_its_folder_lacks(refused, base, lab):
    (lab / "owned.py").write_text(PARAMS + RUN)
    wanted = ["unknown method 'own'", "Did you mean 'owned'?", "soft_sro_sft"]
    refused({**base, "method": "own", "methods_dir": str(lab)}, ConfigError, wanted)


# mixtures -----------------------------------------------------------------------------------------------------


def rows(label, count):
    return [{"question": f"{label} {number}?", "answer": str(number)} for number in range(count)]


def lines(found):
    return "".join(json.dumps(row) + "\n" for row in found)


@pytest.fixture
def data(lab):
    """A sub-dataset's good files."""
    (lab / "train.jsonl").write_text(lines(rows("train", 12)))
    (lab / "test.jsonl").write_text(lines(rows("test", 4)))
    return lab


ENTRY = {"name": "sums", "train": "train.jsonl", "test": "test.jsonl"}


def of(*entries, **more):
    return {"name": "mine", "sub_datasets": list(entries), **more}


SPECS = [
    ("empty", "", ["a mapping of name and sub_datasets is needed, not a NoneType", "name and sub_datasets"]),
    ("list", "- sums\n", ["a mapping of name and sub_datasets is needed, not a list", "name and sub_datasets"]),
    ("no YAML", "name: [unclosed\n", ["not readable as YAML"]),
    ("two documents", "a: 1\n---\nb: 2\n", ["not readable as YAML", "single document"]),
    ("not UTF-8", b"name: caf\xe9\n", ["not readable as YAML", "utf-8"]),
    ("object tag", "!!python/object:os.system {}\n", ["not readable as YAML", "python/object"]),
    ("call tag", "name: !!python/object/apply:os.mkdir [made]\n", ["not readable as YAML", "python/object/apply"]),
    ("key twice", "sub_datasets: []\nname: a\nname: b\n", ["the key 'name' stands twice", "line 3"]),
    ("deep", "[" * 5000, ["not readable as YAML"]),
    ("no sub_datasets", "name: mine\n", ["sub_datasets must be a non-empty list", "name, train, test"]),
    ("misspelt top key", {"sub_dataset": [ENTRY]}, ["unknown key 'sub_dataset'", "Did you mean 'sub_datasets'?"]),
    ("misspelt key", of({**ENTRY, "tests": "x"}), ["(sums): unknown key 'tests'", "Did you mean 'test'?"]),
    ("no test", of({"name": "sums", "train": "train.jsonl"}), ["entry 1 (sums): the key 'test' is missing"]),
    ("no name", of({"train": "train.jsonl", "test": "test.jsonl"}), ["(no name): the key 'name' is missing"]),
    ("numbers", of({**ENTRY, "train": 3, "name": 4}), ["train must be a string", "name must be a string"]),
    ("same name", of(ENTRY, ENTRY), ["the sub-dataset name 'sums' is used twice"]),
    ("blank name", of({**ENTRY, "name": " "}), ["the name ' ' must be printable text"]),
    ("line break in a name", of({**ENTRY, "name": "a\nb"}), ["the name 'a\\nb' must be printable text"]),
    ("nul in a name", of({**ENTRY, "name": "a\0b"}), ["the name 'a\\x00b' must be printable text"]),
    ("half a surrogate", 'sub_datasets: [{name: "\\ud800", train: a, test: b}]\n', ["must be printable text"]),
    ("long name", of({**ENTRY, "name": "x" * 201}), ["at most 200 characters"]),
    ("long quoted name", of({**ENTRY, "name": "é" * 40}), ["at most 200 characters", "count three or more"]),
    ("seed", of(ENTRY, seed="x"), ["seed must be an integer"]),
    *((f"a judge that is {v}", of(ENTRY, judges=[v]), ["judges: give a list of lm-eval tasks"]) for v in (None, 5, [])),
    ("allow_overlap", of(ENTRY, allow_overlap=["sum"]), ["allow_overlap", "Did you mean 'sums'?"]),
    (
        "missing train",
        of({**ENTRY, "train": "tran.jsonl"}),
        ["tran.jsonl: no such file", "Did you mean 'train.jsonl'?"],
    ),
    ("outside", of({**ENTRY, "train": "../none.jsonl"}), ["sums: ", "../none.jsonl: no such file"]),
    *(
        (f"address {at}", of({**ENTRY, "train": f"{at}://x/a.jsonl"}), [f"{at}:/x/a.jsonl: no such file", "download"])
        for at in ("https", "s3", "hf", "file")
    ),
    ("outside, no data", of({**ENTRY, "train": "/etc/passwd"}), ["/etc/passwd:1: not JSON"]),
    ("folder as data", of({**ENTRY, "train": "."}), ["cannot be read", "give a data file"]),
    ("device as data", of({**ENTRY, "train": "/dev/zero"}), ["/dev/zero: cannot be read", "give a data file"]),
    ("benchmark", of({**ENTRY, "benchmark": "gsm8"}), ["unknown benchmark 'gsm8'", "Did you mean 'gsm8k'?"]),
]


@pytest.mark.parametrize(("spec", "fragments"), [s[1:] for s in SPECS], ids=[s[0] for s in SPECS])
def test_mixture_file(refused, base, data, spec, fragments):
    file = data / "mine.yaml"
    content = yaml.safe_dump(spec) if isinstance(spec, dict) else spec
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused({**base, "mixture": str(file)}, DataError, [str(file), *fragments])


GOOD = rows("good", 12)
FILES = [
    ("empty", "train", "", ["{file} has no rows"]),
    ("not UTF-8", "test", b'{"question": "caf\xe9", "answer": "1"}\n', ["{file}: not UTF-8 text", "save it as UTF-8"]),
    ("not JSON", "train", lines(GOOD) + "question: 1\n", ["{file}:13: not JSON"]),
    ("torn", "train", lines(GOOD)[:-9], ["{file}:12: not JSON"]),
    ("a list", "test", '["q", "a"]\n', ["{file}:row 1: a str, not an object"]),
    ("NaN", "test", '{"question": "q", "answer": NaN}\n', ["{file}:1: 'answer' is of type float", "numbers in quotes"]),
    ("no answer", "test", lines([{"question": "q"}]), ["{file}:1: the key 'answer' is missing"]),
    ("misspelt field", "test", lines([{"qestion": "q", "answer": "a"}]), ["'question' is missing", "mean 'qestion'?"]),
    ("number", "train", lines([{"question": "q", "answer": 12}]), ["'answer' is of type int", "numbers in quotes"]),
    ("rationale", "test", lines([{"question": "q", "answer": "1", "rationale": 2}]), ["'rationale' is of type int"]),
    ("empty answer", "test", lines([{"question": "q", "answer": " "}]), ["{file}:1: 'answer' is empty"]),
    ("dots alone", "test", lines([{"question": "q", "answer": "..."}]), ["{file}:1: its own target text", "'...'"]),
    ("two lines", "test", lines([{"question": "q", "answer": "a\nb"}]), ["give an answer of one line"]),
    (
        "mark in a rationale",
        "test",
        lines([{"question": "q", "answer": "1", "rationale": "so #### 2"}]),
        ["without '####' in the rationale"],
    ),
    (
        "solution in an answer",
        "test",
        lines([{"question": "q", "answer": "1+1=2 #### 2"}]),
        ["{file}:1: ", "benchmark: gsm8k"],
    ),
    ("misspelt rationale", "test", lines([{"question": "q", "answer": "1", "rationle": "so"}]), ["mean 'rationale'?"]),
    ("context", "test", lines([{"question": "q", "answer": "1", "context": "c"}]), ["{file}:1: the key 'context'"]),
    (
        "tools",
        "test",
        lines([{"messages": [], "tools": [1]}]),
        ["{file}:1: the key 'tools' is not read", "non-empty list"],
    ),
    ("half a surrogate", "test", '{"question": "\\ud800", "answer": "1"}\n', ["half of a surrogate pair"]),
    ("too few for shots", "train", lines(rows("train", 5)), ["5 train rows; five become shots", "a shots file"]),
    ("four shots", "shots", lines(rows("shot", 4)), ["4 shots in shots.jsonl; give five"]),
    ("in train and test", "test", lines(rows("train", 3)), ["'train 0?'", "train (line 1) and test (line 1)"]),
    ("allowing overlap", "test", lines(rows("train", 3)), ["remove one, or write `allow_overlap: [sums]`"]),
    ("in other case", "test", lines([{"question": " TRAIN  0?", "answer": "0"}]), ["train (line 1) and test (line 1)"]),
    ("one shot twice", "shots", lines(rows("shot", 4) + rows("shot", 2)), ["{file}:5: ", "{file}:6: ", "stands twice"]),
    ("shots in test", "shots", lines(rows("test", 4) + rows("shot", 5)), ["shots (line 1) and test (line 1)"]),
]


@pytest.mark.parametrize(("part", "text", "fragments"), [f[1:] for f in FILES], ids=[f[0] for f in FILES])
def test_data_file(refused, base, data, part, text, fragments):
    file = data / f"{part}.jsonl"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    spec = of(ENTRY, {**ENTRY, "name": "more"})
    if part == "shots":
        spec["sub_datasets"][0] = {**ENTRY, "shots": "shots.jsonl"}
    (data / "mine.yaml").write_text(yaml.safe_dump(spec))
    wanted = [fragment.format(file=file) for fragment in fragments]
    refused({**base, "mixture": str(data / "mine.yaml")}, DataError, ["sums: ", *wanted])


def test_mixture_without_a_validation_set(refused, base, data):
    (data / "mine.yaml").write_text(yaml.safe_dump(of(ENTRY)))
    wanted = ["select_on='validation' needs a validation set", "these have none: sums"]
    refused({**base, "mixture": str(data / "mine.yaml"), "select_on": "validation"}, DataError, wanted)


NAMES = [
    ("tinny", ["unknown mixture 'tinny'", "Did you mean 'tiny'?", "paper-10", "Or give the path of a mixture YAML"]),
    ("paper10", ["unknown mixture 'paper10'", "Did you mean 'paper-10'?"]),
    ("none.yaml", ["mixture file 'none.yaml' does not exist"]),
    ("inner", ["mixture 'inner' is a folder", "give the YAML file in it"]),
    ("inner.yaml", ["mixture 'inner.yaml' is a folder"]),
]


@pytest.mark.parametrize(("name", "fragments"), NAMES, ids=[name for name, _ in NAMES])
def test_mixture_by_name(refused, base, lab, name, fragments):
    (lab / "inner").mkdir()
    (lab / "inner.yaml").mkdir()
    refused({**base, "mixture": name}, DataError, fragments)


def test_paper_mixture_without_the_hub(refused, base, monkeypatch):
    import huggingface_hub

    def fail(self, hub_id, **_):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", fail)
    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: False)
    wanted = ["Rowan/hellaswag cannot be reached", "allow https access", "data_dir", "HF_HUB_OFFLINE=1"]
    refused({**base, "mixture": "paper-10"}, DataError, wanted)


def test_data_dir_that_lacks_a_benchmark(refused, base, lab):
    for name in ("gsm8k", "boolq", "arc_easy", "hellaswag"):
        (lab / "hub" / name).mkdir(parents=True)
        for part in ("train", "test"):
            (lab / "hub" / name / f"{part}.jsonl").write_text("{}\n")
    wanted = ["data_dir must hold <benchmark>/train.jsonl and test.jsonl", "medmcqa/train.jsonl", "medmcqa/test.jsonl"]
    refused({**base, "mixture": "paper-5", "data_dir": str(lab / "hub")}, DataError, wanted)


@pytest.mark.parametrize(
    ("change", "error", "fragments"),
    [
        ({"max_tokens": 8}, DataError, ["every train example is over max_tokens = 8; raise it"]),
        (
            {"max_tokens": 8, "max_prompt_tokens": 8},
            DataError,
            ["zebras: every train example is over", "zebras: every test prompt is over", "adding: every train example"],
        ),
        ({"max_prompt_tokens": 8}, DataError, ["every test prompt is over max_prompt_tokens = 8; raise it"]),
        (
            {"max_new_tokens": 1},
            DataError,
            ["zebras: max_new_tokens = 1 cuts 8 of the 8 test targets", "mottos: ", "3 tokens: raise max_new_tokens"],
        ),
        ({"max_new_tokens": 5000}, ModelError, ["more than the 1024 positions", "Lower max_new_tokens"]),
    ],
)
def test_examples_that_do_not_fit(refused, base, change, error, fragments):
    refused({**base, **change}, error, fragments)


# models -------------------------------------------------------------------------------------------------------


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def no_config(folder):
    (folder / "config.json").unlink()


def no_tokenizer(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def pickle_alone(folder):
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    no_weights(folder)


def pointer(folder):
    """As `git clone` without Git LFS leaves the weights."""
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n")


def torn_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def lost_weights(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def broken_weights(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")
    weights["model.norm.weight"][0] = float("-inf")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def fewer_layers(folder):
    edit(folder, num_hidden_layers=1, layer_types=["full_attention"])


def other_kind(folder):
    """Llama's layers have no place for Qwen2's biases."""
    edit(folder, model_type="llama", architectures=["LlamaForCausalLM"])


def add_weights(folder, *added):
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors") | {name: torch.ones(2) for name in added}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def classifier(folder):
    add_weights(folder, "score.weight")


def test_weights_that_no_language_model_uses_are_harmless(base, lab):
    """Rotary buffers and masks of old files, heads for more tokens, for values and for images."""
    shutil.copytree(base["model"], lab / "model")
    rotary = ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"]
    masks = ["model.layers.0.self_attn.masked_bias"]
    add_weights(
        lab / "model", *rotary, *masks, "mtp.layers.0.weight", "v_head.summary.weight", "visual.blocks.0.weight"
    )
    assert msft.names.load_model(str(lab / "model"), "fp32")


def encoder(folder):
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertForMaskedLM(BertConfig(vocab_size=400, **sizes)).save_pretrained(folder)


def encoder_that_does_not_say_so(folder):
    """RoFormer, whose layers do not tell whether they are causal."""
    from transformers import RoFormerConfig, RoFormerForMaskedLM

    sizes = {"hidden_size": 16, "embedding_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    RoFormerForMaskedLM(RoFormerConfig(vocab_size=400, intermediate_size=16, **sizes)).save_pretrained(folder)


def encoder_without_a_length(folder):
    """XLNet, which says that it has -1 positions."""
    from transformers import XLNetConfig, XLNetLMHeadModel

    XLNetLMHeadModel(XLNetConfig(vocab_size=400, d_model=16, n_layer=1, n_head=2, d_inner=16)).save_pretrained(folder)


def a_part_alone(folder):
    """Mllama, of which the text model is trained, and would be saved as what transformers then does not load."""
    from transformers import MllamaConfig, MllamaForConditionalGeneration

    text = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    text |= {"vocab_size": 400, "intermediate_size": 16, "cross_attention_layers": [1], "pad_token_id": 0}
    text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    sees = {"hidden_size": 16, "num_hidden_layers": 1, "num_global_layers": 1, "attention_heads": 2, "image_size": 28}
    sees |= {"intermediate_size": 16, "vision_output_dim": 32, "intermediate_layers_indices": [0], "max_num_tiles": 1}
    sees |= {"supported_aspect_ratios": [[1, 1]]}
    MllamaForConditionalGeneration(MllamaConfig(vision_config=sees, text_config=text)).save_pretrained(folder)


def own_code(folder):
    edit(folder, model_type="own", auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"})
    (folder / "own.py").write_text("raise AssertionError\n")


def short_context(folder):
    helpers.make_model(max_position_embeddings=64).save_pretrained(folder)


def small_vocabulary(folder):
    helpers.make_model(vocabulary=100).save_pretrained(folder)


def adapter(folder):
    (folder / "adapter_config.json").write_text("{}")


def random_tokenizer(folder):
    """Of a llama: transformers writes a Qwen2's model of merges anew."""
    edit(folder, model_type="llama")
    file = folder / "tokenizer.json"
    written = json.loads(file.read_text())
    written["model"]["dropout"] = 0.5
    file.write_text(json.dumps(written))


MODELS = [
    (no_config, ["has no config.json", "Hugging Face format"]),
    (lambda f: no_config(f) or (f / "best").mkdir(), ["has no config.json; give ", "model/best"]),
    (lambda f: (f / "config.json").write_text('{"model_type": '), ["not a valid JSON file", "Hugging Face format"]),
    (lambda f: (f / "config.json").write_text("[]"), ["cannot be loaded", "Hugging Face format"]),
    (no_tokenizer, ["the tokenizer of", "It has no vocabulary", "tokenizer.json"]),
    (lambda f: (f / "tokenizer.json").write_text("{"), ["the tokenizer of", "cannot be loaded"]),
    (lambda f: (f / "tokenizer.json").write_text("{}"), ["the tokenizer of", "cannot be loaded"]),
    (random_tokenizer, ["the tokenizer of", "a text has other tokens each time", "set it to null"]),
    (no_weights, ["no file named model.safetensors", "*.safetensors"]),
    (pickle_alone, ["Pickle files (*.bin) can run code and are never opened", "convert them to safetensors"]),
    (pointer, ["pointers of Git LFS: fetch what they stand for with `git lfs pull`"]),
    (torn_weights, ["the model of", "cannot be loaded", "*.safetensors"]),
    (lost_weights, ["lacks 1 weights of Qwen2ForCausalLM", "model.layers.1.mlp.up_proj.weight", "all weights"]),
    (broken_weights, ["2 weights of", "hold NaN or infinity, such as model.layers.1.mlp.up_proj.weight", "again"]),
    (
        fewer_layers,
        ["12 weights that Qwen2ForCausalLM of its config.json does not use", "model.layers.1.input_layernorm"],
    ),
    (
        other_kind,
        ["6 weights that LlamaForCausalLM", "model.layers.0.self_attn.k_proj.bias", "the config.json that belongs"],
    ),
    (classifier, ["1 weights that Qwen2ForCausalLM", "score.weight", "a folder with a causal language model"]),
    (lambda f: edit(f, hidden_size=48), ["weights of other shapes than its config.json says"]),
    (lambda f: edit(f, model_type="frobnicate"), ["model type `frobnicate`", "does not recognize"]),
    (lambda f: edit(f, model_type="t5"), ["T5Config", "Give a causal language model"]),
    (encoder, ["BertLMHeadModel that sees later tokens", "give a causal language model"]),
    (encoder_that_does_not_say_so, ["RoFormerForCausalLM that sees later tokens", "give a causal language model"]),
    (encoder_without_a_length, ["XLNetLMHeadModel that sees later tokens", "give a causal language model"]),
    (a_part_alone, ["holds a MllamaForCausalLM, whose checkpoints", "does not know MllamaTextConfig; give another"]),
    (own_code, ["contains custom code", "trust_remote_code=True (--trust-remote-code true)"]),
    (short_context, ["the 64 positions of the model", "Lower max_new_tokens or max_prompt_tokens"]),
    (adapter, ["holds an adapter (adapter_config.json)", "merge_and_unload"]),
    (lambda f: (f / "adapter_model.safetensors").touch(), ["holds an adapter (adapter_model.safetensors)"]),
    (small_vocabulary, ["the model has 100 embeddings", "do not belong together"]),
]
MODEL_IDS = "no_config a_run torn_config list_config no_tokenizer torn_tokenizer empty_tokenizer random_tokenizer no_weights pickle_alone pointer "
MODEL_IDS += "torn_weights lost_weights broken_weights fewer_layers other_kind classifier other_shape unknown_architecture encoder_decoder encoder roformer xlnet mllama own_code short_context "
MODEL_IDS += "adapter adapter_alone small_vocabulary"


@pytest.mark.parametrize(("spoil", "fragments"), MODELS, ids=MODEL_IDS.split())
def test_model_folder(refused, base, lab, spoil, fragments):
    folder = lab / "model"
    shutil.copytree(base["model"], folder)
    spoil(folder)
    refused(
        {**base, "model": str(folder)},
        ModelError,
        fragments if spoil in (short_context, small_vocabulary) else [str(folder), *fragments],
    )


NO_MODELS = [
    ("tiny-qwen", ["unknown model 'tiny-qwen'", "Did you mean 'tiny-qwen", "hub id (owner/name), or a local folder"]),
    ("no/such/folder", ["unknown model 'no/such/folder'", "hub id (owner/name), or a local folder"]),
    ("/no/folder", ["unknown model '/no/folder'"]),
    ("someone/some-model", ["the tokenizer of 'someone/some-model'", "where the hub can be reached"]),
]


@pytest.mark.parametrize(("name", "fragments"), NO_MODELS, ids=[name for name, _ in NO_MODELS])
def test_model_by_name(refused, base, monkeypatch, name, fragments):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # no waiting for a network
    refused({**base, "model": name}, ModelError, fragments)


def test_model_device_and_mixture_are_refused_at_once(refused, base, data, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (data / "mine.yaml").write_text(yaml.safe_dump(of({**ENTRY, "tests": "x"}, {**ENTRY, "train": "tran.jsonl"})))
    wanted = ["this machine has no CUDA device", "unknown model 'no/folder/here'", "(sums): unknown key 'tests'"]
    wanted += ["tran.jsonl: no such file", "Did you mean 'train.jsonl'?"]
    settings = {**base, "model": "no/folder/here", "device": "cuda", "mixture": str(data / "mine.yaml")}
    refused(settings, ModelError, wanted)


# machine and place --------------------------------------------------------------------------------------------


def test_cuda_without_a_gpu(refused, base, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    refused({**base, "device": "cuda"}, ModelError, ["device 'cuda': this machine has no CUDA device; take cpu"])


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("gpu", ConfigError),
        ("cuda:x", ConfigError),
        ("cpu:-1", ConfigError),
        ("meta", ConfigError),
        ("xpu", ModelError),
    ],
)
def test_unknown_device(refused, base, name, error):
    refused({**base, "device": name}, error, [f"device {name!r}", "cpu, cuda, cuda:0"])


def test_a_runs_dir_whose_name_is_too_long(refused, base, lab):
    refused(base, ConfigError, ["x" * 40, "more than 255 bytes; give a shorter one"], runs_dir=lab / ("x" * 300))


@pytest.mark.parametrize("call", [msft.Run, msft.load_runs, msft.load_mixture, lambda x: msft.run(msft.RunConfig(), x)])
def test_what_is_no_path_is_named(call):
    with pytest.raises(ConfigError, match="None is no path: give a text, or a Path"):
        call(None)
    with pytest.raises(ConfigError, match="42 is no path"):
        call(42)


def test_what_a_run_is_asked_with_is_named_before_anything_is_loaded(base):
    with pytest.raises(ConfigError, match=r"is no RunConfig: give msft.RunConfig\(method="):
        msft.run(base)
    with pytest.raises(ConfigError, match="on_evaluation = 3: give a function of a history and an event"):
        msft.run(msft.RunConfig(**base), on_evaluation=3)


@pytest.mark.parametrize("place", ["notes.txt", "notes.txt/runs"])
def test_runs_dir_that_cannot_be_one(refused, base, lab, place):
    (lab / "notes.txt").write_text("mine")
    wanted = ["runs_dir", "give a"]
    refused(base, RunError, wanted, runs_dir=lab / place)
    assert (lab / "notes.txt").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_runs_dir_that_is_read_only(refused, base, lab):
    (lab / "locked").mkdir(mode=0o500)
    refused(base, RunError, ["cannot be written to; give another folder"], runs_dir=lab / "locked")


# the command line ---------------------------------------------------------------------------------------------

FLAGS = [
    ("rnu", ["unknown command 'rnu'", "Did you mean 'run'?", "eval"]),
    ("run --learning-rte 1e-5", ["unknown argument '--learning-rte'", "Did you mean '--learning-rate'?"]),
    ("run --see 20", ["unknown argument '--see'", "Did you mean '--seed'?"]),
    ("run surplus", ["unknown argument 'surplus'"]),
    ("run --seed", ["--seed needs a value"]),
    ("run --seed x", ["setting seed = 'x'", "type int"]),
    ("run --threads 0", ["setting threads = 0", "[1, 1024]"]),
    ("run --learning-rate nan", ["setting learning_rate = nan"]),
    ("run --params budget", ["--params takes NAME=VALUE; found budget"]),
    ("run --params =3", ["unknown parameter of msft ''", "budget"]),
    ("run --params budgt=3", ["unknown parameter of msft 'budgt'", "Did you mean 'budget'?"]),
    ("run --params budget=0.3", ["msft budget = 0.3", "multiple of 1/4"]),
    ("run --method sftt --seed -1", ["unknown method 'sftt'", "seed = -1"]),
    ("run --model tiny-qwen5", ["unknown model 'tiny-qwen5'", "Did you mean 'tiny-qwen"]),
    ("run --model none", ["setting model = 'none'", "type str"]),
    ("run --config none.yaml", ["none.yaml: not readable as YAML"]),
    ("run --config .", [".: not readable as YAML"]),
    ("run --config bad.yaml --params budget=3", ["bad.yaml: params = 3", "mapping of names to values"]),
    ("run --config wrong.yaml", ["unknown setting 'sead'", "Did you mean 'seed'?", "batch_size = 0"]),
    ("run --config list.yaml", ["list.yaml: a mapping of settings is needed, not a list"]),
    ("run --config tag.yaml", ["tag.yaml: not readable as YAML", "python/object/apply"]),
    ("run --config twice.yaml", ["twice.yaml: not readable as YAML", "the key 'seed' stands twice", "line 2"]),
    ("run --config number.yaml", ["number.yaml: not readable as YAML"]),
    ("run --config deep.yaml", ["deep.yaml: not readable as YAML"]),
    ("eval nobody", ["unknown model 'nobody'", "tiny-qwen2"]),
    ("eval tiny-smoke --precision bf61", ["unknown value 'bf61'", "fp32"]),
    ("eval tiny-smoke --max-new-tokens ten", ["max_new_tokens = 'ten'", "type int"]),
    ("methods --methods-dir nowhere", ["methods_dir 'nowhere' is no folder"]),
    ("status --runs-dir nowhere", ["runs_dir 'nowhere' is no folder"]),
    ("status --runs-dir bad.yaml", ["runs_dir 'bad.yaml' is no folder"]),
]


@pytest.mark.parametrize(("line", "fragments"), FLAGS, ids=[line for line, _ in FLAGS])
def test_command_line(lab, capsys, line, fragments):
    (lab / "bad.yaml").write_text("params: 3\n")
    (lab / "wrong.yaml").write_text("sead: 3\nbatch_size: 0\n")
    (lab / "list.yaml").write_text("- seed\n")
    (lab / "tag.yaml").write_text("seed: !!python/object/apply:os.mkdir [made]\n")
    (lab / "twice.yaml").write_text("seed: 20\nseed: 30\n")
    (lab / "number.yaml").write_text("seed: !!int ''\n")
    (lab / "deep.yaml").write_text("seed: " + "[" * 5000)
    before = tree(lab)
    assert called(line.split()) == 2
    told = capsys.readouterr()
    for fragment in fragments:
        assert fragment in told.err
    assert told.out == ""
    assert tree(lab) == before  # `runs`, where runs would go, is not there


# damaged runs -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(base, tmp_path_factory):
    """A finished run."""
    return msft.run(msft.RunConfig(**base), tmp_path_factory.mktemp("done"), progress=False)


@pytest.fixture
def damaged(done, lab):
    """A copy of the finished run, to be damaged, beside one that is whole."""
    name = done.directory.name
    shutil.copytree(done.directory, lab / "runs" / name)
    shutil.copytree(done.directory, lab / "runs" / f"{name}-whole")
    return msft.Run(lab / "runs" / name)


@pytest.mark.parametrize("text", ["", '{"best": {"accur', "\0\0\0", "[]", "{}", '{"best": {"accuracy": 0.5}}'])
def test_damaged_result_is_named_with_the_mend(base, damaged, capsys, tmp_path, text):
    file = damaged.directory / "result.json"
    file.write_text(text)
    wanted = [f"{file} is damaged", f"delete {damaged.directory} and run its command again"]
    before = tree(damaged.directory.parent)
    with pytest.raises(RunError) as caught:
        msft.run(msft.RunConfig(**base), damaged.directory.parent, progress=False).best  # noqa: B018
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(base))
    argv = ["run", "--config", tmp_path / "settings.yaml", "--runs-dir", damaged.directory.parent]
    assert called(argv) == 1
    told = [str(caught.value), capsys.readouterr().err]
    assert all(fragment in message for fragment in wanted for message in told)
    assert called(["status", "--runs-dir", damaged.directory.parent]) == 1
    told = capsys.readouterr()
    assert f"{damaged.directory.name}: damaged" in told.out
    assert f"{damaged.directory.name}-whole: finished, accuracy" in told.out
    assert all(fragment in told.err for fragment in wanted)
    assert tree(damaged.directory.parent) == before


def test_damaged_settings_are_named_with_the_mend(damaged):
    file = damaged.directory / "run.json"
    file.write_text(file.read_text()[:50])
    with pytest.raises(RunError) as caught:
        damaged.config  # noqa: B018
    assert f"{file} is damaged" in str(caught.value)
    assert f"delete {damaged.directory}" in str(caught.value)


@pytest.mark.parametrize("value", ["word", None, 3, {"best": {"stones": "word"}}, {"best": {"other": 1}}])
def test_confirmation_of_another_kind_is_named_with_the_mend(damaged, value):
    file = damaged.directory / "result.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "confirmation": value}))
    with pytest.raises(RunError, match="result.json is damaged .* run its command again"):
        damaged.confirmation  # noqa: B018


def test_peaks_of_a_run_whose_settings_were_changed_are_a_damaged_run(damaged):
    file = damaged.directory / "run.json"
    about = json.loads(file.read_text())
    file.write_text(json.dumps({**about, "config": {**about["config"], "select_on": []}}))
    with pytest.raises(RunError, match="run.json is damaged .*select_on"):
        damaged.leads  # noqa: B018


def test_settings_that_a_finished_run_lacks_are_not_said_to_come_with_its_command(base, damaged):
    (damaged.directory / "run.json").unlink()
    with pytest.raises(RunError, match=f"run.json is damaged .* delete {damaged.directory} and run its command again"):
        msft.run(msft.RunConfig(**base), damaged.directory.parent, progress=False).history  # noqa: B018


def test_damaged_journal_of_a_finished_run_is_named(damaged):
    file = damaged.directory / "journal.jsonl"
    file.write_text(file.read_text()[:-40])
    with pytest.raises(RunError, match="journal.jsonl is damaged"):
        damaged.history  # noqa: B018


def test_file_where_the_runs_folder_belongs(base, done, lab):
    (lab / "runs").mkdir()
    (lab / "runs" / done.directory.name).write_text("mine")
    with pytest.raises(RunError, match="is no folder"):
        msft.run(msft.RunConfig(**base), lab / "runs", progress=False)


@pytest.mark.parametrize("harm", [lambda place: place.touch(), lambda place: place.symlink_to("purged")])
@pytest.mark.parametrize("name", ["state", "outputs", "tasks", "confirmation", "best"])
def test_what_is_no_folder_where_one_of_the_run_belongs(base, done, lab, name, harm):
    file = lab / "runs" / done.directory.name / name
    file.parent.mkdir(parents=True)
    harm(file)
    with pytest.raises(RunError, match=f"{file} is no folder, and one of the run belongs there; move it away"):
        msft.run(msft.RunConfig(**base), lab / "runs", progress=False)
    assert list(file.parent.iterdir()) == [file]


def test_a_finished_run_whose_checkpoint_was_taken_away_keeps_its_figures_and_says_what_to_do(base, damaged, capsys):
    shutil.rmtree(damaged.directory / "best")
    run = msft.run(msft.RunConfig(**base), damaged.directory.parent, progress=False)
    assert run.best.accuracy == run.at_best.accuracy.mean()
    wanted = f"{damaged.directory / 'best'} is gone, .* delete {damaged.directory} and run its command again"
    with pytest.raises(RunError, match=wanted):
        run.best.path  # noqa: B018
    assert called(["export", damaged.directory, damaged.directory.parent / "new"]) == 1
    assert re.search(wanted, capsys.readouterr().err)
    assert not (damaged.directory.parent / "new").exists()


def test_answers_that_are_not_there_are_no_damage(damaged):
    with pytest.raises(
        RunError, match="outputs has no stage000_epoch000.300.jsonl.gz that can be read: it is of no evaluation"
    ):
        damaged.answers(0, 0.3)
    shutil.rmtree(damaged.directory / "outputs")
    for read in (lambda: damaged.outputs, lambda: damaged.answers(0, 0.0)):
        with pytest.raises(RunError, match="outputs has no .*gz that can be read: .* or was taken away"):
            read()
