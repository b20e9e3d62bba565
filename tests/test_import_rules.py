"""The import rules of pyproject.toml catch what they are there for."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLANTED = {
    "an upward import": ("msft/store/planted.py", "import msft.training", "is not allowed to import msft.training"),
    "the figures": ("msft/results/planted.py", "import paper_figures", "not allowed to import paper_figures"),
    "torch in a method": ("msft/methods/planted.py", "import torch", "not allowed to import torch"),
    "a circle": ("msft/data/planted.py", "import msft.data.circle", "No cycles are allowed in msft.data"),
    "a room nobody placed": ("msft/planted/__init__.py", "", "msft.planted"),
}


def lint(folder: Path) -> subprocess.CompletedProcess:
    # as `make lint` does, on the copy; `-c` would leave the copy out of the path
    code = (
        "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command; lint_imports_command()"
    )
    command = [sys.executable, "-c", code, "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture
def copy(tmp_path):
    for name in ("msft", "paper_figures"):
        ignored = shutil.ignore_patterns("out", "__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_tree_keeps_its_rules(copy):
    done = lint(copy)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_import_breaks_them(copy, what):
    name, line, message = PLANTED[what]
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_text(line + "\n")
    if what == "a circle":
        (copy / name).with_name("circle.py").write_text("import msft.data.planted\n")
    done = lint(copy)
    assert done.returncode == 1
    assert message in " ".join(done.stdout.split())


def test_the_house_keeps_its_size():
    package = ROOT / "msft"
    things = [path for path in package.iterdir() if path.name != "__pycache__"]
    assert len(things) <= 30, sorted(path.name for path in things)
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in package.rglob("*.py")}
    assert max(lines.values()) <= 350, max(lines, key=lines.get)
    top = [package / f"{name}.py" for name in ("__init__", "config", "runs", "training", "evaluation")]
    assert sum(lines[path] for path in [*top, *(package / "methods").glob("*.py")]) <= 1500
