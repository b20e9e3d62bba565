"""The contract of a run; and a run that is killed, stopped, damaged or shared ends as one that never was."""

import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from helpers import ALWAYS, MAKERS, TEST_SIZES, killed_run, make_model, unharmed_run
from safetensors import SafetensorError

import msft
from msft import names, runs
from msft.cli.main import main
from msft.errors import ConfigError, DataError, ModelError, MsftError, RunError
from msft.launch import status
from msft.results.summary import summary
from msft.store import files
from msft.store.checkpoints import Store, snapshot
from msft.store.journal import Journal
from msft.training import Trainer

COLUMNS = ["stage", "epoch", "path_epoch", "task", "accuracy", "n", "active", "train_loss"]


def run_of(settings, runs_dir, **options):
    return msft.run(msft.RunConfig(**settings), runs_dir, progress=False, **options)


def assert_equal_runs(a, b):
    """Bit for bit: history, best checkpoint, answers, FLOPs."""
    pd.testing.assert_frame_equal(a.history, b.history, check_exact=True)
    assert (a.best.path / "model.safetensors").read_bytes() == (b.best.path / "model.safetensors").read_bytes()
    assert a.result["best"] == b.result["best"]
    assert a.flops == b.flops
    pd.testing.assert_frame_equal(a.outputs, b.outputs)


# the contract -------------------------------------------------------------------------------------------------


@pytest.fixture(params=["small_run", "small_msft_run"])
def finished(request):
    return request.getfixturevalue(request.param)


def check_contract(run, tasks):
    assert run.status == "finished"
    assert run.directory.is_dir()
    history = run.history
    assert list(history.columns[:8]) == COLUMNS
    kinds = {"stage": "i", "epoch": "f", "path_epoch": "f", "accuracy": "f", "n": "i", "active": "b", "train_loss": "f"}
    assert {name: history[name].dtype.kind for name in kinds} == kinds
    assert set(history["task"]) == set(tasks)
    assert history["accuracy"].between(0, 1).all()
    assert history[history["epoch"] == 0]["train_loss"].isna().all()
    assert not history.duplicated(["stage", "epoch", "task"]).any()
    assert run.best.path.is_dir()
    right = (history["accuracy"] * history["n"]).groupby([history["stage"], history["epoch"]]).sum()
    sizes = history["n"].groupby([history["stage"], history["epoch"]]).sum()
    assert run.best.accuracy == pytest.approx((right / sizes).max())
    assert run.best.path_epoch in set(history["path_epoch"])
    assert list(run.flops) == ["train", "evaluate", "look_ahead", "total"]
    assert run.flops["total"] == sum(run.flops[key] for key in ("train", "evaluate", "look_ahead")) > 0
    assert {"time", "event", "bytes", "copies"} <= set(run.disk.columns)
    assert run.disk["bytes"].iloc[-1] == sum(path.stat().st_size for path in run.best.path.iterdir())
    assert not (run.directory / "state").exists()


def test_contract(finished):
    check_contract(finished, MAKERS)
    assert finished.history.groupby("task")["n"].first().to_dict() == TEST_SIZES
    assert finished.config.learning_rate == 1e-3
    assert finished.about["config"]["params"] == finished.config.params


def test_contract_of_the_embedded_smoke_runs(smoke_sft_run, smoke_msft_run):
    for run in (smoke_sft_run, smoke_msft_run):
        check_contract(run, msft.load_mixture("tiny-smoke").names)
    assert smoke_sft_run.best.accuracy >= 0


def test_tasks_stand_in_mixture_order(finished):
    assert finished.history["task"].tolist()[:3] == list(MAKERS)


def test_history_file_is_the_history(finished):
    written = pd.read_csv(finished.directory / "history.csv")
    pd.testing.assert_frame_equal(written, finished.history)


def test_msft_history(small_msft_run):
    history = small_msft_run.history
    active = history.groupby("stage")["active"].sum() / history.groupby("stage")["epoch"].nunique()
    assert active.iloc[0] == 3
    assert active.is_monotonic_decreasing
    drops = [entry["arguments"] for entry in small_msft_run.journal if entry["kind"] == "roll_back"]
    offset = 0.0
    for drop in drops:
        stage = history[history["stage"] == drop["stage"]]
        assert stage["path_epoch"].iloc[0] == pytest.approx(offset) or drop["stage"] > 0
        curve = {e: rows.set_index("task")["selection"].to_dict() for e, rows in stage.groupby("epoch")}
        names = [t for t in MAKERS if stage[stage["task"] == t]["active"].all()]
        assert msft.methods.msft.earliest_overfit(curve, names) == (drop["dropped"], drop["epoch"])
    assert len({drop["dropped"] for drop in drops}) == len(drops)


def test_best_checkpoint_loads_with_stock_classes(small_run, small_settings, model_folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = (kind.from_pretrained(small_run.best.path) for kind in (AutoModelForCausalLM, AutoTokenizer))
    assert tokenizer("Q: café")["input_ids"] == AutoTokenizer.from_pretrained(model_folder)("Q: café")["input_ids"]
    assert tokenizer.eos_token_id == 1
    base = AutoModelForCausalLM.from_pretrained(model_folder)
    trained = small_run.best.path_epoch > 0
    assert trained != all(torch.equal(a, b) for a, b in zip(model.parameters(), base.parameters(), strict=True))


def test_best_checkpoint_has_the_weights_that_were_measured(small_settings, runs_dir, monkeypatch):
    from transformers import AutoModelForCausalLM

    measured, original = {}, Trainer.measure

    def recording(self, epoch):
        measured[epoch] = snapshot(self.model)
        return original(self, epoch)

    monkeypatch.setattr(Trainer, "measure", recording)
    run = run_of(small_settings, runs_dir)
    saved = snapshot(AutoModelForCausalLM.from_pretrained(run.best.path))
    wanted = measured[run.best.path_epoch]
    assert saved.keys() == wanted.keys()
    assert all(torch.equal(saved[name], wanted[name]) for name in wanted)


def test_outputs(finished):
    outputs = finished.outputs
    assert {"stage", "epoch", "part", "task", "item", "text", "correct"} <= set(outputs.columns)
    first = outputs[(outputs["stage"] == 0) & (outputs["epoch"] == 0.25)]
    accuracy = first.groupby("task")["correct"].mean()
    history = finished.history
    wanted = history[(history["stage"] == 0) & (history["epoch"] == 0.25)].set_index("task")["accuracy"]
    assert accuracy.to_dict() == pytest.approx(wanted.to_dict())
    pd.testing.assert_frame_equal(finished.answers(0, 0.25), first)


@pytest.mark.parametrize("texts", [["1", "2"], ["007", "1e5"], ["true", "null"], ["1.50", "x"], ["2020-01-01", "1"]])
def test_outputs_are_texts_whatever_they_look_like(tmp_path, texts):
    (tmp_path / "outputs").mkdir()
    rows = [
        {"stage": 0, "epoch": 0.0, "part": "test", "task": "1", "item": i, "text": t, "correct": True}
        for i, t in enumerate(texts)
    ]
    files.write_gzip(tmp_path / "outputs" / "stage000_epoch000.000.jsonl.gz", rows)
    outputs = runs.Run(tmp_path).outputs
    assert outputs["text"].tolist() == texts
    assert outputs["task"].tolist() == ["1", "1"]


def test_methods_and_load_runs(small_run, small_msft_run, tmp_path):
    assert {"sft", "msft"} <= set(msft.methods.available())
    found = {run.directory for run in msft.load_runs(small_run.directory.parent)}
    assert {small_run.directory, small_msft_run.directory} <= found
    assert msft.load_runs(tmp_path) == []
    assert msft.load_runs(tmp_path / "none") == []
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "run.json").write_text("{}")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "result.json").write_text('{"accuracy": 0.5}')  # of another tool
    assert msft.load_runs(tmp_path) == []
    assert runs.Run(tmp_path / "x").status == "unfinished"
    assert runs.Run(tmp_path / "y").status == "missing"
    with pytest.raises(RunError, match=r"is unfinished: it has no result\.json"):
        _ = runs.Run(tmp_path / "x").best


# one directory, one result ------------------------------------------------------------------------------------


def test_finished_run_is_read_at_once(small_run, small_settings, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("a finished run must not be trained or loaded")

    monkeypatch.setattr(runs, "_train", fail)
    monkeypatch.setattr(names, "load_model", fail)
    before = {path: path.stat().st_mtime_ns for path in small_run.directory.rglob("*")}
    again = run_of(small_settings, small_run.directory.parent)
    assert again.directory == small_run.directory
    assert again.best == small_run.best
    assert {path: path.stat().st_mtime_ns for path in small_run.directory.rglob("*")} == before


def name_of(settings):
    return runs.prepare(msft.RunConfig(**settings)).name


def test_a_setting_that_a_run_does_not_use_is_not_in_its_name(small_settings, caplog):
    plain = msft.RunConfig(**small_settings)
    drawn = msft.RunConfig(**small_settings, train_size=3, test_size=2, revision="v1")
    with caplog.at_level(logging.WARNING, logger="msft"):
        assert runs.prepare(drawn).name == runs.prepare(plain).name
    (said,) = caplog.messages
    assert said.endswith("not used, since only the paper's mixtures are drawn by them: train_size, test_size, revision")
    for revision in ("v1", ""):
        with pytest.raises(ConfigError, match=rf"model_revision = '{revision}' is of the hub.*leave it out"):
            runs.prepare(msft.RunConfig(**small_settings, model_revision=revision))


def test_a_run_s_name_is_one_that_a_file_can_have(small_settings, mixture_file, tmp_path):
    shutil.copytree(mixture_file.parent, tmp_path / "data")
    plain = {**small_settings, "mixture": str(tmp_path / "data" / f"{'é' * 120}.yaml")}
    (tmp_path / "data" / mixture_file.name).rename(plain["mixture"])
    first, other = (name_of({**plain, **more}) for more in ({}, {"seed": 21}))
    assert first.startswith(f"sft-{Path(plain['model']).name}-{'é' * 32}-s20-") and len(first.encode()) <= 255
    assert first != other


def test_different_settings_never_share_a_directory(small_settings, model_folder, mixture_file, tmp_path):
    names = [name_of(small_settings)]
    for change in (
        {"seed": 21},
        {"method": "msft", "params": {}},
        {"params": {"epochs": 2}},
        {"learning_rate": 2e-3},
        {"select_on": "validation"},
        {"loss_group": 2},
        {"batch_size": 4},
        {"max_new_tokens": 13},
        {"evaluations_per_epoch": 2},
    ):
        names.append(name_of({**small_settings, **change}))
    assert len(set(names)) == len(names)
    for change in (ALWAYS, {"keep_peaks": "disk"}, {"device": None}):
        assert name_of({**small_settings, **change}) == names[0]
    # the same paths with other contents
    shutil.copytree(mixture_file.parent, tmp_path / "mixture")
    copied = {**small_settings, "mixture": str(tmp_path / "mixture" / mixture_file.name)}
    before = name_of(copied)
    rows = tmp_path / "mixture" / "adding_train.jsonl"
    rows.write_text(rows.read_text().replace('"answer": "2"', '"answer": "3"'))
    assert name_of(copied) != before
    shutil.copytree(model_folder, tmp_path / "model")
    copied = {**small_settings, "model": str(tmp_path / "model")}
    before = name_of(copied)
    weights = tmp_path / "model" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    assert name_of(copied) != before


@pytest.mark.parametrize(
    ("change", "error", "fragment"),
    [
        ({"model": "tiny-qwen3x"}, ModelError, "Did you mean 'tiny-qwen3'?"),
        ({"mixture": "tinny"}, DataError, "Did you mean 'tiny'?"),
        ({"mixture": "none.yaml"}, DataError, "does not exist"),
        ({"device": "mps:9"}, ModelError, "device 'mps:9' cannot be used"),
        ({"max_tokens": 8}, DataError, "max_tokens"),
        ({"max_prompt_tokens": 8}, DataError, "max_prompt_tokens"),
    ],
)
def test_bad_input_raises_before_anything_is_written(small_settings, runs_dir, change, error, fragment):
    with pytest.raises(error) as caught:
        run_of({**small_settings, **change}, runs_dir)
    assert fragment in str(caught.value)
    assert isinstance(caught.value, MsftError)
    assert not isinstance(caught.value, ConfigError)
    assert not runs_dir.exists()


# killed -------------------------------------------------------------------------------------------------------


def child(children, target, *args):
    process = children.Process(target=target, args=args)
    process.start()
    process.join(180)
    assert not process.is_alive()
    return process.exitcode


@pytest.mark.parametrize(
    "kills",
    [
        [("step", 3), ("evaluation", 2), ("put", 5)],
        [("before commit", 2), ("after commit", 3), ("best", 1)],
    ],
    ids=str,
)
def test_killed_sft_run_ends_as_if_it_never_was(small_run, small_settings, runs_dir, children, kills):
    settings = {**small_settings, **ALWAYS}
    for place, count in kills:
        assert child(children, killed_run, settings, runs_dir, place, count) == -signal.SIGKILL
    assert_equal_runs(run_of(settings, runs_dir), small_run)


@pytest.mark.parametrize("precision", ["mixed", "bf16"])
def test_a_killed_run_that_answers_in_half_precision_does_too(small_settings, runs_dir, children, precision):
    settings = {**small_settings, **ALWAYS, "precision": precision}
    for place, count in [("step", 3), ("evaluation", 2), ("after commit", 3)]:
        assert child(children, killed_run, settings, runs_dir / "killed", place, count) == -signal.SIGKILL
    assert_equal_runs(run_of(settings, runs_dir / "killed"), run_of(settings, runs_dir / "whole"))


@pytest.mark.parametrize(
    ("where", "kills"),
    [("memory", [("step", 7), ("before commit", 2)]), ("disk", [("step", 7), ("after commit", 2), ("best", 1)])],
    ids=str,
)
def test_killed_msft_run_ends_as_if_it_never_was(small_msft_run, small_msft_settings, runs_dir, children, where, kills):
    settings = {**small_msft_settings, **ALWAYS, "keep_peaks": where}
    for place, count in kills:
        assert child(children, killed_run, settings, runs_dir, place, count) == -signal.SIGKILL
    run = run_of(settings, runs_dir)
    assert_equal_runs(run, small_msft_run)
    assert [e["arguments"] for e in run.journal] == [e["arguments"] for e in small_msft_run.journal]


def test_history_file_of_a_killed_run_is_the_same(small_msft_run, small_msft_settings, runs_dir, children):
    assert child(children, killed_run, small_msft_settings, runs_dir, "evaluation", 5) == -signal.SIGKILL
    run = run_of(small_msft_settings, runs_dir)
    assert (run.directory / "history.csv").read_bytes() == (small_msft_run.directory / "history.csv").read_bytes()


@pytest.mark.parametrize(("method", "params"), [("sft", {"epochs": 1}), ("msft", {"budget": 1})])
def test_killed_run_does_not_train_again_what_it_saved(small_settings, runs_dir, children, monkeypatch, method, params):
    """Within a stage whose peaks wait in memory too: they are saved with it."""
    settings = {**small_settings, **ALWAYS, "method": method, "params": params}
    assert child(children, killed_run, settings, runs_dir / "killed", "evaluation", 5) == -signal.SIGKILL
    counts, original = {}, Trainer.gradients
    for folder in ("killed", "whole"):
        steps = []
        monkeypatch.setattr(
            Trainer, "gradients", lambda self, rows, steps=steps: steps.append(1) or original(self, rows)
        )
        run_of(settings, runs_dir / folder)
        counts[folder] = len(steps)
    # nine steps were done in the first stage; the newest were on their way to disk
    assert counts["killed"] <= counts["whole"] - 5


# stopped ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fixtures", [("small_run", "small_settings"), ("small_msft_run", "small_msft_settings")])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_signal_saves_and_says_how_to_go_on(request, fixtures, number, runs_dir, monkeypatch, capsys):
    whole, settings = map(request.getfixturevalue, fixtures)
    handler, calls, original = signal.getsignal(number), [], Trainer.gradients

    def stopping(self, rows):
        calls.append(1)
        if len(calls) == 5:
            os.kill(os.getpid(), number)
        return original(self, rows)

    monkeypatch.setattr(Trainer, "gradients", stopping)
    with pytest.raises(RunError, match=r"stopped and saved in .* Give the same command again"):
        run_of(settings, runs_dir)
    assert "stopping" in capsys.readouterr().err
    assert len(calls) == 5
    assert signal.getsignal(number) == handler
    (folder,) = runs_dir.iterdir()
    assert runs.Run(folder).status == "unfinished"
    monkeypatch.setattr(Trainer, "gradients", original)
    assert_equal_runs(run_of(settings, runs_dir), whole)


# damaged ------------------------------------------------------------------------------------------------------


@pytest.fixture
def half_run(small_settings, runs_dir, children):
    """(settings, directory) of a run killed after several saves."""
    settings = {**small_settings, **ALWAYS}
    assert child(children, killed_run, settings, runs_dir, "evaluation", 4) == -signal.SIGKILL
    (folder,) = runs_dir.iterdir()
    assert len(Journal(folder / "journal.jsonl").saved) > 1
    return settings, folder


def test_what_a_kill_left_half_written_goes_and_is_in_no_ledger(half_run, small_run, runs_dir):
    settings, folder = half_run
    for name in ("weights-1.delta.safetensors.7.partial", ".tmpAb3xYz"):  # ours, and what safetensors writes it under
        (folder / "state" / name).write_bytes(b"half" * 1000)
    run = run_of(settings, runs_dir)
    assert_equal_runs(run, small_run)
    assert run.disk.bytes.iloc[-1] == sum(path.stat().st_size for path in (folder / "best").iterdir())


def tear(folder):
    path = folder / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-40])


def garble(folder):
    path = folder / "journal.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]) + lines[-1].replace("weights-", "weights_"))


def damage_weights(folder):
    name = Journal(folder / "journal.jsonl").saved[-1]["state"]["weights"]
    path = folder / "state" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(bytes(data))


def lose_weights(folder):
    for path in (folder / "state").glob("weights-*"):
        path.unlink()


def lose_journal(folder):
    (folder / "journal.jsonl").write_bytes(b"\x00\xff\n\n{}\n")


@pytest.mark.parametrize("harm", [tear, garble, damage_weights, lose_weights, lose_journal])
def test_damaged_run_falls_back_with_a_warning_and_ends_equal(half_run, small_run, runs_dir, harm):
    settings, folder = half_run
    harm(folder)
    with pytest.warns(UserWarning, match="damaged"):
        run = run_of(settings, runs_dir)
    assert_equal_runs(run, small_run)


@pytest.mark.parametrize("left", ["", '{"config": {"me', "[]", None], ids=["empty", "cut", "other", "gone"])
def test_what_says_of_a_run_what_it_is_is_written_again_where_it_cannot_be_read(half_run, small_run, runs_dir, left):
    settings, folder = half_run
    (folder / "run.json").unlink() if left is None else (folder / "run.json").write_text(left)
    run = run_of(settings, runs_dir)
    assert_equal_runs(run, small_run)
    assert run.about["mixture"] == small_run.about["mixture"]


def test_a_run_that_goes_on_with_other_packages_says_so(half_run, small_run, runs_dir, capsys):
    settings, folder = half_run
    about = json.loads((folder / "run.json").read_text())
    first = about["versions"] | {"torch": "1.0", "pandas": "0.1"}
    (folder / "run.json").write_text(json.dumps({**about, "versions": first}))
    run = run_of(settings, runs_dir)
    assert_equal_runs(run, small_run)
    assert (run.about["versions"], run.about["later_versions"]) == (first, [small_run.about["versions"]])
    assert "goes on with other packages than before: torch 1.0 -> " in capsys.readouterr().err


def test_packages_that_a_run_has_gone_on_with_are_said_once(half_run, small_run, runs_dir, capsys):
    settings, folder = half_run
    about, later = json.loads((folder / "run.json").read_text()), [small_run.about["versions"]]
    about |= {"versions": about["versions"] | {"torch": "1.0"}, "later_versions": later}
    (folder / "run.json").write_text(json.dumps(about))
    assert run_of(settings, runs_dir).about["later_versions"] == later
    assert "other packages" not in capsys.readouterr().err


@pytest.mark.parametrize("harm", [lambda data: b"", lambda data: data[: len(data) // 2]], ids=["empty", "cut"])
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("journal.jsonl", lambda run: run.at_best),
        ("result.json", lambda run: run.best),
        ("outputs/stage000_epoch000.000.jsonl.gz", lambda run: run.outputs),
        ("outputs/stage000_epoch000.000.jsonl.gz", lambda run: run.leads),
    ],
    ids=["journal", "result", "outputs", "leads"],
)
def test_a_finished_run_names_the_file_that_is_damaged(small_msft_run, tmp_path, name, read, harm):
    shutil.copytree(small_msft_run.directory, tmp_path / "run")
    path = tmp_path / "run" / name
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(RunError, match=f"{path.name} is damaged .* delete .*run and run its command again"):
        read(runs.Run(tmp_path / "run"))


READ = (
    "best",
    "result",
    "config",
    "about",
    "at_best",
    "dropped",
    "metrics",
    "leads",
    "confirmation",
    "flops",
    "directory",
)
ODD = {
    "result.json": [{"paths": None}, {"paths": []}, {"best": []}, {"best": {"accuracy": "0.5", "path_epoch": 1.0}}],
    "run.json": [{"config": []}, {"mixture": []}, {"mixture": {"groups": {}}}, {"machine": None}, {"versions": 1}],
}


@pytest.mark.parametrize(("name", "values"), [(name, values) for name, many in ODD.items() for values in many])
def test_a_run_with_odd_values_is_damaged_and_the_others_are_listed(small_msft_run, tmp_path, capsys, name, values):
    for folder in ("one", "two"):
        shutil.copytree(small_msft_run.directory, tmp_path / folder)
    path = tmp_path / "one" / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    assert main(["status", "--runs-dir", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "one: damaged" in said.out and "two: finished" in said.out and str(tmp_path / "one") in said.err


def test_a_folder_without_runs_such_as_a_run_s_own_is_said_to_hold_none(small_run, capsys):
    assert main(["status", "--runs-dir", str(small_run.directory)]) == 0
    assert f"{small_run.directory} holds no run; give a folder of runs" in capsys.readouterr().err


def with_config(run, folder, **changes):
    """A copy of a run whose run.json was edited by hand; None takes a setting out."""
    shutil.copytree(run.directory, folder)
    about = json.loads((folder / "run.json").read_text())
    about["config"] = {name: v for name, v in {**about["config"], **changes}.items() if v is not None}
    (folder / "run.json").write_text(json.dumps(about))
    return msft.Run(folder)


@pytest.mark.parametrize(("name", "value"), [("seed", "abc"), ("method", "their_own"), ("params", {"epoch": 1})])
def test_settings_of_a_run_that_none_can_have_are_named_with_its_file(small_run, tmp_path, capsys, name, value):
    run = with_config(small_run, tmp_path / "run", **{name: value})
    assert main(["export", str(run.directory), str(tmp_path / "new")]) == 1
    said = capsys.readouterr().err
    assert f"{run.directory / 'run.json'} is damaged" in said and str(next(iter(value))) in said


def test_settings_that_a_run_does_not_name_are_those_of_its_model(small_run, tmp_path, capsys):
    run = with_config(small_run, tmp_path / "run", batch_size=None, precision=None)
    assert (run.config.batch_size, run.config.precision) == (64, "bf16")
    assert main(["status", "--runs-dir", str(tmp_path)]) == 0
    assert "run: finished" in capsys.readouterr().out


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs another user")
@pytest.mark.parametrize("name", ["run.json", "result.json", "journal.jsonl", "disk.jsonl", "."])
def test_files_of_another_user_are_named(small_msft_run, tmp_path, name):
    for folder in ("one", "two"):
        shutil.copytree(small_msft_run.directory, tmp_path / "runs" / folder)
    for path in (tmp_path, *tmp_path.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for parent in [place for place in tmp_path.parents if len(place.parts) > 2]:
        parent.chmod(0o755)
    (tmp_path / "runs" / "one" / name).chmod(0)
    code = f"import sys; sys.path.insert(0, {str(Path(msft.__file__).parents[1])!r}); from msft.cli.main import main\n"
    code += f"main(['status', '--runs-dir', {str(tmp_path / 'runs')!r}])\n"
    code += f"main(['export', {str(tmp_path / 'runs' / 'one')!r}, '/nowhere/x'])"
    command = ["unshare", "-U", "--map-user=12345", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    assert "two: finished" in done.stdout, done.stderr
    assert f"{name} cannot be read" in done.stderr or "one is missing" in done.stderr or "one is no run" in done.stderr


def test_a_run_says_that_nothing_was_learned_and_that_it_reports_the_base(small_settings, tmp_path):
    own = {**small_settings, "method": "sft", "params": {"epochs": 0.5}, "learning_rate": 1e-30}
    run = msft.run(msft.RunConfig(**own), tmp_path, progress=False)
    assert "NOTHING WAS LEARNED: no sub-dataset is ever above the base model" in summary(run)
    # one that rises, while the mean does not
    history = run.history
    task = history.task.iloc[0]
    history.loc[(history.task == task) & (history.path_epoch == 0.5), "accuracy"] = 1.0
    other = SimpleNamespace(**{name: getattr(run, name) for name in READ}, history=history)
    assert "NOTHING" not in summary(other) and "this is the base model, unchanged" in summary(other)


def test_the_commands_at_the_end_can_be_pasted_whatever_the_folder_is_called(small_run, tmp_path):
    folder = shutil.copytree(small_run.directory, tmp_path / "my $HOME's runs ü")
    commands = summary(runs.Run(folder)).partition("    python -m msft export ")[2]
    words = shlex.split(commands.partition("    msft.Run")[0])
    model = f"pretrained={folder / 'best'},dtype=float32"
    measure = ["lm_eval", "--model", "hf", "--model_args", model, "--include_path", str(folder / "tasks")]
    assert [word for word in words if word != "\n"] == [str(folder), "NEW_FOLDER", *measure, "--tasks", "msft_run"]


def test_on_a_cpu_no_time_is_estimated_where_no_run_of_the_model_told_one(small_msft_run, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(small_msft_run.directory, tmp_path / name)
    (alone,), both = status.rows_of([runs.Run(tmp_path / "one")]), status.rows_of(status.runs_of(tmp_path))
    assert alone["flops_estimate"] > 0 and "seconds_estimate" not in alone
    assert both[0]["seconds_estimate"] > 0


def test_a_run_whose_ledger_is_gone_is_finished_all_the_same(small_msft_run, tmp_path):
    shutil.copytree(small_msft_run.directory, tmp_path / "run")
    (tmp_path / "run" / "disk.jsonl").unlink()
    (row,) = status.rows_of([runs.Run(tmp_path / "run")])
    assert (row["state"], row["disk_peak"]) == ("finished", None)
    assert "disk at most" not in status.line_of(row)


def test_whole_run_resumes_without_a_warning(half_run, small_run, runs_dir):
    settings, _ = half_run
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*damaged.*")
        run = run_of(settings, runs_dir)
    assert_equal_runs(run, small_run)


def test_journal_that_lost_its_last_line_break_can_be_written_on(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.commit({"n": 1})
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    Journal(path).commit({"n": 2})
    again = Journal(path)
    assert [entry["state"]["n"] for entry in again.saved] == [1, 2]
    assert again.torn == 0


def test_store_writes_a_damaged_file_again(tmp_path):
    store = Store(tmp_path / "state", tmp_path / "disk.jsonl", 4)
    weights = {"a": torch.arange(4.0)}
    name = store.put(weights, "weights")
    path = tmp_path / "state" / name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(RunError, match="damaged"):
        store.get(name)
    assert store.put(weights, "weights") == name
    assert torch.equal(store.get(name)["a"], weights["a"])


def test_a_snapshot_is_one_block_of_memory_that_training_does_not_change(tmp_path):
    model = make_model()
    taken, before = snapshot(model), {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    assert all(torch.equal(taken[name], before[name]) for name in before)
    assert len({tensor.untyped_storage().data_ptr() for tensor in taken.values()}) == 1
    store = Store(tmp_path / "state", tmp_path / "disk.jsonl", 4)
    found = store.get(store.put(taken, "weights"))
    assert all(torch.equal(found[name], before[name]) for name in before)


def test_tensors_that_cannot_be_written_leave_nothing(tmp_path, monkeypatch):
    def full(tensors, path):
        path.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(RunError, match=r"cannot write .*x \(16 bytes\): .*No space left.* make room"):
        files.write_tensors(tmp_path / "x", {"a": torch.zeros(4)})
    assert list(tmp_path.iterdir()) == []


def test_store_keeps_equal_weights_once_and_its_ledger(tmp_path):
    store = Store(tmp_path / "state", tmp_path / "disk.jsonl", 16)
    first, second = store.put({"a": torch.zeros(4)}, "weights"), store.put({"a": torch.zeros(4)}, "weights")
    other = store.put({"a": torch.ones(4)}, "weights")
    assert first == second != other
    store.retain([other])
    assert [p.name for p in (tmp_path / "state").iterdir()] == [other]
    rows = [json.loads(line) for line in (tmp_path / "disk.jsonl").read_text().splitlines()]
    assert [row["event"] for row in rows] == ["write weights", "write weights", "delete weights"]
    assert rows[-1]["bytes"] == (tmp_path / "state" / other).stat().st_size == sum(row["change"] for row in rows)


def test_full_disk_leaves_what_was_saved(tmp_path, monkeypatch):
    from msft.store import files

    path = tmp_path / "file"
    files.write_atomic(path, "old")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(RunError, match=r"No space left.*make room"):
        files.write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_method_that_changed_is_noticed(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.add("roll_out", {"epochs": 1}, {})
    journal.commit({"n": 1})
    again = Journal(tmp_path / "journal.jsonl")
    with pytest.raises(RunError, match="code changed since this run began"):
        again.replay("roll_out", {"epochs": 2})


# shared -------------------------------------------------------------------------------------------------------


def test_second_process_is_refused_or_waits(small_settings, runs_dir, small_run):
    import filelock

    folder = runs_dir / name_of(small_settings)
    folder.mkdir(parents=True)
    with filelock.FileLock(folder / ".lock"):
        with pytest.raises(RunError, match="being trained by another process; wait for it: wait=True, or no --no-wait"):
            run_of(small_settings, runs_dir, wait=False)
    assert runs.Run(folder).status == "missing"
    assert_equal_runs(run_of(small_settings, runs_dir, wait=False), small_run)


def test_a_folder_that_cannot_be_locked_is_named(small_settings, runs_dir):
    (runs_dir / name_of(small_settings) / ".lock").mkdir(parents=True)
    with pytest.raises(RunError, match="cannot be locked"):
        run_of(small_settings, runs_dir)


def test_two_processes_at_one_run_train_it_once(small_settings, runs_dir, small_run, children):
    both = [children.Process(target=unharmed_run, args=(small_settings, runs_dir)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(180)
    assert [process.exitcode for process in both] == [0, 0]
    (folder,) = runs_dir.iterdir()
    assert_equal_runs(runs.Run(folder), small_run)
    assert len([e for e in Journal(folder / "journal.jsonl").verbs() if e["kind"] == "roll_out"]) == 1


def fill(path, text):
    for _ in range(300):
        files.write_atomic(path, text)


def test_two_processes_may_write_one_file(tmp_path, children):
    """As two runs of one mixture do when they fill the cache of its tokens."""
    path = tmp_path / "cache.json"
    writers = [children.Process(target=fill, args=(path, letter * 5000)) for letter in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert path.read_text() in ("a" * 5000, "b" * 5000)
    assert [p.name for p in tmp_path.iterdir()] == ["cache.json"]
