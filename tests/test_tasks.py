"""lm-eval task files of the ten benchmarks, and lm-eval's own tasks as a second protocol."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import helpers
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import msft
from msft import evaluation
from msft.__main__ import main
from msft.benchmarks import paper_mixtures
from msft.cli import lm_eval_data as hub
from msft.data import scoring
from msft.data.example import test_prompt as five_shot_prompt
from msft.data.example import training_text
from msft.errors import ConfigError
from msft.names import load_tokenizer

TASKS = Path(msft.__file__).parent / "lm_eval_tasks"
TEN = [benchmark.name for benchmark in paper_mixtures.mixture_benchmarks("paper-10")]
SIZE, LONGEST, ANSWER = 4, 600, 24


def settings(shared, **more):
    return {"MSFT_DATA_DIR": str(shared / "benchmarks"), "MSFT_TEST_SIZE": str(SIZE), **more}


def manager(**metadata):
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(TASKS), include_defaults=False, metadata=metadata)


# the files, without a model ------------------------------------------------------------------------------------


def test_there_is_a_task_for_each_of_the_ten_and_a_group_of_all():
    index = manager()
    assert sorted(index.all_subtasks) == sorted(f"msft_{name}" for name in TEN)
    group = yaml.safe_load((TASKS / "msft_10.yaml").read_text())
    assert group["task"] == [f"msft_{name}" for name in TEN]
    assert index.all_groups == ["msft_10"]


def test_prompts_and_settings_are_those_of_the_mixture(shared, monkeypatch):
    for name, value in settings(shared).items():
        monkeypatch.setenv(name, value)
    mixture = msft.load_mixture("paper-10", data_dir=str(shared / "benchmarks"), test_size=SIZE)
    tasks = manager().load(["msft_10"])["tasks"]
    for sub in mixture:
        task = tasks[f"msft_{sub.name}"]
        task.build_all_requests()
        assert [i.args[0] for i in task.instances] == [five_shot_prompt(sub, e) for e in sub.test]
        assert [i.doc["answer"] for i in task.instances] == [e.answer for e in sub.test]
        assert task.instances[0].args[1] == {"until": [], "do_sample": False, "max_gen_toks": 512}


@pytest.mark.parametrize("value", ["ten", "0", "-3", "1.5"])
def test_a_bad_environment_variable_is_named(value, monkeypatch):
    monkeypatch.setenv("MSFT_TEST_SIZE", value)
    with pytest.raises(ConfigError, match="MSFT_TEST_SIZE must be a whole number"):
        hub.dataset("gsm8k")
    monkeypatch.delenv("MSFT_TEST_SIZE")
    monkeypatch.setenv("MSFT_TEST_SIZES", "4")
    with pytest.raises(ConfigError, match="'MSFT_TEST_SIZES'. Did you mean 'MSFT_TEST_SIZE'"):
        hub.dataset("gsm8k")


def test_an_environment_variable_that_no_command_reads_is_named(monkeypatch, capsys):
    monkeypatch.setenv("MSFT_DATA_DIR", "/nowhere")
    monkeypatch.setenv("MSFT_TEST_SIZ", "4")
    monkeypatch.setenv("MSFT_TENANT_ID", "of another product")
    assert main(["methods"]) == 0
    assert capsys.readouterr().err.startswith(
        "environment variables that no command reads: MSFT_DATA_DIR, MSFT_TEST_SIZ; "
    )


def answer_filter():
    from lm_eval.filters import build_filter_ensemble

    (spec,) = yaml.load((TASKS / "_default.yaml").read_text().replace("!function ", ""), yaml.SafeLoader)["filter_list"]
    steps = [[{**step}.pop("function"), {k: v for k, v in step.items() if k != "function"}] for step in spec["filter"]]
    return build_filter_ensemble(spec["name"], steps)


FILTER = answer_filter()


def filtered(text):
    instance = helpers.requests(["p"])[0]
    instance.resps = [text]
    FILTER.apply([instance])
    return instance.filtered_resps["answer"]


PIECES = ["#### ", "####", "\n", " ", "C", "c.", "7", "7.0", "so", "\u2028", "\x85", "\t", "#", "\r", "é", "\x1c"]


@given(
    st.lists(st.sampled_from(PIECES), max_size=9).map("".join), st.sampled_from(["C", "7", "so C", "é", "[invalid]"])
)
def test_the_answer_filter_changes_no_score(text, answer):
    assert scoring.score(filtered(text), answer) == scoring.score(text, answer)


def test_the_answer_filter_shows_the_answer():
    assert filtered("2 + 2 = 4 #### 4.\nQ: more #### 5") == "#### 4."
    assert filtered("no mark") == "no mark"


# the stock command ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pupil(shared, tmp_path_factory):
    """(folder, model, tokenizer, mixture): knows the format and some of the answers of four test items a benchmark."""
    whole = msft.load_mixture("paper-10", data_dir=str(shared / "benchmarks"), test_size=SIZE)
    texts = ["".join(training_text(e)) for sub in whole for e in (*sub.train[:150], *sub.test)]
    tokenizer = helpers.make_tokenizer().train_new_from_iterator(texts, 1500, show_progress=False)
    model = helpers.make_model(vocabulary=len(tokenizer), hidden_size=48, initializer_range=0.05)
    folder = tmp_path_factory.mktemp("pupil") / "best"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # read back, as a run and the command do: transformers gives some model types a pre-tokenizer of its own
    tokenizer = load_tokenizer(str(folder))
    data = str(shared / "benchmarks")
    mixture = msft.load_mixture(
        "paper-10", tokenizer=tokenizer, data_dir=data, test_size=SIZE, max_prompt_tokens=LONGEST
    )
    # the rule on long prompts must matter, or the test would not see it
    assert mixture["boolq"].test != whole["boolq"].test
    pairs = [(five_shot_prompt(sub, sub.test[0]), sub.test[0].target) for sub in mixture]
    helpers.teach(model, tokenizer, pairs, 25).save_pretrained(folder)
    return folder, model, tokenizer, mixture


@pytest.fixture(scope="module")
def stock(pupil, shared, tmp_path_factory):
    """(samples by task, results) of lm-eval's own command on the ten tasks."""
    folder = tmp_path_factory.mktemp("stock")
    command = [sys.executable, "-m", "lm_eval", "--model", "hf", "--device", "cpu", "--batch_size", "8"]
    command += ["--model_args", f"pretrained={pupil[0]},dtype=float32", "--gen_kwargs", f"max_gen_toks={ANSWER}"]
    command += ["--include_path", str(TASKS), "--tasks", "msft_10", "--output_path", str(folder), "--log_samples"]
    more = settings(shared, MSFT_MAX_PROMPT_TOKENS=str(LONGEST), HF_HUB_OFFLINE="1")
    done = subprocess.run(command, env={**os.environ, **more}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    samples = {}
    for path in folder.rglob("samples_*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        samples[path.name.removeprefix("samples_").rsplit("_", 1)[0]] = sorted(rows, key=lambda row: row["doc_id"])
    (results,) = folder.rglob("results_*.json")
    return samples, json.loads(results.read_text())


def test_stock_command_gives_the_answers_of_the_in_process_evaluation(pupil, stock):
    _, model, tokenizer, mixture = pupil
    samples, results = stock
    scores = evaluation.Evaluator(model, tokenizer, mixture, "test", ANSWER, 8).evaluate()
    right = items = 0
    for sub in mixture:
        rows, mine = samples[f"msft_{sub.name}"], scores[sub.name]
        assert [row["arguments"]["gen_args_0"]["arg_0"] for row in rows] == [five_shot_prompt(sub, e) for e in sub.test]
        # in process, decoding stops where the score is decided
        assert all(row["resps"][0][0].startswith(text) for row, text in zip(rows, mine.outputs, strict=True))
        assert [row["acc"] for row in rows] == [float(c) for c in mine.correct]
        accuracy = results["results"][f"msft_{sub.name}"]["acc,answer"]
        assert accuracy == pytest.approx(mine.accuracy)
        right, items = right + sum(mine.correct), items + mine.n
    assert 0 < right < items
    assert results["groups"]["msft_10"]["acc,answer"] == pytest.approx(right / items)


# lm-eval's own tasks --------------------------------------------------------------------------------------------


def test_the_stock_tasks_that_the_readme_names_are_there():
    import lm_eval.tasks

    text = (Path(msft.__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"--tasks (commonsense_qa,\S+)", text)
    wanted = set(line.split(","))
    assert len(wanted) == len(TEN)
    folders = [*wanted, "arc", "agieval", "super_glue"]
    root = Path(lm_eval.tasks.__file__).parent
    paths = [str(root / folder) for folder in folders if (root / folder).is_dir()]
    names = set(lm_eval.tasks.TaskManager(include_path=paths, include_defaults=False).all_subtasks)
    # the whole index takes many seconds to read: only where a version keeps a task somewhere else
    assert wanted <= names or wanted <= set(lm_eval.tasks.TaskManager().all_subtasks)


@pytest.fixture
def own_task(tmp_path):
    """A folder with one multiple-choice task over local records, as the stock ones are written."""
    folder = tmp_path / "own"
    folder.mkdir()
    for part, start, count in (("train", 0, 20), ("test", 40, 11)):
        rows = [
            {"question": f"{i} + {i % 3}?", "choices": [str(i + k) for k in range(4)], "gold": i % 3}
            for i in range(start, start + count)
        ]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {part: str(folder / f"{part}.jsonl") for part in ("train", "test")}
    config = {
        "task": "own_sums",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files},
        "output_type": "multiple_choice",
        "training_split": "train",
        "fewshot_split": "train",
        "test_split": "test",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (folder / "own_sums.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_own_and_stock_lm_choose_the_same_options(own_task, tiny_model, monkeypatch):
    import lm_eval
    import lm_eval.evaluator
    import torch
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    monkeypatch.setattr(lm_eval.evaluator, "add_env_info", lambda results: None)  # it asks pip, for long
    model, tokenizer = tiny_model
    ours = msft.generation.PrefixCachedLM(model.train(), tokenizer, 4)
    assert model.training
    stock = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4)
    manager = TaskManager(include_path=str(own_task), include_defaults=False)
    before, scores = torch.get_rng_state(), []
    for lm in (ours, stock):
        scores.append(
            lm_eval.simple_evaluate(lm, tasks=["own_sums"], num_fewshot=5, task_manager=manager, bootstrap_iters=0)
        )
    torch.set_rng_state(before)
    mine, theirs = scores
    pairs = list(zip(mine["samples"]["own_sums"], theirs["samples"]["own_sums"], strict=True))
    assert len(pairs) == 11
    chosen = set()
    for a, b in pairs:
        assert a["arguments"] == b["arguments"]
        assert a["arguments"][0][0].count("Question:") == 6
        logs = [[float(resp[0][0]) for resp in sample["resps"]] for sample in (a, b)]
        assert logs[0] == pytest.approx(logs[1], abs=1e-3)
        best = [max(range(4), key=row.__getitem__) for row in logs]
        assert best[0] == best[1]
        assert a["acc"] == b["acc"]
        chosen.add(best[0])
    assert len(chosen) > 1
    assert mine["results"]["own_sums"]["acc,none"] == theirs["results"]["own_sums"]["acc,none"]
