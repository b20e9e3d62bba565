"""Peak memory of training and evaluation: ours against TRL's SFTTrainer, lm-eval's HFLM and the bare weights.

    python benchmarks/memory.py
    python benchmarks/memory.py --layers 1 --width 32 --vocabulary 500 --results runs/check     # a check

Every case is a process of its own that makes the model, does one thing and reports its peak resident memory, on a GPU
that of the device too. Cases of TRL are left out where it is not installed. Writes memory.{json,md}.
"""

import argparse
import json
import logging
import resource
import subprocess
import sys
import warnings
from pathlib import Path

from recording import RESULTS, heading, measured_with, write

CASES = {
    "weights alone": "nothing but the model",
    "weights, gradients and Adam": "one step on one short row",
    "ours, training": "64 examples a step",
    "TRL, the paper's micro-batches of 4": "the same 64",
    "TRL, padding_free, 4": "the same 64",
    "ours, evaluation": "five-shot generation",
    "HFLM, evaluation, batches of 8": "the same requests",
    "ours, training and evaluation": "one after the other, as in a run",
}


def run_case(name: str, options) -> dict:
    """What a process that runs one case reports, in MiB."""
    import random

    import evaluation
    import torch
    import training
    from evaluation import choose_shots, generation_requests, make_tokenizer, sub_datasets

    from msft.data.example import shots_text, training_text
    from msft.generation.lm import PrefixCachedLM

    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    if name.startswith("TRL"):
        import trl  # noqa: F401
    if name.startswith("HFLM"):
        from lm_eval.models.huggingface import HFLM
    data = sub_datasets(None, 3)
    evaluation.VOCABULARY = options.vocabulary
    tokenizer = make_tokenizer("".join(training_text(e)) for part, _ in data.values() for e in part)
    rows = training.made_up_rows(training.BATCH, options.vocabulary)
    rng = random.Random(20)
    shots = {n: shots_text(choose_shots(part, tokenizer, "average", rng)) for n, (part, _) in data.items()}
    requests = generation_requests(data, shots)
    before = _peak()
    model = training.make_model(options, options.vocabulary)
    if torch.cuda.is_available():
        model = model.to("cuda")
    if name == "weights, gradients and Adam":
        training.ours(model, [min(rows, key=lambda row: len(row.ids))])()
    elif name.startswith("TRL"):
        settings = training.OPTIONS["padding_free, 4"] if "padding_free" in name else training.PAPER
        training.trl_step(model, rows, settings)
    elif name.startswith("HFLM"):
        HFLM(pretrained=model.eval(), tokenizer=tokenizer, batch_size=8).generate_until(requests, disable_tqdm=True)
    if name.startswith("ours, training"):
        step = training.ours(model, rows)
        step(), step()
    if name.startswith("ours") and "evaluation" in name:
        lm = PrefixCachedLM(model, tokenizer, 512)
        lm.generate_until(requests)
    found = {"resident": _peak() - before, "process": _peak()}
    if torch.cuda.is_available():
        found["device"] = torch.cuda.max_memory_allocated() / 2**20
    return found


def _peak() -> float:
    """Peak resident memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 2**20)


def markdown(result: dict) -> str:
    on_gpu = any("device" in found for found in result["cases"].values())
    lines = [
        "# Peak memory",
        "",
        f"{heading(result)} {result['layers']} layers of width {result['width']}, fp32. Resident: above what the process held before "
        "the model was made.",
        "",
        "| case | | resident (MiB) | whole process (MiB) |" + (" device (MiB) |" if on_gpu else ""),
        "|---|---|---|---|" + ("---|" if on_gpu else ""),
    ]
    for name, found in result["cases"].items():
        cells = f"| {name} | {CASES[name]} | {found['resident']:.0f} | {found['process']:.0f} |"
        lines.append(cells + (f" {found['device']:.0f} |" if on_gpu else ""))
    if not on_gpu:
        lines += ["", "Device memory: not measured, since there was no GPU."]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", default="qwen2", choices=("qwen2", "qwen3", "olmo2", "llama"))
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--only", default="", help="the cases whose name begins with this")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--case", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print("\n" + json.dumps(run_case(options.case, options)))
        return
    about = measured_with("torch", "transformers", "lm_eval", "trl")
    cases = {}
    for name in CASES:
        if not name.startswith(options.only) or (name.startswith("TRL") and "trl" not in about["versions"]):
            continue
        shape = ["--kind", options.kind, "--layers", str(options.layers), "--width", str(options.width)]
        command = [sys.executable, __file__, "--case", name, *shape, "--vocabulary", str(options.vocabulary)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr[-2000:]}")
        cases[name] = json.loads(done.stdout.strip().splitlines()[-1])
        print(name, cases[name], flush=True)
    result = {
        "command": "python benchmarks/memory.py",
        **about,
        "layers": options.layers,
        "width": options.width,
        "cases": cases,
    }
    write(options.results, "memory", result, markdown(result))


if __name__ == "__main__":
    main()
