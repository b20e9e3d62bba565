"""Confirmation items: answered by the base model and by the reported checkpoint, seen by nothing that chooses."""

import dataclasses
import json
import shutil
from pathlib import Path

import lm_eval
import pytest
import yaml
from lm_eval.tasks import TaskManager
from transformers import PreTrainedTokenizerFast

import msft
from msft.__main__ import main
from msft.errors import DataError, RunError
from msft.evaluation import Evaluator
from msft.results.summary import summary
from msft.training import Trainer


@pytest.fixture
def confirmed_settings(small_settings, mixture_file, tmp_path):
    """The small run whose first two sub-datasets have confirmation items: their own test items, so that values are known."""
    folder = shutil.copytree(Path(mixture_file).parent, tmp_path / "mixture")
    path = folder / Path(mixture_file).name
    spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    for entry in spec["sub_datasets"][:2]:
        entry["confirmation"] = entry["test"]
    spec["allow_overlap"] = [entry["name"] for entry in spec["sub_datasets"][:2]]
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return {**small_settings, "mixture": str(path)}


def test_base_and_reported_checkpoint_are_confirmed(confirmed_settings, small_run, runs_dir):
    run = msft.run(msft.RunConfig(**confirmed_settings), runs_dir, progress=False)
    table = run.confirmation.set_index("task")
    assert list(table.index) == list(run.metrics)[:2]
    start = run.history[(run.history.stage == 0) & (run.history.epoch == 0)].set_index("task")
    best = run.at_best.set_index("task")
    for task, row in table.iterrows():
        assert (row.n, row.base, row.best) == (best.n[task], start.accuracy[task], best.accuracy[task])
        # other items beside them are in the passes: the last bits may differ
        assert (row.base_loss, row.best_loss) == pytest.approx((start.loss[task], best.loss[task]), abs=1e-5)
    assert run.history.equals(small_run.history)  # nothing is chosen or trained differently
    assert small_run.confirmation.empty


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", "float32"), ("mixed", "bfloat16")])
def test_the_stock_command_measures_the_confirmed_accuracy(confirmed_settings, runs_dir, precision, dtype):
    run = msft.run(msft.RunConfig(**confirmed_settings | {"precision": precision}), runs_dir, progress=False)
    assert f"dtype={dtype}" in summary(run)
    manager = TaskManager(include_path=str(run.directory / "confirmation"), include_defaults=False)
    arguments = {"pretrained": str(run.best.path), "dtype": dtype}
    results = lm_eval.simple_evaluate(
        "hf", model_args=arguments, tasks=["msft_run"], device="cpu", task_manager=manager, bootstrap_iters=0
    )["results"]
    for row in run.confirmation.itertuples():
        assert results[f"msft_task_{row.task}"]["acc,none"] == row.best


def test_eval_measures_a_mixed_run_s_checkpoint_as_the_run_did(confirmed_settings, runs_dir, capsys):
    run = msft.run(msft.RunConfig(**confirmed_settings | {"precision": "mixed"}), runs_dir, progress=False)
    assert main(["eval", str(run.best.path)]) == 0
    out, err = capsys.readouterr()
    rows = [line.split() for line in out.splitlines()[1:-1]]  # between the head and the mean
    shown = {task: (float(accuracy), int(n)) for task, accuracy, n in rows}
    assert shown == {row.task: (pytest.approx(row.accuracy, abs=1e-6), row.n) for row in run.at_best.itertuples()}
    assert ", bf16, " in err


def test_a_process_asks_a_base_model_once_for_all_of_its_runs(confirmed_settings, runs_dir, monkeypatch):
    measured = []

    def evaluate(self, evaluate=Evaluator.evaluate):
        measured.append(self.names)
        return evaluate(self)

    monkeypatch.setattr(Evaluator, "evaluate", evaluate)
    pairs = [(20, {}), (21, {}), (20, {"eval_batch_size": 3})]  # another batch size may round otherwise
    runs = []
    for (seed, more), times in zip(pairs, (2, 1, 2), strict=True):
        measured.clear()
        config = msft.RunConfig(**{**confirmed_settings, **more, "seed": seed})
        runs.append(msft.run(config, runs_dir, progress=False))
        assert measured.count(list(runs[0].metrics)[:2]) == times
    first, second, _ = (run.confirmation for run in runs)
    assert first[["base", "base_loss"]].equals(second[["base", "base_loss"]])


def test_a_process_encodes_what_runs_share_once(confirmed_settings, runs_dir, monkeypatch):
    given = []

    def encode(self, *texts, encode=PreTrainedTokenizerFast._encode_plus, **options):
        given.extend(texts)
        return encode(self, *texts, **options)

    monkeypatch.setattr(PreTrainedTokenizerFast, "_encode_plus", encode)
    asked = []
    for seed, more in ((20, {}), (21, {}), (20, {"eval_batch_size": 3})):
        given.clear()
        config = msft.RunConfig(**{**confirmed_settings, **more, "seed": seed})
        msft.run(config, runs_dir, progress=False)
        asked.append(len(given))
    assert asked[0] == asked[2] > 20 * asked[1]


def test_a_run_killed_while_it_is_confirmed_ends_the_same(confirmed_settings, runs_dir, tmp_path, monkeypatch):
    whole = msft.run(msft.RunConfig(**confirmed_settings), runs_dir, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "confirm", lambda self, *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            msft.run(msft.RunConfig(**confirmed_settings), tmp_path / "again", progress=False)
    again = msft.run(msft.RunConfig(**confirmed_settings), tmp_path / "again", progress=False)
    assert again.confirmation.equals(whole.confirmation)
    assert again.history.equals(whole.history)
    weights = [(run.best.path / "model.safetensors").read_bytes() for run in (whole, again)]
    assert weights[0] == weights[1]


def test_a_stop_while_it_is_confirmed_is_no_loss(confirmed_settings, runs_dir, monkeypatch):
    def stop(self, *given, confirm=Trainer.confirm):
        self.stop_requested = True
        return confirm(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "confirm", stop)
        with pytest.raises(RunError, match="stopped and saved"):
            msft.run(msft.RunConfig(**confirmed_settings), runs_dir, progress=False)
    assert not msft.run(msft.RunConfig(**confirmed_settings), runs_dir, progress=False).confirmation.empty


def test_the_summary_says_what_was_confirmed(confirmed_settings, runs_dir, small_run):
    run = msft.run(msft.RunConfig(**confirmed_settings), runs_dir, progress=False)
    table = run.confirmation
    share = 100 * (table.best * table.n).sum() / table.n.sum()
    assert f"Confirmed on {table.n.sum()} items that nothing was chosen on: {share:.1f} %" in summary(run)
    assert "confirmed" not in summary(small_run)


def test_a_set_without_confirmation_items_keeps_its_stop_in_the_checkpoint(tiny_model, mixture_file):
    """What is evaluated last must not decide what ends the answers of the others."""
    model, tokenizer = tiny_model
    first, *rest = msft.load_mixture(str(mixture_file))
    rest[0] = dataclasses.replace(rest[0], stop=tokenizer.pad_token)
    mixture = msft.Mixture("mixed", [dataclasses.replace(first, confirmation=first.validation), *rest])
    Evaluator(model, tokenizer, mixture, "test", 4, 8)
    before = model.generation_config.to_dict()
    assert tokenizer.pad_token_id in before["eos_token_id"]
    assert Evaluator(model, tokenizer, mixture, "confirmation", 4, 8).names == [first.name]
    assert model.generation_config.to_dict() == before


@pytest.mark.parametrize("part", ["train", "test", "validation", "shots"])
def test_confirmation_items_meet_no_other_part(tmp_path, part):
    files = dict.fromkeys(("train", "test", "validation", "confirmation", "shots"))
    for name in files:
        rows = [{"question": f"{name} {i}?", "answer": str(i)} for i in range(8)]
        if name == part:
            rows[3]["question"] = "confirmation 5?"
            rows[3]["answer"] = "5"
        files[name] = f"{name}.jsonl"
        (tmp_path / files[name]).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    path = tmp_path / "mixture.yaml"
    path.write_text(yaml.safe_dump({"sub_datasets": [{"name": "one", **files}]}), encoding="utf-8")
    with pytest.raises(DataError, match="confirmation 5?") as error:
        msft.load_mixture(str(path))
    assert part in str(error.value) and "confirmation (line 6)" in str(error.value)
