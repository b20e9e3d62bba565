"""Which finished runs a notebook takes for its own, and how it counts those that are missing."""

import json
import shutil

import pytest

from msft.launch import local
from paper_figures import cost, profiles, study


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A page of the paper's profile on a machine without a GPU, where nothing may be trained."""
    monkeypatch.setattr(study, "_has_gpu", lambda: False)
    monkeypatch.setattr(local, "run_all", lambda *given: pytest.fail("nothing is trained"))
    return study.Study("03_main_results", "paper", str(tmp_path / "runs"), str(tmp_path / "out"))


@pytest.fixture
def copied(small_run, page):
    """copied(settings): the small run as if brought from another machine, with other values in its run.json."""

    def copy(**changed):
        folder = shutil.copytree(small_run.directory, page.runs_dir / small_run.directory.name, dirs_exist_ok=True)
        about = json.loads((folder / "run.json").read_text())
        about["config"] |= changed
        (folder / "run.json").write_text(json.dumps(about))
        return folder

    return copy


def test_a_copied_run_may_name_a_folder_of_methods_that_is_not_there(copied, page, small_run):
    folder = copied(methods_dir="/not/on/this/machine", data_dir="/nor/this")
    assert page.train({"sft": small_run.config})["sft"].directory == folder


def test_a_copied_run_of_a_method_that_is_not_here_hides_no_other(copied, page, small_run):
    folder = copied(method="their_own", methods_dir="/not/on/this/machine")
    with pytest.raises(study.MissingRuns, match="1 of 1 runs"):
        page.train({"sft": small_run.config})
    shutil.copytree(small_run.directory, folder.with_name("mine"))
    assert page.train({"sft": small_run.config})["sft"].directory.name == "mine"


@pytest.mark.parametrize("changed", [{"learning_rate": 0.5}, {"train_size": 7}, {"seed": 21}])
def test_a_run_with_other_settings_does_not_stand_in(copied, page, small_run, changed):
    """A setting left at its default asks for the default, not for any value."""
    copied(**changed)
    with pytest.raises(study.MissingRuns, match="1 of 1 runs"):
        page.train({"sft": small_run.config})


def test_defaults_that_a_run_filled_in_are_those_asked_for(copied, page):
    wanted = page.config("sft")
    folder = copied(**{**wanted.to_dict(), "learning_rate": 1e-5, "batch_size": 64, "precision": "bf16",
                       "max_new_tokens": 512, "eval_batch_size": 64})  # fmt: skip
    assert wanted.learning_rate is None
    assert page.train({"sft": wanted})["sft"].directory == folder


def test_a_run_under_two_keys_is_needed_once(page):
    sft, msft = page.config("sft"), page.config("msft")
    with pytest.raises(study.MissingRuns, match="2 of 2 runs"):
        page.train({"a": sft, "b": msft, "c": page.config("msft", params={"budget": 3.0})})


def test_the_search_of_sro_takes_its_time_in_sft_alone():
    whole = cost.estimate(profiles.config("paper", "sft")).expected
    for method in ("sro_sft", "soft_sro_sft"):
        found = cost.estimate(profiles.config("paper", method)).expected
        assert found.flops["total"] > whole.flops["total"]  # Table 7 counts the search with it
        assert found.seconds <= whole.seconds
