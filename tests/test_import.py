"""`import msft` and a config stay light: no torch, no CUDA."""

import subprocess
import sys

import pytest

import msft

HEAVY = "torch", "transformers", "datasets", "lm_eval", "accelerate"
CONFIG = "import msft; msft.RunConfig(); msft.score('#### a', 'A'); msft.methods.available()"


@pytest.mark.parametrize(
    "code, light",
    [
        (CONFIG, {*HEAVY, "pandas"}),
        # what a notebook needs to show runs that are there; the tokenizer alone, for their names, brings transformers
        ("import msft; from msft.launch.local import run_all; msft.load_runs; msft.plan", set(HEAVY)),
    ],
)
def test_what_does_not_train_loads_no_torch(code, light):
    code = f"import sys; {code}; print(sorted({light} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there():
    for name in msft.__all__:
        assert getattr(msft, name) is not None
    assert set(msft.__all__) <= set(dir(msft))


def test_unknown_name():
    assert not hasattr(msft, "no_such_thing")
    assert not hasattr(msft.methods, "no_such_method")
