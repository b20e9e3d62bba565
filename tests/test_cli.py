"""The command line: help with defaults, every error at once with the nearest name, and quiet where it is piped."""

import errno
import json
import os
import shutil
import subprocess
import sys

import pytest

import msft
from msft.__main__ import main
from msft.cli import options
from msft.cli.commands import COMMANDS

ERRORS = [
    (
        "run --see 3 --batch-size x --params budget --method sftt --model",
        [
            "'--see'. Did you mean '--seed'?",
            "--model needs a value",
            "found budget",
            "batch_size = 'x'",
            "Did you mean 'sft'?",
        ],
    ),
    (
        "eval tiny-smoke --precision bf61 --max-new-tokens ten",
        ["precision: unknown value 'bf61'. Did you mean 'bf16'?", "max_new_tokens = 'ten'"],
    ),
    ("eval --mixtur tiny x", ["'--mixtur'. Did you mean '--mixture'?"]),
    ("export", ["RUN is missing", "TARGET is missing"]),
    ("export some --dtype fp16", ["TARGET is missing", "dtype: unknown value 'fp16'", "bf16, fp32"]),
    ("grid", ["GRID is missing"]),
    ("grid papr", ["unknown grid 'papr'", "Did you mean 'paper'?"]),
    (
        "grid tiny --submit slrum --slots 0 --gpu 2",
        ["Did you mean 'slurm'?", "slots = 0", "'--gpu'. Did you mean '--gpus'?"],
    ),
    (
        "grid tiny --hours x --cpus 0",
        ["option of slurm hours = 'x'", "option of slurm cpus = 0"],
    ),
    ("plan --utilisation 3 --sed 4", ["utilisation = 3.0: must lie in [0.001, 1.0]", "Did you mean '--seed'?"]),
    ("plan --grid tiny --seed 3 --model x", ["--seed is for one run", "--model is for one run"]),
    ("plan --grid tiny --config x.yaml", ["--config is for one run"]),
    ("grid tiny --submit local --partition gpu", ["--partition is for --submit slurm"]),
    ("export some new --public", ["--public is for --push"]),
    ("status --runs-dir=", ["--runs-dir needs a value"]),
    ("status --josn", ["'--josn'. Did you mean '--json'?"]),
    ("methods x", ["unknown argument 'x'"]),
    ("run --seed 1 --method sft --seed 2", ["--seed is given 2 times: '1', '2'; give it once"]),
    ("run --params budget=1 --params budget=2", ["--params names 'budget' twice"]),
    ("run --params --sed 3", ["--params needs NAME=VALUE", "Did you mean '--seed'?"]),
    ("run --seed 1:30", ["setting seed = '1:30'"]),
]


@pytest.mark.parametrize(("line", "fragments"), ERRORS, ids=[line for line, _ in ERRORS])
def test_every_error_is_told_at_once(line, fragments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 2
    told = capsys.readouterr()
    assert told.out == ""
    for fragment in fragments:
        assert fragment in told.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "line",
    [
        "run --model L",
        "run --mixture L",
        "run --data-dir L",
        "run --runs-dir L",
        "plan --methods-dir L",
        "eval L",
        "grid L",
    ]
    + ["grid tiny --runs-dir L", "export L x", "export x L", "status --runs-dir L", "methods --methods-dir L"]
    + ["mixture check L"],
)
def test_a_name_that_no_file_can_have_is_named(line, capsys):
    assert main(line.replace("L", "a" * 300).split()) == 2
    assert "'" + "a" * 40 + "...' in a path has more than 255 bytes; give a shorter one" in capsys.readouterr().err


def test_without_a_command_the_commands_are_listed(capsys):
    assert main([]) == 0
    told = capsys.readouterr().out
    assert all(f"\n  {name} " in told for name in COMMANDS)
    assert set(COMMANDS) == {"run", "plan", "grid", "status", "eval", "export", "mixture", "methods"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_tells_every_flag_and_its_default(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    flags, _ = COMMANDS[command]
    for kind in filter(None, (flags, flags.more)):
        for field in options.flags_of(kind):
            assert f"--{field.name.replace('_', '-')} " in told
            if isinstance(field.default, (int, float, str)) and field.type is not bool:
                assert f"(default: {field.default})" in told
            assert field.metadata["doc"].split(";")[0] in told
    assert all(name.upper() in told for name in options.positionals_of(flags))
    assert "[VALUE]" not in told


def test_a_file_s_settings_and_the_flags_over_them(tmp_path):
    (tmp_path / "own.yaml").write_text("method: sft\nseed: 30\nparams: {epochs: 2}\n")
    words = ["--config", str(tmp_path / "own.yaml"), "--seed", "40", "--params", "epochs=3"]
    config = options.config_of(options.read(options.Run, words))
    assert config == msft.RunConfig(method="sft", seed=40, params={"epochs": 3})


def test_errors_of_a_file_and_of_flags_come_together(tmp_path, capsys):
    (tmp_path / "own.yaml").write_text("sead: 30\n")
    assert main(["run", "--config", str(tmp_path / "own.yaml"), "--batch-size", "0", "--quite"]) == 2
    told = capsys.readouterr().err
    assert all(word in told for word in ("'sead'", "batch_size = 0", "'--quite'. Did you mean '--quiet'?"))


def piped(words, **more):
    own = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    return subprocess.Popen(
        [sys.executable, "-m", "msft", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=own, text=True
    )


def test_a_reader_that_has_seen_enough_is_no_error():
    process = piped(["methods"])
    process.stdout.close()  # before a word is written
    told = process.stderr.read()
    assert (process.wait(), told) == (0, "")


def test_a_method_file_without_a_docstring_is_listed(tmp_path, capsys):
    text = "from dataclasses import dataclass\n@dataclass\nclass Params:\n    width: int = 2\ndef run(trainer, params): pass\n"
    (tmp_path / "mine.py").write_text(text)
    assert main(["methods", "--methods-dir", str(tmp_path)]) == 0
    assert "mine: without a docstring\n    width = 2: \n" in capsys.readouterr().out


def test_ctrl_c_where_nothing_is_there_to_save_is_no_traceback(monkeypatch, capsys):
    def interrupted(flags):
        raise KeyboardInterrupt

    monkeypatch.setitem(COMMANDS, "methods", (options.Methods, interrupted))
    assert main(["methods"]) == 130
    assert capsys.readouterr().err.startswith("stopped; ")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_under_a_file_is_not_laid_to_the_standard_output(monkeypatch, capfd, number):
    def full(flags):
        raise OSError(number, "No space left on device", "tasks/scoring.py")

    monkeypatch.setitem(COMMANDS, "methods", (options.Methods, full))
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    assert main(["methods"]) == 1
    assert (
        f"a file cannot be written ([Errno {number}] No space left on device: 'tasks/scoring.py')"
        in capfd.readouterr().err
    )


@pytest.mark.parametrize(("where", "code"), [(">&-", 0), ("> /dev/full", 1)])
def test_an_output_that_is_closed_or_full_is_no_traceback(where, code):
    command = f"{sys.executable} -m msft methods {where}"
    done = subprocess.run(command, shell=True, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert bool(done.stderr) == bool(code)


@pytest.mark.parametrize(("number", "of"), [("0", "x"), ("", "2"), ("0", "0"), ("0", "-1"), ("3", "2")])
def test_a_place_among_processes_that_is_none_is_refused(monkeypatch, capsys, number, of):
    monkeypatch.setenv("RANK", number)
    monkeypatch.setenv("WORLD_SIZE", of)
    assert main(["run", "--method", "sft", "--model", "tiny-smoke", "--mixture", "tiny-smoke"]) == 2
    assert f"RANK = {number!r} with WORLD_SIZE = {of!r}" in capsys.readouterr().err


def test_in_a_pipe_there_is_no_colour():
    process = piped(["methods"], FORCE_COLOR="1")
    told, errors = process.communicate()
    assert process.returncode == 0
    assert "\x1b" not in told + errors
    assert "budget = 3.0" in told


def test_of_several_processes_one_tells_the_errors(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["run", "--batch-size", "0"]) == 2
    assert capsys.readouterr().err == ""


def test_what_a_launcher_left_in_the_environment_holds_for_a_run_alone(small_run, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    for words, code in [(["eval", str(small_run.best.path)], 0), (["eval", "nobody"], 2)]:
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert main(words) == code
    told = capsys.readouterr()
    assert f"accuracy of all items {small_run.best.accuracy:.4f}" in told.out
    assert "unknown model 'nobody'" in told.err


def test_eval_measures_as_the_run_did_from_within_it_and_through_a_link(small_run, tmp_path, monkeypatch, capsys):
    (tmp_path / "link").symlink_to(small_run.best.path)
    whole = f"accuracy of all items {small_run.best.accuracy:.4f}"
    monkeypatch.chdir(small_run.best.path)
    for place in (".", str(tmp_path / "link")):
        assert main(["eval", place]) == 0
        told = capsys.readouterr()
        assert whole in told.out
        assert f"mixture {small_run.config.mixture}, fp32" in told.err
        assert "other data" not in told.err


def test_a_grid_s_token_budget_stands_in_every_run(tmp_path, monkeypatch):
    (tmp_path / "grid.yaml").write_text(
        "{model: tiny-smoke, mixture: tiny-smoke, method: [sft, msft], token_budget: 512}"
    )
    asked = []
    monkeypatch.setattr("msft.cost.plan.plan", lambda configs, *_: asked.extend(configs) or [])
    monkeypatch.setattr("msft.cost.describe.report", lambda *_: "")
    for more in ((), ("--token-budget", "256")):
        assert main(["grid", str(tmp_path / "grid.yaml"), *more, "--runs-dir", str(tmp_path / "runs")]) == 0
    assert [config.token_budget for config in asked] == [512, 512, 256, 256]


def test_eval_weighs_by_test_items_as_the_run_does(tmp_path, capsys):
    for name, items in (("one", 1), ("three", 3)):
        rows = [{"question": f"{name} {i}", "answer": "x" * (i + items)} for i in range(8 + items)]
        for part, these in (("train", rows[items:]), ("test", rows[:items])):
            (tmp_path / f"{name}-{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in these))
    entries = [f"{{name: {n}, train: {n}-train.jsonl, test: {n}-test.jsonl, metric: loss}}" for n in ("one", "three")]
    (tmp_path / "mine.yaml").write_text(f"name: mine\nsub_datasets: [{', '.join(entries)}]\n")
    assert main(["eval", "tiny-smoke", "--mixture", str(tmp_path / "mine.yaml")]) == 0
    *_, one, three, whole = capsys.readouterr().out.splitlines()
    assert (one.split()[::2], three.split()[::2]) == (["one", "1"], ["three", "3"])
    assert float(one.split()[1]) != float(three.split()[1])
    by_hand = (float(one.split()[1]) + 3 * float(three.split()[1])) / 4
    assert float(whole.split()[-1]) == pytest.approx(by_hand, abs=1e-4)


def test_a_link_that_leads_nowhere_is_no_model_of_the_hub_and_no_new_folder(small_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner").mkdir()
    for name, target in (("loop", "loop"), ("gone", "nowhere")):
        (tmp_path / "owner" / name).symlink_to(target)
        assert main(["eval", f"owner/{name}"]) == 2
        assert f"unknown model 'owner/{name}'" in capsys.readouterr().err
        assert main(["export", str(small_run.directory), f"owner/{name}"]) == 1
        assert f"owner/{name} is there and no folder; give a new folder" in capsys.readouterr().err


def test_eval_says_that_a_run_s_mixture_has_other_data_now(small_run, tmp_path, capsys):
    run = shutil.copytree(small_run.directory, tmp_path / "run")
    told = json.loads((run / "run.json").read_text())
    told["mixture"]["fingerprint"] = "another"
    (run / "run.json").write_text(json.dumps(told))
    assert main(["eval", str(run / "best")]) == 0
    assert f"has other data now than {run} had\n" in capsys.readouterr().err


@pytest.mark.parametrize(("dtype", "precision"), [("", "fp32"), ("bf16", "bf16")])
def test_eval_takes_the_precision_of_a_folder_s_own_weights(small_run, tmp_path, capsys, dtype, precision):
    msft.export(small_run, tmp_path / "out", dtype=dtype)
    words = ["--mixture", small_run.config.mixture, "--max-new-tokens", "12", "--device", "cpu"]
    assert main(["eval", str(tmp_path / "out"), *words]) == 0
    assert f", {precision}, " in capsys.readouterr().err
