"""Training against TRL's SFTTrainer and against its own floor, interleaved in one process.

    pip install -c constraints.txt trl==1.16.0     # no dependency of this package
    python benchmarks/training.py --data <folder of the ten benchmarks in hub format> --tokenizer <tokenizer.json>
    python benchmarks/training.py                  # made-up rows of the same lengths instead
    python benchmarks/training.py --model <folder> --data <folder> --batch 16     # a pre-trained model: training_real.{json,md}
    python benchmarks/training.py --precision mixed ...     # fp32 weights, bf16 products: ..._mixed.{json,md}; or bf16 weights
    python benchmarks/training.py --layers 1 --width 32 --vocabulary 500 --rounds 1 --curve 2 --results runs/check     # a check

One optimizer step over 64 examples, the same rows, weights and precision for all (mixed is TRL's bf16=True); tokens per
second count no padding. TRL gets the token ids with their labels, so that none tokenises. It runs without gradient
checkpointing, clipping and weight decay, which are its defaults, with the fused AdamW and a constant rate. Its loss is by default the
mean over the tokens of a step; `model_accepts_loss_kwargs = False` makes it the paper's, the mean over micro-batches
of each one's token mean, and at the paper's micro-batch of 4 its losses are compared with ours step by step.
At its best it has what is fastest of OPTIONS. The row 'patched' is that with one function of TRL replaced, so that it
computes logits for answer tokens alone, as it does on a GPU but not on a processor.
The floor is forward, backward and optimizer over rows of one length, as many tokens and targets, nothing padded.
Writes training.{json,md}; of a pre-trained model training_real.{json,md}.
"""

import argparse
import copy
import logging
import math
import random
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from evaluation import SHAPE, VOCABULARY, best_batch, interleaved, make_tokenizer, seconds, sub_datasets
from recording import RESULTS, heading, measured_with, write

from msft import names
from msft.data.example import training_text
from msft.loss.losses import TokenLosses, make_passes
from msft.loss.tokens import Tokens, tokenize
from msft.seeds import order

BATCH, GROUP, RATE = 64, 4, 3e-4
# tokens of question and answer, about those of the ten benchmarks with Qwen2.5's tokenizer
LENGTHS = ((113, 3), (57, 3), (46, 3), (20, 4), (36, 3), (95, 82), (139, 3), (65, 129), (62, 3), (45, 3))
OPTIONS = {
    "micro-batches of 1": {"per_device_train_batch_size": 1},
    "micro-batches of 8, grouped by length": {
        "per_device_train_batch_size": 8,
        "train_sampling_strategy": "group_by_length",
    },
    "padding_free, 2": {"per_device_train_batch_size": 2, "padding_free": True, "max_length": None},
    "padding_free, 4": {"per_device_train_batch_size": 4, "padding_free": True, "max_length": None},
    "padding_free, 8": {"per_device_train_batch_size": 8, "padding_free": True, "max_length": None},
    "packing to 512": {"per_device_train_batch_size": 1, "packing": True, "max_length": 512},
}
PAPER = {"per_device_train_batch_size": GROUP}
# of a loss of ours to TRL's: where products are rounded to three digits, rows in another order give another sum
DIFFERENCE = {"fp32": 1e-4, "mixed": 2e-2, "bf16": 2e-2}


def made_up_rows(count: int, vocabulary: int) -> list[Tokens]:
    """Rows of the paper's lengths with random tokens."""
    rng = random.Random(20)
    rows = []
    for n in range(count):
        prompt, target = LENGTHS[n % len(LENGTHS)]
        prompt = max(8, round(prompt * rng.lognormvariate(-0.1, 0.45)))
        target = target if target < 8 else max(8, round(target * rng.lognormvariate(-0.1, 0.45)))
        ids = tuple(rng.randrange(2, vocabulary) for _ in range(min(prompt + target, 512)))
        rows.append(Tokens(ids, min(prompt, len(ids) - 1)))
    return rows


def load_rows(options, count: int):
    """(rows in the order of a run, size of the vocabulary, what the text is)."""
    data, vocabulary = options.data, options.vocabulary
    if not data:
        rows, size, text = made_up_rows(count * 2, vocabulary), vocabulary, "made-up rows; give --data for real records"
    else:
        train = [e for examples, _ in sub_datasets(data, 4).values() for e in examples]
        if options.model:
            tokenizer = names.load_tokenizer(options.model)
        elif options.tokenizer:
            from transformers import PreTrainedTokenizerFast

            tokenizer = PreTrainedTokenizerFast(tokenizer_file=options.tokenizer, eos_token="<|endoftext|>")
        else:
            tokenizer = make_tokenizer("".join(training_text(e)) for e in train)
        rows, size, text = tokenize(tokenizer, train), max(vocabulary, len(tokenizer)), "real records"
    chosen = order(20, 0, 0, ["all"], np.arange(len(rows)))[:count]
    return [rows[i] for i in chosen], size, text


def make_model(options, vocabulary: int):
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {**SHAPE, "vocab_size": vocabulary, "pad_token_id": 0, "eos_token_id": 0, "bos_token_id": None}
    shape |= {"hidden_size": options.width, "num_hidden_layers": options.layers}
    shape["intermediate_size"] = round(options.width * 2.6875)
    torch.manual_seed(20)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(options.kind, **shape)).train()


def optimizer_of(model):
    return torch.optim.Adam(model.parameters(), lr=RATE, betas=(0.9, 0.999), eps=1e-8, fused=True)


def ours(model, rows, batch: int = BATCH, mixed: bool = False):
    """A function that runs one optimizer step over each batch of rows and gives their losses."""
    losses, optimizer = TokenLosses(model, GROUP, 16384, mixed), optimizer_of(model)

    def run() -> list[float]:
        found = []
        for first in range(0, len(rows), batch):
            found.append(losses.gradients(rows[first : first + batch])[0])
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return torch.stack(found).tolist()

    return run


def floor(model, rows, batch: int, mixed: bool = False):
    """A function that trains on rows of the mean length, as many tokens and targets, in plain torch."""
    tokens, targets = sum(len(row.ids) for row in rows), sum(row.targets for row in rows)
    length = round(tokens / len(rows))
    passes = max(1, round(tokens / (batch * length)))
    ids = torch.randint(1, model.config.vocab_size, (batch, length))
    places = torch.linspace(0, batch * length - 1, max(1, round(targets / passes))).long()
    wanted = torch.randint(1, model.config.vocab_size, places.shape)
    optimizer = optimizer_of(model)

    def run():
        for _ in range(passes):
            with torch.autocast(ids.device.type, torch.bfloat16, enabled=mixed):
                hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)[places]
                loss = torch.nn.functional.cross_entropy(model.lm_head(hidden), wanted)
            loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    # a whole number of passes holds a few tokens more or less
    return run, tokens / (passes * batch * length)


def trl_trainer(model, rows, batch: int, **settings):
    """An SFTTrainer over a copy of the model that makes one step of every batch of rows, in their order."""
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    records = [
        {"input_ids": list(r.ids), "labels": [-100] * r.start + list(r.ids[r.start :])} for r in rows
    ]  # labels of -100 are no targets: completion-only loss
    settings = {"train_sampling_strategy": "sequential", **settings}
    steps = math.ceil(len(rows) / batch)
    # packed rows are fewer than the examples: one step holds them all
    accumulation = batch if settings.get("packing") else batch // settings["per_device_train_batch_size"]
    config = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        learning_rate=RATE,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        weight_decay=0.0,
        max_grad_norm=0.0,
        gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        num_train_epochs=1,
        gradient_accumulation_steps=accumulation,
        **{"max_length": 1024, "bf16": False, **settings},
    )
    from tokenizers import Tokenizer, models

    words = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<eos>": 0}, unk_token="<eos>")),
        eos_token="<eos>",
        pad_token="<eos>",
    )
    trainer = SFTTrainer(
        model=copy.deepcopy(model), args=config, train_dataset=Dataset.from_list(records), processing_class=words
    )
    trainer.model_accepts_loss_kwargs = False
    assert settings.get("packing") or steps * batch >= len(rows)
    return trainer


def trl_step(model, rows, settings, patched: bool = False, batch: int = BATCH) -> tuple[float, float, list[float]]:
    """(seconds of training, seconds of preparation, losses)."""
    import trl.trainer.utils

    compact = mock.patch.object(trl.trainer.utils, "_use_triton", lambda device: True) if patched else None
    started = time.perf_counter()
    trainer = trl_trainer(model, rows, batch, **settings)
    prepared = time.perf_counter() - started
    if compact:
        compact.start()
    try:
        trained = seconds(trainer.train)
    finally:
        if compact:
            compact.stop()
    return trained, prepared, [log["loss"] for log in trainer.state.log_history if "loss" in log]


def padding(model, rows) -> dict[str, float]:
    """Padding tokens for each real one: ours, of which attention alone has some, and micro-batches of 4."""
    real = sum(len(row.ids) for row in rows)
    inside = sum(p.rows.body.queries.numel() for p in make_passes(rows, GROUP, 16384, model))
    fours = [rows[first : first + GROUP] for first in range(0, len(rows), GROUP)]
    padded = sum(max(len(row.ids) for row in part) * len(part) for part in fours)
    return {"ours, in attention": inside / (real - len(rows)) - 1, "micro-batches of 4": padded / real - 1}


def markdown(result: dict) -> str:
    times, tokens, batch = result["seconds"], result["tokens"], result["batch"]
    lines = [
        "# Training against TRL's SFTTrainer",
        "",
        f"{heading(result)} One step over {batch} examples of {tokens / batch:.0f} tokens, {result['targets']} of {tokens} in the loss, {result['precision']} "
        f"({result['text']}); medians of {result['rounds']} interleaved rounds.",
        "",
        "| | seconds a step | tokens a second | times ours |",
        "|---|---|---|---|",
    ]
    names = {
        "ours": "ours",
        "floor": f"floor, rows of one length, batches of {result['floor_batch']}",
        "paper": "TRL, the paper's micro-batches of 4",
        "best": f"TRL at its best ({result['best']})",
        "patched": "the same, patched to logits of answer tokens alone",
    }
    for name, what in names.items():
        if name in times:
            lines.append(
                f"| {what} | {times[name]:.2f} | {tokens / times[name]:.0f} | {times[name] / times['ours']:.2f} |"
            )
    lines += ["", f"Ours is {times['ours'] / times['floor']:.2f} times the floor."]
    pads = result["padding"]
    lines.append(
        f"Padding for each real token: {pads['ours, in attention']:.1%} in our attention and none elsewhere, "
        f"{pads['micro-batches of 4']:.0%} in micro-batches of 4."
    )
    if "curve" in result:
        curve = result["curve"]
        lines.append(
            f"Losses of {len(curve['ours'])} steps differ from TRL's at the paper's settings by at most "
            f"{curve['difference']:.1e}, relative."
        )
        lines.append(
            f"TRL's preparation before training takes {result['prepared']:.2f} s more; ours is inside the step."
        )
        lines += ["", "| TRL's options tried | seconds a step |", "|---|---|"]
        lines += [f"| {name} | {value:.2f} |" for name, value in result["searched"].items()]
    else:
        lines.append("TRL: not measured.")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=None, help="a folder of the ten benchmarks in hub format")
    parser.add_argument("--tokenizer", default=None, help="a tokenizer.json, with --data")
    parser.add_argument("--model", default=None, help="a folder with a pre-trained model, with --data")
    parser.add_argument("--batch", type=int, default=BATCH, help="examples of a step")
    parser.add_argument("--precision", default="fp32", choices=tuple(DIFFERENCE))
    parser.add_argument("--kind", default="qwen2", choices=("qwen2", "qwen3", "olmo2", "llama"))
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY, help="of the model, at least")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--curve", type=int, default=6, help="steps of the loss curve that is compared with TRL's")
    parser.add_argument("--without-trl", action="store_true", help="ours and the floor alone")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    batch = options.batch
    rows, vocabulary, text = load_rows(options, batch * options.curve)
    model = names.load_model(options.model, "fp32").train() if options.model else make_model(options, vocabulary)
    model = model.bfloat16() if options.precision == "bf16" else model
    mixed, step = options.precision == "mixed", rows[:batch]
    result = {
        "command": "python benchmarks/training.py"
        + (" --data <folder>" if options.data else "")
        + (" --tokenizer <file>" if options.tokenizer else "")
        + (" --model <folder>" if options.model else "")
        + (f" --batch {batch}" if batch != BATCH else "")
        + (f" --precision {options.precision}" if options.precision != "fp32" else "")
        + (f" --rounds {options.rounds}" if options.rounds != 5 else ""),
        "threads": torch.get_num_threads(),
        **measured_with("torch", "transformers", *([] if options.without_trl else ["trl"])),
        "rounds": options.rounds,
        "text": text,
        "precision": options.precision,
        "model": {
            "kind": model.config.model_type,
            "layers": model.config.num_hidden_layers,
            "width": model.config.hidden_size,
            "vocabulary": model.config.vocab_size,
        },
        "batch": batch,
        "tokens": sum(len(row.ids) for row in step),
        "targets": sum(row.targets for row in step),
        "padding": padding(model, step),
    }
    sizes = (8, 12, 24)
    size = best_batch(lambda n: floor(copy.deepcopy(model), step, n, mixed)[0], sizes)
    run_floor, scale = floor(copy.deepcopy(model), step, size, mixed)
    functions = {"ours": ours(copy.deepcopy(model), step, batch, mixed), "floor": run_floor}
    for function in functions.values():
        function()  # Adam's state is there from the first step on
    timed: dict[str, list[float]] = {}
    prepared: list[float] = []
    if not options.without_trl:
        paper, tried = {**PAPER, "bf16": mixed}, {name: {**more, "bf16": mixed} for name, more in OPTIONS.items()}
        wanted = trl_step(model, rows, paper, batch=batch)[2]
        found = ours(copy.deepcopy(model), rows, batch, mixed)()
        difference = max(abs(a / b - 1) for a, b in zip(found, wanted, strict=True))
        assert difference <= DIFFERENCE[options.precision], f"the loss curve differs from TRL's: {found} and {wanted}"
        result["curve"] = {"ours": found, "trl": wanted, "difference": difference}
        result["searched"] = {name: trl_step(model, step, settings, batch=batch)[0] for name, settings in tried.items()}
        result["best"] = min(result["searched"], key=result["searched"].get)

        def timing(name, *arguments):
            def run():
                trained, before, _ = trl_step(model, step, *arguments, batch=batch)
                timed.setdefault(name, []).append(trained)
                prepared.append(before)

            return run

        functions["paper"] = timing("paper", paper)
        functions["best"] = timing("best", tried[result["best"]])
        functions["patched"] = timing("patched", tried[result["best"]], True)
    else:
        result["best"] = ""
    times = interleaved(functions, options.rounds)
    times |= {name: statistics.median(values) for name, values in timed.items()}
    times["floor"] *= scale
    result |= {"seconds": times, "floor_batch": size}
    if prepared:
        result["prepared"] = statistics.median(prepared)
    name = "training_real" if options.model else "training"
    name += f"_{options.precision}" if options.precision != "fp32" else ""
    write(options.results, name, result, markdown(result))


if __name__ == "__main__":
    main()
