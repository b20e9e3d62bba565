"""What README and docs/ tell a reader to type: commands, settings, code and the mixture file, without training anything."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import yaml

import msft
from msft.cli import options
from msft.cli.commands import COMMANDS
from msft.data import judges, spec
from msft.settings import check_values
from paper_figures import execute
from paper_figures.profiles import PROFILES

ROOT = Path(__file__).resolve().parents[1]
PAGES = {page: page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
README = PAGES[ROOT / "README.md"]
PARTS = "\n".join(PAGES.values()).split("```")
BLOCKS = [(text.partition("\n")[0], text.partition("\n")[2]) for text in PARTS[1::2]]
SPANS = re.findall(r"`([^`\n]+)`", "".join(PARTS[::2]))
LINES = [line for kind, text in BLOCKS if not kind for line in text.replace("\\\n", " ").splitlines()] + SPANS


def words_of(line: str) -> list[str]:
    return shlex.split(line, comments=True)


@pytest.mark.parametrize("line", [line for line in LINES if re.search(r"-m msft \w", line)])
def test_a_command_has_these_flags(line):
    words = words_of(line)
    command, *rest = words[words.index("msft", words.index("-m")) + 1 :]
    flags = options.read(COMMANDS[command][0], rest)
    assert not flags.problems
    if "--config_file" in words:  # accelerate's
        assert (ROOT / words[words.index("--config_file") + 1]).is_file()
    if isinstance(flags, options.Grid) and flags.grid == "paper":
        from msft.launch import slurm

        slurm.read_options(flags.given)


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith(("python -m paper_figures", "papermill "))])
def test_a_notebook_and_its_parameters_are_there(line):
    words = words_of(line)
    if "NN" in words:
        return
    stems = [path.stem for path in execute.notebooks()]
    named = Path(words[1]).stem if words[0] == "papermill" else words[3]
    assert any(stem.startswith(named) for stem in stems)
    given = {name: value for flag, name, value in zip(words, words[1:], words[2:], strict=False) if flag == "-p"}
    execute.check_parameters(ROOT / "notebooks" / f"{stems[0]}.ipynb", given)
    profile = words[words.index("--profile") + 1] if "--profile" in words else given.get("profile", "tiny")
    assert profile in PROFILES


@pytest.mark.parametrize("line", [line for line in LINES if re.match(r"(PYTHON=\S+ )?make \w", line)])
def test_make_has_this_target(line):
    target = next(word for word in words_of(line) if "=" not in word and word != "make")
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)


def test_files_and_places_that_are_linked_are_there():
    for page, text in PAGES.items():
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            file, _, place = link.partition("#")
            if not link.startswith("http"):
                there = (page.parent / file).resolve() if file else page
                assert there.exists() and there.is_relative_to(ROOT), link
                assert not place or place in heads(PAGES[there]), link


def heads(text: str) -> set[str]:
    """The places of a page that a link may name."""
    return {re.sub(r"[^\w\- ]", "", head).lower().replace(" ", "-") for head in re.findall(r"^#+ (.*)$", text, re.M)}


def test_every_notebook_of_the_table_and_its_pictures_are_there():
    for line in README.split("| item of the paper |")[1].split("\n\n")[0].splitlines()[2:]:
        _, _, notebook, made, *_ = (cell.strip() for cell in line.split("|"))
        if notebook:
            assert (ROOT / "notebooks" / f"{notebook}.ipynb").is_file()
            for name in made.split(", "):
                assert list((ROOT / "paper_figures" / "out" / "tiny").glob(name)), name


def test_the_python_blocks_make_these_settings():
    made = []
    for kind, text in BLOCKS:
        if kind == "python" and "RunConfig(" in text:
            lines = [
                line for line in ast.parse(text).body if "RunConfig(" in ast.unparse(line)
            ]  # what follows would train
            exec(compile(ast.Module(lines, []), "README", "exec"), names := {"msft": msft})
            made.append(names["config"])
    assert [config.method for config in made] == ["msft", "sft"]
    assert made[0].params["budget"] == 3 and made[1].precision == "mixed"


def test_the_loop_of_msft_is_that_of_its_file():
    (loop,) = [text for kind, text in BLOCKS if kind == "python" and text.startswith("while active")]
    source = (ROOT / "msft" / "methods" / "msft.py").read_text(encoding="utf-8")
    assert ast.unparse(ast.parse(loop)) in ast.unparse(ast.parse(source)).replace("\n    ", "\n")


def test_the_mixture_files_have_these_keys():
    for text in (text for kind, text in BLOCKS if kind == "yaml"):
        read = {"name": "readme", **yaml.safe_load(text)}
        said = [entry["metric"] for entry in read["sub_datasets"] if judges.is_judged(entry.get("metric"))]
        problems = [wrong for judge in [*said, *read.get("judges", [])] for wrong in of_judge(judge)]
        problems += spec.check_spec(read)
        for number, entry in enumerate(read["sub_datasets"], 1):
            problems += spec.check_entry(number, entry)[1]
        assert not problems


def of_judge(said: str | dict) -> list[str]:
    """What is wrong with the keys of a judge; its task is not loaded."""
    return check_values(judges.Settings, said, "key")[1] if isinstance(said, dict) else []
