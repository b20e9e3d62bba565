"""RunConfig: every wrong setting is named, all at once, with the way out; the hash sees what changes a result."""

import dataclasses
import json
import shlex

import hypothesis.strategies as st
import pytest
import yaml
from hypothesis import given

import msft
from msft import tiny
from msft.benchmarks import paper_mixtures
from msft.cli.options import Run, config_of, read
from msft.config import PAPER_SETTINGS, RunConfig
from msft.errors import ConfigError
from msft.settings import read_yaml

BAD = [
    ({"method": "msftt"}, ["unknown method 'msftt'", "Did you mean 'msft'?", "sft"]),
    ({"method": 3}, ["unknown method '3'", "sft"]),
    ({"method": True}, ["setting method = True", "type str"]),
    ({"model": ["a"]}, ["setting model = ['a']", "type str"]),
    ({"model": ""}, ["setting model is empty"]),
    ({"mixture": "  "}, ["setting mixture is empty"]),
    ({"seed": -1}, ["setting seed = -1", "must lie in [0, 2147483647]"]),
    ({"seed": 1.5}, ["setting seed = 1.5", "type int"]),
    ({"seed": True}, ["setting seed = True", "type int"]),
    ({"seed": None}, ["setting seed = None", "type int"]),
    ({"seed": "twenty"}, ["setting seed = 'twenty'", "type int"]),
    ({"params": 3}, ["setting params = 3", "type dict"]),
    ({"params": {"budgt": 3}}, ["unknown parameter of msft 'budgt'", "Did you mean 'budget'?"]),
    ({"params": {"budget": 0}}, ["parameter of msft budget = 0.0", "must lie in [0.25, 1000]"]),
    ({"params": {"budget": "much"}}, ["parameter of msft budget = 'much'", "type float"]),
    ({"method": "sft", "params": {"budget": 3}}, ["unknown parameter of sft 'budget'", "epochs"]),
    ({"select_on": "validate"}, ["setting select_on", "Did you mean 'validation'?"]),
    ({"learning_rate": float("nan")}, ["setting learning_rate = nan", "must lie in"]),
    ({"learning_rate": float("inf")}, ["setting learning_rate = inf", "must lie in"]),
    ({"learning_rate": "fast"}, ["setting learning_rate = 'fast'", "type float or none"]),
    ({"batch_size": 0}, ["setting batch_size = 0", "[1, 65536]"]),
    ({"precision": "fp16"}, ["setting precision", "unknown value 'fp16'", "bf16, fp32"]),
    ({"evaluations_per_epoch": 0}, ["setting evaluations_per_epoch = 0"]),
    ({"save_share": 1.5}, ["setting save_share = 1.5", "[0.0, 1.0]"]),
    ({"keep_peaks": "disc"}, ["setting keep_peaks", "Did you mean 'disk'?"]),
    ({"trust_remote_code": "maybe"}, ["setting trust_remote_code = 'maybe'", "type bool"]),
    ({"device": "cuda:x"}, ["unknown device 'cuda:x'", "cuda:0"]),
    ({"methods_dir": "/no/such/folder"}, ["methods_dir '/no/such/folder' is no folder"]),
]


@pytest.mark.parametrize(("settings", "fragments"), BAD, ids=[str(settings) for settings, _ in BAD])
def test_bad_setting_is_named(settings, fragments):
    with pytest.raises(ConfigError) as caught:
        RunConfig(**settings)
    for fragment in fragments:
        assert fragment in str(caught.value)
    assert isinstance(caught.value, msft.MsftError)
    assert isinstance(caught.value, ValueError)


def test_all_errors_at_once():
    with pytest.raises(ConfigError) as caught:
        RunConfig(seed=-1, batch_size=0, model="", params={"budgt": 3, "max_stages": -2})
    message = str(caught.value)
    for fragment in ("seed = -1", "batch_size = 0", "model is empty", "'budgt'", "max_stages = -2"):
        assert fragment in message
    assert message.count("\n  - ") == 5


def test_names_that_no_file_can_have_are_told_with_the_other_errors():
    with pytest.raises(ConfigError, match="(?s)seed = -1.*setting model: .*more than 255.*setting mixture: .*255"):
        RunConfig(model="a" * 300, mixture="é" * 128, seed=-1)


def test_unknown_names_of_a_mapping():
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_mapping({"learning_rte": 1e-5, "sead": 3})
    assert "Did you mean 'learning_rate'?" in str(caught.value)
    assert "Did you mean 'seed'?" in str(caught.value)


def test_mapping_names_its_parameters_errors_too():
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_mapping({"sead": 3, "batch_size": 0, "params": {"budgt": 3}, "model": ""})
    for fragment in ("'sead'", "batch_size = 0", "'budgt'", "model is empty"):
        assert fragment in str(caught.value)


def test_texts_are_read_as_the_command_line_gives_them():
    config = RunConfig.from_mapping(
        {
            "seed": "30",
            "learning_rate": "1e-4",
            "trust_remote_code": "true",
            "batch_size": "none",
            "params": {"budget": "2"},
        }
    )
    assert (config.seed, config.learning_rate, config.trust_remote_code) == (30, 1e-4, True)
    assert config.batch_size is None
    assert config.params["budget"] == 2.0


@given(
    st.lists(st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none())
)
def test_lists_of_a_method_of_ones_own_stand_on_the_printed_command_line(tmp_path_factory, layers):
    folder = tmp_path_factory.getbasetemp()
    code = "from dataclasses import dataclass, field\n@dataclass\nclass Params:\n    layers: list = field(default_factory=list)\n"
    (folder / "listed.py").write_text(code + "def run(trainer, params): ...\n")
    config = RunConfig(method="listed", methods_dir=str(folder), params={"layers": layers})
    flags = read(Run, shlex.split(config.command_line())[4:])
    assert config_of(flags).params == {"layers": layers}


def test_yaml_round_trip(tmp_path):
    config = RunConfig(method="sft", seed=30, learning_rate=1e-5, params={"epochs": 2})
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.to_dict()))
    assert RunConfig.from_mapping(read_yaml(path)) == config
    assert RunConfig.from_mapping(config.to_dict()) == config


def read_or_refused(read, *args):
    try:
        return read(*args)
    except ConfigError as error:
        return [problem.split(" = ")[0] for problem in error.problems]


TEXTS = ["20", "020", "1_000", "1:30", "0x10", "1e-5", "1.10", "2024", "2020-01-01", "true", "True", "no", "on", "none"]
TEXTS += ["null", "-1", "+5", "1.0", ".5", "a"]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", ["seed", "learning_rate", "revision", "trust_remote_code", "batch_size", "device"])
def test_a_value_means_the_same_in_yaml_and_on_the_command_line(tmp_path, name, text):
    path = tmp_path / "config.yaml"
    path.write_text(f"{name}: {text}\n")
    in_yaml = read_or_refused(lambda: RunConfig.from_mapping(read_yaml(path)))
    on_command_line = read_or_refused(lambda: RunConfig.from_mapping({name: text}))
    assert in_yaml == on_command_line


def test_numbers_are_read_plainly():
    assert RunConfig(seed="020").seed == 20
    assert RunConfig(seed=3.0).seed == 3
    assert RunConfig(model=2024).model == "2024"  # a folder's name, as papermill and YAML hand it over


def test_equal_configs_are_one_key():
    few, many = RunConfig(params={"budget": 3}, seed="20"), RunConfig(seed=20.0)
    assert len({few, many, RunConfig(seed=21), RunConfig(params={"budget": 2})}) == 3


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words", "", "a: [1", "\x00"])
def test_yaml_that_is_no_mapping(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        RunConfig.from_mapping(read_yaml(path))


def test_yaml_that_is_absent(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        read_yaml(tmp_path / "none.yaml")


def test_defaults_of_parameters_are_filled_in():
    assert RunConfig(params={"budget": 3}) == RunConfig(params={}) == RunConfig()
    assert RunConfig(params={"budget": 3}).fingerprint() == RunConfig().fingerprint()
    assert RunConfig(params={"budget": 2}).fingerprint() != RunConfig().fingerprint()


OTHER = {
    "method": "sft",
    "model": "tiny-qwen3",
    "mixture": "tiny-21",
    "seed": 21,
    "params": {"budget": 5},
    "select_on": "validation",
    "select_metric": "loss",
    "learning_rate": 1e-3,
    "batch_size": 32,
    "loss_group": 8,
    "precision": "fp32",
    "eval_precision": "bf16",
    "adapter": "lora",
    "lora_r": 4,
    "lora_alpha": 32,
    "lora_dropout": 0.1,
    "lora_target_modules": "q_proj",
    "max_tokens": 256,
    "max_prompt_tokens": 600,
    "max_new_tokens": 64,
    "evaluations_per_epoch": 2,
    "eval_batch_size": 16,
    "token_budget": 1024,
    "train_size": 10,
    "test_size": 10,
    "validation_size": 10,
    "confirmation_size": 10,
    "data_dir": "data",
    "revision": "v1",
    "model_revision": "v1",
    "trust_remote_code": True,
    "methods_dir": ".",
    "device": "cpu",
    "threads": 2,
    "save_share": 0.5,
    "save_minutes": 0.5,
    "keep_peaks": "disk",
    "track": "tensorboard",
}


def test_the_precision_of_answers_is_one_setting_whether_its_default_is_said_or_not():
    for precision, usual in {"mixed": "bf16", "bf16": "bf16", "fp32": "fp32"}.items():
        plain, said = (RunConfig(precision=precision, eval_precision=own).with_defaults({}) for own in (None, usual))
        assert plain == said and plain.answers == usual
        other = RunConfig(precision=precision, eval_precision={"bf16": "fp32", "fp32": "bf16"}[usual])
        assert other.with_defaults({}).fingerprint() != plain.fingerprint()


@pytest.mark.parametrize("field", dataclasses.fields(RunConfig), ids=lambda field: field.name)
def test_hash_sees_what_changes_the_result_and_nothing_else(field):
    plain = {"adapter": "lora"} if field.name.startswith("lora_") else {}
    changed = RunConfig(**plain, **{field.name: OTHER[field.name]})
    assert (changed.fingerprint() != RunConfig(**plain).fingerprint()) == field.metadata["result"]


def test_what_does_not_change_the_result():
    free = {field.name for field in dataclasses.fields(RunConfig) if not field.metadata["result"]}
    saving = {"save_share", "save_minutes", "keep_peaks"}
    assert free == {"confirmation_size", "data_dir", "methods_dir", "device", "track"} | saving


def test_hash_sees_contents():
    config = RunConfig()
    assert config.fingerprint("a") != config.fingerprint("b")
    assert config.fingerprint("a", "b") != config.fingerprint("ab")


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().seed = 3


def test_callers_mapping_is_not_shared():
    params = {"budget": 2.0}
    config = RunConfig(params=params)
    params["budget"] = 9.0
    assert config.params["budget"] == 2.0


def test_defaults_of_the_paper_and_of_a_model():
    config = RunConfig(batch_size=8).with_defaults({"learning_rate": 1e-3})
    assert (config.batch_size, config.learning_rate, config.precision) == (8, 1e-3, "bf16")
    assert all(getattr(config, name) is not None for name in PAPER_SETTINGS)


def test_every_setting_has_a_doc_line():
    assert all(field.metadata["doc"].strip() for field in dataclasses.fields(RunConfig))


def test_method_of_the_users_own(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n@dataclass\nclass Params:\n    width: int = 2\ndef run(trainer, params): pass\n"
    )
    assert msft.methods.available(str(tmp_path)) == sorted([*msft.methods.available(), "mine"])
    assert RunConfig(method="mine", methods_dir=str(tmp_path)).params == {"width": 2}
    with pytest.raises(ConfigError, match="unknown parameter of mine 'with'"):
        RunConfig(method="mine", methods_dir=str(tmp_path), params={"with": 2})


def test_optional_and_typed_lists_are_types_of_a_users_parameters(tmp_path):
    text = "from dataclasses import dataclass, field\nfrom typing import Optional\n@dataclass\nclass Params:\n"
    text += "    rate: Optional[float] = None\n    names: list[str] = field(default_factory=list)\n"
    (tmp_path / "mine.py").write_text(text + "def run(trainer, params): pass\n")
    own = {"method": "mine", "methods_dir": str(tmp_path)}
    assert RunConfig(**own).params == {"rate": None, "names": []}
    assert RunConfig(**own, params={"rate": "0.5", "names": ["a"]}).params == {"rate": 0.5, "names": ["a"]}
    with pytest.raises(ConfigError, match="rate = 'fast': give a value of type float or none"):
        RunConfig(**own, params={"rate": "fast"})


def test_a_literal_names_the_choices_of_a_users_parameter(tmp_path):
    text = "from dataclasses import dataclass\nfrom typing import Literal\n@dataclass\nclass Params:\n"
    (tmp_path / "mine.py").write_text(text + "    mode: Literal['all', 2] = 'all'\ndef run(trainer, params): pass\n")
    own = {"method": "mine", "methods_dir": str(tmp_path)}
    assert [RunConfig(**own, params=p).params["mode"] for p in ({}, {"mode": "2"}, {"mode": "all"})] == [
        "all",
        2,
        "all",
    ]
    with pytest.raises(ConfigError, match="mode: unknown value 'al'. Did you mean 'all'"):
        RunConfig(**own, params={"mode": "al"})


def test_method_file_with_the_name_of_a_method_of_the_package(tmp_path):
    (tmp_path / "sft.py").write_text("from msft.methods.msft import Params, run\n")
    with pytest.raises(ConfigError, match=f"{tmp_path / 'sft.py'} has the name of a method of this package"):
        RunConfig(method="sft", methods_dir=str(tmp_path))


def test_method_file_that_lacks_a_part(tmp_path):
    (tmp_path / "half.py").write_text("def run(trainer, params): pass\n")
    with pytest.raises(ConfigError, match="has no 'Params'"):
        RunConfig(method="half", methods_dir=str(tmp_path))


def test_paths_and_numpy_integers_are_plain_values(tmp_path):
    import numpy as np

    config = RunConfig(mixture=tmp_path / "mine.yaml", seed=np.int64(7))
    assert config.mixture == str(tmp_path / "mine.yaml")
    assert type(config.seed) is int
    json.dumps(config.to_dict())


def test_a_mixture_of_ones_own_that_has_validation_items_selects_on_them(mixture_file, tmp_path):
    assert RunConfig(mixture=str(mixture_file)).select_on == "validation"
    assert RunConfig(mixture=str(mixture_file), select_on="test").select_on == "test"
    bare = tmp_path / "bare.yaml"
    bare.write_text(mixture_file.read_text().replace("  validation: zebras_validation.jsonl\n", ""))
    assert RunConfig(mixture=str(bare)).select_on == "test"
    bare.write_text(bare.read_text().replace("  test: zebras_test.jsonl\n", "  metric: lm_eval:arc_easy\n"))
    assert RunConfig(mixture=str(bare)).select_on == "validation"


@pytest.mark.parametrize("name", ["v.YAML", "v.json", "v.txt", "v"])
def test_a_mixture_file_is_one_whatever_its_suffix(mixture_file, tmp_path, monkeypatch, name):
    (tmp_path / name).write_text(mixture_file.read_text())
    monkeypatch.chdir(tmp_path)
    configs = {RunConfig(mixture=spelling) for spelling in (name, f"./{name}", str(tmp_path / name))}
    assert {(c.mixture, c.select_on) for c in configs} == {(str(tmp_path / name), "validation")}


def test_a_file_does_not_stand_for_a_name_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (*tiny.MIXTURES, *paper_mixtures.NAMES):
        (tmp_path / name).write_text("sub_datasets: [{name: a, train: a, test: a, validation: a}]")
        assert (RunConfig(mixture=name).mixture, RunConfig(mixture=name).select_on) == (name, "test")


def test_a_mixture_that_is_a_link_has_the_data_beside_it(tmp_path):
    """As load_mixture reads it."""
    (tmp_path / "base").mkdir()
    (tmp_path / "own").mkdir()
    (tmp_path / "base" / "mine.yaml").write_text("name: mine")
    (tmp_path / "own" / "mine.yaml").symlink_to("../base/mine.yaml")
    (tmp_path / "link").symlink_to("own")
    assert RunConfig(mixture=tmp_path / "link" / "mine.yaml").mixture == str(tmp_path / "own" / "mine.yaml")


def test_a_mixture_by_name_selects_on_test_as_the_paper_does_and_keeps_its_identity(mixture_file):
    named, own = RunConfig(method="sft"), RunConfig(method="sft", mixture=str(mixture_file), select_on="test")
    assert named.select_on == "test" and named == RunConfig(method="sft", select_on="test")
    assert named.fingerprint("data", "model") == "56953f35c2a0095d7b997f8a4d9556fafe144244abdba2b5896535e7a5348d74"
    assert "--select-on" not in named.command_line()
    assert "--select-on test" in own.command_line()  # left out, the file would decide


def test_a_method_of_one_s_own_may_have_a_list_for_a_parameter(tmp_path):
    head = '"""Mine."""\nfrom dataclasses import dataclass, field\n\n\n@dataclass(frozen=True)\nclass Params:\n'
    (tmp_path / "mine.py").write_text(
        f"{head}    turns: list = field(default_factory=list)\n\n\ndef run(trainer, params): ...\n"
    )
    one, same, other = (
        RunConfig("mine", methods_dir=str(tmp_path), params={"turns": turns}) for turns in ([1], [1], [2])
    )
    assert len({one, same, other}) == 2  # a grid and a notebook ask for each run once
