"""The guide: its made-up folder is a mixture, its checks speak, its picture and table say what the run did."""

import importlib.util
import json

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import pytest

import msft
from msft.errors import DataError
from msft.names import load_tokenizer
from paper_figures import data, study, style
from paper_figures.figures import exports, your_mixture
from paper_figures.instrument.mixtures import generated


def test_the_made_up_folder_is_a_mixture_of_four_kinds(tmp_path):
    folder = your_mixture.make_folder(tmp_path / "mine", 12, 6)
    mixture = msft.load_mixture(your_mixture.write_yaml(folder, your_mixture.METRICS))
    assert {sub.name: sub.metric for sub in mixture} == your_mixture.METRICS
    assert {sub.name: len(sub.test) for sub in mixture} == dict.fromkeys(mixture.names, 6)
    assert [sub.name for sub in mixture if sub.is_chat] == ["chats"]
    assert mixture["chats"].test[0].messages[0][0] == "system"


def test_a_model_without_chat_template_gets_no_chats(model_folder, tmp_path):
    page = study.Study("your_mixture", "smoke", str(tmp_path / "runs"), str(tmp_path), models=str(model_folder))
    path, model = your_mixture.prepare(page)
    assert model == str(model_folder)
    assert not any(sub.is_chat for sub in msft.load_mixture(str(path)))


@pytest.mark.parametrize("unused", ["mixture", "data_dir"])
def test_parameters_that_this_page_does_not_use_are_named(model_folder, tmp_path, capsys, unused):
    given = {"models": str(model_folder), unused: "mine.yaml"}
    your_mixture.prepare(study.Study("your_mixture", "smoke", str(tmp_path / "runs"), str(tmp_path), **given))
    said = f"The parameter '{unused}' is not used by this page: `mixture_dir` is the folder of your data.\n"
    assert capsys.readouterr().out == said


def test_only_the_labels_are_wrong(tmp_path):
    folder = your_mixture.make_folder(tmp_path, 96, 6)
    clean = {e.question: e.answer for e in generated("tiny", clean=True)["stones"].train}
    rows = [json.loads(line) for line in (folder / "labels" / "train.jsonl").read_text().splitlines()]
    assert sum(clean[row["question"]] != row["answer"] for row in rows) == 48
    truth = {e.question: e.answer for e in generated("tiny", clean=True)["metals"].train}
    rows = [json.loads(line) for line in (folder / "metals" / "train.jsonl").read_text().splitlines()]
    assert all(truth[row["question"]] == row["answer"] for row in rows)


def test_a_yaml_of_one_s_own_is_left_and_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(DataError, match="one folder a sub-dataset"):
        your_mixture.write_yaml(tmp_path, {})
    (tmp_path / "mixture.yaml").write_text("mine")
    assert your_mixture.write_yaml(tmp_path, {}).read_text() == "mine"


def test_the_mistakes_are_told_at_once_without_the_folder_s_path(tmp_path):
    text = your_mixture.broken_rows(tmp_path)
    for words in ("train.jsonl:1: the key 'answer'", "train.jsonl:3: the roles are user", "test.jsonl:1: not JSON"):
        assert words in text
    assert str(tmp_path) not in text


def test_the_runs_are_of_the_user_s_mixture_and_model(tmp_path):
    page = study.Study("your_mixture", "smoke", str(tmp_path), settings="learning_rate=0.001")
    configs = your_mixture.needs(page)
    assert list(configs) == ["sft", "msft"]
    config = configs["msft"]
    assert config.mixture == str(tmp_path / "my_mixture" / "mixture.yaml")
    assert (config.learning_rate, config.batch_size, config.precision) == (0.001, 16, "fp32")
    sub = msft.load_mixture(config.mixture, load_tokenizer(config.model))["chats"]
    assert msft.training_text(sub.train[0])[0].startswith("system: You say who has it.\nuser: ")
    assert sub.train[0].target.endswith("<eos>")


def test_the_picture_shows_every_sub_dataset_in_the_order_of_its_exclusion(small_msft_run):
    run, dropped = small_msft_run, data.drops(small_msft_run)
    axes = your_mixture.curves(run)
    names = [axis.get_title().split("\n")[0] for axis in axes]
    assert names[: len(dropped)] == list(dropped)
    assert sorted(names) == sorted(run.history.task.unique())
    path = data.path(run)
    for axis, name in zip(axes, names, strict=True):
        kept = path[path.task == name]
        trained = next(line for line in axis.lines if line.get_linewidth() == 1.2)
        end = dropped.get(name, kept.path_epoch.max())
        assert list(trained.get_xdata()) == sorted(kept[kept.path_epoch <= end].path_epoch)
        marks = [line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == ":"]
        assert marks == ([dropped[name]] if name in dropped else [])
        assert axis.collections[0].get_offsets()[0][0] == run.best.path_epoch
    plt.close(axes[0].figure)


def test_the_title_says_where_msft_ends_beside_sft(small_run, small_msft_run):
    axes = your_mixture.curves(small_msft_run, sft=small_run)
    gain = 100 * (data.at_best(small_msft_run) - data.at_best(small_run)).mean()
    side = "ahead of" if gain > 0 else "behind" if gain < 0 else "level with"
    assert f"; it ends {abs(gain):.1f} points {side} SFT (one run each" in style.said(axes).replace("\n", " ")
    plt.close(axes[0].figure)


def test_a_run_without_exclusions_has_no_words_on_them(small_run):
    axes = your_mixture.curves(small_run)
    (legend,) = axes[0].figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["SFT, trained on it", "best checkpoint"]
    plt.close(axes[0].figure)


def test_the_table_and_the_finding_are_those_of_the_runs(small_run, small_msft_run):
    table = your_mixture.comparison(small_run, small_msft_run)
    best = data.at_best(small_msft_run)
    assert table.loc[best.index, "mSFT"].tolist() == pytest.approx((100 * best).tolist())
    assert table.loc["mean", "SFT"] == pytest.approx(100 * data.at_best(small_run).mean())
    text = your_mixture.finding(small_run, small_msft_run)
    gain = (data.at_best(small_msft_run) - data.at_best(small_run)).mean()
    assert f"by {100 * abs(gain):.1f} ±" in text
    assert ("ahead of" if gain > 0 else "behind" if gain < 0 else "level with") in text


def test_an_export_is_written_once_and_answers(small_msft_run, mixture_file, tmp_path):
    folder = exports.exported(small_msft_run, tmp_path)
    assert exports.exported(small_msft_run, tmp_path) == folder
    assert exports.head_of_card(folder).count("\n## ") == 1
    assert exports.answer(folder, mixture_file).startswith("zebras, first test item: Pick 40.")


def test_own_data_is_one_mixture_as_it_lies(tmp_path):
    page = study.Study("your_mixture", "smoke", str(tmp_path))
    path, needed = your_mixture.own_data(page)
    names = {"metals.parquet", "claims.csv", "chats.jsonl", "mixture.yaml", "tasks"}
    assert {file.name for file in path.parent.iterdir()} == names
    assert needed["msft"].mixture == str(path)
    mixture = msft.load_mixture(str(path))
    assert mixture.names == ["metals", "claims", "chats"]
    metals = mixture["metals"]
    assert metals.train[0].question.startswith("use?\n")
    assert {e.answer for e in mixture["claims"].train} == {"True", "False"}
    assert mixture["chats"].is_chat
    for sub in (mixture["claims"], mixture["chats"]):
        assert len(sub.train) > len(sub.test) > 5
    again, _ = your_mixture.own_data(page)
    assert msft.load_mixture(str(again)).fingerprint() == mixture.fingerprint()


def test_the_user_s_own_task_asks_what_was_not_trained_in_the_same_words(tmp_path):
    path, _ = your_mixture.own_data(study.Study("your_mixture", "smoke", str(tmp_path)))
    metals = msft.load_mixture(str(path))["metals"]
    assert (metals.test, metals.judge.label, metals.judge.n) == ([], "lm_eval:metals_told exact_match,told", 12)
    asked = [request.args[0] for request in metals.judge.requests]
    trained = [msft.training_text(example)[0] for example in metals.train]
    assert all(text.startswith("Q: use?\n") and text.endswith(".\nA: ") for text in asked + trained)
    assert not set(asked) & set(trained)
    (task,) = metals.judge.tasks
    for request in task.instances:  # the trained form of a right answer scores, and a wrong one does not
        request.resps = [f"#### {request.doc['output']}" if request.doc_id % 2 else "#### nothing"]
    task.apply_filters()
    scores = [task.process_results(r.doc, [r.filtered_resps["told"]])["exact_match"] for r in task.instances]
    assert scores == [i % 2 for i in range(12)]


@pytest.mark.parametrize("is_there", [True, False])
def test_an_adapter_is_trained_where_peft_is_there(tmp_path, monkeypatch, capsys, is_there):
    find, said = importlib.util.find_spec, object() if is_there else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: said if name == "peft" else find(name, *more))
    _, needed = your_mixture.own_data(study.Study("your_mixture", "smoke", str(tmp_path)))
    config, full = needed["msft"], msft.tiny.settings("tiny-smoke")["learning_rate"]
    assert (config.adapter, config.learning_rate) == (("lora", 10 * full) if is_there else (None, full))
    assert ("pip install peft. Here all weights are trained instead." in capsys.readouterr().out) != is_there
    page = study.Study("your_mixture", "smoke", str(tmp_path), settings="learning_rate=0.003")
    assert your_mixture.own_data(page)[1]["msft"].learning_rate == 0.003
