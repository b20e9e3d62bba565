"""The wrapper around papermill: strict parameters, failures that stop nothing else, a manifest that is added to."""

import contextlib
import io
import json
import os
import sys
import time
import types

import nbformat
import papermill
import pytest

from msft import RunConfig
from msft.errors import ConfigError, Interrupted, ModelError, RunError
from paper_figures import contents, execute, manifest, study

PARAMETERS = 'profile = "tiny"\nruns_dir = "runs"\nout_dir = ""\nsize = 3\nshare = 0.5\nfast = False  # as "a=1 b.c=2"\nwhere = None'
# what study.Study leaves for the report, without its imports
REGISTER = """import json, pathlib
folder = pathlib.Path(out_dir) / "items"
folder.mkdir(parents=True, exist_ok=True)
entry = {"kind": "table", "name": NAME, "item": "Table 2", "caption": "c", "notebook": NOTEBOOK, "runs": [], "profile": profile, "decimals": 1, "rounded": ["b"]}
(folder / (NAME + ".json")).write_text(json.dumps(entry))
(pathlib.Path(out_dir) / (NAME + ".csv")).write_text("a,b\\n1,2.25\\n")"""


def write_notebook(folder, name, *cells):
    parameters = nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    cells = [parameters, *(nbformat.v4.new_code_cell(cell) for cell in cells)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def notebook(tmp_path):
    return write_notebook(tmp_path, "one", "1")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"profil": "smoke"}, "unknown parameter 'profil'. Did you mean 'profile'"),
        ({"profile": ["smoke"]}, "is a list; give a string, number or boolean"),
        ({"profile": 3}, "parameter profile is 3; give a value of type str, as its default 'tiny' is"),
        ({"fast": "yes"}, "of type bool"),
        ({"size": True}, "of type int, as its default 3 is"),
        ({"size": 2.5}, "of type int, as its default 3 is"),
        ({"share": float("nan")}, "nan, which JSON does not have"),
    ],
)
def test_a_wrong_parameter_is_an_error_that_names_it(notebook, given, said):
    with pytest.raises(ConfigError) as caught:
        execute.check_parameters(notebook, given)
    assert said in str(caught.value)
    assert "one.ipynb" in str(caught.value)


def test_parameters_of_the_declared_kind_pass(notebook):
    execute.check_parameters(notebook, {"size": 4, "share": 1, "fast": True, "where": "there", "profile": "smoke"})


def test_all_wrong_parameters_are_named_at_once(notebook):
    with pytest.raises(ConfigError, match="(?s)sizes.*Did you mean 'size'.*fasst.*Did you mean 'fast'"):
        execute.check_parameters(notebook, {"sizes": 1, "fasst": True})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that stands for notebooks/."""
    place = tmp_path / "notebooks"
    place.mkdir()
    monkeypatch.setattr(execute, "NOTEBOOKS", place)
    return place


def test_nothing_is_executed_where_a_parameter_is_wrong(folder, tmp_path, capsys):
    write_notebook(folder, "one", "1")
    out = ["--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]
    for wrong, said in [
        (["-p", "siz", "3"], "Did you mean 'size'"),
        (["-p", "size", "[3]"], "is a list"),
        (["-p", "size", "3", "-p", "size", "4"], "given twice"),
        (["-p", "profile", "smoke"], "--profile"),
        (["two"], "unknown notebook 'two'"),
        (["--profile", "tny"], "invalid choice"),
    ]:
        assert execute.main([*wrong, *out]) == 126
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_settings_that_no_run_can_have_stop_before_anything_runs(folder, tmp_path, capsys, monkeypatch):
    path = write_notebook(folder, "one", "1")
    text = path.read_text().replace("size = 3", 'settings = \\"\\"')
    path.write_text(text)
    assert execute.main(["-p", "settings", "epochs", "--out", str(tmp_path / "out")]) == 126
    assert "'epochs' is not NAME=VALUE" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted("stopped and saved")])
def test_ctrl_c_while_runs_are_trained_executes_no_notebook(folder, tmp_path, capsys, monkeypatch, error):
    def interrupted(page, needs):
        raise error

    write_notebook(folder, "01_heterogeneous_overfitting", "1")
    monkeypatch.setattr(study.Study, "train", interrupted)
    out = ["--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]
    assert execute.main([*out, "--profile", "smoke"]) == 130
    told = capsys.readouterr()
    assert "the same command goes on" in told.err
    assert told.out == ""
    assert not list((tmp_path / "out").glob("*.ipynb"))


@pytest.mark.parametrize(("flag", "name"), [("--out", "out_dir"), ("--runs", "runs_dir")])
def test_a_file_where_a_folder_belongs_stops_before_anything_runs(folder, tmp_path, capsys, flag, name):
    write_notebook(folder, "one", "1")
    (tmp_path / "taken").write_text("mine")
    words = {"--out": tmp_path / "out", "--runs": tmp_path / "runs", flag: tmp_path / "taken"}
    assert execute.main([str(word) for pair in words.items() for word in pair]) == 126
    assert f"{name} '{tmp_path / 'taken'}': {tmp_path / 'taken'} is a file" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notebooks", "taken"]


def test_the_home_folder_is_meant_by_a_tilde(folder, tmp_path, monkeypatch, capsys):
    """No shell expands it in --out=~/x."""
    write_notebook(folder, "one", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "taken").write_text("mine")
    for flag in ("--out=~/taken", "--runs=~/taken"):
        assert execute.main([flag]) == 126
        assert f"{tmp_path / 'taken'} is a file" in capsys.readouterr().err


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """(exit code, folder of outputs, standard output) of three notebooks of which two fail, executed together."""
    base = tmp_path_factory.mktemp("execute")
    place = base / "notebooks"
    place.mkdir()
    write_notebook(
        place,
        "a_good",
        REGISTER.replace("NAME", "'a_table'", 1).replace("NAME", "'a_table'").replace("NOTEBOOK", "'a_good'"),
        "print(size)",
    )
    write_notebook(
        place, "b_fails", "print('before')", "# a word first\nraise ValueError('no such thing')", "print('after')"
    )
    write_notebook(place, "c_dies", "print('alive')", "import os; os._exit(3)")
    out, patch = base / "out", pytest.MonkeyPatch()
    patch.setattr(execute, "NOTEBOOKS", place)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = execute.main(["--out", str(out), "--runs", str(base / "runs"), "-p", "size", "7", "--jobs", "2"])
    patch.undo()
    return code, out, said.getvalue()


def outputs(path):
    cells = nbformat.read(path, 4).cells
    return "".join(o.get("text", "") for cell in cells for o in cell.get("outputs", []))


def test_the_exit_code_counts_the_failed(executed):
    assert executed[0] == 2


def test_a_failed_notebook_names_its_cell_and_error(executed):
    said = executed[2]
    assert "b_fails: cell 3 of 4 (# a word first): ValueError: no such thing" in said
    assert "c_dies: cell 3 of 3 (import os; os._exit(3)): DeadKernelError" in said


def test_what_was_executed_is_kept_and_the_others_go_on(executed):
    _, out, said = executed
    assert "a_good: done" in said
    assert "7" in outputs(out / "a_good.ipynb")
    assert "before" in outputs(out / "b_fails.ipynb")
    assert "after" not in outputs(out / "b_fails.ipynb")
    assert "alive" in outputs(out / "c_dies.ipynb")


def test_the_report_is_written_and_names_what_failed(executed):
    page = (executed[1] / "report.html").read_text()
    assert 'id="a_table"' in page
    assert "ValueError: no such thing" in page


def test_the_manifest_says_what_made_the_outputs(executed):
    made = json.loads((executed[1] / "manifest.json").read_text())
    assert {stem: entry["status"] for stem, entry in made["notebooks"].items()} == {
        "a_good": "done", "b_fails": "failed", "c_dies": "failed",
    }  # fmt: skip
    assert "ValueError" in made["notebooks"]["b_fails"]["problem"]
    (common,) = made["executions"].values()
    assert common["command"].startswith("python -m paper_figures.execute --out")
    assert "torch" in common["versions"]
    assert "cores" in common["machine"]
    assert all(entry["seconds"] > 0 for entry in made["notebooks"].values())


def test_a_partial_execution_adds_to_the_manifest(tmp_path):
    first = {"one": {"status": "done", "seconds": 1.0}, "two": {"status": "done", "seconds": 2.0}}
    manifest.update(tmp_path, "2026-01-01T10:00:00", {"command": "all"}, first, tmp_path)
    again = {"two": {"status": "failed", "seconds": 3.0, "problem": "x"}}
    made = manifest.update(tmp_path, "2026-01-02T10:00:00", {"command": "two"}, again, tmp_path)
    assert made == manifest.read(tmp_path)
    assert made["notebooks"]["one"] == {
        "status": "done",
        "seconds": 1.0,
        "execution": "2026-01-01T10:00:00",
        "runs": [],
    }
    assert made["notebooks"]["two"]["execution"] == "2026-01-02T10:00:00"
    assert list(made["executions"]) == ["2026-01-01T10:00:00", "2026-01-02T10:00:00"]
    # an execution that no notebook stands for any more is forgotten
    made = manifest.update(tmp_path, "2026-01-03T10:00:00", {"command": "one"}, {"one": first["one"]}, tmp_path)
    assert list(made["executions"]) == ["2026-01-02T10:00:00", "2026-01-03T10:00:00"]


def test_the_manifest_knows_the_runs_of_what_was_registered(tmp_path, small_run):
    (tmp_path / "items").mkdir()
    entry = {"notebook": "one", "runs": [small_run.directory.name, "sft-gone"]}
    (tmp_path / "items" / "01_x.json").write_text(json.dumps(entry))
    done = {"one": {"status": "done", "seconds": 1.0}}
    made = manifest.update(tmp_path, "2026-01-01T10:00:00", {}, done, small_run.directory.parent)
    assert made["notebooks"]["one"]["runs"] == ["sft-gone", small_run.directory.name]
    assert list(made["runs"]) == [small_run.directory.name]
    assert made["runs"][small_run.directory.name]["accuracy"] == small_run.best.accuracy


def test_what_a_notebook_does_not_make_any_more_leaves_the_report(tmp_path, monkeypatch):
    (tmp_path / "items").mkdir()

    def write(name, notebook, age):  # by a clock that is behind this machine's
        path = tmp_path / "items" / f"{name}.json"
        path.write_text(json.dumps({"notebook": notebook}))
        os.utime(path, (time.time() - age,) * 2)

    for name, notebook in (("old", "one"), ("again", "one"), ("other", "two")):
        write(name, notebook, 7200)
    monkeypatch.setattr(
        papermill, "execute_notebook", lambda *_, **__: [write(n, "one", 3600) for n in ("again", "new")]
    )
    assert execute.execute(tmp_path / "one.ipynb", tmp_path / "one.ipynb", {})[0] == ""
    assert sorted(path.stem for path in (tmp_path / "items").glob("*")) == ["again", "new", "other"]


@pytest.fixture
def modules(monkeypatch):
    """Gives the modules of two notebooks their needs(page)."""
    monkeypatch.setattr(contents, "NOTEBOOKS", {"one": "first", "two": "second", "card": None})

    def give(**needs):
        for name, function in needs.items():
            monkeypatch.setitem(sys.modules, f"paper_figures.figures.{name}", types.SimpleNamespace(needs=function))

    return give


def test_the_pool_is_the_union_of_what_the_chosen_notebooks_need(modules):
    modules(first=lambda page: {"sft": page.config("sft")}, second=lambda page: {7: page.config("msft")})
    page = study.Study("all", "smoke")
    needs, problems = execute.needed(["one", "two", "card", "not listed"], page, {})
    assert {key: config.method for key, config in needs.items()} == {("one", "sft"): "sft", ("two", 7): "msft"}
    assert problems == []
    assert list(execute.needed(["two"], page, {})[0]) == [("two", 7)]


def test_a_notebook_s_own_parameter_reaches_its_needs(modules):
    modules(first=lambda page, seed=20: {"sft": page.config("sft", seed=seed)}, second=lambda page: {})
    given = {"profile": "smoke", "seed": 30}
    needs, _ = execute.needed(["one", "two"], study.Study("all", "smoke"), given)
    assert needs["one", "sft"].seed == 30


def test_a_notebook_whose_needs_fail_does_not_stop_the_pool(modules):
    def broken(page):
        raise KeyError("gone")

    modules(first=broken, second=lambda page: {"sft": page.config("sft")})
    needs, problems = execute.needed(["one", "two"], study.Study("all", "smoke"), {})
    assert list(needs) == [("two", "sft")]
    assert problems == ["one: 'gone'"]


def test_settings_that_a_run_cannot_have_are_an_error_of_the_command(modules):
    modules(first=lambda page: {"sft": page.config("sft")})
    with pytest.raises(ConfigError, match="(?s)one: .*Did you mean 'train_size'"):
        execute.needed(["one"], study.Study("all", "smoke", settings="train_sise=4"), {})


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RunError("one run failed"), ["one run failed"]),
        (ModelError("no model"), ["no model"]),
        (study.MissingRuns("x"), []),
    ],
)
def test_a_pool_that_fails_leaves_it_to_the_notebooks(error, told):
    class Page:
        def train(self, needs):
            raise error

    assert execute.train({"key": RunConfig("sft", "tiny-qwen2", "tiny", 20)}, Page()) == told
    assert execute.train({}, Page()) == []


def test_the_notebooks_are_in_the_order_of_the_report(folder):
    for name in ("data_card", "zz_own", "01_heterogeneous_overfitting", "00_quickstart"):
        write_notebook(folder, name, "1")
    stems = ["00_quickstart", "01_heterogeneous_overfitting", "data_card", "zz_own"]
    assert [path.stem for path in execute.notebooks()] == stems
    assert [path.stem for path in execute.notebooks(["data", "01"])] == [stems[1], stems[2]]
    with pytest.raises(ConfigError, match="Did you mean '00_quickstart'"):
        execute.notebooks(["00_quikstart"])
