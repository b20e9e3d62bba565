"""Names of models and mixtures: every spelling of a path is one thing, and what cannot be used says what to do."""

import json
import logging
import os
import re
import shutil
import string
import subprocess
import sys
from pathlib import Path

import helpers
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import msft
from msft import names, paths
from msft.data import tasks
from msft.errors import ConfigError, DataError, ModelError


def rows(start, count):
    return "".join(
        json.dumps({"question": f"{i} + 1?", "answer": str(i + 1)}) + "\n" for i in range(start, start + count)
    )


def write_mixture(folder, **entry):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.jsonl").write_text(rows(0, 8))
    (folder / "test.jsonl").write_text(rows(20, 3))
    entry = {"name": "sums", "train": "train.jsonl", "test": "test.jsonl", **entry}
    (folder / "mine.yaml").write_text(yaml.safe_dump({"name": "mine", "sub_datasets": [entry]}))
    return folder / "mine.yaml"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder with a model folder and a mixture, seen from a folder beside it."""
    home, here = tmp_path / "home", tmp_path / "here"
    (home / "models" / "small").mkdir(parents=True)
    (home / "models" / "small" / "config.json").write_text("{}")
    write_mixture(home / "data")
    (here / "inner").mkdir(parents=True)
    (here / "link").symlink_to(home / "models" / "small")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    return home


def test_all_spellings_of_a_path_are_one(home):
    spellings = ["~/models/small", "~/models/small/", "../home/models/small", "./../home/models/small/.", "link"]
    spellings += [str(home / "models" / "small"), "inner/../link", f"{home}//models///small"]
    mixtures = ["~/data/mine.yaml", "../home/data/mine.yaml", str(home / "data" / "mine.yaml")]
    configs = {msft.RunConfig(model=m, mixture=d) for m in spellings for d in mixtures}
    os.chdir(home / "models")
    configs |= {msft.RunConfig(model=m, mixture="../data/mine.yaml") for m in ("small", ".//small")}
    assert len(configs) == 1
    assert len({config.fingerprint() for config in configs}) == 1


def test_a_folder_that_moved_is_the_same_run(home):
    before = msft.RunConfig(model="~/models/small").fingerprint()
    (home / "models").rename(home / "moved")
    assert msft.RunConfig(model="~/moved/small").fingerprint() == before


@pytest.mark.parametrize("name", ["tiny-qwen2", "paper-10", "Qwen/Qwen2.5-0.5B", "no/such/folder", "~nobody/x"])
def test_names_that_are_no_paths_stay(home, name):
    assert msft.RunConfig(model=name, mixture=name).model == name


PARTS = st.text(st.sampled_from(string.ascii_letters + string.digits + " []{}()?*$%~#'!&;=+,é"), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(PARTS.filter(lambda part: part.strip() == part))
def test_any_folder_name_holds_the_same_data(tmp_path_factory, part):
    """A folder's name is a name: no pattern, no variable."""
    folder = tmp_path_factory.mktemp("any") / part / "in"
    mixture = msft.load_mixture(write_mixture(folder, train="../in/train.jsonl"))
    assert [len(mixture["sums"].train), len(mixture["sums"].test)] == [3, 3]
    assert msft.RunConfig(mixture=str(folder / "mine.yaml")).mixture == str(folder / "mine.yaml")


def test_the_home_folder_is_meant_by_a_tilde_everywhere(home, tmp_path):
    assert names.model_source("~/models/small") == str(home / "models" / "small")
    assert msft.load_mixture("~/data/mine.yaml").names == ["sums"]
    there = write_mixture(tmp_path / "there", train="~/data/train.jsonl")
    assert msft.load_mixture(there).fingerprint() == msft.load_mixture("~/data/mine.yaml").fingerprint()
    (home / "hub").mkdir()
    with pytest.raises(DataError, match=f"{home}/hub/hellaswag/train.jsonl"):
        msft.load_mixture("paper-5", data_dir="~/hub")


def test_settings_that_a_mixture_does_not_use_are_named(home, caplog):
    with pytest.raises(ConfigError, match="unknown setting of a mixture 'trian_size'. Did you mean 'train_size'"):
        msft.load_mixture("~/data/mine.yaml", trian_size=3)
    with caplog.at_level(logging.WARNING, logger="msft"):
        msft.load_mixture("~/data/mine.yaml", train_size=3, test_size=None, max_tokens=64)
    (record,) = caplog.records
    assert record.getMessage().endswith(
        "mine.yaml: not used, since only the paper's mixtures are drawn by them: train_size"
    )


def test_the_package_s_own_mixtures_stand_for_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [*names.tiny.MIXTURES, *names.paper_mixtures.NAMES]:
        Path(name).write_text("")
        assert not paths.is_mixture_file(name) and paths.is_mixture_file(f"./{name}")


def weights_of(folder, size, place, name="model.safetensors"):
    folder.mkdir(exist_ok=True)
    data = bytearray(size)
    data[place] = 1
    (folder / name).write_bytes(data)
    return names.model_identity(str(folder), None)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "tokenizer.model", "merges.txt"])
def test_a_model_s_identity_is_in_all_of_a_file(tmp_path, name):
    size = 5 << 20
    places = [0, (1 << 20) - 1, 1 << 20, 5 << 19, (4 << 20) - 1, 4 << 20, size - 1]
    assert len({weights_of(tmp_path / "model", size, place, name) for place in places}) == len(places)


def test_a_large_file_s_identity_is_in_a_thousand_places(tmp_path):
    size = 128 << 20
    identities = {weights_of(tmp_path / "model", size, (1 << 20) + i * (size >> 10)) for i in (0, 1, 500, 1000)}
    assert len(identities) == 4


def test_an_adapter_is_refused_with_what_to_do(home):
    (home / "models" / "small" / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"holds an adapter \(adapter_config.json\).*merge_and_unload"):
        names.model_source("~/models/small")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"intermediate_size": 32}, r"weights of other shapes .* such as .*mlp\.\S+, \(\d+, \d+\) in the file"),
        ({"hidden_act": "swoosh"}, "cannot be loaded: KeyError 'swoosh'"),
    ],
)
def test_what_a_config_says_of_other_weights_is_named(model_folder, tmp_path, change, said):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelError, match=said):
        names.load_model(str(folder), "fp32")


@pytest.mark.parametrize(("kind", "said"), [("int8", "I8"), ("uint8", "U8"), ("float8_e4m3fn", "F8_E4M3")])
def test_weights_that_are_quantised_and_of_no_known_scale_are_refused(model_folder, tmp_path, kind, said):
    """They would be cast as they are: 127 in place of 0.02."""
    folder = shutil.copytree(model_folder, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("mlp.down_proj.weight"))
    other = {**weights, name: weights[name].to(getattr(torch, kind))}
    save_file(other, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=rf"{name} is quantised \({said}\), for which config.json has no quantization_config"
    ):
        names.load_model(str(folder), "fp32")
    save_file({**weights, name: weights[name].half()}, folder / "model.safetensors", metadata={"format": "pt"})
    assert names.load_model(str(folder), "fp32").dtype == torch.float32


@pytest.mark.parametrize("change", [{"output_attentions": True, "output_hidden_states": True}, {"return_dict": False}])
def test_what_a_config_asks_a_pass_to_give_back_changes_nothing(small_settings, tmp_path, change):
    """With attentions the checkpoint could not be saved once the run was trained."""
    folder = shutil.copytree(small_settings["model"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    runs = []
    for number, more in enumerate(({}, change)):
        (folder / "config.json").write_text(json.dumps({**config, **more}))
        own = msft.RunConfig(**{**small_settings, "model": str(folder), "params": {"epochs": 0.25}})
        runs.append(msft.run(own, tmp_path / str(number), progress=False))
    plain, changed = runs
    assert changed.history.equals(plain.history) and changed.result["paths"] == plain.result["paths"]
    stored = [(run.best.path / "model.safetensors").read_bytes() for run in runs]
    assert stored[0] == stored[1]


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer_config.json"])
def test_a_model_s_file_that_cannot_be_read_is_named(tmp_path, file):
    """A snapshot of the hub's cache that was copied without what its links stand for."""
    for name in ("config.json", "model.safetensors", "tokenizer_config.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "notes.txt").symlink_to("nowhere")
    assert names.model_source(str(tmp_path)) == str(tmp_path)
    (tmp_path / file).unlink()
    (tmp_path / file).symlink_to("../../blobs/1234")
    for read in (lambda: names.model_source(str(tmp_path)), lambda: names.model_identity(str(tmp_path), None)):
        with pytest.raises(ModelError, match=rf"{re.escape(str(tmp_path / file))}.*cp -rL"):
            read()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs another user")
def test_a_folder_that_may_not_be_read_is_said(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    tmp_path.chmod(0)
    code = "import sys; from msft import names, paths, errors\n"
    code += "try: paths.settled('model', sys.argv[1]); names.model_source(sys.argv[1])\n"
    code += "except errors.ModelError as error: print(error)\n"
    code += "try: names.load_mixture(sys.argv[1] + '/mine.yaml')\n"
    code += "except errors.DataError as error: print(error)"
    command = ["unshare", "-U", "--map-user=12345", sys.executable, "-c", code, str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    tmp_path.chmod(0o755)
    assert "cannot be read: [Errno 13]" in done.stdout, done.stderr
    assert "or its folder may not be read" in done.stdout, done.stderr


def test_a_tiny_model_needs_no_home_folder(monkeypatch):
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: pytest.fail("asked for a home folder"))
    assert (Path(names.model_source("tiny-smoke")) / "model.safetensors").is_file()


def in_ascii_locale(code, folder):
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, timeout=300)
    assert not done.returncode, done.stderr.decode()
    return done.stdout.decode("ascii")


def test_every_command_works_in_an_ascii_locale(tmp_path, model_folder):
    """Texts and names are UTF-8 whatever the locale; what a terminal cannot show is escaped."""
    mixture = helpers.write_mixture(tmp_path)
    mixture.write_text(
        mixture.read_text(encoding="utf-8").replace("mottos\n", '"s\\xFCms \\u2603"\n'), encoding="utf-8"
    )
    words = f"run --method sft --params epochs=0.25 --model {model_folder} --mixture small.yaml --precision fp32 --device cpu"
    code = f"""
import glob
from msft.cli.main import main
from paper_figures import report
assert main({words.split()!r} + ["--max-new-tokens", "12"]) == 0
(run,) = glob.glob("runs/*")
for words in (["status"], ["export", run, "out"], ["eval", run + "/best"]):
    assert main(words) == 0, words
report.write(report.OUT / "tiny", "page.html")
"""
    out = in_ascii_locale(code, tmp_path)
    assert "training packed, evaluation packed" in out
    assert r"s\xfcms \u2603" in out
    assert "süms ☃" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "–" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "call",
    [
        "msft.run(msft.RunConfig(method='sft', model='tiny-smoke', mixture='tiny-smoke'), 'r\\xfcns')",
        "names.model_source('m\\xfcdel')",
        "msft.load_mixture('m\\xfcne.yaml')",
    ],
)
def test_a_path_that_the_locale_cannot_write_is_an_error_with_the_mend(call, tmp_path):
    code = f"""
import msft
from msft import errors, names
try:
    {call}
except errors.ConfigError as error:
    print(error)
"""
    out = in_ascii_locale(code, tmp_path)
    assert re.fullmatch(r"this locale \(ascii\) cannot write the path '[rm]\\xfc\w+(.yaml)?'; set PYTHONUTF8=1\n", out)


def test_arguments_that_the_locale_cannot_read_are_named_with_the_mend(tmp_path):
    code = "import sys; from msft.cli.main import main; sys.stderr = sys.stdout; main(['run', '--model', 'm\\udcc3\\udcbc'])"
    assert (
        in_ascii_locale(code, tmp_path) == r"this locale (ascii) cannot read 'm\udcc3\udcbc': set PYTHONUTF8=1" + "\n"
    )


@pytest.mark.parametrize("part", ["[v2]", "a?b", "all*", "{x}", "$HOME", "a b"])
def test_task_files_find_their_data_in_any_folder(tmp_path, part):
    """lm-eval reads them where they are, whatever the folder's name means to `datasets`; moved ones too."""
    from lm_eval.tasks import TaskManager, get_task_dict

    mixture, folder = msft.load_mixture(write_mixture(tmp_path / "data")), tmp_path / part / "tasks"
    tasks.write_tasks(tmp_path / "elsewhere" / "tasks", mixture, 8)
    (tmp_path / "elsewhere").rename(tmp_path / part)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    (task,) = get_task_dict(["msft_task_sums"], manager).values()
    assert [doc["answer"] for doc in task.test_docs()] == ["21", "22", "23"]
