"""Executes the notebooks through papermill, strictly: python -m paper_figures.execute --profile tiny

A parameter that no parameters cell declares, or that is no JSON scalar, is an error before anything runs. A notebook
that fails names its cell and keeps what it has executed, and the others go on; the exit code counts the failed.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from msft.errors import ConfigError, unknown

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"


def notebooks() -> list[Path]:
    """The notebooks in their order."""
    return sorted(NOTEBOOKS.glob("*.ipynb"))


def check_parameters(notebook: Path, given: dict) -> None:
    """Raises ConfigError for a parameter that the notebook does not declare or that is no JSON scalar."""
    import papermill

    declared = list(papermill.inspect_notebook(str(notebook)))
    for name, value in given.items():
        if name not in declared:
            raise ConfigError(f"{notebook.name}: " + unknown("parameter", name, declared))
        if not isinstance(value, str | int | float | bool | None):
            kind = type(value).__name__
            raise ConfigError(f"{notebook.name}: parameter {name} is a {kind}; give a string, number or boolean")


def execute(notebook: Path, out: Path, given: dict) -> str | None:
    """Executes one notebook into `out`; returns None, or what failed and in which cell."""
    import papermill

    check_parameters(notebook, given)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            str(notebook), str(out), given, progress_bar=False, cwd=str(ROOT), kernel_name="python3"
        )
    except papermill.PapermillExecutionError as error:
        return f"cell {error.exec_count}: {error.ename}: {error.evalue}"
    return None


def manifest(profile: str, seconds: dict[str, float]) -> dict:
    """Which command, commit, versions and machine made the outputs."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    names = ("torch", "transformers", "datasets", "lm-eval", "accelerate", "papermill", "seaborn", "pandas", "numpy")
    return {
        "command": f"python -m paper_figures.execute --profile {profile}",
        "commit": git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else ""),
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: metadata.version(name) for name in names},
        "seconds": seconds,
    }


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the number of notebooks that failed."""
    parser = argparse.ArgumentParser(prog="python -m paper_figures.execute", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="notebooks by name or the start of it; all by default")
    parser.add_argument("--profile", default="tiny", choices=("smoke", "tiny", "paper"))
    parser.add_argument("--out", default=None, help="folder of the outputs (paper_figures/out/<profile>)")
    parser.add_argument("--runs", default="runs", help="folder of the runs")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "JSON"), help="one more parameter")
    options = parser.parse_args(argv)
    out = Path(options.out or ROOT / "paper_figures" / "out" / options.profile).resolve()
    given = {"profile": options.profile, "runs_dir": str(Path(options.runs).resolve()), "out_dir": str(out)}
    chosen = [p for p in notebooks() if not options.names or any(p.stem.startswith(n) for n in options.names)]
    try:
        if not chosen:
            raise ConfigError(unknown("notebook", options.names[0], [p.stem for p in notebooks()]))
        for name, text in options.p:
            given[name] = _scalar(text)
        for notebook in chosen:
            check_parameters(notebook, given)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    failed, seconds = [], {}
    for notebook in chosen:
        started = time.monotonic()
        problem = execute(notebook, out / notebook.name, given)
        seconds[notebook.stem] = round(time.monotonic() - started, 1)
        print(f"{notebook.stem}: {problem or 'done'} ({seconds[notebook.stem]} s)", flush=True)
        failed += [notebook.stem] if problem else []
    (out / "manifest.json").write_text(json.dumps(manifest(options.profile, seconds), indent=1) + "\n")
    if failed:
        print(f"{len(failed)} of {len(chosen)} notebooks failed: {', '.join(failed)}; see {out}", file=sys.stderr)
    else:
        print(f"tables, figures and executed notebooks are in {out}")
    return len(failed)


def _scalar(text: str):
    try:
        return json.loads(text)
    except ValueError:
        return text


if __name__ == "__main__":
    sys.exit(main())
