"""The same command on real records, with the real OLMo 2 tokenizer and a small OLMo 2 model from its config."""

import gzip
import json

import pytest
import yaml
from helpers import save_small

import msft


@pytest.fixture
def olmo2(tmp_path, shared):
    """OLMo 2 with two layers, random weights, the real tokenizer."""
    file = shared / "tokenizers" / "olmo2_dolma2_tokenizer.json"
    return save_small(tmp_path / "olmo2-small", "Olmo2", file, "<|pad|>")


@pytest.fixture
def mixture(tmp_path, shared):
    """GSM8K, BoolQ and ARC-Easy: a few real records of each, as a mixture YAML over hub-format files."""
    entries = []
    for name in ("gsm8k", "boolq", "arc_easy"):
        entry = {"name": name, "benchmark": name}
        for part, count in (("train", 21), ("test", 4)):
            lines = (shared / "benchmarks" / name / f"{part}.jsonl").read_text().splitlines()[:count]
            (tmp_path / f"{name}_{part}.jsonl").write_text("\n".join(lines))
            entry[part] = f"{name}_{part}.jsonl"
        entries.append(entry)
    path = tmp_path / "real.yaml"
    path.write_text(yaml.safe_dump({"name": "real", "sub_datasets": entries}))
    return path


def test_msft_trains_rolls_back_and_finishes_on_real_records(tmp_path, olmo2, mixture):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = msft.RunConfig(
        method="msft",
        model=str(olmo2),
        mixture=str(mixture),
        learning_rate=3e-3,
        batch_size=8,
        precision="fp32",
        max_new_tokens=12,
        max_prompt_tokens=1000,
        evaluations_per_epoch=2,
        params={"budget": 1},
        device="cpu",
    )
    run = msft.run(config, tmp_path / "runs", progress=False)
    assert run.status == "finished"
    verbs = [entry["kind"] for entry in run.journal]
    assert verbs.count("roll_out") == 3
    assert verbs.count("roll_back") == 3
    dropped = [entry["arguments"]["dropped"] for entry in run.journal if entry["kind"] == "roll_back"]
    assert sorted(dropped) == ["arc_easy", "boolq", "gsm8k"]
    history = run.history
    trained = history[history.train_loss.notna() & (history.stage == 0)].drop_duplicates("epoch").train_loss
    assert trained.is_monotonic_decreasing
    model = AutoModelForCausalLM.from_pretrained(run.best.path)
    assert model.config.model_type == "olmo2"
    assert AutoTokenizer.from_pretrained(run.best.path).eos_token == "<|endoftext|>"
    first = sorted((run.directory / "outputs").glob("*.gz"))[0]
    rows = [json.loads(line) for line in gzip.open(first, "rt")]
    assert {row["task"] for row in rows} == {"gsm8k", "boolq", "arc_easy"}
