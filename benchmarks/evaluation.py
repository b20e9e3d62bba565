"""In-loop evaluation against lm-eval's HFLM and against its own floor, side by side in one process.

    python benchmarks/evaluation.py --data <folder of the ten benchmarks in hub format>
    python benchmarks/evaluation.py              # made-up text of the same lengths instead
    python benchmarks/evaluation.py --items 4 --steps 20 --rounds 1 --results runs/check   # a check

Ten tasks, five-shot: a checkpoint trained on the tasks' format with short shots and with shots of average length,
log-likelihoods of answer options behind the average shots, and an untrained checkpoint with short shots. Every text
and every log-likelihood is compared with HFLM's. The floor is plain forward passes, at the best batch, over the tokens
that cannot be avoided: each prefix, each question and each answer token once. Writes evaluation.{json,md}.
"""

import argparse
import copy
import json
import logging
import random
import re
import statistics
import time
from pathlib import Path

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from recording import RESULTS, heading, measured_with, write

from msft.benchmarks import paper_mixtures
from msft.data.example import Example, shots_text, training_text
from msft.data.mixture import draw_shots
from msft.generation.lm import PrefixCachedLM

VOCABULARY = 32_000
SHAPE = {
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
NEW_TOKENS = 32
AVERAGE, LEAST = 100, 400  # tokens of an average example, and of five of them


def sub_datasets(folder: str | None, items: int) -> dict[str, tuple[list[Example], list[Example]]]:
    """{name: (train examples, test items)} of real records, or of made-up ones of the same lengths."""
    if folder:
        mixture = paper_mixtures.load("paper-10", data_dir=folder, train_size=200, test_size=items, validation_size=0)
        return {sub.name: (sub.train, sub.test) for sub in mixture}
    rng = random.Random(20)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(40_000)]

    def example() -> Example:
        answer = rng.choice("ABCD")
        options = ", ".join(f"{letter}. {' '.join(rng.choices(words, k=rng.randint(1, 4)))}" for letter in "ABCD")
        return Example(
            f"{' '.join(rng.choices(words, k=rng.randint(6, 50)))}?\noptions: {options}", f"#### {answer}", answer
        )

    return {f"made up {n}": ([example() for _ in range(200)], [example() for _ in range(items)]) for n in range(10)}


def make_tokenizer(texts):
    """A byte-level BPE tokenizer of VOCABULARY tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")


def teach(model, tokenizer, examples: list[Example], steps: int) -> None:
    """Trains on single examples until the answers have the format."""
    rng, eos = random.Random(20), tokenizer.eos_token_id
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    for _ in range(steps):
        pairs = [training_text(e) for e in rng.sample(examples, 16)]
        prompts, answers = (tokenizer([pair[i] for pair in pairs])["input_ids"] for i in (0, 1))
        rows = [(p + [*a, eos])[-160:] for p, a in zip(prompts, answers, strict=True)]
        ids = torch.full((16, max(map(len, rows))), eos)
        learnt = torch.zeros_like(ids, dtype=torch.bool)
        for r, (row, answer) in enumerate(zip(rows, answers, strict=True)):
            ids[r, : len(row)] = torch.tensor(row)
            learnt[r, max(len(row) - len(answer) - 1, 1) : len(row)] = True
        hidden = model.model(input_ids=ids[:, :-1]).last_hidden_state
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[learnt[:, 1:]]), ids[:, 1:][learnt[:, 1:]])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def choose_shots(train: list[Example], tokenizer, length: str, rng: random.Random, everything=()) -> list[Example]:
    """The five shortest train examples, as the paper's mixtures take them, or five near the average length.

    Where a task's own examples are too short for a prefix of LEAST tokens, its average shots come from `everything`.
    """
    if length == "short":
        return draw_shots(train, seed=20)
    for pool in filter(None, (train, everything)):
        sizes = [len(tokenizer.encode("".join(training_text(e)))) for e in pool]
        ranked = sorted(range(len(pool)), key=lambda i: abs(sizes[i] - max(AVERAGE, statistics.mean(sizes))))
        chosen = rng.sample(ranked[: max(5, len(pool) // 10)], 5)
        if sum(sizes[i] for i in chosen) >= LEAST:
            break
    return [pool[i] for i in chosen]


def generation_requests(data, shots) -> list[Instance]:
    options = {"until": [], "max_gen_toks": NEW_TOKENS, "do_sample": False}
    return [
        Instance(
            "generate_until", {"target": e.target}, (shots[name] + training_text(e)[0], dict(options)), 0, (name, i, 1)
        )
        for name, (_, test) in data.items()
        for i, e in enumerate(test)
    ]


def option_requests(data, shots, tasks: int, items: int) -> list[Instance]:
    """Log-likelihood requests: the text of every option behind the question, of tasks that have options."""
    found, names = [], []
    for name, (_, test) in data.items():
        for i, e in enumerate(test[:items]):
            options = re.findall(r"[A-E]\. (.*?)(?=, [A-E]\. |$)", e.question.rsplit("options: ", 1)[-1])
            if "options: " not in e.question or len(options) < 2:
                continue
            if name not in names:
                if len(names) == tasks:
                    break
                names.append(name)
            context = shots[name] + training_text(e)[0].rstrip()
            found += [Instance("loglikelihood", {}, (context, " " + text), 0, (name, i, 1)) for text in options]
    return found


def floor(model, lm: PrefixCachedLM, requests, batch: int):
    """A function that runs the bare forward passes over the tokens that cannot be avoided."""
    prepared = lm.prepare(requests).batches
    texts = lm.generate_until(requests)
    rows = [(prefix, []) for prefix in prepared.prefixes]
    placed = (pair for batch in prepared.batches for pair in zip(batch.numbers, batch.rows, strict=True))
    for number, row in placed:
        question = prepared.items[number].prompt[row.start :]
        answer = lm.tok_encode(texts[number], add_special_tokens=False)
        rows.append((question + answer, range(len(question) - 1, len(question) + len(answer))))
    rows.sort(key=lambda row: -len(row[0]))
    batches = []
    for first in range(0, len(rows), batch):
        part = rows[first : first + batch]
        width = len(part[0][0])
        ids = torch.tensor([row + [0] * (width - len(row)) for row, _ in part])
        places = torch.tensor([(r, c) for r, (_, columns) in enumerate(part) for c in columns], dtype=torch.long)
        batches.append((ids, places.view(-1, 2)))

    @torch.inference_mode()
    def run():
        for ids, places in batches:
            hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
            if len(places):
                model.lm_head(hidden[places[:, 0], places[:, 1]]).argmax(-1).tolist()

    return run


def answered_anew(lm: PrefixCachedLM, prepared) -> list[str]:
    """The texts of prepared requests, without the answers of the last time as drafts."""
    prepared.batches.former[:] = [[] for _ in prepared.batches.items]
    return [answer.text for answer in lm.answer(prepared)]


def seconds(function) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def interleaved(functions: dict, rounds: int) -> dict[str, float]:
    """Median seconds of each function over rounds in which each runs once."""
    times = [{name: seconds(function) for name, function in functions.items()} for _ in range(rounds)]
    return {name: statistics.median(t[name] for t in times) for name in functions}


def best_batch(make, sizes) -> int:
    """The batch size of the fastest of make(size)(), the better of two runs each."""
    runs = {size: make(size) for size in sizes}
    return min(runs, key=lambda size: min(seconds(runs[size]) for _ in range(2)))


def generation_case(model, tokenizer, requests, rounds: int) -> dict:
    """Ours, HFLM at its best batch size and the floor on the same requests, texts compared."""
    some = requests[:: max(1, len(requests) // 32)]
    best = best_batch(
        lambda n: (
            lambda: HFLM(pretrained=model, tokenizer=tokenizer, batch_size=n).generate_until(some, disable_tqdm=True)
        ),
        (8, 16, 32, 64),
    )
    ours = PrefixCachedLM(model, tokenizer, 512)
    stock = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=best)
    wanted = stock.generate_until(requests, disable_tqdm=True)
    assert ours.generate_until(requests) == wanted, "a text differs from HFLM's"
    prepared = ours.prepare(requests)
    size = best_batch(lambda n: floor(model, ours, requests, n), (8, 16, 32, 64))
    times = interleaved(
        {
            "ours": lambda: answered_anew(ours, prepared),
            "floor": floor(model, ours, requests, size),
            "hflm": lambda: stock.generate_until(requests, disable_tqdm=True),
        },
        rounds,
    )
    prefixes = [len(tokens) for tokens in prepared.batches.prefixes]
    return times | {
        "items": len(requests),
        "hflm_batch": best,
        "floor_batch": size,
        "prefix_tokens": [min(prefixes), max(prefixes)],
        "formatted": sum(text.count("####") == 1 for text in wanted) / len(wanted),
    }


def likelihood_case(model, tokenizer, requests, rounds: int) -> dict:
    best = best_batch(
        lambda n: (
            lambda: HFLM(pretrained=model, tokenizer=tokenizer, batch_size=n).loglikelihood(
                requests[:16], disable_tqdm=True
            )
        ),
        (1, 4, 16, 64),
    )
    ours = PrefixCachedLM(model, tokenizer, 512)
    stock = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=best)
    wanted = stock.loglikelihood(requests, disable_tqdm=True)
    for (p, g), (q, h) in zip(ours.loglikelihood(requests, disable_tqdm=True), wanted, strict=True):
        assert abs(p - q) < 1e-3 and g == h, "a log-likelihood differs from HFLM's"
    times = interleaved(
        {
            "ours": lambda: ours.loglikelihood(requests, disable_tqdm=True),
            "hflm": lambda: stock.loglikelihood(requests, disable_tqdm=True),
        },
        rounds,
    )
    return times | {"items": len(requests), "hflm_batch": best}


def markdown(result: dict) -> str:
    lines = [
        "# Evaluation against lm-eval's HFLM",
        "",
        f"{heading(result)} Medians of {result['rounds']} interleaved rounds; {result['text']}.",
        "",
        "| case | requests | prefix tokens | in the format | ours (s) | HFLM (s) | HFLM's batch | HFLM / ours | ours / floor |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, c in result["cases"].items():
        prefix = "{} to {}".format(*c["prefix_tokens"]) if "prefix_tokens" in c else ""
        formatted = f"{c['formatted']:.0%}" if "formatted" in c else ""
        over = f"{c['ours'] / c['floor']:.2f}" if "floor" in c else ""
        lines.append(
            f"| {name} | {c['items']} | {prefix} | {formatted} | {c['ours']:.2f} | {c['hflm']:.2f} | {c['hflm_batch']} | "
            f"{c['hflm'] / c['ours']:.1f} | {over} |"
        )
    return "\n".join([*lines, "", "Every text and every log-likelihood was equal to HFLM's.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=None, help="a folder of the ten benchmarks in hub format")
    parser.add_argument("--items", type=int, default=32)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kind", default="qwen2", choices=("qwen2", "qwen3", "olmo2", "llama"))
    parser.add_argument(
        "--only", default="", help="run the cases whose name begins with this; the file keeps the others"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    from transformers import AutoConfig, AutoModelForCausalLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    torch.manual_seed(20)
    data = sub_datasets(options.data, options.items)
    train = [e for examples, _ in data.values() for e in examples]
    tokenizer = make_tokenizer("".join(training_text(e)) for e in train)
    shape = {**SHAPE, "vocab_size": VOCABULARY, "pad_token_id": 0, "eos_token_id": 0, "bos_token_id": None}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(options.kind, **shape)).eval()
    rng = random.Random(20)
    shots = {
        length: {name: shots_text(choose_shots(t, tokenizer, length, rng, train)) for name, (t, _) in data.items()}
        for length in ("short", "average")
    }
    untrained = copy.deepcopy(model)
    teach(model, tokenizer, train, options.steps)
    asked = option_requests(data, shots["average"], tasks=3, items=max(2, options.items // 4))
    saved = options.results / "evaluation.json"
    cases = json.loads(saved.read_text(encoding="utf-8"))["cases"] if options.only and saved.is_file() else {}
    for name, subject, length in (
        ("trained, short shots", model, "short"),
        ("trained, average shots", model, "average"),
        ("log-likelihoods, average shots", model, None),
        ("untrained, short shots", untrained, "short"),
    ):
        if not name.startswith(options.only):
            continue
        if length is None:
            cases[name] = likelihood_case(subject, tokenizer, asked, options.rounds)
        else:
            cases[name] = generation_case(subject, tokenizer, generation_requests(data, shots[length]), options.rounds)
        print(name, cases[name], flush=True)
    result = {
        "command": "python benchmarks/evaluation.py" + (" --data <folder>" if options.data else ""),
        "text": "real records" if options.data else "made-up text; give --data for the real records",
        "threads": torch.get_num_threads(),
        **measured_with("torch", "transformers", "lm_eval"),
        "rounds": options.rounds,
        "model": {"kind": options.kind, **shape},
        "cases": cases,
    }
    write(options.results, "evaluation", result, markdown(result))


if __name__ == "__main__":
    main()
