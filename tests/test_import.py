"""`import msft` and a config stay light: no torch, no CUDA."""

import subprocess
import sys

import msft


def test_import_and_config_take_no_torch():
    code = (
        "import sys, msft; config = msft.RunConfig(); msft.score('#### a', 'A'); msft.methods.available(); "
        "heavy = [m for m in ('torch', 'transformers', 'datasets', 'lm_eval', 'accelerate', 'pandas') if m in sys.modules]; "
        "print('heavy:', heavy)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "heavy: []"


def test_every_public_name_is_there():
    for name in msft.__all__:
        assert getattr(msft, name) is not None
    assert set(msft.__all__) <= set(dir(msft))


def test_unknown_name():
    assert not hasattr(msft, "no_such_thing")
    assert not hasattr(msft.methods, "no_such_method")
