"""The files around the code agree with each other."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

tomllib = pytest.importorskip("tomllib", reason="Python 3.11 has tomllib; the files are the same for all")
ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {normal(name): version for name, version in pairs}


def declared() -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    return dict(re.match(r"([\w.-]+)>=([\w.]+)", text).groups() for text in wanted)


def test_every_dependency_has_a_pin_at_or_above_its_lower_bound():
    from packaging.version import Version

    for name, low in declared().items():
        assert normal(name) in pins(), name
        assert Version(pins()[normal(name)]) >= Version(low), name


def test_conda_takes_the_same_python_and_the_same_pins():
    spec = yaml.safe_load((ROOT / "environment.yml").read_text())
    python = next(d for d in spec["dependencies"] if isinstance(d, str) and d.startswith("python="))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"Programming Language :: Python :: {python.removeprefix('python=')}" in project["classifiers"]
    pip = next(d["pip"] for d in spec["dependencies"] if isinstance(d, dict))
    assert "-c constraints.txt" in pip
    assert any(line.startswith("-e .") for line in pip)


def test_results_were_made_with_the_pinned_torch():
    assert pins()["torch"] == "2.13.0"


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_and_its_source_are_the_same(source):
    import jupytext

    pair = jupytext.read(source.with_suffix(".ipynb"))
    cells = [(cell.cell_type, cell.source) for cell in jupytext.read(source).cells]
    assert [(cell.cell_type, cell.source) for cell in pair.cells] == cells
    assert len(cells) <= 14
    for cell in json.loads(source.with_suffix(".ipynb").read_text())["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_parameters_cell_holds_scalars_only(source):
    import ast

    import jupytext

    cells = [c for c in jupytext.read(source).cells if "parameters" in c.metadata.get("tags", [])]
    assert len(cells) == 1
    for statement in ast.parse(cells[0].source).body:
        assert isinstance(statement, ast.Assign)
        assert isinstance(statement.value, ast.Constant)


def test_a_misspelt_notebook_parameter_is_an_error_with_the_near_name():
    from msft.errors import ConfigError
    from paper_figures.execute import check_parameters

    notebook = NOTEBOOKS[0].with_suffix(".ipynb")
    with pytest.raises(ConfigError, match="Did you mean 'profile'"):
        check_parameters(notebook, {"profil": "smoke"})
    with pytest.raises(ConfigError, match="is a list"):
        check_parameters(notebook, {"profile": ["smoke"]})


def test_the_citation_is_the_same_in_both_places():
    paper = yaml.safe_load((ROOT / "CITATION.cff").read_text())["preferred-citation"]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    entry = (ROOT / "README.md").read_text().split("```bibtex")[1].split("```")[0]
    assert f"{{{paper['title']}}}" in entry and "arXiv:2603.21606" in entry and "2603.21606" in paper["url"]
    names = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    assert f"{{{names}}}" in entry


def test_the_make_verbs_are_there():
    text = (ROOT / "Makefile").read_text()
    for verb in ("reproduce", "test", "lint", "notebooks", "report", "faults", "sync", "clean"):
        assert re.search(rf"^{verb}:", text, re.M), verb


def test_the_command_line_names_the_nearest_flag():
    done = subprocess.run(
        [sys.executable, "-m", "msft", "run", "--learning-rat", "3"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2
    assert "Did you mean '--learning-rate'" in done.stderr


def test_the_paper_s_numbers_are_whole():
    import pandas as pd

    table = pd.read_csv(ROOT / "paper_figures" / "reported" / "table2_main_results.csv")
    assert len(table) == 4 * 6 * 7
    # 4 / 4 / 2 groups reproduce the averages to rounding
    weights = {"Science and Knowledge": 0.4, "Commonsense and Language": 0.4, "Mathematic and Quantitative": 0.2}
    for (_, _), rows in table.groupby(["method", "model"]):
        by_group = rows.set_index("group").accuracy_percent
        assert abs(sum(by_group[g] * w for g, w in weights.items()) - by_group["Average"]) < 0.11


@pytest.mark.parametrize("folder", ["msft", "paper_figures", "benchmarks", "notebooks"])
def test_every_text_file_is_read_and_written_with_its_encoding_named(folder):
    """Python's own default follows the locale: under LC_ALL=C it is ASCII."""
    bare = []
    for file in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) in ("os.open", "builtins.open"):
                continue
            name, call = ast.unparse(node.func).rpartition(".")[2], ast.unparse(node)
            opens = name in ("open", "NamedTemporaryFile") and not re.search(r"'[rwax+]*b[rwax+]*'", call)
            if (opens or name in ("read_text", "write_text")) and "encoding=" not in call:
                bare.append(f"{file.relative_to(ROOT)}:{node.lineno}: {call}")
    assert not bare


def test_no_local_is_called_by_how_it_came_here():
    vague = {"told", "given", "found", "own", "held"}
    for path in sorted((ROOT / "msft").rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef | ast.Lambda):
                names = {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}
                stored = (node for node in ast.walk(function) if isinstance(node, ast.Name))
                names |= {node.id for node in stored if isinstance(node.ctx, ast.Store)}
                assert not names & vague, f"{path}:{function.lineno}"
