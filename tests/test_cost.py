"""What a reader without a GPU is told: the runs that are missing, their commands, and what they are estimated to cost."""

import dataclasses
import re
import shlex

import pytest

from msft import RunConfig
from msft.cli import options
from msft.launch import grid, local
from paper_figures import cost, profiles, reported_numbers, study
from paper_figures.figures import compute, shift


def parsed(command: str) -> tuple[RunConfig, str]:
    """The config and the runs folder that `python -m msft run` reads from a command line."""
    words = shlex.split(command)
    assert words[:4] == ["python", "-m", "msft", "run"]
    flags = options.read(options.Run, words[4:])
    return options.config_of(flags), flags.runs_dir


def sft(model, **more):
    return profiles.config("paper", "sft", model=model, **more)


@pytest.mark.parametrize("profile", ["paper", "tiny", "smoke"])
def test_commands_are_read_back_as_the_same_settings(profile):
    page = study.Study("11_flops", profile)
    for config in compute.needs(page).values():
        assert parsed(config.command_line(runs_dir="runs")) == (config, "runs")


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
    assert parsed(config.command_line(runs_dir="my runs")) == (config, "my runs")


def test_a_method_of_one_s_own_has_a_command_too():
    page = study.Study("02_optimal_compute_shift", "paper")
    config = shift.needs(page)["bifurcation", page.focus]
    assert parsed(config.command_line(runs_dir="runs"))[0] == config
    # 3 epochs until the fork, then two branches of 7 (one of them without a sub-dataset), against SFT's 10
    assert 1.5 < cost.flops(config) / cost.flops(sft("Qwen/Qwen2.5-3B")) < 1.7
    config = dataclasses.replace(config, model="my/model")
    assert cost.flops(config) is None
    assert "; 1 runs of other models, mixtures or methods are not in the estimate." in cost.what_is_missing(
        [config], 1, "runs", "there is no GPU"
    )


def test_sft_agrees_with_table_7():
    reported = reported_numbers.table("table7").set_index("model")["SFT"]
    for model, name in reported_numbers.MODELS.items():
        assert 2 / 3 < cost.flops(sft(model)) / 1e15 / reported[name] < 1.5, name


def test_what_table_7_implies():
    for model, name in reported_numbers.MODELS.items():
        train, item = cost.implied_tokens(model)
        # the vocabularies are the same, and so are the data: 90.6 tokens measured with Qwen's
        assert model.startswith("allenai") or train == pytest.approx(90.6, rel=0.01)
        assert 100 < item < 390, name


def test_beside_table_7_at_its_own_tokens():
    rows = cost.against_table7(grid.read_grid("paper").runs)
    assert "44 of 46 numbers of Table 7 lie within 6 %" in cost.table7_text(rows)
    table = rows.set_index(["model", "method"])
    assert len(table) == 6 * 7 + 4
    same = table["at its tokens"] / table["paper"]
    for method in ("SFT", "DynamixSFT"):  # what the tokens were read from
        assert (abs(same.xs(method, level="method") - 1) < 0.015).all()
    assert (abs(same.xs("Continual SFT", level="method") - 1) < 0.06).all()
    left = table[table.why.isin(["above", "below"])]
    assert list(left.index) == [("Qwen2.5 7B", "Soft SRO SFT"), ("Qwen2.5 7B", "mSFT (C=3)")]
    assert (table["from"] <= 1.0001 * table["at its tokens"]).all()
    assert (table["at its tokens"] <= 1.0001 * table["to"]).all()


def test_settings_that_change_the_cost_change_the_estimate():
    size, items = cost.PARAMETERS["Qwen/Qwen2.5-3B"], 200 * 920.5  # tokens of 200 items of each of the ten
    training, evaluation = 6 * size * 1_800 * 906.2 * 10, 41 * 2 * size * items
    close = {"rel": 2e-3}
    assert cost.flops(sft("Qwen/Qwen2.5-3B")) == pytest.approx(training + evaluation, **close)
    # as Table 7 does, the validation items are not counted, but they cost time
    validated = cost.estimate(sft("Qwen/Qwen2.5-3B", select_on="validation")).expected
    assert validated.flops["total"] == pytest.approx(training + evaluation, **close)
    assert validated.seconds == pytest.approx((training + 2 * evaluation) / (0.4 * 989e12), **close)
    assert cost.flops(sft("Qwen/Qwen2.5-3B", train_size=900, test_size=100)) == pytest.approx(
        (training + evaluation) / 2, **close
    )
    assert cost.flops(sft("Qwen/Qwen2.5-3B", params={"epochs": 5.0})) == pytest.approx(
        training / 2 + evaluation * 21 / 41, **close
    )
    assert cost.flops(sft("Qwen/Qwen2.5-3B", evaluations_per_epoch=1)) == pytest.approx(
        training + evaluation * 11 / 41, **close
    )
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
    monkeypatch.setattr(local, "run_all", lambda *given: pytest.fail("nothing is trained"))
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
    assert hours == pytest.approx(
        sum(cost.estimate(config).expected.seconds for config in needs.values()) / 3600, abs=0.05
    )
    assert "allow_cpu=True" in said
    assert not list(tmp_path.iterdir())
