"""Where the time of one whole mSFT run goes: forward, backward, optimizer and decoding against everything else.

    python benchmarks/run.py                                                           # tiny mixture, some minutes
    python benchmarks/run.py --model tiny-smoke --mixture tiny-smoke --budget 1 --results runs/check      # a check

Functions of the package are timed from outside, each without what is timed within it; setting up (data, tokens,
requests) counts. Writes run.{json,md}.
"""

import argparse
import functools
import statistics
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from recording import RESULTS, heading, measured_with, write

WORK = ("forward and backward", "optimizer", "decoding")


class Clock:
    """Seconds of named parts; the time of a part within another counts for the inner one alone."""

    def __init__(self):
        self.seconds, self.stack, self.restore = Counter(), [], []

    def wrap(self, owner, name: str, part: str) -> None:
        function = getattr(owner, name)

        @functools.wraps(function)
        def timed(*args, **kwargs):
            if threading.current_thread() is not threading.main_thread():  # what is written in the background
                return function(*args, **kwargs)
            started = time.perf_counter()
            self.stack.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                taken = time.perf_counter() - started
                self.seconds[part] += taken - self.stack.pop()
                if self.stack:
                    self.stack[-1] += taken

        setattr(owner, name, timed)
        self.restore.append((owner, name, function))

    def unwrap(self) -> None:
        for owner, name, function in reversed(self.restore):
            setattr(owner, name, function)


def watched() -> Clock:
    """A clock over the parts of a run."""
    import torch

    from msft import evaluation, runs
    from msft.generation import lm as generation
    from msft.loss import losses
    from msft.store import checkpoints, durable
    from msft.store.journal import Journal

    clock = Clock()
    for owner, name, part in (
        (losses.TokenLosses, "gradients", "forward and backward"),
        (losses.TokenLosses, "of_examples", "forward and backward"),
        (losses, "pack", "batches"),
        (torch.optim.Adam, "step", "optimizer"),
        (generation, "decode", "decoding"),
        (generation.PrefixCachedLM, "_finished", "evaluation: when to stop"),
        (generation.PrefixCachedLM, "answer", "evaluation: text of tokens"),
        (generation.PrefixCachedLM, "prepare", "evaluation: requests"),
        (evaluation.Evaluator, "evaluate", "evaluation: scores and rest"),
        (evaluation, "build_task", "evaluation: requests"),
        (durable.Durable, "save", "saving"),
        (durable.Durable, "hold", "saving"),
        (checkpoints, "restore", "saving"),
        (Journal, "add", "saving"),
        (runs, "run", "setting up and rest"),
    ):
        clock.wrap(owner, name, part)
    return clock


def measure(options) -> dict:
    import msft
    from msft import runs

    config = msft.RunConfig(
        method="msft", model=options.model, mixture=options.mixture, params={"budget": options.budget}
    )
    clock = watched()
    try:
        with tempfile.TemporaryDirectory() as folder:
            run = runs.run(config, Path(folder), progress=False)
            result = run.result
            counts = {"evaluations": int(run.history.groupby(["stage", "epoch"]).ngroups)}
    finally:
        clock.unwrap()
    total = sum(clock.seconds.values())
    return {"seconds": dict(clock.seconds), "total": total, "own clock": result["seconds"], **counts}


def markdown(result: dict) -> str:
    first = result["runs"][0]
    lines = [
        "# Where the time of an mSFT run goes",
        "",
        f"{heading(result)} {first['evaluations']} evaluations; medians of {len(result['runs'])} runs of {result['total']:.0f} s.",
        "",
        "| part | seconds | share |",
        "|---|---|---|",
    ]
    lines += [f"| {part} | {value:.2f} | {value / result['total']:.1%} |" for part, value in result["seconds"].items()]
    lines.append(f"| **forward, backward, optimizer, decoding** | {result['work']:.2f} | {result['share']:.1%} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny-qwen2")
    parser.add_argument("--mixture", default="tiny")
    parser.add_argument("--budget", type=float, default=3.0, help="C of mSFT, in epochs")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()

    measured = [measure(options) for _ in range(options.rounds)]
    every = {part for m in measured for part in m["seconds"]}
    parts = {part: statistics.median(m["seconds"].get(part, 0.0) for m in measured) for part in every}
    parts = dict(sorted(parts.items(), key=lambda item: -item[1]))
    total, work = sum(parts.values()), sum(parts.get(part, 0.0) for part in WORK)
    result = {
        "command": f"python benchmarks/run.py --model {options.model} --mixture {options.mixture} --budget {options.budget:g}",
        **measured_with("torch", "transformers", "lm_eval"),
        "seconds": parts,
        "total": total,
        "work": work,
        "share": work / total,
        "runs": measured,
    }
    write(options.results, "run", result, markdown(result))


if __name__ == "__main__":
    main()
