"""A notebook's side: the settings text, the runs asked for, and what it leaves for the report."""

import dataclasses
import json
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest

import msft
from msft.errors import ConfigError, DataError, RunError
from msft.launch import local
from paper_figures import study, style
from paper_figures.figures import scale, selection


def page_of(tmp_path, profile="smoke", **options):
    return study.Study(
        "01_heterogeneous_overfitting", profile, str(tmp_path / "runs"), str(tmp_path / "out"), **options
    )


def test_settings_reach_the_runs_and_a_method_s_own_reach_its_runs_alone(tmp_path):
    page = page_of(tmp_path, settings="train_size=40 learning_rate=0.01 sft.epochs=1 msft.budget=0.5")
    sft, msft = page.config("sft"), page.config("msft")
    assert (sft.train_size, sft.learning_rate, sft.params) == (40, 0.01, {"epochs": 1.0})
    assert (msft.train_size, msft.params["budget"]) == (40, 0.5)


def test_without_settings_the_profile_decides(tmp_path):
    page = page_of(tmp_path)
    assert page.config("sft").params == {"epochs": 2.0}
    assert (page.config("sft").model, page.config("sft").seed) == ("tiny-smoke", 20)
    assert page.config("sft", seed=30, mixture="tiny", model="tiny-qwen3").mixture == "tiny"


def test_a_notebook_s_own_parameters_stand_behind_the_settings_text(tmp_path):
    page = page_of(tmp_path, settings="msft.budget=0.25")
    assert page.config("msft", params={"budget": 1.0}).params["budget"] == 0.25


def test_what_a_page_compares_is_no_setting_s_and_a_word_that_is_not_followed_is_named(tmp_path, capsys):
    """The sweep over C would be one run under three names."""
    page = page_of(tmp_path, "tiny", settings="msft.budget=0.25 select_on=test")
    sweep = {key: config for key, config in scale.needs(page).items() if key[0] == "budget"}
    assert {key[2]: config.params.get("budget") for key, config in sweep.items()} == {
        "sft": None, 1.0: 1.0, 3.0: 3.0, 5.0: 5.0,
    }  # fmt: skip
    assert scale.needs(page)["mixture", "tiny", "msft"].params["budget"] == 0.25
    assert [config.select_on for config in selection.needs(page).values()].count("validation") == 4
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" does not hold ")[0] for line in lines] == [
        "The word msft.budget of the settings", "The word select_on of the settings",
    ]  # fmt: skip


def test_words_of_a_method_that_a_page_does_not_have_are_named(tmp_path, small_run, monkeypatch, capsys):
    monkeypatch.setattr(local, "run_all", lambda configs, *more, **options: [small_run] * len(configs))
    page = page_of(tmp_path, settings="ies.epochs=2 sft.epochs=1")
    page.train({"a": page.config("sft")})
    page.train({"a": page.config("sft")})
    said = "The settings have words of ies, and no run of this page is of this method.\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize("text", ["epochs", "=3", "sft.epochs="])
def test_settings_that_cannot_be_read_are_named(tmp_path, text):
    with pytest.raises(ConfigError, match=f"(?s)settings cannot be read.*{text}"):
        page_of(tmp_path, settings=f"train_size=4 {text}")


def test_a_misspelt_setting_or_method_names_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'msft'"):
        page_of(tmp_path, settings="msfft.budget=1")
    with pytest.raises(ConfigError, match="Did you mean 'train_size'"):
        page_of(tmp_path, settings="train_sise=1").config("sft")
    with pytest.raises(ConfigError, match="Did you mean 'epochs'"):
        page_of(tmp_path, settings="sft.epoch=1").config("sft")


def test_a_seed_takes_the_first_place_and_several_stand_for_all(tmp_path):
    page = page_of(tmp_path, "tiny", settings="seed=30")
    assert (page.seeds, page.config("sft").seed, page.config("sft", seed=20).seed) == ([30, 20, 40], 30, 20)
    assert page_of(tmp_path, "tiny", settings="seed=7").seeds == [7, 20, 30]
    page = page_of(tmp_path, "tiny", settings="seed=5,7")
    assert (page.seeds, page.config("sft").seed) == ([5, 7], 5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"settings": "seed=30 seed=40"}, "seed is given twice"),
        ({"settings": "sft.epochs=1 sft.epochs=2"}, "sft.epochs is given twice"),
        ({"settings": "models=a", "models": "b"}, "models is given twice"),
        ({"settings": "seed=1,0"}, "'seed=1,0': give a whole number"),
        ({"settings": "seed=30,30"}, "'seed=30,30': a seed stands twice"),
        ({"settings": "model=a"}, "'model=a': give models=NAME"),
        ({"settings": "method=sft"}, "each notebook has its own methods"),
        ({"settings": "params=x"}, "give METHOD.NAME=VALUE"),
        ({"settings": "ies.foo=1"}, "unknown parameter of ies 'foo'"),
        ({"settings": "allow_cpu=yes"}, "allow_cpu is 'yes'; give true or false"),
        ({"allow_cpu": "no"}, "allow_cpu is 'no'; give true or false"),
        ({"settings": 5}, "settings is 5; give a text"),
        ({"settings": ["a=1"]}, "give a text"),
        ({"profile": ["smoke"]}, r"unknown profile \['smoke'\]"),
        ({"models": ["a"]}, r"models is \['a'\]; give a text"),
    ],
)
def test_what_no_run_can_have_is_named_when_the_page_starts(tmp_path, options, said):
    with pytest.raises(ConfigError, match=said):
        page_of(tmp_path, **options)


def test_none_is_a_parameter_at_its_default_and_texts_are_flags(tmp_path):
    page = study.Study("01_x", "smoke", None, None, settings=None, models=None, allow_cpu="False")
    assert (str(page.runs_dir), str(page.out_dir)) == ("runs", "paper_figures/out/smoke")
    assert (page.focus, page.allow_cpu) == ("tiny-smoke", False)
    assert page_of(tmp_path, settings="allow_cpu=True").allow_cpu


@pytest.mark.parametrize(("value", "folder"), [(20, "20"), (1000.0, "1000.0"), (True, "True")])
def test_a_number_that_stands_for_a_folder_is_named_since_its_spelling_may_be_gone(capsys, value, folder):
    assert str(study.Study("01_x", "smoke", value).runs_dir) == folder
    said = f"The parameter runs_dir came as {value!r}, no text: '{folder}' is meant. papermill's -r hands texts over.\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize("value", [["a"], {"a": 1}, None, ("a",)])
def test_a_misspelt_parameter_of_any_kind_is_named(capsys, value):
    study.start("01_x", {"profile": "smoke", "modles": value, "In": ["x"], "Out": {}})
    assert capsys.readouterr().out == "The parameter 'modles' is not used by this notebook. Did you mean 'models'?\n"


def test_models_and_mixture_stand_in_for_the_profile_s(tmp_path):
    page = page_of(tmp_path, "tiny", models="one, two", mixture="mine.yaml", data_dir="here")
    assert (page.models, page.focus, page.mixture) == (["one", "two"], "one", "mine.yaml")
    assert set(page.mixtures.values()) == {"mine.yaml"}
    assert (page.granular, page.config("sft").data_dir) == ("mine.yaml", "here")


def test_an_unknown_profile_names_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'smoke'"):
        page_of(tmp_path, "smok")


def test_runs_come_back_under_their_keys_and_are_remembered(tmp_path, small_run, monkeypatch):
    page = page_of(tmp_path)
    asked = []
    monkeypatch.setattr(
        local, "run_all", lambda configs, runs_dir, **more: asked.extend(configs) or [small_run] * len(configs)
    )
    needs = {"a": page.config("sft"), "b": page.config("sft")}
    assert page.train(needs) == {"a": small_run, "b": small_run}
    assert asked == list(needs.values())
    assert page.used == [small_run]


def test_the_paper_s_runs_are_not_trained_without_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "_has_gpu", lambda: False)
    page = page_of(tmp_path, "paper")
    with pytest.raises(study.MissingRuns) as caught:
        page.train({"sft": page.config("sft")})
    said = str(caught.value)
    assert "1 of 1 runs are not in" in said
    assert "python -m msft run --method sft --model Qwen/Qwen2.5-3B" in said
    assert "--runs-dir" in said
    assert "hours of one H100" in said


def test_the_paper_s_runs_without_their_data_are_named_with_the_reason(tmp_path, monkeypatch):
    def refuse(configs, runs_dir, **more):
        raise DataError("the hub cannot be reached")

    monkeypatch.setattr(local, "run_all", refuse)
    page = page_of(tmp_path, "paper", allow_cpu=True)
    with pytest.raises(study.MissingRuns, match="the hub cannot be reached"):
        page.train({"sft": page.config("sft")})
    with pytest.raises(DataError):
        page_of(tmp_path, "smoke").train({"sft": page.config("sft")})


def test_the_paper_s_finished_runs_are_read_without_data_or_model(small_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, "_has_gpu", lambda: False)
    monkeypatch.setattr(local, "run_all", lambda *args: pytest.fail("nothing is missing"))
    page = study.Study("03_main_results", "paper", str(small_run.directory.parent), str(tmp_path))
    config = small_run.config
    assert page.train({"sft": config})["sft"].directory == small_run.directory
    assert "Read by their settings alone, since there is no GPU" in capsys.readouterr().out


def test_where_the_paper_s_runs_can_be_trained_one_of_other_data_is_not_read_for_them(small_run, tmp_path):
    """The same settings, files of the same names, other answers in them."""
    data = tmp_path / Path(small_run.config.mixture).parent.name
    shutil.copytree(Path(small_run.config.mixture).parent, data)
    runs_dir = shutil.copytree(small_run.directory, tmp_path / "runs" / small_run.directory.name).parent
    shots = data / "mottos_shots.jsonl"
    about = json.loads((runs_dir / small_run.directory.name / "run.json").read_text())
    about["config"]["mixture"] = str(data / "small.yaml")
    (runs_dir / small_run.directory.name / "run.json").write_text(json.dumps(about))
    page = study.Study("03_main_results", "paper", str(runs_dir), str(tmp_path / "out"), allow_cpu=True)
    needs = {"sft": dataclasses.replace(small_run.config, mixture=str(data / "small.yaml"))}
    assert page.train(needs)["sft"].directory.name == small_run.directory.name
    shots.write_text(shots.read_text().replace("Motto 30", "Motto 300"))
    run = page.train(needs)["sft"]
    assert run.directory.name != small_run.directory.name
    assert run.status == "finished"


def test_figures_and_tables_are_written_and_told_to_the_report(tmp_path, small_run):
    page = page_of(tmp_path)
    page.used.append(small_run)
    figure, axes = plt.subplots(figsize=(2, 1))
    page.figure(axes, "curves", item="Fig. 2", caption="Curves.")
    table = pd.DataFrame({"a": [1.234, -0.001], "b": ["yes", None]}, index=pd.Index(["x", "y"], name="row"))
    styled = page.table(table, "numbers", item="Table 2", caption="Numbers.", decimals=2)
    style.say(figure, "It rises -1 and falls.")
    page.figure(figure, "curves", item="Fig. 2", caption="Curves again.")
    plt.close(figure)
    out = tmp_path / "out"
    assert {path.name for path in out.glob("01_*")} == {
        *(f"01_curves.{kind}" for kind in ("png", "pdf")), *(f"01_numbers.{kind}" for kind in ("csv", "md", "tex")),
    }  # fmt: skip
    assert "1.23" in styled.to_html() and "-0.00" not in styled.to_html()
    assert ">–<" in styled.to_html()  # a missing text too
    assert "| y | 0.00 |" in (out / "01_numbers.md").read_text() and "& 0.00 " in (out / "01_numbers.tex").read_text()
    entries = {path.stem: json.loads(path.read_text()) for path in (out / "items").glob("*.json")}
    assert entries["01_curves"] == {
        "kind": "figure", "name": "01_curves", "item": "Fig. 2", "caption": "Curves again.",
        "notebook": "01_heterogeneous_overfitting", "place": 0, "profile": "smoke", "runs": [small_run.directory.name],
        "finding": "It rises \N{MINUS SIGN}1 and falls.",
    }  # fmt: skip
    assert (entries["01_numbers"]["place"], entries["01_numbers"]["decimals"]) == (1, 2)
    assert entries["01_numbers"]["rounded"] == ["a"]


def test_the_histories_behind_a_page_lie_beside_its_outputs(tmp_path, small_run):
    page = page_of(tmp_path)
    page.used.append(small_run)
    page.histories()
    copy = msft.Run(tmp_path / "out" / "histories" / small_run.directory.name)
    kept = [json.loads(text)["entry"] for text in open(copy.directory / "journal.jsonl", encoding="utf-8")]
    assert kept == small_run.journal == copy.journal  # what was saved on the way, for a kill, is left out
    assert (copy.directory / "history.csv").read_bytes() == (small_run.directory / "history.csv").read_bytes()
    assert copy.status == "finished" and copy.best.accuracy == small_run.best.accuracy and copy.flops == small_run.flops


def test_a_page_is_drawn_again_from_its_histories_without_data_or_model(
    tmp_path, small_run, small_settings, monkeypatch, capsys
):
    page = page_of(tmp_path)
    page.used.append(small_run)
    page.histories()
    page.runs_dir = page.out_dir / "histories"
    monkeypatch.setattr("msft.prepared.prepare", lambda config: refuse(config))

    def refuse(config):
        raise DataError(f"there is no {config.mixture}")

    assert page.train({"a": small_run.config})["a"].directory.parent == page.runs_dir
    assert "Read by their settings alone, since there is no " in capsys.readouterr().out
    with pytest.raises(DataError, match="there is no"):
        page.train({"a": small_run.config, "b": dataclasses.replace(small_run.config, seed=77)})


def test_outputs_of_a_notebook_without_a_number_carry_its_name(tmp_path):
    page = study.Study("data_card", "smoke", out_dir=str(tmp_path))
    page.table(pd.DataFrame({"a": [1]}), "counts", item="data card", caption="Counts.")
    assert (tmp_path / "data_card_counts.csv").is_file()


def test_a_page_says_before_it_trains_that_its_folder_is_a_file(tmp_path):
    place = tmp_path / "out"
    place.write_text("")
    with pytest.raises(RunError, match="out_dir '.*out/tiny': .*out is a file; give a folder"):
        study.Study("00_quickstart", "smoke", out_dir=str(place / "tiny"))
