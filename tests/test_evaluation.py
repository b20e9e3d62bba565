"""Evaluation through lm-eval: its requests are the protocol's prompts, its files give the stock command the same."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext

import pytest
import yaml
from helpers import MAKERS, TEST_SIZES, mixture_rows

import msft
from msft.data import scoring, tasks
from msft.data.example import Example
from msft.data.example import test_prompt as five_shot_prompt
from msft.data.mixture import Mixture, SubDataset
from msft.data.tasks import build_task, write_tasks
from msft.errors import ModelError, Stopped
from msft.evaluation import Evaluator
from msft.names import load_model, load_tokenizer
from msft.store.curve import overall

ODD = [
    "1",
    "[1, 2]",
    "{{x}}",
    "#### {% if %}",
    "True",
    "a\nb",
    " lead",
    "trail ",
    "x.",
    "é\U0001f40b",
    "\\n",
    '"quoted"',
]


def odd_mixture():
    def item(i):
        return Example(f"{ODD[i % len(ODD)]} {i}", f"#### {ODD[i % len(ODD)]}", ODD[i % len(ODD)])

    return Mixture(
        "odd", [SubDataset("odd", [item(50)], [item(i) for i in range(12)], [item(i) for i in range(20, 25)])]
    )


@pytest.fixture(scope="module")
def small_mixture(mixture_file):
    return msft.load_mixture(str(mixture_file))


def test_requests_are_the_protocols_prompts(small_mixture):
    for mixture in (small_mixture, odd_mixture(), msft.load_mixture("tiny-smoke")):
        for sub in mixture:
            task = build_task(sub, sub.test, 20)
            assert [i.args[0] for i in task.instances] == [five_shot_prompt(sub, e) for e in sub.test]
            for instance in task.instances:
                assert instance.args[1] == {"until": [], "max_gen_toks": 20, "do_sample": False}


def test_written_tasks_are_the_built_ones(small_mixture, tmp_path):
    """Read as lm-eval reads them, without a model."""
    from lm_eval.tasks import TaskManager, get_task_dict

    for mixture in (small_mixture, odd_mixture()):
        folder = tmp_path / mixture.name
        write_tasks(folder, mixture, 20)
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        for sub in mixture:
            name = tasks.task_name(sub.name)
            task = get_task_dict([name], manager)[name]
            task.build_all_requests()
            built = build_task(sub, sub.test, 20)
            assert [i.args for i in task.instances] == [i.args for i in built.instances]
            assert [i.doc for i in task.instances] == [i.doc for i in built.instances]
            for e, instance in zip(sub.test, task.instances, strict=True):
                assert task.process_results(instance.doc, [e.target])["acc"] == float(msft.score(e.target, e.answer))


def test_scores(small_run, small_mixture):
    """Accuracies, counts, tokens and texts of one evaluation, recomputed from the texts."""
    model, tokenizer = load_model(str(small_run.best.path), "fp32"), load_tokenizer(str(small_run.best.path))
    evaluator = Evaluator(model, tokenizer, small_mixture, "test", 12, 8)
    first, second = evaluator.evaluate(), evaluator.evaluate()
    assert first == second
    assert list(first) == list(MAKERS)
    for sub in small_mixture:
        scores = first[sub.name]
        assert scores.n == len(scores.outputs) == TEST_SIZES[sub.name]
        right = [msft.score(text, e.answer) for text, e in zip(scores.outputs, sub.test, strict=True)]
        assert scores.correct == right
        assert scores.accuracy == sum(right) / len(right)
        questions = sum(len(tokenizer.encode(f"Q: {e.question}\nA: ")) for e in sub.test)
        assert questions < scores.tokens <= questions + 13 * scores.n


def test_an_evaluation_stops_between_batches_and_the_next_is_whole(small_run, small_mixture):
    model, tokenizer = load_model(str(small_run.best.path), "fp32").train(), load_tokenizer(str(small_run.best.path))
    evaluator = Evaluator(model, tokenizer, small_mixture, "test", 12, 4)
    wanted, asked = evaluator.evaluate(), []
    evaluator.should_stop = lambda: asked.append(1) or len(asked) > 2
    with pytest.raises(Stopped):
        evaluator.evaluate()
    assert len(asked) == 3
    assert model.training
    evaluator.should_stop = None
    assert evaluator.evaluate() == wanted


def test_training_mode_is_left_alone(small_run, small_mixture):
    model = load_model(str(small_run.best.path), "fp32").train()
    Evaluator(model, load_tokenizer(str(small_run.best.path)), small_mixture, "test", 4, 8).evaluate()
    assert model.training


def test_parts_have_items_of_their_own(small_mixture):
    for part in ("test", "validation"):
        task = build_task(small_mixture["adding"], getattr(small_mixture["adding"], part), 4)
        prompts = {e.question for e in mixture_rows("adding", part)}
        assert {i.args[0].rsplit("Q: ", 1)[1].split("\n")[0] for i in task.instances} == prompts


def test_scorer_stands_alone(tmp_path):
    """lm-eval loads a copy of the scorer beside the task files: it may import nothing of msft."""
    (tmp_path / "scoring.py").write_bytes(open(scoring.__file__, "rb").read())
    code = (
        "import sys, scoring; assert scoring.score('#### B.', 'b'); assert not [m for m in sys.modules if 'msft' in m]"
    )
    subprocess.run([sys.executable, "-S", "-c", code], cwd=tmp_path, check=True)


def test_group_counts_every_item_as_overall_does(small_mixture, tmp_path):
    write_tasks(tmp_path, small_mixture, 20)
    group = yaml.safe_load((tmp_path / f"{tasks.GROUP}.yaml").read_text())
    assert group["task"] == [tasks.task_name(name) for name in MAKERS]
    assert overall({"a": 1.0, "b": 0.0}, {"a": 3, "b": 1}) == 0.75
    assert group["aggregate_metric_list"] == [{"metric": "acc", "aggregation": "mean", "weight_by_size": True}]


@pytest.mark.parametrize("name", ["run", "msft_run", "a/b", "../up", "two words & more", "scoring", "é"])
def test_any_sub_dataset_name_works(name, tmp_path):
    from lm_eval.tasks import TaskManager, get_task_dict

    sub = odd_mixture().sub_datasets[0]
    mixture = Mixture("names", [SubDataset(name, sub.train, sub.test, sub.shots)])
    folder = tmp_path / "run" / "tasks"
    write_tasks(folder, mixture, 20)
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    task = get_task_dict([tasks.task_name(name)], manager)[tasks.task_name(name)]
    assert len(task.test_docs()) == 12
    assert tasks.GROUP in manager.all_groups


# the stock command --------------------------------------------------------------------------------------------


def stock_command(run, folder):
    """(samples by task, results) of lm-eval's own command on a run's best checkpoint and task files."""
    out = folder / "out"
    command = [sys.executable, "-m", "lm_eval", "--model", "hf", "--device", "cpu", "--batch_size", "8"]
    command += [
        "--model_args",
        f"pretrained={run.best.path},dtype=float32",
        "--include_path",
        str(run.directory / "tasks"),
    ]
    command += ["--tasks", tasks.GROUP, "--output_path", str(out), "--log_samples"]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = out.rglob("results_*.json")
    samples = {}
    for path in out.rglob("samples_*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        samples[path.name.removeprefix("samples_").rsplit("_", 1)[0]] = sorted(rows, key=lambda row: row["doc_id"])
    return samples, json.loads(results.read_text())


@pytest.fixture(scope="module", params=["small_msft_run", "smoke_sft_run", "smoke_msft_run"])
def saved(request, tmp_path_factory):
    """(run, samples, results) of three saved checkpoints."""
    run = request.getfixturevalue(request.param)
    return run, *stock_command(run, tmp_path_factory.mktemp("stock"))


def best_outputs(run):
    best = run.result["best"]
    rows = run.outputs
    return rows[(rows["stage"] == best["stage"]) & (rows["epoch"] == best["epoch"]) & (rows["part"] == "test")]


def test_stock_command_gives_every_item_the_same_score(saved):
    run, samples, _ = saved
    outputs = best_outputs(run)
    names = list(outputs["task"].unique())
    assert set(samples) == {tasks.task_name(name) for name in names}
    for name in names:
        mine = outputs[outputs["task"] == name].sort_values("item")
        theirs = samples[tasks.task_name(name)]
        assert [row["acc"] for row in theirs] == mine["correct"].astype(float).tolist()
        for row, text in zip(theirs, mine["text"], strict=True):
            assert row["resps"][0][0].startswith(text)


def test_the_checkpoint_of_the_comparison_is_neither_all_right_nor_all_wrong(small_msft_run):
    outputs = best_outputs(small_msft_run)
    assert 0 < outputs["correct"].sum() < len(outputs)


def test_stock_command_gives_the_same_accuracies(saved):
    run, _, results = saved
    history, best = run.history, run.result["best"]
    here = history[(history["stage"] == best["stage"]) & (history["epoch"] == best["epoch"])].set_index("task")
    for name in here.index:
        assert results["results"][tasks.task_name(name)]["acc,none"] == pytest.approx(here.loc[name, "accuracy"])
    assert results["groups"][tasks.GROUP]["acc,none"] == pytest.approx(run.best.accuracy)


@pytest.mark.parametrize(("answer", "is_cut"), [("42", True), ("4", False), ("24", False), ("5", False)])
def test_an_end_of_the_configuration_that_would_cut_a_right_answer_is_named(answer, is_cut, tiny_model):
    """A configuration's default number may be that of an ordinary word: every answer that holds it would score 0."""
    (model, tokenizer), item = tiny_model, Example("?", f"#### {answer}", answer)
    end = tokenizer("#### 4")["input_ids"][-1]
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, end]
    mixture = Mixture("one", [SubDataset("one", [item], [item], [item] * 5)])
    with pytest.raises(ModelError, match=rf"token {end} .* is in the target '#### 42'") if is_cut else nullcontext():
        Evaluator(model, tokenizer, mixture, "test", 8, 8)
