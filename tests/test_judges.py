"""lm-eval tasks as judges: of a sub-dataset in place of its test items, and of the whole model, only watched."""

import contextlib
import json
import re
import shutil
import warnings

import helpers
import lm_eval
import numpy as np
import pandas as pd
import pytest
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

import msft
from msft import names
from msft.cli.main import main
from msft.data import judges
from msft.data.judges import check_judges
from msft.data.reading import read_mixture
from msft.errors import DataError, ModelError, RunError
from msft.evaluation import Court
from msft.generation import PrefixCachedLM
from msft.methods.msft import earliest_overfit
from msft.prepared import prepare
from msft.results.summary import summary

WORDS = ("oak", "elm", "ash", "fir", "yew", "box")
CHOICE = {"output_type": "multiple_choice", "doc_to_choice": "{{choices}}", "doc_to_target": "gold"}
SHARES = [
    {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm", "exact_match")
]
STRICT = [{"function": "regex", "regex_pattern": "#### ([a-z]+)"}, {"function": "take_first"}]
FLEXIBLE = [{"function": "regex", "regex_pattern": "([a-z]+)", "group_select": -1}, {"function": "take_first"}]


def write_task(folder, name, **config):
    """A task file over <folder>/trees.jsonl: multiple choice, unless its configuration says something else."""
    folder.mkdir(exist_ok=True)
    items = [
        {"question": f"Tree {i}?", "choices": list(WORDS), "gold": i % 6, "answer": WORDS[i % 6]} for i in range(14)
    ]
    data = folder / "trees.jsonl"
    data.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    files = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test"}
    usual = {"doc_to_text": "Q: {{question}}\nA:", "fewshot_split": "test"}
    values = {"task": name, **files, **usual, **config}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder of task files, one of each kind."""
    folder = tmp_path_factory.mktemp("judged") / "tasks"
    write_task(folder, "trees_choice", **CHOICE, num_fewshot=2, metric_list=SHARES[:2])
    generation = {"until": ["\n\n"], "max_gen_toks": 8, "do_sample": False}
    filters = [{"name": "strict-match", "filter": STRICT}, {"name": "flexible-extract", "filter": FLEXIBLE}]
    said = {"output_type": "generate_until", "generation_kwargs": generation, "filter_list": filters}
    write_task(folder, "trees_said", doc_to_target="answer", metric_list=SHARES[2:], **said)
    write_task(folder, "trees_text", output_type="loglikelihood_rolling", doc_to_target="{{question}} {{answer}}")
    group = {"group": "trees", "task": ["trees_choice", "trees_choice_again"]}
    write_task(folder, "trees_choice_again", **CHOICE, metric_list=SHARES[:2])
    (folder / "trees.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")
    (folder / "no_trees.yaml").write_text(yaml.safe_dump({"group": "no_trees", "task": []}), encoding="utf-8")
    for name, options in (
        ("mute", {"max_gen_toks": 0}),
        ("stopped", {"until": 5}),
        ("strings", {"stop_strings": ["."]}),
    ):
        given = {**said, "generation_kwargs": {**generation, **options}}
        write_task(folder, f"trees_{name}", doc_to_target="answer", metric_list=SHARES[2:], **given)
    lost = [{**SHARES[2], "metric": "exact_mach"}]
    write_task(folder, "trees_lost", doc_to_target="answer", metric_list=[*SHARES[2:], *lost], **said)
    write_task(folder, "trees_blank", doc_to_target="answer", metric_list=SHARES[2:], **{**said, "doc_to_text": ""})
    (folder / "closed.yaml").write_text(
        (folder / "trees_choice_again.yaml").read_text().replace("again", "closed") + "num_fewshot: 0\n"
    )
    sampled = {**said, "generation_kwargs": {**generation, "do_sample": True, "temperature": 1.0}}
    write_task(folder, "trees_sampled", doc_to_target="answer", metric_list=SHARES[2:], **sampled)
    for name, code in {
        "lacking": "return {'hit': 1.0}",
        "picky": "return {'exact_match': 1 / len(results[0])}",
        "raising": "raise KeyError('x')",
    }.items():
        write_task(folder, f"trees_{name}", doc_to_target="answer", metric_list=SHARES[2:], **said)
        with open(folder / f"trees_{name}.yaml", "a", encoding="utf-8") as file:
            file.write(f"process_results: !function {name}.score\n")
        (folder / f"{name}.py").write_text(f"def score(doc, results):\n    {code}\n", encoding="utf-8")
    return folder


def mixture_of(folder, tasks, metrics, judges=(), **more):
    """The small mixture's YAML, each sub-dataset judged as `metrics` says; those not named keep their test items."""
    small = yaml.safe_load(helpers.write_mixture(folder).read_text(encoding="utf-8"))
    entries = []
    for entry in small["sub_datasets"]:
        said = metrics.get(entry["name"])
        own = {"include_path": str(tasks)}
        judged = {"name": entry["name"], "train": entry["train"], "metric": {**own, **said}} if said else entry
        entries.append({key: value for key, value in judged.items() if key != "validation"})
    spec = {"name": "judged", "sub_datasets": entries, "judges": [{**own, **said} for said in judges], **more}
    path = folder / "judged.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    return path


METRICS = {
    "zebras": {"lm_eval": "trees_choice", "metric": "acc_norm", "limit": 9},
    "mottos": {"lm_eval": "trees_text", "metric": "word_perplexity"},
}
WATCHED = [{"lm_eval": "trees_said", "metric": "exact_match,flexible-extract"}, {"lm_eval": "trees", "num_fewshot": 1}]


@pytest.fixture(scope="module")
def run(tasks, small_msft_settings, tmp_path_factory):
    """A finished mSFT run with two judged sub-datasets, one of its own test items, and two judges that watch."""
    folder = tmp_path_factory.mktemp("mixture")
    path = mixture_of(folder, tasks, METRICS, WATCHED)
    return msft.run(msft.RunConfig(**{**small_msft_settings, "mixture": str(path)}), folder / "runs", progress=False)


@pytest.fixture(scope="module")
def base(model_folder):
    return names.load_model(str(model_folder), "fp32"), names.load_tokenizer(str(model_folder))


def stock(model, tokenizer, tasks, name, metric, **options):
    """What lm-eval's own loop and HFLM say."""
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4)
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    found = lm_eval.simple_evaluate(lm, tasks=[name], task_manager=manager, bootstrap_iters=0, **options)["results"]
    sizes = [row["sample_len"] for task, row in found.items() if metric in row and task != "trees"]
    values = [row[metric] for task, row in found.items() if metric in row and task != "trees"]
    return np.average(values, weights=sizes)


def at(run, stage, epoch):
    history = run.history
    return history[(history.stage == stage) & (history.epoch == epoch)].set_index("task")


def test_judges_say_what_lm_eval_says(run, base, tasks):
    first, columns = (
        at(run, 0, 0.0),
        [f"watched {name}" for name in ("lm_eval:trees_said exact_match,flexible-extract", "lm_eval:trees acc")],
    )
    values = [first.accuracy["zebras"], first.accuracy["mottos"], *(first[column].iloc[0] for column in columns)]
    expected = [
        stock(*base, tasks, "trees_choice", "acc_norm,none", limit=9),
        stock(*base, tasks, "trees_text", "word_perplexity,none"),
        stock(*base, tasks, "trees_said", "exact_match,flexible-extract"),
        stock(*base, tasks, "trees", "acc,none", num_fewshot=1),
    ]
    assert values == pytest.approx(expected, rel=1e-4)
    assert list(first.n) == [9, helpers.TEST_SIZES["adding"], 14]


def verdict(base, folder, name, **more):
    """The value of a judge, by our LM."""
    judge = judges.load({"lm_eval": name, "include_path": str(folder), **more}, folder)
    return Court(PrefixCachedLM(*base, 4), {"it": judge}).evaluate()["it"].accuracy


@pytest.mark.parametrize("by_size", [True, False])
def test_a_group_weighs_its_tasks_as_its_own_file_says(base, tmp_path, by_size):
    folder = tmp_path / "tasks"
    write_task(folder, "trees_all", **CHOICE, metric_list=SHARES[:1])
    first = folder / "first.jsonl"
    first.write_text("".join((folder / "trees.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:3]))
    files = {"dataset_kwargs": {"data_files": {"test": str(first)}}}
    write_task(folder, "trees_first", **{**CHOICE, "doc_to_target": "{{0}}"}, metric_list=SHARES[:1], **files)
    means = [{"metric": "acc", "weight_by_size": by_size}]
    group = {"group": "trees", "task": ["trees_all", "trees_first"], "aggregate_metric_list": means}
    (folder / "trees.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")
    lm = HFLM(pretrained=base[0], tokenizer=base[1], batch_size=4)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found = lm_eval.simple_evaluate(lm, tasks=["trees"], task_manager=manager, bootstrap_iters=0)
    parts = [found["results"][name]["acc,none"] for name in ("trees_all", "trees_first")]
    assert parts[0] != parts[1]
    assert verdict(base, folder, "trees") == pytest.approx(found["groups"]["trees"]["acc,none"])
    assert verdict(base, folder, "trees") == pytest.approx(np.average(parts, weights=[14, 3] if by_size else None))


SAID = {"output_type": "generate_until", "doc_to_target": "answer"}


def write_scored(folder, name, code, metric_list):
    """A task of generated texts that scores by a function of its own."""
    write_task(folder, name, **SAID, metric_list=metric_list, generation_kwargs={"until": ["\n"], "max_gen_toks": 4})
    with open(folder / f"{name}.yaml", "a", encoding="utf-8") as file:
        file.write(f"process_results: !function {name}.score\n")
    (folder / f"{name}.py").write_text(f"def score(doc, results):\n    {code}\n", encoding="utf-8")


def test_a_scoring_that_changes_its_item_scores_the_same_every_time(base, tmp_path):
    folder = tmp_path / "tasks"
    write_scored(folder, "trees_taken", "return {'exact_match': float(doc.pop('answer') == 'oak')}", SHARES[2:])
    court = Court(
        PrefixCachedLM(*base, 4), {"it": judges.load({"lm_eval": "trees_taken", "include_path": str(folder)}, folder)}
    )
    assert [court.evaluate()["it"].accuracy for _ in range(2)] == [pytest.approx(3 / 14)] * 2  # items 0, 6 and 12


def test_a_metric_that_scores_nothing_or_has_no_direction_judges_nothing(tmp_path):
    folder = tmp_path / "tasks"
    write_task(folder, "trees_bypass", **SAID, metric_list=[{"metric": "bypass"}])
    write_task(folder, "trees_second", **SAID, metric_list=[{"metric": "bypass"}, *SHARES[2:]])
    lengths = [{"metric": "length", "aggregation": "mean"}]
    write_scored(folder, "trees_long", "return {'length': float(len(results[0]))}", lengths)
    quoted = [{**SHARES[2], "higher_is_better": "false"}]
    write_task(folder, "trees_quoted", **SAID, metric_list=quoted)
    write_task(folder, "trees_jinja", **{**SAID, "doc_to_target": "{{answer"}, metric_list=SHARES[2:])
    for name, said in {
        "trees_bypass": "no metric but bypass, which scores nothing",
        "trees_quoted": "does not say whether a higher exact_match is better",
        "trees_jinja": "See its task file",
        "trees_long": "does not say whether a higher length is better; write `higher_is_better: true` or false",
    }.items():
        with pytest.raises(DataError, match=re.escape(said)):
            judges.load({"lm_eval": name, "include_path": str(folder)}, folder)
    second = judges.load({"lm_eval": "trees_second", "include_path": str(folder)}, folder)
    assert second.label == "lm_eval:trees_second exact_match"


def test_two_judges_of_one_task_count_their_own_tokens(base, tmp_path):
    folder = tmp_path / "tasks"
    write_task(folder, "trees_told", **SAID, metric_list=SHARES[2:], generation_kwargs={"max_gen_toks": 6})
    said = {"lm_eval": "trees_told", "include_path": str(folder)}
    both = {"few": judges.load({**said, "limit": 3}, folder), "all": judges.load(said, folder)}
    alone = [Court(PrefixCachedLM(*base, 4), {n: j}).evaluate()[n].tokens for n, j in both.items()]
    together = Court(PrefixCachedLM(*base, 4), both).evaluate()
    assert [score.tokens for score in together.values()] == alone


def test_a_group_is_judged_by_the_metric_that_its_own_file_names(tmp_path):
    folder = tmp_path / "tasks"
    write_task(folder, "trees_all", **CHOICE, metric_list=SHARES[:2])
    group = {"group": "trees", "task": ["trees_all"], "aggregate_metric_list": [{"metric": "acc_norm"}]}
    (folder / "trees.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")
    assert judges.load({"lm_eval": "trees", "include_path": str(folder)}, folder).label == "lm_eval:trees acc_norm"


BOTH = """
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean
from lm_eval.api.task import ConfigurableTask


class Both(ConfigurableTask):
    def __init__(self, config=None):
        data = {{"data_files": {{"test": {data!r}}}}}
        super().__init__(config={{"dataset_path": "json", "dataset_kwargs": data, "test_split": "test"}})

    def doc_to_text(self, doc):
        return "Q: " + doc["question"] + "\\nA:"

    def doc_to_target(self, doc):
        return " " + doc["answer"]

    def construct_requests(self, doc, ctx, chat_template=None, apply_chat_template=False, **kwargs):
        said, rated = (ctx, {{"until": ["\\n"], "max_gen_toks": 5}}), (ctx, " none")
        return [
            Instance(request_type="generate_until", doc=doc, arguments=said, idx=0, **kwargs),
            Instance(request_type="loglikelihood", doc=doc, arguments=rated, idx=0, **kwargs),
        ]

    def process_results(self, doc, results):
        text, (value, _) = results
        return {{"none": value - len(text)}}

    def aggregation(self):
        return {{"none": mean}}

    def higher_is_better(self):
        return {{"none": True}}
"""


def test_a_task_of_its_own_class_may_ask_in_two_ways(base, tmp_path):
    """As lm-eval's squadv2 does: an answer, and how likely it is that there is none."""
    folder = tmp_path / "tasks"
    write_task(folder, "trees_plain", **CHOICE, metric_list=SHARES[:1])
    (folder / "both.py").write_text(BOTH.format(data=str(folder / "trees.jsonl")), encoding="utf-8")
    (folder / "trees_both.yaml").write_text("task: trees_both\nclass: !function both.Both\n", encoding="utf-8")
    expected = stock(*base, folder, "trees_both", "none,none")
    assert verdict(base, folder, "trees_both") == pytest.approx(expected, abs=1e-3)
    judge = judges.load({"lm_eval": "trees_both", "include_path": str(folder)}, folder)
    check_judges(type("Watched", (list,), {"judges": [judge]})(), base[1], base[0].config)


def test_a_lower_value_is_better_where_the_task_says_so(run):
    history = run.history
    perplexity = history[history.task == "mottos"]
    assert (perplexity.accuracy > 1).all() and (perplexity.selection == -perplexity.accuracy).all()
    others = history[history.task != "mottos"]
    assert (others.selection == others.accuracy).all()
    assert set(history[history.on_own_scale].task) == {"mottos"}
    first = next(entry for entry in run.journal if entry["kind"] == "roll_out")["result"]["points"]
    curve = {point["epoch"]: point["selection"] for point in first}
    dropped, epoch = earliest_overfit(curve, list(METRICS) + ["adding"]) or (None, None)
    assert dropped is None or curve[epoch][dropped] == max(values[dropped] for values in curve.values())


def test_a_value_on_its_own_scale_is_in_no_mean(run):
    rows = run.at_best[run.at_best.task != "mottos"]
    assert run.best.accuracy == pytest.approx(np.average(rows.accuracy, weights=rows.n))
    text = summary(run)
    assert "mottos: judged by lm_eval:trees_text word_perplexity" in text
    assert "lm_eval:trees acc, only watched: " in text
    assert not any(line.split()[:1] == ["mottos"] and "%" in line for line in text.splitlines())


def test_what_is_only_watched_decides_nothing(run, tasks, small_msft_settings, tmp_path):
    path = mixture_of(tmp_path, tasks, METRICS)
    alone = msft.run(msft.RunConfig(**{**small_msft_settings, "mixture": str(path)}), tmp_path / "runs", progress=False)
    assert alone.directory.name != run.directory.name
    columns = list(alone.history.columns)
    pd.testing.assert_frame_equal(alone.history, run.history[columns])
    assert set(run.history.columns) - set(columns) == {c for c in run.history.columns if c.startswith("watched ")}
    assert set(run.outputs.part) == {"test", "watched"}


def test_the_run_says_who_judged(run):
    facts = run.about["mixture"]["sub_datasets"]
    assert facts["zebras"]["metric"] == "lm_eval:trees_choice acc_norm"
    assert facts["mottos"]["judge"]["higher_is_better"] is False and facts["mottos"]["judge"]["n"] == 14
    assert facts["zebras"]["judge"]["num_fewshot"] == {"trees_choice": 2}
    assert [judge["label"] for judge in run.about["mixture"]["judges"]][1] == "lm_eval:trees acc"
    assert "judge" not in facts["adding"]
    assert run.leads[run.leads.task == "mottos"].is_clear.isna().all()


def test_a_test_file_of_a_judged_set_gives_the_loss_beside_it(tasks, small_settings, tmp_path, runs_dir):
    path = mixture_of(tmp_path, tasks, {**METRICS, "adding": {"lm_eval": "trees_said"}})  # all are judged
    spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    spec["sub_datasets"][0]["test"] = "zebras_test.jsonl"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    run = msft.run(
        msft.RunConfig(**{**small_settings, "mixture": str(path), "params": {"epochs": 0.25}}), runs_dir, progress=False
    )
    rows = run.history[run.history.task == "zebras"]
    assert rows.loss.notna().all() and (rows.n == 9).all()


def test_the_identity_follows_the_items_and_not_their_place(tasks, tmp_path):
    moved = shutil.copytree(tasks, tmp_path / "moved")
    for file in moved.glob("*.yaml"):
        file.write_text(file.read_text().replace(str(tasks), str(moved)))

    def fingerprint(folder, **more):
        return read_mixture(mixture_of(tmp_path, folder, {"zebras": {**METRICS["zebras"], **more}})).fingerprint()

    first = fingerprint(tasks)
    assert fingerprint(tasks) == fingerprint(moved) == first
    assert (
        len({first, fingerprint(tasks, limit=8), fingerprint(tasks, num_fewshot=1), fingerprint(tasks, metric="acc")})
        == 4
    )
    (moved / "trees.jsonl").write_text((moved / "trees.jsonl").read_text().replace("Tree 3?", "Tree three?"))
    assert fingerprint(moved) != first


WRONG = {
    "task": ({"lm_eval": "trees_chioce"}, "lm-eval has no task 'trees_chioce'. Did you mean 'trees_choice'?"),
    "metric": (
        {"lm_eval": "trees_choice", "metric": "acc_nrom"},
        "unknown metric of trees_choice 'acc_nrom'. Did you mean 'acc_norm'?",
    ),
    "filter": ({"lm_eval": "trees_said", "metric": "exact_match,strict"}, "Did you mean 'strict-match'?"),
    "key": (
        {"lm_eval": "trees_choice", "num_fewshots": 2},
        "unknown key of a judge 'num_fewshots'. Did you mean 'num_fewshot'?",
    ),
    "no name": ({"metric": "acc"}, "a judge needs the name of a task"),
    "limit": ({"lm_eval": "trees_choice", "limit": 0}, "limit = 0: must lie in [1, "),
    "shots": ({"lm_eval": "trees_choice_closed", "num_fewshot": 2}, "is made for no shots"),
    "metric that lm-eval has not": ({"lm_eval": "trees_lost"}, "lm-eval has no metric 'exact_mach'"),
    "sampling": ({"lm_eval": "trees_sampled"}, "samples its answers"),
    "own scoring": (
        {"lm_eval": "trees_lacking"},
        "unknown metric in the results of trees_lacking 'exact_match'. Allowed: hit",
    ),
    "folder": ({"lm_eval": "trees_choice", "include_path": "nowhere"}, "nowhere' is no folder"),
    "an option that generate refuses": ({"lm_eval": "trees_strings"}, "stop_strings = ['.'] is not taken with lm-eval"),
    "an empty group": ({"lm_eval": "no_trees"}, "no_trees is a group without tasks"),
    "a stop that is no text": ({"lm_eval": "trees_stopped"}, "until = 5; give a text or a list of texts"),
}


def test_every_wrong_setting_is_said_at_once_before_a_model_is_loaded(tasks, small_settings, tmp_path, runs_dir):
    listed = [{"include_path": str(tasks), **said} for said, _ in WRONG.values()]
    path = mixture_of(tmp_path, tasks, {"zebras": {"lm_eval": "trees_choice", "metric": "accuracy"}}, listed)
    spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    spec["sub_datasets"][0]["validation"] = "zebras_validation.jsonl"
    spec["sub_datasets"][1]["metric"] = "exactmatch"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    # a model that is not there would be named, were it asked for
    with pytest.raises(DataError) as error:
        msft.run(msft.RunConfig(**{**small_settings, "mixture": str(path)}), runs_dir, progress=False)
    for _, said in WRONG.values():
        assert said in str(error.value)
    assert "unknown metric of trees_choice 'accuracy'. Did you mean 'acc'?" in str(error.value)
    assert "(zebras): it is judged by an lm-eval task, so that 'validation' has no use" in str(error.value)
    assert "lm_eval:arc_easy stands for a task of lm-eval" in str(error.value)
    assert not runs_dir.exists()


def test_a_scoring_that_fails_on_a_stand_in_is_left_to_the_model(tasks):
    judge = judges.load({"lm_eval": "trees_picky", "include_path": str(tasks)}, tasks)
    judge.tasks[0].doc_to_target = lambda doc: ""  # its scoring divides by the answer's length
    judges._rehearse(judge.tasks[0], judge)
    assert judge.n == 14


def test_a_metric_that_some_items_alone_have_is_lm_evals_own(base, tmp_path):
    """Its mean is over those items, and a group weighs a task by the metric that most of its items have."""
    for name, rule in (("some", "n % 4 == 1"), ("often", "n % 4")):
        values = [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("rare", "exact_match")
        ]
        write_task(tmp_path, name, **CHOICE, metric_list=values)
        with open(tmp_path / f"{name}.yaml", "a", encoding="utf-8") as file:
            file.write(f"process_results: !function {name}.score\n")
        count = "n = int(doc['question'].split()[1][:-1])"
        code = f"{count}\n    return {{'exact_match': 1.0}} | ({{'rare': n / 14}} if {rule} else {{}})"
        (tmp_path / f"{name}.py").write_text(f"def score(doc, results):\n    {code}\n", encoding="utf-8")
    group = {"group": "both", "task": ["some", "often"], "aggregate_metric_list": [{"metric": "rare"}]}
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")
    for name, n in (("some", 4), ("both", 14)):
        judge = judges.load({"lm_eval": name, "metric": "rare", "include_path": str(tmp_path)}, tmp_path)
        scores = Court(PrefixCachedLM(*base), {"judge": judge}).evaluate()["judge"]
        value = stock(*base, tmp_path, name, "rare,none")
        assert (scores.accuracy, scores.n, scores.outputs) == (pytest.approx(value), n, [])


def test_a_scoring_that_raises_is_named_with_its_task(base, tasks):
    judge = judges.load({"lm_eval": "trees_raising", "include_path": str(tasks)}, tasks)
    with pytest.raises(RunError, match="the scoring of the lm-eval task 'trees_raising' fails: KeyError: 'x'"):
        Court(PrefixCachedLM(*base), {"judge": judge}).evaluate()


def test_a_mean_that_cannot_be_had_is_named_before_a_model_is_loaded(tmp_path, capsys):
    """f1 of scikit-learn's default kind, where there are more than two classes; a mean that divides by what is wrong may be
    had of a model's answers."""
    write_task(tmp_path, "trees_f1", **CHOICE, metric_list=[{"metric": "f1"}])
    said = r"the values of f1 of the lm-eval task 'trees_f1' have no mean.*\(ValueError: Target is multiclass"
    with pytest.raises(DataError, match=said):
        judges.load({"lm_eval": "trees_f1", "include_path": str(tmp_path)}, tmp_path)
    write_task(tmp_path, "trees_two", **{**CHOICE, "doc_to_target": 0}, metric_list=[{"metric": "f1"}])
    write_scored(tmp_path, "trees_odds", "return {'exact_match': 1.0}", [])
    with open(tmp_path / "trees_odds.yaml", "a", encoding="utf-8") as file:
        file.write(
            "metric_list:\n- {metric: exact_match, aggregation: !function trees_odds.odds, higher_is_better: true}\n"
        )
    with open(tmp_path / "trees_odds.py", "a", encoding="utf-8") as file:
        file.write("def odds(values):\n    return sum(values) / values.count(0)\n")
    for name in ("trees_two", "trees_odds"):
        assert judges.load({"lm_eval": name, "include_path": str(tmp_path)}, tmp_path).n == 14
    assert capsys.readouterr().err == ""


def test_a_name_that_two_task_files_have_is_named_with_both(tmp_path):
    for name in ("first", "second", ".ipynb_checkpoints/second-checkpoint", "other"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_task(tmp_path, name, **CHOICE, metric_list=SHARES[:2])
        file = tmp_path / f"{name}.yaml"
        named = "alike" if name != "other" else "other"
        file.write_text(file.read_text().replace(f"task: {name}\n", f"task: {named}\n"))
    with pytest.raises(DataError, match=r"/first.yaml and .*/second.yaml both define 'alike'; give each a name"):
        judges.load({"lm_eval": "alike", "include_path": str(tmp_path)}, tmp_path)
    assert judges.load({"lm_eval": "other", "include_path": str(tmp_path)}, tmp_path).n == 14


def test_task_files_that_are_no_yaml_are_named(tasks, tmp_path):
    (tmp_path / "foo.yaml").write_text("task: foo\noutput_type: [\n")
    with pytest.raises(DataError, match=r"no task 'foo'\..*foo.yaml cannot be read \(while parsing a flow"):
        judges.load({"lm_eval": "foo", "include_path": str(tmp_path)}, tmp_path)


@pytest.mark.parametrize(
    ("name", "said"), [("mute", "has max_gen_toks = 0; give at least 1"), ("blank", "has an empty prompt")]
)
def test_what_no_model_can_be_asked_is_refused_before_one_is_loaded(tasks, small_settings, tmp_path, name, said):
    path = mixture_of(tmp_path, tasks, {}, [{"lm_eval": f"trees_{name}"}])
    with pytest.raises(DataError, match=f"judges: lm_eval:trees_{name} exact_match,strict-match: trees_{name} {said}"):
        prepare(msft.RunConfig(**{**small_settings, "mixture": str(path)})).tokens()


LENGTHS = {
    "room": (
        {"lm_eval": "trees_wordy"},
        r"zebras: lm_eval:trees_wordy exact_match: trees_wordy has prompts of at least {told} tokens and max_gen_toks = 60; "
        "give a task file of your own with a lower max_gen_toks, or another task",
    ),
    "shots": (
        {"lm_eval": "trees_choice", "num_fewshot": 13},
        r"judges: lm_eval:trees_choice acc: trees_choice has prompts of at least \d\d\d tokens; give fewer shots "
        r"\(num_fewshot is 13\), a task file of your own whose process_docs leaves long items out, or another task",
    ),
    "no room": ({"lm_eval": "trees_alias", "num_fewshot": 1}, r"and max_gen_toks = 4096; give a task file of your own"),
}


def test_what_does_not_fit_the_model_is_said_at_once_before_its_weights_are_loaded(
    tasks, small_settings, tmp_path, runs_dir, monkeypatch
):
    """A prompt with its answer that is longer than the model; alone it would be found at the first evaluation."""
    folder, model = tmp_path / "long", tmp_path / "model"
    said = {"output_type": "generate_until", "doc_to_target": "answer", "metric_list": SHARES[2:]}
    write_task(folder, "trees_wordy", **said, generation_kwargs={"until": ["\n"], "max_gen_toks": 60})
    write_task(folder, "trees_alias", **said, generation_kwargs={"until": ["\n"], "max_new_tokens": 4096})
    write_task(folder, "trees_choice", **CHOICE, metric_list=SHARES[:1])
    write_task(folder, "trees_text", output_type="loglikelihood_rolling", doc_to_target="{{question * 50}}")  # windows
    shutil.copytree(small_settings["model"], model)
    helpers.make_model(max_position_embeddings=64).save_pretrained(model)
    monkeypatch.setattr(names, "load_model", lambda *_, **__: pytest.fail("the weights were loaded"))
    (first, _), *others = LENGTHS.values()
    watched = [*(said for said, _ in others), {"lm_eval": "trees_text"}]
    path = mixture_of(tmp_path, folder, {"zebras": first}, watched)
    with pytest.raises((DataError, ModelError)) as error:
        settings = {**small_settings, "mixture": str(path), "model": str(model)}
        msft.run(msft.RunConfig(**settings), runs_dir, progress=False)
    text, tokenizer = str(error.value), names.load_tokenizer(str(model))
    told = min(len(tokenizer(f"Q: Tree {i}?\nA:")["input_ids"]) for i in range(14))
    assert text.startswith("the model, of 64 positions, cannot answer what it would be asked:\n  - zebras: lm_eval:")
    for _, pattern in LENGTHS.values():
        assert re.search(pattern.replace("{told}", str(told)), text), text
    assert "trees_text" not in text
    assert "the 64 positions of the model. Lower max_new_tokens" in text  # the mixture's own prompts
    assert not runs_dir.exists()


@pytest.mark.parametrize(("name", "read"), [("trees_said", 8), ("trees_choice", -1)])
def test_a_task_is_refused_where_the_model_would_cut_every_prompt(tasks, small_settings, name, read):
    """Beside a prompt a model reads 8 tokens that it generates, but not the last token of what it rates."""
    judge = judges.load({"lm_eval": name, "include_path": str(tasks)}, tasks)
    tokenizer = names.load_tokenizer(small_settings["model"])
    whole = ["".join(text for text in request.args if isinstance(text, str)) for request in judge.requests]
    exact = min(len(ids) for ids in tokenizer(whole)["input_ids"]) + read
    mixture = type("Watched", (list,), {"judges": [judge]})()
    for positions, are_all_cut in ((exact, False), (exact - 1, True)):
        lm = PrefixCachedLM(helpers.make_model(max_position_embeddings=positions), tokenizer, batch_size=4)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            getattr(lm, judge.requests[0].request_type)(judge.requests, disable_tqdm=True)
        cut = sum(int(str(warning.message).split()[0]) for warning in said if "cut off" in str(warning.message))
        assert (cut == len(judge.requests)) == are_all_cut
        with pytest.raises(DataError) if are_all_cut else contextlib.nullcontext():
            check_judges(mixture, tokenizer, lm.model.config)


def test_a_misspelt_stock_task_names_the_nearest(tmp_path):
    path = mixture_of(tmp_path, tmp_path, {})
    spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    spec["sub_datasets"][0] |= {"metric": "lm_eval:arc_eazy"}
    path.write_text(yaml.safe_dump({**spec, "judges": ["hellaswga"]}), encoding="utf-8")
    with pytest.raises(DataError, match="Did you mean 'arc_easy'.*(?s:.)*Did you mean 'hellaswag'"):
        read_mixture(path)


def test_decisions_on_the_loss_need_gold_answers(tasks, small_settings, tmp_path, runs_dir):
    path = mixture_of(tmp_path, tasks, {"zebras": METRICS["zebras"]})
    with pytest.raises(DataError, match="select_metric='loss'.*zebras"):
        msft.run(msft.RunConfig(**{**small_settings, "mixture": str(path), "select_metric": "loss"}), runs_dir)


def test_mixture_check_and_eval_name_the_judges(tasks, model_folder, tmp_path, capsys):
    path = mixture_of(tmp_path, tasks, METRICS, WATCHED)
    flags = [str(path), "--model", str(model_folder), "--max-new-tokens", "12"]
    assert main(["mixture", "check", *flags]) == 0
    said = capsys.readouterr().out
    assert "zebras: judged by lm_eval:trees_choice acc_norm, 9 items" in said
    assert "only watched: lm_eval:trees_said exact_match,flexible-extract, 14 items" in said
    assert main(["eval", str(model_folder), "--mixture", str(path), "--max-new-tokens", "4", "--device", "cpu"]) == 0
    assert "not asked, only watched in runs: lm_eval:trees_said exact_match,flexible-extract, lm_eval:trees" in (
        capsys.readouterr().err
    )
