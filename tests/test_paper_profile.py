"""Paper and laptop profile rehearsed without a hub: every notebook on real records and the Qwen2.5 shape with two layers.

python -m pytest -m slow tests/test_paper_profile.py
"""

import json

import pytest
from helpers import save_small

from paper_figures import contents, execute

# sizes cut so that a CPU gets through; batches so small that an epoch has a step a quarter
SETTINGS = (
    "train_size=16 test_size=2 validation_size=2 max_new_tokens=6 max_prompt_tokens=2000 batch_size=8 precision=fp32 "
    "threads=1 sft.epochs=1 ies.epochs=4 sro_sft.epochs=1 soft_sro_sft.epochs=1 dynamix_sft.epochs=1 "
    "dynamix_sft.updates=2 dynamix_sft.look_ahead_batch=2 continual_sft.budget=0.5 msft.max_stages=2"
)


@pytest.fixture(scope="module")
def qwen(shared, tmp_path_factory):
    """The Qwen2.5 architecture with two layers, random weights, the real tokenizer."""
    file = shared / "tokenizers" / "qwen2_tokenizer_converted.json"
    return save_small(tmp_path_factory.mktemp("models") / "Qwen2.5-two-layers", "Qwen2", file, "<|endoftext|>")


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["paper", "laptop"])
def test_every_notebook_runs_to_its_end_on_real_records(shared, qwen, tmp_path, capfd, profile):
    given = {
        "models": str(qwen),
        "mixture": "paper-5",
        "data_dir": str(shared / "benchmarks"),
        "settings": SETTINGS,
        "allow_cpu": True,
    }
    words = ["--profile", profile, "--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]
    for name, value in given.items():
        words += ["-p", name, json.dumps(value)]
    code = execute.main(words)
    told = capfd.readouterr()
    assert code == 0, told.out + told.err
    items = [json.loads(path.read_text()) for path in (tmp_path / "out" / "items").glob("*.json")]
    assert {item["profile"] for item in items} == {profile}
    found = {name for item in items for name in contents.paper_items(item["item"])}
    # one model: the figures of the further ones have nothing to show beside their tables
    assert not set(contents.PAPER_ITEMS) - found
    assert all(item["finding"] for item in items if item["kind"] == "figure")
    for item in items:
        end = ".png" if item["kind"] == "figure" else ".csv"
        assert (tmp_path / "out" / (item["name"] + end)).stat().st_size > 0
    # the paper's numbers stand beside ours at the paper's scale
    assert ("mSFT (paper)" in (tmp_path / "out" / "10_table6.md").read_text()) == (profile == "paper")
    assert "larger models" in next(item["caption"] for item in items if item["name"] == "10_directions")
    assert profile == "paper" or "on this CPU" in told.out
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
