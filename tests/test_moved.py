"""Import paths of version 0.1 still work, and say where things are now."""

import importlib
import subprocess
import sys

import pytest

import msft
from msft import _moved
from msft.errors import ConfigError


@pytest.mark.parametrize(("old", "new"), _moved._NEW.items())
def test_an_old_path_gives_the_new_module_and_says_so(old, new):
    code = f"import warnings; warnings.simplefilter('always'); import msft.{old}"
    words = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr
    assert f"DeprecationWarning: msft.{old} has moved to msft.{new}" in words
    assert importlib.import_module(f"msft.{old}") is importlib.import_module(f"msft.{new}")


def test_flags_are_read_as_they_were():
    options, commands = (importlib.import_module(f"msft.{name}") for name in ("options", "commands"))
    words = ["--params", "budget=1", "--method", "msft", "--params", "max_stages=2", "--runs-dir", "here"]
    places, given, problems = options.read("run", words)
    assert (places, problems, given[options.Run]["runs_dir"]) == ({}, [], "here")
    config = commands.settings(given[options.Run], given[msft.RunConfig], problems)
    assert config == msft.RunConfig(method="msft", params={"budget": 1, "max_stages": 2})
    assert options.read("eval", ["tiny-smoke"])[0] == {"model": "tiny-smoke"}
    _, given, problems = options.read("run", ["--seed", "1", "--seed", "2"])
    with pytest.raises(ConfigError, match="--seed is given 2 times: '1', '2'; give it once"):
        commands.settings(given[options.Run], given[msft.RunConfig], problems)
