"""What every benchmark writes: results as JSON, a Markdown table, and what they were measured with."""

import json
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from paper_figures.manifest import machine

RESULTS = Path(__file__).parent / "results"


def measured_with(*packages: str) -> dict:
    """Date, machine and versions of the packages that are there."""
    versions = {}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions}


def command(script: str, options, **defaults) -> str:
    """The command that makes a result: the script, and the flags whose values are not their defaults."""
    words = [f"python benchmarks/{script}"]
    for name, default in defaults.items():
        if (value := getattr(options, name)) != default:
            values = [] if value is True else value if isinstance(value, list | tuple) else [value]
            words += [f"--{name}", *map(str, values)]
    return " ".join(words)


def heading(result: dict) -> str:
    """Command, date, machine, threads and versions of a result in one line."""
    threads = f", {result['threads']} thread(s)" if "threads" in result else ""
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return f"`{result['command']}`, {result['date']}, {result['machine']}{threads}, {versions}."


def write(folder: Path, name: str, result: dict, text: str) -> None:
    """Writes <name>.json and <name>.md, and prints the table."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)
