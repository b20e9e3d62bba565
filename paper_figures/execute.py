"""Executes the notebooks through papermill, strictly: python -m paper_figures.execute --profile tiny

A parameter that a notebook does not declare, or that is no JSON scalar, is an error before anything runs. What the
notebooks need is trained first, in one pool; then they are executed, several at a time. A notebook that fails names
its cell and keeps what it has executed, and the others go on. The exit code counts the failed (125 at most; 126:
nothing was executed; 130: Ctrl-C).
"""

import argparse
import ast
import datetime
import importlib
import inspect
import json
import math
import multiprocessing
import os
import shlex
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from msft.errors import ConfigError, Interrupted, MsftError, together, unknown
from msft.paths import check_folder, usable
from paper_figures import contents, manifest
from paper_figures.profiles import PROFILES

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
_MOST_FAILED, _NOT_EXECUTED = 125, 126
_OPTIONS = {"profile": "--profile", "runs_dir": "--runs", "out_dir": "--out"}  # parameters with flags of their own
_STUDY = (*_OPTIONS, "models", "mixture", "data_dir", "settings", "allow_cpu")


def notebooks(names=()) -> list[Path]:
    """The notebooks in the report's order; those not listed in contents.NOTEBOOKS last.

    names: notebooks by name or the start of it; all where there are none. Raises ConfigError for a name of nothing.
    """
    order = list(contents.NOTEBOOKS)
    found = sorted(NOTEBOOKS.glob("*.ipynb"), key=lambda p: (order.index(p.stem) if p.stem in order else 99, p.stem))
    for name in names:
        if not any(path.stem.startswith(name) for path in found):
            raise ConfigError(unknown("notebook", name, [path.stem for path in found]))
    return [path for path in found if not names or any(path.stem.startswith(name) for name in names)]


def declared_parameters(notebook: Path) -> dict:
    """{name: default} of the cell with the tag "parameters"; papermill's own reading trips over some comments."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", [])]
    lines = [line for source in sources for line in ast.parse(source).body if isinstance(line, ast.Assign)]
    return {line.targets[0].id: ast.literal_eval(line.value) for line in lines}


def check_parameters(notebook: Path, given: dict) -> None:
    """Raises ConfigError for parameters that the notebook does not declare, or that are no JSON scalar of its kind."""
    from paper_figures.study import OPTIONS

    declared = {**declared_parameters(notebook), **OPTIONS}
    problems = []
    for name, value in given.items():
        kind = type(value).__name__
        if name not in declared:
            problems.append(unknown("parameter", name, list(declared)))
        elif not isinstance(value, str | int | float | bool | None):
            problems.append(f"parameter {name} is a {kind}; give a string, number or boolean")
        elif isinstance(value, float) and not math.isfinite(value):
            problems.append(f"parameter {name} is {value}, which JSON does not have; give a number")
        else:
            default = declared[name]
            fits = type(value) is type(default) or (type(value) is int and type(default) is float)
            if default is not None and not fits:
                wanted = f"a value of type {type(default).__name__}, as its default {default!r} is"
                problems.append(f"parameter {name} is {value!r}; give {wanted}")
    if problems:
        raise ConfigError(together(f"{notebook.name}:", problems))


def needed(stems: list[str], page, given: dict) -> tuple[dict, list[str]]:
    """({(notebook, key): RunConfig}, what could not be listed) of the notebooks' runs.

    page: a study.Study with the parameters of the notebooks.  given: their parameters; those that a notebook's needs
    takes beside the page go to it by name. Raises ConfigError for settings that no run can have.
    """
    needs, problems = {}, []
    for stem in stems:
        if contents.NOTEBOOKS.get(stem):
            try:
                module = importlib.import_module(f"paper_figures.figures.{contents.NOTEBOOKS[stem]}")
                taken = inspect.signature(module.needs).parameters
                own = {name: value for name, value in given.items() if name in taken and name not in _STUDY}
                needs |= {(stem, key): config for key, config in module.needs(page, **own).items()}
            except ConfigError as error:
                raise ConfigError(f"{stem}: {error}") from None
            except Exception as error:  # the notebook meets it too, and names its cell
                problems.append(f"{stem}: {_first_line(error)}")
    return needs, problems


def train(needs: dict, page) -> list[str]:
    """Trains what is missing, all in one pool; returns what could not be trained.

    In the paper's profile on a machine that does not train it, the notebooks themselves say what is missing.
    """
    from paper_figures.study import MissingRuns

    try:
        if needs:
            page.train(needs)
    except MissingRuns:
        pass
    except Interrupted:  # meant for the notebooks, too
        raise
    except MsftError as error:
        return [str(error)]
    return []


def execute(notebook: Path, out: Path, given: dict) -> tuple[str, float]:
    """Executes one notebook into `out`; returns '' or in which cell what failed, and the seconds it took."""
    import papermill

    out.parent.mkdir(parents=True, exist_ok=True)
    out.unlink(missing_ok=True)
    started, problem = time.monotonic(), ""
    before = {path: path.stat().st_mtime_ns for path in (out.parent / "items").glob("*.json")}
    try:
        papermill.execute_notebook(
            str(notebook), str(out), given, progress_bar=False, cwd=str(ROOT), kernel_name="python3",
            extra_arguments=["--IPKernelApp.log_level=50"],  # not that a local kernel talks over TCP
        )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        problem = f"{_cell(notebook, out)}{error.ename}: {error.evalue}"
    except Exception as error:  # a kernel that died or did not start: the other notebooks go on
        problem = f"{_cell(notebook, out)}{type(error).__name__}: {_first_line(error)}"
    if not problem:
        _forget(out, before)
    return problem, round(time.monotonic() - started, 1)


def _cell(notebook: Path, out: Path) -> str:
    """The cell that was being executed: its number in the notebook as it stands in the repository, and its first line."""
    import nbformat

    if not out.is_file():
        return ""
    # papermill sets every code cell to 'pending' and leaves those behind the failure so
    cells = [
        c for c in nbformat.read(out, 4).cells if c.metadata.get("papermill", {}).get("status", "pending") != "pending"
    ]
    cells = [c for c in cells if c.cell_type == "code" and "papermill-error-cell-tag" not in c.metadata.get("tags", [])]
    sources = [c.source for c in nbformat.read(notebook, 4).cells]
    if not cells or cells[-1].source not in sources:
        return ""
    number, first = sources.index(cells[-1].source) + 1, cells[-1].source.strip().splitlines()[0]
    return f"cell {number} of {len(sources)} ({first}): "


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _forget(out: Path, before: dict[Path, int]) -> None:
    """Takes away what an earlier version of the notebook told the report and this one did not. before: when each was
    written, as it stood before: this machine's clock may be set back, or another one than the disk's."""
    for path, written in before.items():
        is_old = path.is_file() and path.stat().st_mtime_ns == written
        if is_old and json.loads(path.read_text(encoding="utf-8"))["notebook"] == out.stem:
            path.unlink()


def execute_all(chosen: list[Path], out: Path, given: dict, jobs: int) -> dict[str, dict]:
    """Executes notebooks, `jobs` at a time, a line each; returns {notebook: status, seconds, problem}."""
    done = {}
    # a new process each: forking one with threads in it is not safe
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _worker, (jobs,)) as pool:
        waiting = {pool.submit(execute, notebook, out / notebook.name, given): notebook.stem for notebook in chosen}
        try:
            for future in as_completed(waiting):
                stem, error = waiting[future], future.exception()
                problem, seconds = (f"its process ended: {error}", 0.0) if error else future.result()
                done[stem] = {"status": "failed" if problem else "done", "seconds": seconds}
                done[stem] |= {"problem": problem} if problem else {}
                print(f"{stem}: {problem or 'done'} ({seconds:.0f} s)", flush=True)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return done


def _worker(jobs: int) -> None:
    if jobs > 1:  # OpenMP threads of one kernel would spin on the cores that the other needs
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the number of notebooks that failed, 126 where nothing was executed, 130 for Ctrl-C."""
    try:
        return _main(argv)
    except (KeyboardInterrupt, Interrupted):
        print("stopped; the runs are kept as they were saved, and the same command goes on", file=sys.stderr)
        return 130


def _main(argv: list[str] | None) -> int:
    from paper_figures import report
    from paper_figures.study import Study

    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m paper_figures.execute", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="notebooks by name or the start of it; all by default")
    parser.add_argument("--profile", default="tiny", choices=tuple(PROFILES))
    parser.add_argument("--out", default=None, help="folder of the outputs (paper_figures/out/<profile>)")
    parser.add_argument("--runs", default="runs", help="folder of the runs")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "JSON"), help="one more parameter")
    parser.add_argument("--jobs", type=int, default=0, metavar="N", help="notebooks at a time (one a core, 4 at most)")
    try:
        options = parser.parse_args(argv)
    except SystemExit as stop:
        return _NOT_EXECUTED if stop.code else 0
    try:
        out = Path(os.path.realpath(usable(options.out or ROOT / "paper_figures" / "out" / options.profile)))
        given = {"profile": options.profile, "runs_dir": os.path.realpath(usable(options.runs)), "out_dir": str(out)}
        check_folder(Path(given["runs_dir"]), "runs_dir")
        chosen = notebooks(options.names)
        given |= _parameters(options.p)
        for notebook in chosen:
            check_parameters(notebook, given)
        page = Study("all", **{name: value for name, value in given.items() if name in _STUDY})
        needs, untrained = needed([path.stem for path in chosen], page, given)
    except MsftError as error:
        print(error, file=sys.stderr)
        return _NOT_EXECUTED
    began = time.monotonic()
    started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    untrained += train(needs, page)
    trained = time.monotonic()
    if untrained:
        print(together("not everything could be trained ahead of the notebooks:", untrained), file=sys.stderr)
    # notebooks that train what could not be trained ahead have the machine to themselves
    jobs = 1 if untrained else options.jobs or min(os.cpu_count() or 1, 4)
    done = execute_all(chosen, out, given, max(min(jobs, len(chosen)), 1))
    common = manifest.execution(shlex.join(["python", "-m", "paper_figures.execute", *argv]))
    common["seconds"] = {"training": round(trained - began, 1), "notebooks": round(time.monotonic() - trained, 1)}
    manifest.update(out, started, common, done, Path(given["runs_dir"]))
    failed = [stem for stem, entry in done.items() if entry["status"] == "failed"]
    try:
        print(f"tables, figures and executed notebooks are in {out}; the report: {report.write(out)}")
    except MsftError as error:
        print(error, file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(chosen)} notebooks failed: {', '.join(sorted(failed))}", file=sys.stderr)
    return min(len(failed), _MOST_FAILED)


def _parameters(pairs: list[list[str]]) -> dict:
    """{name: value} of the -p flags: JSON, or the text itself where it is none."""
    given = {}
    for name, text in pairs:
        if name in _OPTIONS:
            raise ConfigError(f"parameter {name} has a flag of its own: {_OPTIONS[name]}")
        if name in given:
            raise ConfigError(f"parameter {name} is given twice")
        try:
            given[name] = json.loads(text)
        except ValueError:
            given[name] = text
    return given


if __name__ == "__main__":
    sys.exit(main())
