"""Peak memory of training and evaluation: ours against TRL's SFTTrainer, lm-eval's HFLM and the bare weights.

    python benchmarks/memory.py
    python benchmarks/memory.py --layers 1 --width 32 --vocabulary 500 --results runs/check     # a check
    python benchmarks/memory.py --model FOLDER --data FOLDER    # a whole run of a real model, part by part

Every case is a process of its own that makes the model, does one thing and reports its peak resident memory, on a GPU
that of the device too. Cases of TRL are left out where it is not installed. Writes memory.{json,md}; with --model the
part about the run alone, what is there of the cases stays.
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


RUN = {"batch_size": 4, "precision": "fp32", "train_size": 16, "test_size": 2, "max_new_tokens": 32, "threads": 1}
PARTS = {
    "weights": "",
    "gradients": "",
    "Adam": "two moments of each weight",
    "activations": "what the largest pass keeps for its gradients",
    "base": "the base weights, which files are differences to",
    "best": "the best checkpoint so far; each peak of mSFT that waits in memory is as large",
    "on its way to disk": "copies of weights and Adam's state, while a save is written",
}
UNIT = ("weights", "gradients", "Adam", "activations")  # what training needs whatever is kept beside it
SAVES = {"no save within": {"save_share": 0.0}, "saves as often as can be": {"save_share": 1.0, "save_minutes": 0.0}}


def config_of(options, **saves):
    """A quarter of an epoch of SFT on five of the paper's sub-datasets, between two evaluations."""
    import msft

    given = {"mixture": "paper-5", "data_dir": options.data, "params": {"epochs": 0.25}, **RUN}
    if options.data is None:
        given = {"mixture": "tiny-smoke", "params": {"epochs": 1}}  # a check
    return msft.RunConfig(method="sft", model=options.model, **given, **saves)


def parts_of(options) -> dict[str, float]:
    """MiB of every part of a run that can be told from tensors; activations of the longest examples."""
    import torch

    from msft.loss.losses import TokenLosses, make_passes, target_losses
    from msft.runs import prepare
    from msft.store.checkpoints import optimizer_tensors, snapshot

    prepared = prepare(config_of(options))
    model, config = prepared.load_model(), prepared.config
    rows = [row for task in prepared.tokens()[0].values() for row in task]
    rows = sorted(rows, key=lambda row: -len(row.ids))[:16]
    assert TokenLosses(model, config.loss_group, config.token_budget).path == "packed"
    own, most = {p.untyped_storage().data_ptr() for p in model.parameters()}, 0
    for batch in make_passes(rows, config.loss_group, config.token_budget, model):
        kept: dict[int, int] = {}

        def keep(tensor, kept=kept):
            storage = tensor.untyped_storage()
            kept.setdefault(storage.data_ptr(), 0 if storage.data_ptr() in own else storage.nbytes())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss, _ = target_losses(model, batch)
        most = max(most, sum(kept.values()))
        loss.backward()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0, fused=True)
    optimizer.step()
    weights, adam = (sum(t.nbytes for t in found.values()) for found in (snapshot(model), optimizer_tensors(optimizer)))
    gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    sizes = (weights, gradients, adam, most, weights, weights, weights + adam)
    return {name: size / 2**20 for name, size in zip(PARTS, sizes, strict=True)}


def run_case_of_run(name: str, options) -> dict:
    """What a process that runs one case of a whole run reports, in MiB."""
    if name == "parts":
        return parts_of(options)
    import tempfile

    import lm_eval.models.huggingface  # noqa: F401

    import msft
    import msft.training

    before = _peak()
    with tempfile.TemporaryDirectory() as folder:
        run = msft.run(config_of(options, **SAVES[name]), folder, progress=False)
        return {"resident": _peak() - before, "process": _peak(), "saves": int((run.disk.event == "saved").sum())}


def run_markdown(found: dict) -> list[str]:
    """The table of a whole run."""
    unit = sum(found["parts"][name] for name in UNIT)
    lines = [
        "",
        "## A whole run, part by part",
        "",
        f"{heading(found)} {found['model']}, fp32, a few steps of SFT on real records between two evaluations. Unit: weights, gradients, "
        f"Adam and the activations of one pass, {unit:.0f} MiB. Resident: above what the process held once everything "
        "was imported.",
        "",
        "| part | | MiB | units |",
        "|---|---|---|---|",
    ]
    lines += [f"| {n} | {PARTS[n]} | {size:.0f} | {size / unit:.2f} |" for n, size in found["parts"].items()]
    for name, case in found["cases"].items():
        told = f"{case['saves']} saves; whole process {case['process']:.0f} MiB"
        lines.append(
            f"| **peak of the run, {name}** | {told} | {case['resident']:.0f} | {case['resident'] / unit:.2f} |"
        )
    return lines


def measure_run(options) -> dict:
    """The cases of a whole run, a process each."""
    names, data = ["parts", *SAVES], ["--data", options.data] if options.data else []
    found = {name: _in_process(name, ["--model", options.model, *data]) for name in names}
    about = measured_with("torch", "transformers", "lm_eval")
    command = "python benchmarks/memory.py --model FOLDER --data FOLDER"
    model = {"model": Path(options.model).name, "parts": found.pop("parts")}
    return {"command": command, **about, **model, "cases": found}


def _in_process(name: str, flags: list[str]) -> dict:
    done = subprocess.run([sys.executable, __file__, "--case", name, *flags], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    print(name, found, flush=True)
    return found


def _peak() -> float:
    """Peak resident memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 2**20)


def markdown(result: dict) -> str:
    lines = ["# Peak memory", ""]
    if "cases" in result:
        lines += _cases_markdown(result)
    if "run" in result:
        lines += run_markdown(result["run"])
    return "\n".join([*lines, ""])


def _cases_markdown(result: dict) -> list[str]:
    on_gpu = any("device" in found for found in result["cases"].values())
    lines = [
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
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", default="qwen2", choices=("qwen2", "qwen3", "olmo2", "llama"))
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--model", help="a model's folder or name: measures a whole run of it")
    parser.add_argument("--data", help="folder of the benchmarks' records (data_dir); without it a tiny mixture")
    parser.add_argument("--only", default="", help="the cases whose name begins with this")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--case", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        case = run_case_of_run if options.model else run_case
        print("\n" + json.dumps(case(options.case, options)))
        return
    file = options.results / "memory.json"
    there = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if options.model:
        result = {**there, "run": measure_run(options)}
        write(options.results, "memory", result, markdown(result))
        return
    about = measured_with("torch", "transformers", "lm_eval", "trl")
    cases = {}
    for name in CASES:
        if not name.startswith(options.only) or (name.startswith("TRL") and "trl" not in about["versions"]):
            continue
        shape = ["--kind", options.kind, "--layers", str(options.layers), "--width", str(options.width)]
        cases[name] = _in_process(name, [*shape, "--vocabulary", str(options.vocabulary)])
    result = {
        "command": "python benchmarks/memory.py",
        **about,
        "layers": options.layers,
        "width": options.width,
        "cases": cases,
        **{key: there[key] for key in ("run",) if key in there},
    }
    write(options.results, "memory", result, markdown(result))


if __name__ == "__main__":
    main()
