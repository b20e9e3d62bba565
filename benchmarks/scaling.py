"""Time of training and evaluation against mixture size, test items and model size.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --width 32 --vocabulary 500 --rounds 1 --results runs/check     # a check

Made-up text of the paper's lengths; one thing grows at a time. The slope is that of the logarithms: 1 is a time that
grows as the thing does. Training is one pass over the mixture, evaluation all items behind average-length shots. The
model's size is its parameters without the embedding. Writes scaling.{json,md}.
"""

import argparse
import random
from pathlib import Path

import evaluation
import numpy as np
import torch
from evaluation import answered_anew, choose_shots, generation_requests, interleaved, make_tokenizer, sub_datasets
from recording import RESULTS, heading, measured_with, write
from training import made_up_rows, make_model, ours

from msft.data.example import shots_text, training_text
from msft.generation.lm import PrefixCachedLM

TASKS, ITEMS, LAYERS = (2, 4, 8), (4, 8, 16), (1, 2, 4)
EXAMPLES = 16  # of a sub-dataset


def functions_of(options, tokenizer, tasks: int, items: int, layers: int):
    """(parameters without the embedding, a function that trains, one that evaluates)."""
    options.layers = layers
    model = make_model(options, options.vocabulary)
    size = sum(p.numel() for p in model.parameters()) - model.get_input_embeddings().weight.numel()
    data = dict(list(sub_datasets(None, items).items())[:tasks])
    rng = random.Random(20)
    shots = {name: shots_text(choose_shots(part, tokenizer, "average", rng)) for name, (part, _) in data.items()}
    lm = PrefixCachedLM(model, tokenizer, 512)
    prepared = lm.prepare(generation_requests(data, shots))
    return (
        size,
        ours(model, made_up_rows(EXAMPLES * tasks, model.config.vocab_size)),
        lambda: answered_anew(lm, prepared),
    )


def slope(sizes, times) -> float:
    """Slope of log time against log size, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def markdown(result: dict) -> str:
    lines = [
        "# How the time grows",
        "",
        f"{heading(result)} Medians of {result['rounds']} interleaved rounds, in seconds.",
        "",
        "| what grows | sizes | training (s) | slope | evaluation (s) | slope |",
        "|---|---|---|---|---|---|",
    ]
    for what, grid in result["grids"].items():
        sizes = ", ".join(f"{size:,}" for size in grid["sizes"])
        cells = []
        for part in ("training", "evaluation"):
            times = grid.get(part)
            cells += [", ".join(f"{t:.2f}" for t in times), f"{slope(grid['sizes'], times):.2f}"] if times else ["", ""]
        lines.append(f"| {what} | {sizes} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", default="qwen2", choices=("qwen2", "qwen3", "olmo2", "llama"))
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    data = sub_datasets(None, 1)
    evaluation.VOCABULARY = options.vocabulary
    tokenizer = make_tokenizer("".join(training_text(e)) for part, _ in data.values() for e in part)
    middle = (TASKS[1], ITEMS[1], LAYERS[1])
    points = {(n, *middle[1:]) for n in TASKS} | {(middle[0], n, middle[2]) for n in ITEMS}
    points = sorted(points | {(*middle[:2], n) for n in LAYERS})
    made = {point: functions_of(options, tokenizer, *point) for point in points}
    functions = {("training", p): m[1] for p, m in made.items()} | {("evaluation", p): m[2] for p, m in made.items()}
    for function in functions.values():
        function()
    times = interleaved(functions, options.rounds)
    along = {
        "sub-datasets": [(n, *middle[1:]) for n in TASKS],
        "test items a sub-dataset": [(middle[0], n, middle[2]) for n in ITEMS],
        "parameters (layers 1, 2, 4)": [(*middle[:2], n) for n in LAYERS],
    }
    sizes = {"sub-datasets": TASKS, "test items a sub-dataset": ITEMS}
    grids = {}
    for what, line in along.items():
        parts = ("evaluation",) if what.startswith("test items") else ("training", "evaluation")
        grids[what] = {"sizes": list(sizes.get(what, [made[p][0] for p in line]))}
        grids[what] |= {part: [times[part, p] for p in line] for part in parts}
    result = {
        "command": "python benchmarks/scaling.py",
        "threads": torch.get_num_threads(),
        **measured_with("torch", "transformers", "lm_eval"),
        "rounds": options.rounds,
        "grids": grids,
    }
    write(options.results, "scaling", result, markdown(result))


if __name__ == "__main__":
    main()
