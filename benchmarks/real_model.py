"""Five-shot evaluation of a pre-trained model on real records against lm-eval's HFLM and a warm vLLM, task by task.

    python benchmarks/real_model.py --model <folder> --data <folder of the ten benchmarks in hub format> \\
        --vllm <python of an environment with vLLM> --precision bf16

The model is first fine-tuned for some steps, so that its answers have the format, and a few steps more, as between two
evaluations of a run. Then the ways take turns on each task's items: HFLM at the best of its batches, vLLM where it is
named (warm_vllm.py), PrefixCachedLM as at the first evaluation of a run, and PrefixCachedLM as at every further one, with
the answers that the weights of a few steps before gave as drafts (in bf16 on a processor a run has none of those). Processor seconds; every text is compared with HFLM's.
Before that, a training step takes turns in each precision. Writes real_model.{json,md}, in bf16 real_model_bf16.{json,md}.
--one-call asks all tasks at once, as an evaluation of a run does: the weights are laid out once, texts of all tasks go on
together, and vLLM has all prompts before it too. Writes real_model_one_call.{json,md}.
"""

import argparse
import copy
import itertools
import logging
import random
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import torch
from lm_eval.models.huggingface import HFLM
from recording import RESULTS, heading, measured_with, write
from warm_vllm import WarmVLLM

import msft
from msft import names
from msft.data.tasks import build_task
from msft.generation import PrefixCachedLM
from msft.generation.options import greedy
from msft.loss.losses import TokenLosses
from msft.loss.tokens import tokenize
from msft.packing.products import served
from msft.settings import DTYPES

BATCHES = (8, 32)  # HFLM's; the faster one counts
NEW_TOKENS, GROUP, RATE, STEP = 256, 4, 1e-4, 16


def teach(model, rows: list, steps: int, rng: random.Random) -> None:
    """Trains on random rows, some a step."""
    losses = TokenLosses(model, GROUP, 16384, mixed=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    model.train()
    for _ in range(steps):
        losses.gradients(rng.sample(rows, STEP))
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def seconds(work) -> tuple[float, object]:
    """Processor seconds of some work, and what it gives."""
    started = time.process_time()
    given = work()
    return time.process_time() - started, given


def by_precision(folder: str, rows: list, rounds: int) -> dict[str, list[float]]:
    """{precision: processor seconds of forward and backward over the same rows, a round each}, in turn."""
    models = {name: names.load_model(folder, name).train() for name in ("fp32", "bf16")}
    losses = {name: TokenLosses(model, GROUP, 16384) for name, model in models.items()}
    losses["mixed"] = TokenLosses(models["fp32"], GROUP, 16384, mixed=True)
    times: dict[str, list[float]] = {name: [] for name in losses}
    for _ in range(rounds):
        for name, of in losses.items():
            times[name].append(seconds(lambda of=of: of.gradients(rows))[0])
            of.model.zero_grad(set_to_none=True)
    return times


def former_answers(model, tokenizer, requests: dict) -> dict[str, list[list[int]]]:
    """{task: the token ids of the model's answers}."""
    lm, found = PrefixCachedLM(model, tokenizer, 64), {}
    for name, asked in requests.items():
        prepared = lm.prepare(asked)
        lm.answer(prepared)
        found[name] = [list(ids) for ids in prepared.batches.former]
    return found


def measure(
    model, plain, tokenizer, requests: list, former: list[list[int]], rounds: int, vllm=None, stock_rounds=None
) -> dict:
    """Processor seconds of each way and round, in turn, and how many texts differ from HFLM's.

    plain: the model as HFLM has it, its weights not laid out.  stock_rounds: of HFLM, by far the slowest, where they shall
    be fewer.
    """
    lm = PrefixCachedLM(model, tokenizer, 64)
    stock = {size: HFLM(pretrained=plain, tokenizer=tokenizer, batch_size=size) for size in BATCHES}
    first, further = lm.prepare(requests), lm.prepare(requests)
    trials = {size: seconds(lambda s=size: stock[s].generate_until(requests, disable_tqdm=True)) for size in BATCHES}
    best = min(BATCHES, key=lambda size: trials[size][0])
    wanted = trials[best][1]

    def ours(prepared, drafts: list) -> tuple[float, list[str]]:
        prepared.batches.former[:] = [list(ids) for ids in drafts]
        return seconds(lambda: [answer.text for answer in lm.answer(prepared)])

    ways = {"first": lambda: ours(first, [[] for _ in requests]), "further": lambda: ours(further, former)}
    if vllm:
        ways["vLLM"] = lambda: vllm.generate(requests)
    times: dict = {"HFLM": [trials[best][0]], **{way: [] for way in ways}}
    different = dict.fromkeys(ways, 0)
    for turn in range(rounds):
        if 0 < turn < (stock_rounds or rounds):
            times["HFLM"].append(seconds(lambda: stock[best].generate_until(requests, disable_tqdm=True))[0])
        for way, work in ways.items():
            spent, texts = work()
            times[way].append(spent)
            different[way] += sum(text != other for text, other in zip(texts, wanted, strict=True))
    tokens = sum(len(tokenizer.encode(text)) for text in wanted) / len(wanted)
    return {"items": len(requests), "batch": best, "seconds": times, "different": different, "answer tokens": tokens}


def ratios(case: dict, way: str, peer: str = "HFLM") -> list[float]:
    """How many times as fast as a peer a way was, by round that both took part in."""
    return [slow / fast for slow, fast in zip(case["seconds"][peer], case["seconds"][way], strict=False)]


def span(values: list[float]) -> str:
    """Median and range; one reading alone."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def markdown(result: dict) -> str:
    tasks, ours = result["tasks"], ("first", "further")
    ways = next(iter(tasks.values()))["different"]
    peers = ["HFLM", *(way for way in ways if way not in ours)]
    pairs = [(way, peer) for peer in peers for way in ours]
    sums = {
        way: [sum(values) for values in zip(*(case["seconds"][way] for case in tasks.values()), strict=True)]
        for way in ("HFLM", *ways)
    }
    lines = ["# Evaluation of a pre-trained model on real records", "", heading(result), ""]
    lines += [
        f"{result['model']}, {result['precision']}, {result['steps'][0]} and then {result['steps'][1]} steps of {STEP} rows at {RATE:g}; "
        f"times as fast as HFLM at its best batch of {BATCHES}{' and as a warm vLLM' * (len(peers) > 1)}, at the first and at further "
        f"evaluations of a run: median and range of {result['rounds']} rounds in turn (HFLM: {len(sums['HFLM'])}). "
        "Texts that differ from HFLM's, of all rounds.",
        "",
        f"| task | items | tokens an answer | {' | '.join(f'{way}, against {peer}' for way, peer in pairs)} | "
        f"{' | '.join(f'{way}: texts that differ' for way in ways)} |",
        "|---" * (3 + len(pairs) + len(ways)) + "|",
    ]
    whole = {"items": sum(case["items"] for case in tasks.values()), "seconds": sums}
    whole |= {"different": {way: sum(case["different"][way] for case in tasks.values()) for way in ways}}
    for name, case in (tasks if len(tasks) == 1 else {**tasks, "all": whole}).items():
        fast = " | ".join(span(ratios(case, *pair)) for pair in pairs)
        tokens = f"{case['answer tokens']:.0f}" if "answer tokens" in case else ""
        different = " | ".join(str(case["different"][way]) for way in ways)
        lines.append(f"| {name} | {case['items']} | {tokens} | {fast} | {different} |")
    if "vllm" in result:
        lines += ["", f"{result['vllm']}: its start takes {result['vllm start']:.0f} processor seconds more."]
    lines += [
        "",
        f"A training step of {STEP} rows, {result['step tokens']} tokens: share of the processor seconds in fp32,",
        "",
    ]
    lines += ["| precision | share |", "|---|---|"]
    for name in ("mixed", "bf16"):
        shares = [taken / of for taken, of in zip(result["step"][name], result["step"]["fp32"], strict=True)]
        lines.append(f"| {name} | {span(shares)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a folder or hub id")
    parser.add_argument("--data", default=None, help="a folder of the benchmarks in hub format; else the hub")
    parser.add_argument("--mixture", default="paper-10")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of the weights that answer")
    parser.add_argument("--vllm", help="the Python of an environment with vLLM")
    parser.add_argument("--items", type=int, default=16)
    parser.add_argument("--steps", type=int, nargs=2, default=[40, 10], help="before, and between two evaluations")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hflm-rounds", type=int, help="where fewer of HFLM shall do")
    parser.add_argument("--one-call", action="store_true", help="all tasks in one call, as a run evaluates them")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    torch.manual_seed(20)
    rng = random.Random(20)
    model, tokenizer = names.load_model(options.model, "fp32"), names.load_tokenizer(options.model)
    model.generation_config = greedy(model, tokenizer)
    sizes = {"train_size": 200, "test_size": options.items, "validation_size": 0, "confirmation_size": 0}
    mixture = msft.load_mixture(options.mixture, tokenizer=tokenizer, data_dir=options.data, **sizes)
    rows = [row for sub in mixture for row in tokenize(tokenizer, sub.train)]
    requests = {sub.name: build_task(sub, sub.test, NEW_TOKENS).instances for sub in mixture}
    if options.one_call:
        requests = {f"{len(requests)} tasks in one call": list(itertools.chain(*requests.values()))}
    some = rng.sample(rows, STEP)
    step = by_precision(options.model, some, options.rounds)
    precision = SimpleNamespace(weights="fp32", answers=options.precision, adapter=None)
    teach(model, rows, options.steps[0], rng)
    with served(model, precision):
        former = former_answers(model, tokenizer, requests)
    teach(model, rows, options.steps[1], rng)
    tasks, peer, more = {}, None, {}
    plain = copy.deepcopy(model).to(getattr(torch, DTYPES[options.precision]))
    with served(model, precision), tempfile.TemporaryDirectory() as folder:
        if options.vllm:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            peer = WarmVLLM(options.vllm, folder, {"fp32": "float32", "bf16": "bfloat16"}[options.precision])
            more = {"vllm": peer.version, "vllm start": peer.start}
        for name, asked in requests.items():
            tasks[name] = measure(
                model, plain, tokenizer, asked, former[name], options.rounds, peer, options.hflm_rounds
            )
            print(
                name,
                tasks[name]["different"],
                {way: span(ratios(tasks[name], way)) for way in tasks[name]["different"]},
                flush=True,
            )
        if peer:
            peer.close()
    result = {
        "command": f"python benchmarks/real_model.py --model <folder> --data <folder>{' --vllm <python>' * bool(peer)} --precision "
        f"{options.precision} --items {options.items} --steps {options.steps[0]} {options.steps[1]} --rounds {options.rounds}"
        + (f" --hflm-rounds {options.hflm_rounds}" if options.hflm_rounds else "")
        + " --one-call" * options.one_call,
        "threads": 1,
        **measured_with("msft", "torch", "transformers", "lm_eval"),
        "model": Path(options.model).name,
        "precision": options.precision,
        "steps": options.steps,
        "rounds": options.rounds,
        "step": step,
        "step tokens": sum(len(row.ids) for row in some),
        "tasks": tasks,
        **more,
    }
    name = "real_model" + "_bf16" * (options.precision == "bf16") + "_one_call" * options.one_call
    write(options.results, name, result, markdown(result))


if __name__ == "__main__":
    main()
