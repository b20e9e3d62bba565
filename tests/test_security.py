"""Nothing that comes from a file is executed: no pickle, no foreign code, no tags, no templates, no paths from names."""

import ast
import io
import json
import pickle
import shutil
from pathlib import Path

import pytest
import yaml
from helpers import ALWAYS

import msft
from msft import evaluation, runs
from msft.config import RunConfig
from msft.data import mixture, tasks
from msft.data.example import test_prompt as five_shot_prompt
from msft.errors import ConfigError, DataError, ModelError
from msft.loss import tokens
from msft.settings import read_yaml

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "msft").rglob("*.py"), *(ROOT / "paper_figures").rglob("*.py")])

# the sources ----------------------------------------------------------------------------------------------------

MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jinja2", "pty"}
BUILTINS = {"eval", "exec", "compile", "__import__", "input"}
CALLS = {"torch.load", "os.system", "os.popen", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"}
CALLS |= {"pandas.read_pickle", "pandas.eval", "code.interact", "runpy.run_path", "runpy.run_module"}
TEMPLATE = "format of a template that is no literal"
TRUE = {"allow_pickle", "shell", "trust_remote_code"}  # never the constant True


def dotted(node):
    """'torch.load' of an attribute of names, else ''."""
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return node.id if isinstance(node, ast.Name) else ""


def dangers(source):
    """(line, what) of everything in a source that could execute data."""
    found, alias = [], {}
    tree = ast.parse(source)
    for node in ast.walk(tree):
        names = node.names if isinstance(node, ast.Import | ast.ImportFrom) else []
        module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        for name in names:
            whole = f"{module}.{name.name}".strip(".")
            alias[name.asname or name.name.split(".")[0]] = whole if name.asname or module else whole.split(".")[0]
            if whole.split(".")[0] in MODULES:
                found.append((node.lineno, whole))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            head, _, rest = dotted(node).partition(".")
            what = alias.get(head, head) + (f".{rest}" if rest else "")
            if what in CALLS or (isinstance(node, ast.Name) and what in BUILTINS):
                found.append((node.lineno, what))
        if isinstance(node, ast.Call):
            for word in node.keywords:
                if word.arg in TRUE and isinstance(word.value, ast.Constant) and word.value.value is not False:
                    found.append((node.lineno, word.arg))
            on = node.func.value if isinstance(node.func, ast.Attribute) and node.func.attr == "format" else None
            styler = dotted(on).endswith(".style")  # of pandas: numbers of a table
            if on is not None and not styler and not isinstance(on, ast.Constant):
                found.append((node.lineno, TEMPLATE))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_cannot_execute_data(path):
    found = dangers(path.read_text(encoding="utf-8"))
    if path.parts[-2:] == ("instrument", "mixtures.py"):  # fills the templates that stand in it, and reads nothing
        found = [(line, what) for line, what in found if what != TEMPLATE]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "import torch\ntorch.load('x')",
        "import torch as t\nt.load('x')",
        "from torch import load\nload('x')",
        "from torch import load as read\nread('x')",
        "import pickle",
        "from pickle import loads",
        "import joblib as j",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import yaml\nyaml.load('x', yaml.Loader)",
        "from yaml import unsafe_load\nunsafe_load('x')",
        "import pandas as pd\npd.read_pickle('x')",
        "import os\nos.system('x')",
        "import os\nrun = os.system",
        "import subprocess\nsubprocess.run('x', shell=True)",
        "eval('1')",
        "run = exec",
        "f(trust_remote_code=True)",
        "template.format(1)",
    ],
)
def test_danger_is_seen(line):
    assert dangers(line)


def test_harmless_is_not_taken_for_danger():
    assert not dangers("import re\nre.compile('x')\nmodel.eval()\n'{}'.format(1)\nyaml.safe_load('x')\nstate.load()")


# pickles and foreign code ---------------------------------------------------------------------------------------


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.mkdir, (self.marker,)


def trap(marker, kind):
    if kind == "pickle":
        return pickle.dumps(Trap(marker))
    import torch

    file = io.BytesIO()
    torch.save({"model.norm.weight": Trap(marker)}, file)
    return file.getvalue()


@pytest.fixture
def base(settings, tmp_path):
    """Settings of a run of a second over a model folder of the test's own."""
    shutil.copytree(settings["model"], tmp_path / "model")
    return {**settings, "model": str(tmp_path / "model"), "method": "sft", "params": {"epochs": 0.25}}


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_the_trap_works(tmp_path, kind):
    import torch

    data = trap(tmp_path / "opened", kind)
    pickle.loads(data) if kind == "pickle" else torch.load(io.BytesIO(data), weights_only=False)
    assert (tmp_path / "opened").is_dir()


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_pickles_beside_a_model_are_never_opened(base, tmp_path, runs_dir, monkeypatch, kind):
    import torch

    def opened(*args, **kwargs):
        raise AssertionError("torch.load was called")

    monkeypatch.setattr(torch, "load", opened)
    folder, marker = Path(base["model"]), tmp_path / "opened"
    data = trap(marker, kind)
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "tokenizer.pkl", "adapter_model.bin"):
        (folder / name).write_bytes(data)
    assert msft.run(RunConfig(**base), runs_dir, progress=False).status == "finished"
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="never opened"):
        msft.run(RunConfig(**base), tmp_path / "others", progress=False)
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "pytorch_model.bin"}}
    for name in ("pytorch_model.bin.index.json", "model.safetensors.index.json"):
        (folder / name).write_text(json.dumps(index))
    with pytest.raises(ModelError, match="names a pickle file as its weights.*never opened"):
        msft.run(RunConfig(**base), tmp_path / "others", progress=False)
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelError):
        msft.run(RunConfig(**base), tmp_path / "others", progress=False)
    assert not marker.exists()
    assert not (tmp_path / "others").exists()


def foreign(folder, marker, kind):
    """Code in a model folder that leaves a mark when it is imported."""
    changes = {"auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    file = folder / "config.json"
    if kind == "tokenizer":
        changes, file = {"auto_map": {"AutoTokenizer": ["own.Tokenizer", None]}}, folder / "tokenizer_config.json"
        changes["tokenizer_class"] = "OwnTokenizer"
    elif kind == "model":
        changes |= {"model_type": "own", "architectures": ["Model"]}
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    (folder / "own.py").write_text(
        "from pathlib import Path\nfrom transformers import Qwen2Config, Qwen2ForCausalLM\n"
        f"Path({str(marker)!r}).mkdir(exist_ok=True)\n"
        "class Config(Qwen2Config):\n    model_type = 'own'\n"
        "class Model(Qwen2ForCausalLM):\n    config_class = Config\n"
    )


@pytest.mark.parametrize("kind", ["model", "tokenizer", "model of a known type"])
def test_code_of_a_model_is_not_run(base, tmp_path, runs_dir, kind):
    foreign(Path(base["model"]), tmp_path / "ran", kind)
    try:
        msft.run(RunConfig(**base), runs_dir, progress=False)
    except ModelError as error:
        assert "trust_remote_code=True" in str(error)
        assert not runs_dir.exists()
    assert kind != "model" or not runs_dir.exists()
    assert not (tmp_path / "ran").exists()


def test_code_of_a_model_is_run_where_the_user_says_so(base, tmp_path, monkeypatch):
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    foreign(Path(base["model"]), tmp_path / "ran", "model")
    with pytest.raises(ModelError, match="custom code"):
        runs.prepare(RunConfig(**base)).load_model()
    model = runs.prepare(RunConfig(**base, trust_remote_code=True)).load_model()
    assert type(model).__name__ == "Model"
    assert (tmp_path / "ran").is_dir()


@pytest.mark.parametrize("given", [{}, {"trust_remote_code": False}, {"trust_remote_code": True}])
def test_trust_is_passed_on_as_the_user_gave_it(base, monkeypatch, given):
    import transformers

    assert RunConfig().trust_remote_code is False
    seen = []
    for kind in (transformers.AutoTokenizer, transformers.AutoModelForCausalLM):

        def recording(source, *args, original=kind.from_pretrained, **kwargs):
            seen.append((kwargs["trust_remote_code"], kwargs.get("use_safetensors")))
            return original(source, *args, **kwargs)

        monkeypatch.setattr(kind, "from_pretrained", recording)
    runs.prepare(RunConfig(**base, **given)).load_model()
    trusted = given.get("trust_remote_code", False)
    assert seen == [(trusted, None), (trusted, True)]


# YAML -----------------------------------------------------------------------------------------------------------

TAGS = [
    "!!python/object/apply:os.mkdir [made]",
    "!!python/object/apply:pathlib.Path.mkdir [!!python/object/apply:pathlib.Path [made]]",
    "!!python/object/new:os.mkdir [made]",
    "!!python/name:os.mkdir",
    "!!python/module:os",
    "!!python/tuple [made]",
    "!function own.run",
    "!include /etc/passwd",
]


@pytest.mark.parametrize("tag", TAGS)
def test_yaml_tags_make_nothing(tmp_path, monkeypatch, tag):
    import lm_eval.utils  # noqa: F401  its own tags must not reach our reader

    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text("import os\nos.mkdir('made')\ndef run(): pass\n")
    for text in (f"name: {tag}\n", f"{tag}\n", f"? {tag}\n: x\n"):
        (tmp_path / "file.yaml").write_text(text)
        with pytest.raises(DataError, match="not readable as YAML"):
            msft.load_mixture("file.yaml")
        with pytest.raises(ConfigError, match="not readable as YAML"):
            RunConfig.from_mapping(read_yaml("file.yaml"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.yaml", "own.py"]


# data that look like code ---------------------------------------------------------------------------------------

NASTY = [
    "{{ 7*7 }}", "{% for x in range(3) %}x{% endfor %}", "{# gone #}", "{{ ''.__class__.__mro__ }}", "{{prompt}}",
    "{__class__}", "{0.__init__}", "{{...}}", "{}", "%s %(name)s %n", "$HOME ${HOME} $(id)", "`touch made`",
    "../../x", "/etc/passwd", "C:\\x\\..", "nul\0byte", "\x1b[2Jescape", "<script>", "!!python/name:os.system",
    "!function own.run", "__import__('os')", "- a: &b *b", "\u202eright to left", "tab\tand\\n", "None", "1e400",
]  # fmt: skip
LONG = "long " * 40_000


def nasty_rows(part, count):
    """Rows of which question, rationale and answer are texts that some reader could take for code."""
    found = []
    for number in range(count):
        text = NASTY[number % len(NASTY)]
        row = {"question": f"{part} {number} {text}", "answer": text, "rationale": text if number % 2 else None}
        found.append(row)
    return found


NAMES = ["../../outside", "{{ 7*7 }}", "..", "a/b", "{__class__}", "*", "msft_run", "%2e%2e%2f", "~", "$HOME", "a\\b"]


@pytest.fixture(scope="module")
def nasty_file(tmp_path_factory):
    """A mixture of which every text and every name looks like code or a path."""
    folder = tmp_path_factory.mktemp("nasty") / "in" / "here"
    folder.mkdir(parents=True)
    for part, count in (("train", 34), ("test", len(NASTY)), ("shots", 5)):
        found = nasty_rows(part, count)
        if part != "shots":
            found.append({"question": f"{part} {LONG}", "answer": "1"})
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    files = {part: f"{part}.jsonl" for part in ("train", "test", "shots")}
    entries = [{"name": name, "group": name, **files} for name in NAMES]
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"name": "{{ 7*7 }}/../../x", "sub_datasets": entries}))
    return path


def test_texts_come_through_unchanged(nasty_file, tokenizer):
    sub = msft.load_mixture(str(nasty_file)).sub_datasets[0]
    prefix = ""
    for row in nasty_rows("shots", 5):
        answer = row["answer"] if row["rationale"] else row["answer"] + "."
        before = f"{row['rationale']} " if row["rationale"] else ""
        prefix += f"Q: {row['question']}\nA: {before}#### {answer}\n"
    for row, example in zip(nasty_rows("test", len(NASTY)), sub.test, strict=False):
        assert five_shot_prompt(sub, example) == f"{prefix}Q: {row['question']}\nA: "
    for row, example, encoded in zip(
        nasty_rows("train", 34), sub.train, tokens.tokenize(tokenizer, sub.train), strict=False
    ):
        before = f"{row['rationale']} " if row["rationale"] else ""
        assert msft.training_text(example) == (f"Q: {row['question']}\nA: ", f"{before}#### {row['answer']}")
        assert tokenizer.decode(encoded.ids[:-1]) == "".join(msft.training_text(example))
    assert sub.test[-1].question == f"test {LONG}".strip()


def test_task_files_give_the_texts_unchanged(nasty_file, tmp_path):
    from lm_eval.tasks import TaskManager

    whole = msft.load_mixture(str(nasty_file))
    few = mixture.Mixture("few", [whole["{{ 7*7 }}"], whole["../../outside"]])
    tasks.write_tasks(tmp_path / "tasks", few, 8)
    names = [tasks.task_name(sub.name) for sub in few]
    loaded = TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False).load(names)["tasks"]
    for sub, name in zip(few, names, strict=True):
        task = loaded[name]
        task.build_all_requests()
        assert [i.args[0] for i in task.instances] == [five_shot_prompt(sub, e) for e in sub.test]
        assert [i.doc["answer"] for i in task.instances] == [e.answer for e in sub.test]
        gold = [task.process_results(i.doc, [e.target]) for i, e in zip(task.instances, sub.test, strict=True)]
        assert all(result["acc"] == 1.0 for result in gold)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tasks"]


def test_template_reaches_the_model_as_it_is(tiny_model):
    """Seen where the tokens enter the model: '{{ 7*7 }}' is there and 49 is nowhere."""
    model, tokenizer = tiny_model

    def item(letter):
        return msft.Example(f"{letter}: what is {{{{ 7*7 }}}}?", "#### {{ 7*7 }}", "{{ 7*7 }}")

    sub = msft.SubDataset("one", [item("a")], [item(c) for c in "bcd"], [item(c) for c in "efghi"])
    seen = []
    embed = model.get_input_embeddings()
    hook = embed.register_forward_pre_hook(lambda _, args: seen.extend(args[0].tolist()))
    try:
        evaluation.Evaluator(model, tokenizer, mixture.Mixture("m", [sub]), "test", 2, 1).evaluate()
    finally:
        hook.remove()
    texts = [tokenizer.decode(ids) for ids in seen]
    assert any("e: what is {{ 7*7 }}?\nA: #### {{ 7*7 }}." in text for text in texts)
    assert sum("what is {{ 7*7 }}?\nA: " in text for text in texts) >= 4  # the shots, and each of three items
    assert not any("49" in text for text in texts)


def test_names_and_texts_stay_inside_the_run_directory(base, nasty_file, tmp_path, runs_dir, monkeypatch, capsys):
    def outside():
        folders = [tmp_path, nasty_file.parents[2]]
        return sorted(str(p) for folder in folders for p in folder.rglob("*") if runs_dir not in [p, *p.parents])

    monkeypatch.chdir(tmp_path)
    before = outside()
    run = msft.run(RunConfig(**{**base, "mixture": str(nasty_file), "max_tokens": 256}), runs_dir, progress=True)
    assert outside() == before
    assert list(runs_dir.iterdir()) == [run.directory]
    assert list(dict.fromkeys(run.history.task)) == NAMES
    assert run.about["mixture"]["name"] == "{{ 7*7 }}/../../x"
    assert len(list((run.directory / "tasks").glob("msft_task_*.jsonl"))) == len(NAMES)
    assert not [path for path in (run.directory / "tasks").iterdir() if path.is_dir()]
    assert "{{ 7*7 }}: 1 left out" in capsys.readouterr().err


def test_state_that_is_a_pickle_is_never_opened(base, tmp_path, runs_dir, monkeypatch):
    """A run that stopped, of which every saved tensor file was replaced: it begins anew."""
    from msft.store import durable

    with monkeypatch.context() as patch:
        patch.setattr(durable.Durable, "finish", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            msft.run(RunConfig(**base, **ALWAYS), runs_dir, progress=False)
    files = list(runs_dir.rglob("*.safetensors"))
    assert files
    for path in files:
        path.write_bytes(trap(tmp_path / "opened", "torch"))
    with pytest.warns(UserWarning, match="damaged"):
        run = msft.run(RunConfig(**base), runs_dir, progress=False)
    assert run.status == "finished"
    assert not (tmp_path / "opened").exists()
