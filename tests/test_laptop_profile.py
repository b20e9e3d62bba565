"""The laptop profile: its sizes, what a notebook may change of it, and what it says before it starts."""

import json

import laptop_rate
import pytest
from helpers import save_small

import msft
from paper_figures import cost, execute, profiles, study


def page_of(tmp_path, **options):
    return study.Study("03_main_results", "laptop", str(tmp_path / "runs"), str(tmp_path / "out"), **options)


def test_it_is_the_paper_s_protocol_at_smaller_sizes(tmp_path):
    config = page_of(tmp_path).config("msft")
    assert (config.model, config.mixture, config.params["budget"]) == ("HuggingFaceTB/SmolLM2-135M", "paper-10", 3.0)
    assert (config.train_size, config.test_size) == (200, 100)
    assert config.with_defaults({}).max_new_tokens == 512


def test_sizes_model_and_records_are_parameters(tmp_path):
    page = page_of(tmp_path, data_dir=str(tmp_path), settings=f"train_size=40 learning_rate=1e-4 models={tmp_path}")
    config = page.config("sft")
    assert (config.train_size, config.test_size, config.learning_rate) == (40, 100, 1e-4)
    assert (config.model, config.data_dir) == (str(tmp_path), str(tmp_path))


def test_its_size_is_known_without_a_hub():
    found = cost.estimate(profiles.config("laptop", "sft"))
    assert found.expected.tokens == pytest.approx(10 * 200 * 10 * 90.6, rel=0.01)


def test_it_says_what_is_to_come(small_settings, small_run, tmp_path):
    configs = [msft.RunConfig(**small_settings), msft.RunConfig(**{**small_settings, "seed": 21})]
    assert cost.on_this_machine(configs, small_run.directory.parent).startswith(
        "runs to train: 1, about 0 minutes on this"
    )
    assert cost.on_this_machine(configs[:1], tmp_path).startswith("runs to train: 1, ")
    assert [cost.duration(seconds) for seconds in (1500, 12240)] == ["about 25 minutes", "about 3.4 hours"]


def test_the_command_line_takes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "NOTEBOOKS", tmp_path)
    assert execute.main(["--profile", "laptops"]) == 126
    assert "laptop" in profiles.PROFILES


def test_its_rate_is_chosen_by_a_benchmark(tmp_path, shared):
    file = shared / "tokenizers" / "qwen2_tokenizer_converted.json"
    model = save_small(tmp_path / "model", "Qwen2", file, "<|endoftext|>")
    flags = ["--model", str(model), "--data", str(shared / "benchmarks"), "--mixture", "paper-5", "--tokens", "4"]
    flags += ["--rates", "1e-3", "1e-2", "--epochs", "0.5", "--train", "4", "--test", "2"]
    laptop_rate.main([*flags, "--runs", str(tmp_path / "runs"), "--results", str(tmp_path)])
    result = json.loads((tmp_path / "laptop_rate.json").read_text())
    found = result["by rate and epoch"]
    assert list(found) == ["0.001", "0.01"]
    assert found["0.001"]["0"] == found["0.01"]["0"]
    assert 0 < found["0.01"]["0.5"]["loss"] < found["0.001"]["0.5"]["loss"] < found["0.001"]["0"]["loss"]
    assert result["lowest"] == "0.01" and 0 <= result["most frequent answer (%)"] <= 100
    mean, half = result["above it, half of the interval"]["0.001"]
    assert mean == pytest.approx(found["0.001"]["0.5"]["loss"] - found["0.01"]["0.5"]["loss"]) and half > 0
    row = next(line for line in (tmp_path / "laptop_rate.md").read_text().splitlines() if line.startswith("| 0.01 |"))
    assert f"{found['0.01']['0.5']['loss']:.3f} ({found['0.01']['0.5']['accuracy']:.1f})" in row
