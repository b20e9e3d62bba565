"""The paper's figures and tables against what the notebooks declare and what was really made."""

import importlib
import inspect
import json
import re
from pathlib import Path

import pytest

from paper_figures import contents

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
OUT = ROOT / "paper_figures" / "out" / "tiny"


def declared() -> set[str]:
    """The paper's items that the sources of the notebooks give a table or figure for."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in NOTEBOOKS)
    return {item for label in re.findall(r'\bitem="([^"]*)"', text) for item in contents.paper_items(label)}


def test_the_list_is_the_paper_s():
    figures = [f"Fig. {number}" for number in range(1, 19)]
    assert list(contents.PAPER_ITEMS) == figures + [f"Table {number}" for number in range(1, 8)]


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("Fig. 2", ["Fig. 2"]),
        ("Fig. 2, 10, 11", ["Fig. 2", "Fig. 10", "Fig. 11"]),
        ("Fig. 16 to 18", ["Fig. 16", "Fig. 17", "Fig. 18"]),
        ("Figures 9, 14 and 15; Table 3", ["Fig. 9", "Fig. 14", "Fig. 15", "Table 3"]),
        ("Table 4 and Fig. 1", ["Table 4", "Fig. 1"]),
        ("Fig. 14–15", ["Fig. 14", "Fig. 15"]),
        ("Eq. 4", []),
        ("section 3.1", []),
    ],
)
def test_an_item_s_label_names_the_paper_s_items(text, items):
    assert contents.paper_items(text) == items


def test_every_notebook_is_listed_and_every_listed_one_is_there():
    assert [path.stem for path in NOTEBOOKS] == sorted(contents.NOTEBOOKS)


@pytest.mark.parametrize("stem", [stem for stem, module in contents.NOTEBOOKS.items() if module])
def test_a_notebook_s_module_names_its_runs(stem):
    module = importlib.import_module(f"paper_figures.figures.{contents.NOTEBOOKS[stem]}")
    assert next(iter(inspect.signature(module.needs).parameters)) == "page"


def test_every_item_of_the_paper_is_declared_by_a_notebook():
    assert sorted(set(contents.PAPER_ITEMS) - declared()) == []


def test_no_notebook_declares_an_item_that_the_paper_has_not():
    assert sorted(declared() - set(contents.PAPER_ITEMS)) == []


@pytest.mark.skipif(not (OUT / "items").is_dir(), reason="no outputs of the tiny profile: make reproduce")
def test_every_item_of_the_paper_is_among_the_tiny_outputs():
    entries = [json.loads(path.read_text(encoding="utf-8")) for path in (OUT / "items").glob("*.json")]
    made = {item for entry in entries for item in contents.paper_items(entry["item"])}
    assert sorted(set(contents.PAPER_ITEMS) - made) == []
    for entry in entries:
        assert (OUT / f"{entry['name']}.{'png' if entry['kind'] == 'figure' else 'csv'}").is_file(), entry["name"]
        assert entry["caption"].strip().endswith((".", ")")), entry["name"]
        assert entry["notebook"] in contents.NOTEBOOKS
