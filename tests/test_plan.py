"""What runs will cost: counted by hand, against finished runs, and without a network, a GPU or torch."""

import dataclasses
import shutil
import subprocess
import sys

import helpers
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

import msft
from msft import paths
from msft.__main__ import main
from msft.cost import describe, plan, rehearsal, sizes
from msft.cost.sizes import SetSize
from msft.errors import ModelError
from msft.launch import status
from msft.launch.local import note_failure
from msft.loss.tokens import tokenize
from msft.results.flops import run_flops
from msft.results.run import is_locked, matching
from paper_figures.instrument import bases

RATES = plan.Rates(1e12, {})
TWO = (SetSize("a", 100, 10, 0, 20.0, 30.0), SetSize("b", 300, 10, 0, 40.0, 50.0))
CARDS = {
    "allenai/OLMo-2-0425-1B": 1_484_916_736,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-3B": 3_085_938_688,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "Qwen/Qwen3-8B-Base": 8_190_735_360,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "tiny-qwen2": 337_440,
    "tiny-qwen3": 336_960,
    "tiny-olmo2": 337_248,
}


def config_of(method, model="Qwen/Qwen2.5-0.5B", mixture="paper-10", **more):
    return msft.RunConfig(method=method, model=model, mixture=mixture, **more).with_defaults({})


def ways_of(method, **params):
    return rehearsal.rehearse(config_of(method, params=params), TWO)


def spent(way, kind):
    """Tokens of a kind (trained, forward, look_ahead) that a rehearsal counts."""
    return sum(result[f"{kind}_tokens"] for result in way.spent)


def totals(method, **params):
    """{scenario: (trained tokens, counted tokens of evaluation)}."""
    found = {}
    for name, way in ways_of(method, **params).items():
        flops = run_flops(way.entries, 1, method)
        found[name] = (flops["train"] / 6, flops["evaluate"] / 2)
    return found


@pytest.mark.parametrize(("model", "parameters"), CARDS.items())
def test_parameters_and_shape_are_those_of_the_model(model, parameters):
    shape = sizes.table()["models"][model]
    assert shape["parameters"] == parameters
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(sizes._architecture(config_of("sft", model)))
    output = built.get_output_embeddings().weight.numel()  # tied to the input's in some, which the table does not say
    assert sum(p.numel() for p in built.parameters()) - parameters in (0, output)


def test_tokens_of_the_tiny_mixtures_are_counted(tokenizer):
    own, means = bases.build_tokenizer(), sizes.table()["tokens"]["tiny"]
    for mixture in ("tiny", "tiny-15", "tiny-21"):
        for sub in msft.tiny.make_mixture(mixture):
            rows = tokenize(own, sub.train)
            asked = own([msft.training_text(example)[0] for example in sub.test])["input_ids"]
            train, question, _ = means.get(sub.name, means["mean"])
            assert train == pytest.approx(sum(len(row.ids) for row in rows) / len(rows), abs=0.006)
            assert question == pytest.approx(sum(map(len, asked)) / len(asked), abs=0.006)


def test_tokens_of_the_benchmarks_are_measured(shared):
    from transformers import PreTrainedTokenizerFast

    from msft.data.rows import read_rows

    files = {"qwen": "qwen2_tokenizer_converted.json", "olmo2": "olmo2_dolma2_tokenizer.json"}
    for family, file in files.items():
        path = shared / "tokenizers" / file
        own = PreTrainedTokenizerFast(tokenizer_file=str(path), eos_token="<|endoftext|>")
        for name in ("gsm8k", "sciq", "boolq"):
            records = read_rows(shared / "benchmarks" / name / "train.jsonl")
            rows = tokenize(own, [msft.benchmarks.to_example(name, record) for record in records])
            lengths = [len(row.ids) for row in rows if len(row.ids) <= 512]
            assert sizes.table()["tokens"][family][name][0] == pytest.approx(sum(lengths) / len(lengths), abs=0.06)


# a method's own code over a trainer that counts: 100 x 20 + 300 x 40 = 14,000 tokens an epoch, 800 an evaluation ------


def test_sft_by_hand():
    assert totals("sft", epochs=2) == {"expected": (28_000, 9 * 800)}


def test_a_length_that_is_no_whole_epoch():
    assert totals("sft", epochs=1.5)["expected"] == (21_000, 7 * 800)


def test_continual_sft_by_hand():
    # two stages of one epoch, each on one sub-dataset; all are evaluated at every point but the second start
    assert totals("continual_sft", budget=1)["expected"] == (14_000, (1 + 4 + 4) * 800)


def test_msft_by_hand():
    found = totals("msft", budget=1)
    # a alone trains 2,000 an epoch, b 12,000; the one that is out is counted once, at the point of the roll-back
    heavy = (14_000 + 2_000, 5 * 800 + 4 * 300 + 500)
    light = (14_000 + 12_000, 5 * 800 + 4 * 500 + 300)
    assert found["heaviest first"] == heavy
    assert found["lightest first"] == light
    assert found["never"] == (4 * 14_000, (1 + 4 * 4) * 800)
    stages = {name: way.stage for name, way in ways_of("msft", budget=1).items()}
    assert stages["expected"] == stages["heaviest first"] == 2
    assert stages["never"] == 4


def test_dynamix_sft_looks_ahead():
    way = ways_of("dynamix_sft", epochs=2, updates=4, look_ahead_batch=10)["expected"]
    assert spent(way, "look_ahead") == pytest.approx(4 * (10 * 35 + 10 * 35))  # lengths evened out: 35 each
    assert spent(way, "trained") == 28_000


def test_ies_at_least_trains_three_epochs():
    found = ways_of("ies", epochs=5)
    assert spent(found["at once"], "trained") == 3 * 14_000
    assert spent(found["at once"], "forward") == 2 * 14_000
    assert spent(found["expected"], "trained") == 5 * 14_000


def test_soft_sro_trains_as_much_as_its_weights_say():
    # all peaks at the end: equal weights
    assert spent(ways_of("soft_sro_sft", epochs=2)["never"], "trained") == 2 * 2 * 14_000


def test_the_search_of_sro_is_counted_but_costs_no_time_where_it_is_there():
    config = config_of("sro_sft", params={"epochs": 2})
    alone = plan.estimate(config, RATES).expected
    read = plan.estimate(config, RATES, has_search=True).expected
    search = plan.estimate(config_of("sft", params={"epochs": 2}), RATES).expected
    assert alone.flops == read.flops
    assert alone.seconds - read.seconds == pytest.approx(search.seconds)
    both = plan.plan([config, config_of("sft", params={"epochs": 2})], "none", RATES)
    assert both[0].expected.seconds == read.seconds


def test_a_method_of_one_s_own_is_rehearsed_and_one_that_cannot_be_says_so(tmp_path):
    text = "from msft.methods.sft import Params\ndef run(trainer, params):\n    "
    (tmp_path / "twice.py").write_text(text + "[trainer.roll_out(trainer.tasks, epochs=1) for _ in range(2)]\n")
    (tmp_path / "nosy.py").write_text(text + "trainer.model.train()\n")
    (tmp_path / "endless.py").write_text(text + "trainer.roll_out(trainer.tasks, epochs=float('inf'))\n")
    (tmp_path / "leaves.py").write_text(text + "raise SystemExit(3)\n")
    names = ("twice", "nosy", "endless", "leaves")
    twice, nosy, endless, leaves = plan.plan([config_of(name, methods_dir=str(tmp_path)) for name in names], "none")
    assert "endless cannot be rehearsed: RunError: roll_out: inf epochs is no multiple of 1/4" in endless.problem
    assert "leaves cannot be rehearsed: SystemExit: 3" in leaves.problem
    sft = plan.estimate(config_of("sft", params={"epochs": 2}), plan.rates_of([]))
    assert twice.expected.flops == sft.expected.flops
    assert twice.expected.stages == 2
    assert "nosy cannot be rehearsed: AttributeError" in nosy.problem
    assert "no estimate: nosy cannot be rehearsed" in describe.report([nosy], "none", RATES)


# beside finished runs ---------------------------------------------------------------------------------------------


def test_a_run_on_files_of_one_s_own_is_counted_exactly(small_run, small_settings):
    (found,) = plan.plan([msft.RunConfig(**small_settings)], small_run.directory.parent)
    assert found.state == "finished"
    assert found.run.directory == small_run.directory
    trained = small_run.journal[0]["result"]["trained_tokens"]
    assert found.expected.tokens == pytest.approx(trained)
    assert found.expected.flops["train"] == pytest.approx(small_run.flops["train"])
    assert sizes.sizes_of(msft.RunConfig(**small_settings)).parameters == small_run.result["parameters"]
    points = small_run.journal[0]["result"]["points"]
    assert found.expected.generations == sum(sum(point["n"].values()) for point in points)


def test_finished_runs_lie_between_the_least_and_the_most(small_msft_run, smoke_msft_run, smoke_sft_run):
    for run in (small_msft_run, smoke_msft_run, smoke_sft_run):
        found = plan.estimate(run.config, RATES)
        training = run.flops["train"]
        assert found.least.flops["train"] <= training * 1.05  # a part of an epoch trains some of its examples
        assert found.most.flops["train"] >= training * 0.95


def test_rates_are_those_of_finished_runs(small_run, small_settings):
    rates = plan.rates_of([small_run])
    train, evaluate = rates.of(small_settings["model"])
    seconds = small_run.result["seconds"]
    assert train == pytest.approx(small_run.flops["train"] / seconds["train"])
    assert evaluate == pytest.approx(small_run.flops["evaluate"] / seconds["evaluate"])
    assert rates.of("another") == (0.4 * 989e12,) * 2


def test_a_run_whose_seconds_are_no_numbers_is_no_measure(small_run, tmp_path):
    folder = shutil.copytree(small_run.directory, tmp_path / "run")
    (folder / "result.json").write_text(
        (folder / "result.json").read_text().replace('"train": ', '"train": null, "was": ', 1)
    )
    assert plan.rates_of([msft.Run(folder)]).measured == {}


@pytest.mark.usefixtures("small_msft_run")  # another run of the model, for its rates
def test_status_has_what_it_took_beside_the_estimate(small_run):
    (row,) = [row for row in status.rows_of(status.runs_of(small_run.directory.parent)) if "sft-" == row["name"][:4]][
        :1
    ]
    assert row["flops"] == small_run.flops["total"]
    assert 0.5 < row["flops"] / row["flops_estimate"] < 2
    assert row["disk_peak"] == small_run.disk["bytes"].max()
    assert row["seconds"] == small_run.result["seconds"]["total"]
    assert row["saves"] == 1  # of the end
    assert row["bytes_written"] == small_run.disk.change[small_run.disk.change > 0].sum()
    line = status.line_of(row)
    assert line.startswith(f"{small_run.directory.name}: finished, accuracy")
    assert line.count("(estimated ") == 3
    assert line.endswith("; training packed, evaluation packed")


def test_states_of_runs(small_run, small_settings, tmp_path):
    import shutil

    config = msft.RunConfig(**small_settings)
    copy = tmp_path / small_run.directory.name
    shutil.copytree(small_run.directory, copy)
    assert [found.state for found in plan.plan([config], tmp_path)] == ["finished"]
    (copy / "result.json").unlink()
    assert [found.state for found in plan.plan([config], tmp_path)] == ["unfinished"]
    note_failure(copy, "no room\nthe disk is full")
    assert [found.state for found in plan.plan([config], tmp_path)] == ["failed"]
    assert status.line_of(status.rows_of(status.runs_of(tmp_path))[0]).endswith(": failed: the disk is full")
    assert matching([dataclasses.replace(config, seed=99)], tmp_path) == [None]
    assert not is_locked(copy)
    told = describe.report(plan.plan([config], tmp_path), tmp_path, RATES)
    assert told.startswith(f"1 run in {tmp_path}: 0 finished, 1 failed (resumable), 0 missing")


def test_a_model_that_is_nowhere_is_no_estimate():
    (found,) = plan.plan([config_of("sft", model="some/where")], "none")
    assert "'some/where' is not on this machine" in found.problem
    with pytest.raises(ModelError):
        sizes.sizes_of(found.config)


# disk, memory ---------------------------------------------------------------------------------------------------


def test_memory_and_disk_by_hand():
    found = plan.estimate(config_of("sft", model="Qwen/Qwen2.5-7B"), RATES)
    copy = 2 * CARDS["Qwen/Qwen2.5-7B"]
    assert {name: value / copy for name, value in found.device.items() if name != "activations"} == {
        "weights": 1,
        "gradients": 1,
        "adam": 2,
    }
    assert found.disk_peak == pytest.approx(2 * (2 * 0.06 + 2) * copy)
    told = describe.report([found], "none", RATES)
    assert "Qwen/Qwen2.5-7B is estimated at more than a device of 80 GB holds; take --token-budget" in told
    fitting = dataclasses.replace(found.config, token_budget=found.fitting_budget // 256 * 256)
    assert sum(plan.estimate(fitting, RATES).device.values()) < 80e9


def test_peaks_in_memory_go_to_disk_with_a_state_and_need_more_host():
    where = {name: plan.estimate(config_of("msft", keep_peaks=name), RATES) for name in ("memory", "disk")}
    assert where["memory"].disk_peak == where["disk"].disk_peak > plan.estimate(config_of("sft"), RATES).disk_peak
    assert where["memory"].host > where["disk"].host


def test_a_disk_that_is_too_small_is_said_and_stops_a_grid(tmp_path, capsys, monkeypatch):
    (tmp_path / "grid.yaml").write_text("method: [sft, msft]\nmodel: tiny-smoke\nmixture: tiny-smoke\n")
    monkeypatch.setattr(plan, "disk_free", lambda place: 10**6)
    monkeypatch.setattr(describe, "disk_free", lambda place: 10**6)
    words = ["grid", str(tmp_path / "grid.yaml"), "--runs-dir", str(tmp_path / "runs")]
    assert main(words) == 0
    assert "WARNING: the disk lacks" in capsys.readouterr().out
    assert main([*words, "--submit", "local"]) == 1
    assert "--any-disk to start all the same" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


# the paper's grid -----------------------------------------------------------------------------------------------

ALONE = """
import builtins, socket, sys
def refuse(*_, **__): raise OSError("there is no network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
sys.modules["torch"] = sys.modules["transformers"] = None  # an import of either is an error
from msft.__main__ import main
sys.exit(main(["plan", "--grid", "paper", "--runs-dir", sys.argv[1]]))
"""


def test_the_paper_s_grid_is_planned_without_network_gpu_or_torch(tmp_path):
    words = [sys.executable, "-c", ALONE, str(tmp_path / "runs")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"73 runs in {tmp_path / 'runs'}: 0 finished, 73 missing")
    assert "no estimate" not in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flag", [[], ["--json"]])
def test_a_plan_of_one_run_without_an_estimate_is_an_error(capsys, tmp_path, flag):
    assert main(["plan", "--model", "tiny-qwen4", "--runs-dir", str(tmp_path), *flag]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "no estimate: unknown model 'tiny-qwen4'. Did you mean 'tiny-qwen3'?" in said.err


@pytest.mark.parametrize(
    "name", ["my models/small", "x/y--z", "x/y..z", "x/" + 97 * "a", "données/x", "${HOME}/x", "x/y.git"]
)
def test_a_name_that_the_hub_cannot_have_is_an_unknown_model(name, capsys, tmp_path):
    """Its client raises an error of its own where it is asked for one."""
    assert main(["plan", "--model", name, "--runs-dir", str(tmp_path)]) == 2
    assert f"no estimate: unknown model '{name}'." in capsys.readouterr().err
    assert paths.is_hub_id("allenai/OLMo-2-0425-1B") and paths.is_hub_id("x/" + 96 * "a")


def test_a_finished_run_whose_model_is_gone_is_planned_as_finished(small_settings, tmp_path, capsys):
    folder = shutil.copytree(small_settings["model"], tmp_path / "model")
    settings = {**small_settings, "model": str(folder), "params": {"epochs": 0.25}}
    msft.run(msft.RunConfig(**settings), tmp_path / "runs", progress=False)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    shutil.rmtree(folder)
    assert main(["plan", "--config", str(tmp_path / "run.yaml"), "--runs-dir", str(tmp_path / "runs")]) == 0
    said = capsys.readouterr().out
    assert "1 run in" in said and "1 finished" in said and f"no estimate: unknown model '{folder}'" in said
    assert "Nothing is left to train." in said


def test_a_plan_as_json(capsys, tmp_path):
    import json

    words = ["plan", "--method", "sft", "--model", "Qwen/Qwen2.5-3B", "--mixture", "paper-10", "--json"]
    assert main([*words, "--runs-dir", str(tmp_path), "--utilisation", "0.2"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["state"] == "missing"
    assert found["expected"]["tokens"] == pytest.approx(10 * 1800 * 906.2, rel=1e-3)
    whole = found["expected"]["flops"]["total"]
    # everything is really evaluated that counts: seconds are FLOPs over a fifth of the peak
    assert found["expected"]["seconds"] == pytest.approx(whole / (0.2 * 989e12))


def test_a_run_of_other_data_or_of_another_method_file_is_not_taken_for_this_one(small_settings, tmp_path):
    mixture, method = helpers.write_mixture(tmp_path), tmp_path / "own.py"
    method.write_text("from msft.methods.sft import Params, run\n")
    own = {"method": "own", "methods_dir": str(tmp_path), "mixture": str(mixture), "params": {"epochs": 0.25}}
    config, runs_dir = msft.RunConfig(**{**small_settings, **own}), tmp_path / "runs"
    run = msft.run(config, runs_dir, progress=False)
    files = [next(tmp_path.glob("*_train.jsonl")), method]
    texts = [path.read_text() for path in files]
    (found,) = plan.plan([config], runs_dir)
    assert (found.state, found.run.directory) == ("finished", run.directory)
    for path, text, other in zip(files, texts, [texts[0].split("\n", 1)[1], texts[1] + "# another one\n"], strict=True):
        path.write_text(other)
        assert [e.state for e in plan.plan([config], runs_dir)] == ["missing"]
        path.write_text(text)
    assert [e.state for e in plan.plan([config], runs_dir)] == ["finished"]


def test_a_search_is_read_from_no_run_of_other_data(small_settings, tmp_path):
    mixture, epochs = helpers.write_mixture(tmp_path), {"epochs": 0.25}
    settings = {**small_settings, "mixture": str(mixture), "params": epochs}
    msft.run(msft.RunConfig(**settings), tmp_path / "runs", progress=False)
    search, train = msft.RunConfig(**settings | {"method": "sro_sft"}), next(tmp_path.glob("*_train.jsonl"))
    (read,) = plan.plan([search], tmp_path / "runs", RATES)
    train.write_text(train.read_text().split("\n", 1)[1])
    (trained,) = plan.plan([search], tmp_path / "runs", RATES)
    assert trained.expected.seconds > 1.5 * read.expected.seconds


def test_rows_of_runs_with_other_settings_can_be_told_apart():
    rates = [msft.RunConfig(mixture="tiny-smoke", learning_rate=rate) for rate in (None, 1e-5, 1e-3)]
    rows = describe.report(plan.plan(rates, "none"), "none", RATES).splitlines()[3:6]
    assert [row.split()[4] for row in rows] == ["-", "learning_rate=1e-05", "learning_rate=0.001"]
