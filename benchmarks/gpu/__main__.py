"""What a GPU says of this package, in one command of ten minutes: tests, kernels, equality in bf16, a whole run, speed.

    python benchmarks/gpu                                  # on an H100- or H200-class card
    python benchmarks/gpu --model FOLDER --data FOLDER     # a pre-trained model on the ten benchmarks in hub format, too
    python benchmarks/gpu --only kernels speed --peak 756e12    # some parts; a card of another dense bf16 peak
    python benchmarks/gpu --results runs/check             # without a GPU: small models, a check of this script alone

A machine without a network needs torch, transformers, accelerate and their like, and the packages of wheels.txt:
    pip download --no-deps -d wheels -r benchmarks/gpu/wheels.txt        # where there is a network
    pip install --no-deps --no-index --find-links wheels -r benchmarks/gpu/wheels.txt
    PYTHONPATH=. python benchmarks/gpu
A part that fails does not stop the others: its error stands in the result. Writes gpu.{json,md} anew after each part.
"""

import argparse
import logging
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT)]

from evaluation import make_tokenizer, sub_datasets  # noqa: E402
from gpu import equality, speed  # noqa: E402
from recording import RESULTS, command, measured_with, write  # noqa: E402

import msft  # noqa: E402
from msft.data.example import training_text  # noqa: E402

TESTS = ("tests/test_gpu.py", "tests/test_methods.py", "tests/test_distributed.py")


def tests(options, device) -> dict:
    """How the tests that need a GPU end, and the names of those that fail."""
    words = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "-rfE", *TESTS]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    ended = subprocess.run(words, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, timeout=300)
    lines = ended.stdout.strip().splitlines()
    return {"ended": lines[-1] if lines else "", "failed": [x for x in lines if x.startswith(("FAILED", "ERROR"))]}


def kernels(options, device) -> dict:
    """The fused kernel of attention beside attention written out, at the shapes of Qwen2.5 0.5B."""
    return equality.kernels(device)


def equal(options, device) -> dict:
    """How far packed and padded passes are from fp32, in the precision of the GPU."""
    return equality.passes(speed.SHAPES["Qwen2.5 0.5B"] if options.on_gpu else speed.SMALL, device)


def runs(options, device) -> dict:
    """Whole mSFT runs: of the smallest embedded model, and of a pre-trained one where a folder is given."""
    asked = {"tiny": {"model": "tiny-qwen2" if options.on_gpu else "tiny-smoke", "params": {"budget": 1}}}
    asked["tiny"]["mixture"] = "tiny" if options.on_gpu else "tiny-smoke"
    if options.model:  # as the committed page of the profile `laptop`, so that a processor's run stands beside it
        asked["pre-trained"] = {"model": options.model, "data_dir": options.data, "mixture": "paper-10"}
        asked["pre-trained"] |= {"params": {"budget": 1}, "learning_rate": 5e-5, "batch_size": 16, "precision": "mixed"}
        asked["pre-trained"] |= {"train_size": 100, "test_size": 50, "validation_size": 0, "confirmation_size": 0}
        asked["pre-trained"] |= {"evaluations_per_epoch": 2, "max_new_tokens": 16}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, settings in asked.items():
            config = msft.RunConfig(method="msft", device=str(device), select_metric="loss", **settings)
            run = msft.run(config, folder, progress=False)
            found[name] = {"settings": settings, "accuracy": run.best.accuracy, "epoch": run.best.path_epoch}
            found[name] |= {part: run.result[part] for part in ("seconds", "paths")}
    return found


def speeds(options, device) -> dict:
    """Training and evaluation of two models (speed.py), beside TRL where it is installed, and beside HFLM."""
    data = sub_datasets(None, options.items)
    tokenizer = make_tokenizer("".join(training_text(e)) for part, _ in data.values() for e in part)
    shapes = speed.SHAPES if options.on_gpu else {"small": speed.SMALL}
    found = {n: speed.measure(n, shape, device, options, data, tokenizer) for n, shape in shapes.items()}
    return {"models": found, "hours": speed.hours(found) if options.on_gpu else {}}


PARTS = {"tests": tests, "kernels": kernels, "equal": equal, "runs": runs, "speed": speeds}


def markdown(result: dict) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    lines = ["# One GPU", "", f"`{result['command']}`, {result['date']}, {result['device']}, {versions}.", ""]
    if not result["on GPU"]:
        lines += ["Nothing below was measured on a GPU: small models on a processor, a check of this script alone.", ""]
    for name, error in result["errors"].items():
        lines += [f"**{name} failed**: `{error.splitlines()[-1]}`", ""]
    parts = result["parts"]
    if "tests" in parts:
        lines += [f"Tests that need a GPU: {parts['tests']['ended']}", *parts["tests"]["failed"], ""]
    if "kernels" in parts:
        lines += ["| attention | fused | milliseconds | written out | largest difference | of its logarithms of sums |"]
        lines += ["|---|---|---|---|---|---|"]
        for name, found in parts["kernels"].items():
            fused = f"yes | {found['fused']:.2f}" if found["shown equal"] else "no | –"
            lines.append(f"| {name} | {fused} | {found['plain']:.2f} | {found['out']:.1e} | {found['sums']:.1e} |")
        lines.append("")
    if "equal" in parts:
        lines += ["| against fp32 | packed | padded |", "|---|---|---|"]
        for what, found in parts["equal"].items():
            lines.append(f"| {what} | {found['packed']:.1e} | {found['padded']:.1e} |")
        lines.append("")
    for name, run in parts.get("runs", {}).items():
        seconds = ", ".join(f"{what} {value:.0f} s" for what, value in run["seconds"].items())
        paths = ", ".join(f"{what} {path}" for what, path in run["paths"].items())
        lines += [f"mSFT ({name}, {run['settings']['model']}): accuracy {run['accuracy']:.1%}; {seconds}; {paths}.", ""]
    if "speed" in parts:
        lines += speed.table(parts["speed"]["models"], result["peak"]) if result["on GPU"] else ["Speed: not measured."]
        lines.append("")
        hours = parts["speed"]["hours"]
        lines += ["| estimate | hours |", "|---|---|"] if hours else []
        lines += [f"| {what} | {value:.1f} |" for what, value in hours.items()]
    return re.sub("\n{3,}", "\n\n", "\n".join([*lines, ""]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python benchmarks/gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--model", default=None, help="a folder with a pre-trained model, with --data")
    parser.add_argument("--data", default=None, help="a folder of the ten benchmarks in hub format")
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps that are timed")
    parser.add_argument("--teach", type=int, default=60, help="steps until the answers have the format")
    parser.add_argument("--items", type=int, default=50, help="items a task")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak", type=float, default=None, help="dense bf16 FLOPs a second of the card")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if bool(options.model) != bool(options.data):
        parser.error("give --model and --data together")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    options.on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", 0) if options.on_gpu else torch.device("cpu")
    name = (
        torch.cuda.get_device_name(device) if options.on_gpu else f"no GPU ({platform.system()} {platform.machine()})"
    )
    defaults = {"only": list(PARTS), "model": None, "data": None, "peak": None}
    result = {
        "command": command("gpu", options, **defaults),
        **measured_with("torch", "transformers", "lm_eval", "trl"),
        "device": name,
        "on GPU": options.on_gpu,
        "peak": options.peak or next((peak for part, peak in speed.PEAKS.items() if part in name), None),
        "seconds": {},
        "parts": {},
        "errors": {},
    }
    if not options.on_gpu:
        options.steps, options.teach, options.items, options.rounds = 1, 2, 1, 1
    for part in options.only:
        started = time.monotonic()
        try:
            result["parts"][part] = PARTS[part](options, device)
        except Exception:  # a GPU that is there for ten minutes shall show all else
            result["errors"][part] = traceback.format_exc()
        result["seconds"][part] = time.monotonic() - started
        write(options.results, "gpu", result, markdown(result))


if __name__ == "__main__":
    main()
