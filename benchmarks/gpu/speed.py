"""Training and evaluation of Qwen2.5-0.5B and 3B from their shapes, random weights, made-up text, against TRL and HFLM.

Training: tokens a second without padding, and the share of the card's dense bf16 peak at appendix F's 6 N D (logits
and last layer are computed for target tokens alone, so that the card does less than 6 N D). Evaluation: items a
second of ten five-shot tasks with short shots once the answers have the format. The hours of a run are those of SFT's
10 epochs and 40 evaluations, times what Table 7 says of each method and model.
"""

import importlib.util
import random
import statistics
import time

import torch
from evaluation import answered_anew, choose_shots, generation_requests
from training import BATCH, GROUP, OPTIONS, PAPER, made_up_rows, trl_trainer

from msft.data.example import shots_text
from msft.generation.lm import PrefixCachedLM
from msft.loss.losses import TokenLosses
from msft.loss.tokens import tokenize
from msft.results.flops import TRAIN

# dense bf16 FLOPs a second by what the device's name holds, from the makers' data sheets; the first match counts
PEAKS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "GH200": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
}
COMMON = {"vocab_size": 151_936, "max_position_embeddings": 32_768, "tie_word_embeddings": True}
SHAPES = {
    "Qwen2.5 0.5B": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        **COMMON,
    },
    "Qwen2.5 3B": {
        "hidden_size": 2048,
        "intermediate_size": 11_008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        **COMMON,
    },
}
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    **COMMON,
    "vocab_size": 33_000,
    "max_position_embeddings": 2048,
}
# of TRL's settings, for a model of which each copy takes long
FEW = {"the paper's micro-batches of 4": PAPER, "padding_free, 8": OPTIONS["padding_free, 8"]}
# the paper's SFT: examples and tokens of an epoch, epochs, items of an evaluation, evaluations
EXAMPLES, EXAMPLE_TOKENS, EPOCHS, ITEMS, EVALUATIONS = 18_000, 90, 10, 2_000, 40


def timed(device, function) -> float:
    """Seconds of a function with all that it started on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def train(model, steps, rate: float = 1e-4):
    """A function that runs an optimizer step over each list of rows; nothing in it waits for the device."""
    losses = TokenLosses(model, GROUP, 16384)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, fused=True)

    def run():
        for rows in steps:
            losses.gradients(rows)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return run


def measure(name: str, shape: dict, device, options, data, tokenizer) -> dict:
    """Speed of training and evaluation of one model."""
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoConfig, AutoModelForCausalLM

    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.manual_seed(20)
    config = AutoConfig.for_model("qwen2", **shape, pad_token_id=0, eos_token_id=0, bos_token_id=None)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype).train()
    parameters = sum(p.numel() for p in model.parameters())
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    rows = made_up_rows(BATCH * options.steps, config.vocab_size)
    steps = [rows[first : first + BATCH] for first in range(0, len(rows), BATCH)]
    tokens = sum(len(row.ids) for row in rows)
    run = train(model, steps)
    run()  # Adam's state, kernels and memory are there from the first step on
    seconds = statistics.median(timed(device, run) for _ in range(options.rounds))
    found = {"parameters": parameters, "tokens a second": tokens / seconds}
    if device.type == "cuda":
        found["training memory (GiB)"] = torch.cuda.max_memory_allocated(device) / 2**30
    found["FLOPs a second"] = TRAIN * parameters * tokens / seconds
    if importlib.util.find_spec("trl"):
        peers = {"the paper's micro-batches of 4": PAPER} | OPTIONS if parameters < 10**9 else FEW
        found["TRL, tokens a second"] = {
            peer: tokens / timed(device, trl_trainer(model, rows, BATCH, **settings).train)
            for peer, settings in peers.items()
        }
    # until the answers have the format
    examples = tokenize(tokenizer, [e for part, _ in data.values() for e in part])
    rng = random.Random(20)
    train(model, [rng.sample(examples, min(BATCH, len(examples))) for _ in range(options.teach)])()
    model.eval()
    rng = random.Random(20)
    shots = {task: shots_text(choose_shots(part, tokenizer, "short", rng)) for task, (part, _) in data.items()}
    requests = generation_requests(data, shots)
    ours = PrefixCachedLM(model, tokenizer, 512)
    prepared = ours.prepare(requests)
    texts = answered_anew(ours, prepared)
    seconds = statistics.median(timed(device, lambda: answered_anew(ours, prepared)) for _ in range(options.rounds))
    stock = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=64)
    stock.generate_until(requests[:64], disable_tqdm=True)
    wanted: list[str] = []
    took = timed(device, lambda: wanted.extend(stock.generate_until(requests, disable_tqdm=True)))
    return found | {
        "items a second": len(requests) / seconds,
        "HFLM, items a second": len(requests) / took,
        "in the format": sum(text.count("####") == 1 for text in texts) / len(texts),
        "equal texts": sum(a == b for a, b in zip(texts, wanted, strict=True)) / len(texts),
    }


def hours(found: dict[str, dict]) -> dict[str, float]:
    """Estimated hours of one mSFT run of each measured model and of all of Table 2."""
    from paper_figures import reported_numbers

    table = reported_numbers.table("table7_flops").set_index("model").drop("Average")
    table = table.apply(lambda column: column.astype(float))
    sft = {
        name: EXAMPLES * EXAMPLE_TOKENS * EPOCHS / f["tokens a second"] + ITEMS * EVALUATIONS / f["items a second"]
        for name, f in found.items()
    }
    estimated = {f"mSFT, {n}": s / 3600 * table.loc[n, "mSFT (C=3)"] / table.loc[n, "SFT"] for n, s in sft.items()}
    # a model that was not measured takes the seconds for each FLOP of the largest that was
    largest = max(sft, key=lambda name: found[name]["parameters"])
    methods = ["SFT", "Continual SFT", "DynamixSFT", "IES", "mSFT (C=3)"]
    total = 0.0
    for model in table.index:
        base = sft.get(model, sft[largest] * table.loc[model, "SFT"] / table.loc[largest, "SFT"])
        total += base * table.loc[model, methods].sum() / table.loc[model, "SFT"]
    return estimated | {"Table 2, six models and five trained methods": total / 3600}


def table(models: dict[str, dict], peak: float | None) -> list[str]:
    """Lines of a table, a column a model."""
    rows = {
        "training, tokens a second": lambda f: f"{f['tokens a second']:,.0f}",
        "share of the dense bf16 peak at 6 N D": lambda f: (
            f"{f['FLOPs a second'] / peak:.0%}" if peak else "unknown peak"
        ),
        "peak device memory of training (GiB)": lambda f: (
            f"{f['training memory (GiB)']:.1f}" if "training memory (GiB)" in f else "not measured"
        ),
        "evaluation, items a second": lambda f: f"{f['items a second']:.0f}",
        "lm-eval's HFLM, items a second": lambda f: f"{f['HFLM, items a second']:.1f}",
        "times HFLM": lambda f: f"{f['items a second'] / f['HFLM, items a second']:.1f}",
        "texts equal to HFLM's": lambda f: f"{f['equal texts']:.1%}",
    }
    lines = ["| | " + " | ".join(models) + " |", "|---|" + "---|" * len(models)]
    lines += [f"| {what} | " + " | ".join(map(cell, models.values())) + " |" for what, cell in rows.items()]
    for peer in dict.fromkeys(peer for f in models.values() for peer in f.get("TRL, tokens a second", ())):
        speeds = [f["TRL, tokens a second"].get(peer) for f in models.values()]
        cells = [f"{f['tokens a second'] / s:.1f}" if s else "–" for f, s in zip(models.values(), speeds, strict=True)]
        lines.append(f"| times TRL, {peer} | " + " | ".join(cells) + " |")
    return lines
