"""One run on several processes against the same run on one: losses, accuracies and decisions.

    python benchmarks/processes.py                  # whole mSFT runs on the tiny mixture, C = 1: 1, 2, 3, and FSDP2 on 2
    python benchmarks/processes.py --model tiny-smoke --mixture tiny-smoke --results runs/check   # a check

Floating-point sums come in another order with another number of processes, and training lets the last bits grow. So
each comparison is made twice: in fp32, as runs are trained, and with the model in double precision, where what is left
is the division over processes itself. The control is one process that sums in another order, in shorter passes. Writes
processes.{json,md}.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from recording import RESULTS, measured_with, write

KINDS = {  # name: processes, sharded, tokens a pass
    "one process": (1, False, None),
    "one process, passes of half the length": (1, False, 512),
    "2 processes": (2, False, None),
    "3 processes": (3, False, None),
    "FSDP2 on 2 processes": (2, True, None),
}


def train(options: argparse.Namespace) -> None:
    """What each process does: the run, with the model in double precision where that is asked for."""
    import msft
    from msft import names
    from msft.loss import losses

    if options.double:
        load = names.load_model
        names.load_model = lambda *args, **more: load(*args, **more).double()
    if options.tokens:
        losses._CPU_TOKENS = options.tokens
    settings = {"method": "msft", "params": {"budget": options.budget}, "device": "cpu"}
    config = msft.RunConfig(model=options.model, mixture=options.mixture, **settings)
    msft.run(config, options.runs_dir, progress=False)


def launch(options, runs_dir: Path, kind: str, double: bool) -> float:
    """Trains the run of a kind; returns seconds."""
    processes, sharded, tokens = KINDS[kind]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    flags = ["--model", options.model, "--mixture", options.mixture, "--budget", f"{options.budget:g}"]
    flags += ["--runs-dir", str(runs_dir), *(["--double"] if double else [])]
    flags += ["--tokens", str(tokens)] if tokens else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_FSDP": str(sharded).lower()}
    started = time.monotonic()
    done = subprocess.run([*command, __file__, *flags], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{kind}: {done.stderr[-3000:]}")
    return time.monotonic() - started


def compared(found, alone) -> dict:
    """How a run differs from the same run on one process."""
    ours, theirs = found.history, alone.history
    together = [e["arguments"] for run in (found, alone) for e in run.journal if e["kind"] == "roll_back"]
    half = len(together) // 2
    same = together[:half] == together[half:] and list(ours.path_epoch) == list(theirs.path_epoch)
    losses = (ours.train_loss - theirs.train_loss).abs()
    return {
        "decisions equal": bool(same and found.best.path_epoch == alone.best.path_epoch),
        "largest difference of a loss": float(losses.max()),
        "evaluations": int(len(ours) / ours.task.nunique()),
        "evaluations with a loss over 1e-5": int((losses > 1e-5).sum() / ours.task.nunique()),
        "items scored": int(ours.n.sum()),
        "items scored otherwise": int(((ours.accuracy - theirs.accuracy).abs() * ours.n).round().sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny-qwen2")
    parser.add_argument("--mixture", default="tiny")
    parser.add_argument("--budget", type=float, default=1.0, help="C of mSFT, in epochs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    for name, kind in (("--runs-dir", str), ("--tokens", int)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    parser.add_argument("--double", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.runs_dir:
        return train(options)
    from msft.results.run import load_runs

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for double in (False, True):
            runs, precision = {}, "fp64" if double else "fp32"
            for kind in KINDS:
                place = Path(folder) / precision / kind.replace(" ", "_")
                seconds = launch(options, place, kind, double)
                runs[kind] = load_runs(place)[0]
                difference = compared(runs[kind], runs["one process"])
                rows.append({"precision": precision, "run": kind, "seconds": seconds, **difference})
                print(json.dumps(rows[-1]), flush=True)
    about = {"command": "python benchmarks/processes.py", **measured_with("torch", "accelerate")}
    about |= {"model": options.model, "mixture": options.mixture, "budget": options.budget}
    names = ["precision", "run", *list(rows[0])[3:]]
    lines = [
        "# Several processes against one",
        "",
        f"`{about['command']}`, {about['date']}, {about['machine']}: mSFT, C = {options.budget:g}, {options.model}, "
        f"mixture {options.mixture}; gloo. Differences are to one process in the same precision.",
        "",
        "| " + " | ".join(names) + " |",
        "|" + "---|" * len(names),
    ]
    for row in rows:
        cells = [f"{row[name]:.1e}" if isinstance(row[name], float) else str(row[name]) for name in names]
        lines.append("| " + " | ".join(cells) + " |")
    write(options.results, "processes", {**about, "rows": rows}, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
