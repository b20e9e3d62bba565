"""What a reader without a GPU is told: the runs that are missing, their commands, and what they are estimated to cost."""

import dataclasses
import re
import shlex

import pytest

from msft import RunConfig, launch
from msft.__main__ import _parser, _settings
from paper_figures import compute, cost, profiles, reported_numbers, shift, study


def parsed(command: str) -> tuple[RunConfig, str]:
    """The config and the runs folder that `python -m msft run` reads from a command line."""
    words = shlex.split(command)
    assert words[:4] == ["python", "-m", "msft", "run"]
    options = _parser().parse_args(words[3:])
    return _settings(options), options.runs_dir


def sft(model, **more):
    return profiles.config("paper", "sft", model=model, **more)


@pytest.mark.parametrize("profile", ["paper", "tiny", "smoke"])
def test_commands_are_read_back_as_the_same_settings(profile):
    page = study.Study("11_flops", profile)
    for config in compute.needs(page).values():
        assert parsed(cost.command(config, "runs")) == (config, "runs")


@pytest.mark.parametrize(
    "changed",
    [
        {"select_on": "validation", "validation_size": 0},
        {"learning_rate": 2e-5, "batch_size": 32, "precision": "fp32"},
        {"data_dir": "a folder/with 'quotes'", "trust_remote_code": True, "revision": "main"},
        {"mixture": "my mixture.yaml", "model": "./a model", "seed": 30},
    ],
)
def test_commands_carry_every_setting_and_are_quoted(changed):
    config = RunConfig.from_mapping({"method": "msft", "params": {"budget": 1.5, "max_stages": 4}, **changed})
    assert parsed(cost.command(config, "my runs")) == (config, "my runs")


def test_a_method_of_one_s_own_has_a_command_too():
    page = study.Study("02_optimal_compute_shift", "paper")
    config = shift.needs(page)["bifurcation"]
    assert parsed(cost.command(config, "runs"))[0] == config
    # 3 epochs until the fork, then two branches of 7, against SFT's 10
    assert cost.flops(config) == pytest.approx(1.7 * cost.flops(sft("Qwen/Qwen2.5-3B")))
    config = dataclasses.replace(config, model="my/model")
    assert cost.flops(config) is None
    assert "; 1 runs of other models, mixtures or methods are not in the estimate." in cost.what_is_missing(
        [config], 1, "runs", "there is no GPU"
    )


def test_sft_agrees_with_table_7():
    reported = reported_numbers.table("table7").set_index("model")["SFT"]
    for model, name in reported_numbers.MODELS.items():
        assert 2 / 3 < cost.flops(sft(model)) / 1e15 / reported[name] < 1.5, name


def test_other_methods_stand_to_sft_as_in_table_7():
    whole = cost.flops(sft("Qwen/Qwen2.5-3B"))
    for method, ratio in (("dynamix_sft", 846.21 / 505.06), ("ies", 294.61 / 505.06), ("msft", 690.02 / 505.06)):
        assert cost.flops(profiles.config("paper", method)) == pytest.approx(ratio * whole)
    third = profiles.config("paper", "msft", params={"budget": 1.0})
    # a third of C=3; the paper's own C=1 is 0.29 to 0.34 of it
    assert cost.flops(third) == pytest.approx(690.02 / 505.06 / 3 * whole)


def test_settings_that_change_the_cost_change_the_estimate():
    training, item = 6 * 3.09e9 * 18_000 * 90 * 10, 40 * 2 * 3.09e9 * 240
    assert cost.flops(sft("Qwen/Qwen2.5-3B")) == pytest.approx(training + 2_000 * item)
    assert cost.flops(sft("Qwen/Qwen2.5-3B", select_on="validation")) == pytest.approx(training + 4_000 * item)
    assert cost.flops(sft("Qwen/Qwen2.5-3B", train_size=900, test_size=100)) == pytest.approx(
        training / 2 + 1_000 * item
    )
    assert cost.flops(sft("Qwen/Qwen2.5-3B", params={"epochs": 5.0})) == pytest.approx((training + 2_000 * item) / 2)
    assert cost.flops(sft("Qwen/Qwen2.5-3B", evaluations_per_epoch=1)) == pytest.approx(training + 500 * item)
    assert cost.flops(sft("Qwen/Qwen2.5-3B", mixture="mine.yaml")) is None
    assert cost.flops(sft("my/model")) is None


def test_the_same_run_is_told_and_counted_once():
    config = sft("Qwen/Qwen2.5-3B")
    said = cost.what_is_missing([config, config], 5, "runs", "there is no GPU")
    assert said.startswith("1 of 5 runs are not in runs, and they are not trained here: there is no GPU.")
    assert said.count("python -m msft run") == 1
    assert f"{cost.flops(config) / 1e15:,.0f} PFLOPs" in said


def test_a_notebook_of_the_paper_says_what_is_missing_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "_has_gpu", lambda: False)
    monkeypatch.setattr(launch, "run_all", lambda *given: pytest.fail("nothing is trained"))
    page = study.Study("11_flops", "paper", str(tmp_path / "my runs"), str(tmp_path / "out"))
    needs = compute.needs(page)
    with pytest.raises(study.MissingRuns) as caught:
        page.train(needs)
    said = str(caught.value)
    commands = [line.strip() for line in said.splitlines() if line.startswith("    ")]
    assert [parsed(command) for command in commands] == [(c, str(tmp_path / "my runs")) for c in needs.values()]
    assert f"{len(needs)} of {len(needs)} runs are not in" in said
    total = sum(cost.flops(config) for config in needs.values()) / 1e15
    assert float(re.search(r"([\d,]+) PFLOPs", said)[1].replace(",", "")) == pytest.approx(total, abs=0.5)
    hours = float(re.search(r"about ([\d,.]+) hours", said)[1].replace(",", ""))
    assert hours == pytest.approx(total * 1e15 / (0.4 * 989e12) / 3600, abs=0.05)
    assert "allow_cpu=True" in said
    assert not list(tmp_path.iterdir())
