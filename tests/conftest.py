"""Fixtures: a small model, tokenizer and mixture without skill, and finished runs that tests share."""

import multiprocessing
import os
from pathlib import Path

# models this small are slower on several threads, above all beside other work
os.environ.setdefault("OMP_NUM_THREADS", "1")

import helpers
import pytest
from recorder import recorded

import msft


@pytest.fixture(scope="session")
def shared():
    """The folder of real tokenizers and benchmark records beside the checkout, where there is one."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the folder shared/ beside the checkout is absent: no real tokenizers and benchmark records")
    return folder


@pytest.fixture(scope="session")
def tokenizer():
    return helpers.make_tokenizer()


@pytest.fixture
def tiny_model(tokenizer):
    """(model, tokenizer), untrained."""
    return helpers.make_model(), tokenizer


@pytest.fixture(scope="session")
def taught(tokenizer):
    """(model, tokenizer) that answers its 20 examples in the format, EOS included; do not change it."""
    model = helpers.make_model(hidden_size=64, intermediate_size=128, initializer_range=0.05)
    return helpers.teach(model, tokenizer, helpers.taught_examples()), tokenizer


@pytest.fixture(scope="session")
def model_folder(taught, tmp_path_factory):
    """The taught model as a local folder in Hugging Face format."""
    folder = tmp_path_factory.mktemp("models") / "taught"
    for part in taught:
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def mixture_file(tmp_path_factory):
    return helpers.write_mixture(tmp_path_factory.mktemp("mixture"))


@pytest.fixture(scope="session")
def small_settings(model_folder, mixture_file):
    """Settings of a run of seconds; three sub-datasets, nine steps an epoch."""
    return {
        "method": "sft",
        "model": str(model_folder),
        "mixture": str(mixture_file),
        "select_on": "test",
        "params": {"epochs": 1},
        "learning_rate": 1e-3,
        "batch_size": 8,
        "precision": "fp32",
        "max_new_tokens": 12,
        "eval_batch_size": 8,
        "device": "cpu",
    }


@pytest.fixture(scope="session")
def small_msft_settings(small_settings):
    return {**small_settings, "method": "msft", "params": {"budget": 0.5}}


@pytest.fixture
def runs_dir(tmp_path):
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def shared_runs_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("shared_runs")


@pytest.fixture(scope="session")
def small_run(small_settings, shared_runs_dir):
    """A finished SFT run of the small model and mixture, never interrupted."""
    return msft.run(msft.RunConfig(**small_settings), shared_runs_dir, progress=False)


@pytest.fixture(scope="session")
def small_msft_run(small_msft_settings, shared_runs_dir):
    return msft.run(msft.RunConfig(**small_msft_settings), shared_runs_dir, progress=False)


@pytest.fixture(scope="session")
def smoke_sft_run(shared_runs_dir):
    """SFT on the embedded smoke mixture."""
    config = msft.RunConfig(method="sft", model="tiny-smoke", mixture="tiny-smoke", params={"epochs": 0.5})
    return msft.run(config, shared_runs_dir, progress=False)


@pytest.fixture(scope="session")
def smoke_msft_run(shared_runs_dir):
    config = msft.RunConfig(method="msft", model="tiny-smoke", mixture="tiny-smoke", params={"budget": 0.25})
    return msft.run(config, shared_runs_dir, progress=False)


@pytest.fixture(scope="session")
def children():
    """A multiprocessing context whose children start at once, torch and lm-eval already imported."""
    context = multiprocessing.get_context("forkserver")
    names = ["msft.evaluation", "msft.training", "msft.runs", "lm_eval.api.task", "lm_eval.models.huggingface"]
    names += ["transformers.models.auto.modeling_auto", "transformers.models.qwen2.modeling_qwen2", "datasets"]
    context.set_forkserver_preload(names)
    return context


@pytest.fixture(scope="session")
def settings(tokenizer, mixture_file, tmp_path_factory):
    """Settings of a run of an untrained model; every run of it gives the same bits."""
    folder = tmp_path_factory.mktemp("models") / "plain"
    helpers.make_model().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    own = {"learning_rate": 3e-3, "batch_size": 8, "precision": "fp32", "max_new_tokens": 4, "eval_batch_size": 8}
    return {"model": str(folder), "mixture": str(mixture_file), "select_on": "test", "device": "cpu", **own}


@pytest.fixture(scope="session")
def finished(settings, tmp_path_factory):
    """finished(method): a recorded run that was never disturbed, each in a folder of its own."""
    known = {}

    def get(method):
        if method not in known:
            known[method] = recorded(settings, tmp_path_factory.mktemp(method), method)
        return known[method]

    return get
