"""The small base models of the embedded mixtures, pre-trained by a seeded recipe.

The architectures are those of Qwen2, Qwen3 and OLMo 2; the weights come from a minute or two of training on related
text: the mixtures' skills in another surface format (mixtures.related_text).
"""

import hashlib
import inspect
import json
import math
import random
from dataclasses import replace
from pathlib import Path

from paper_figures.instrument import skills, table
from paper_figures.instrument.mixtures import related_text, rows_of
from paper_figures.instrument.skills import share
from paper_figures.instrument.table import DECOYS, EOS, EXTRA, SUBJECTS, TABLE, Row

_ALL = (*TABLE, *EXTRA, *SUBJECTS, *DECOYS)

VOCABULARY = 1200
PAD = "<pad>"
# a space belongs to the word before it: 'A: ' + '#### C' has the tokens of 'A: #### C'
_PIECES = r"[A-Z1-2][.)] |[A-Za-z]+ ?|\d|#+ ?|[^\sA-Za-z\d] ?|\n|[^\S\n]"

_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
    "initializer_range": 0.05,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": None,
}
_RECIPE = {"seed": 20, "learning_rate": 2e-3, "warm_up": 50, "steps": 1000, "batch": 12, "length": 160, "pool": 2400}


def _spec(name: str) -> tuple[str, dict, dict, tuple[Row, ...]]:
    """(model type, shape, recipe, rows of the related text) of a model name."""
    if name == "tiny-smoke":
        # few skills and a small pool: enough to answer some questions after seconds
        recipe = {**_RECIPE, "steps": 250, "pool": 300}
        decoys = [row for row in DECOYS if row.skill in {other.skill for other in rows_of(name)} | {"caller"}]
        return "qwen2", _SHAPE, recipe, (*(replace(row, train=0, test=0) for row in rows_of(name)), *decoys)
    kind = name.removeprefix("tiny-")
    shape = {**_SHAPE, "head_dim": 24} if kind == "qwen3" else _SHAPE
    return kind, shape, _RECIPE, _ALL


def identity(name: str) -> str:
    """A hash of all that determines a base model's weights: architecture, recipe, related text."""
    kind, shape, recipe, rows = _spec(name)
    rng = random.Random(table.SEED)
    texts = [(share(row), [related_text(rng, row) for _ in range(100)]) for row in rows]
    source = [inspect.getsource(part) for part in (build_tokenizer, new_model, pretrain, _pool, _contexts, _optimise)]
    told = [kind, shape, recipe, texts, source]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


def make(name: str, folder: Path) -> None:
    """Pre-trains a base model into a folder in Hugging Face format."""
    model, tokenizer = pretrain(name)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _keep_own_tokenizer(folder, model.config.model_type)


def _keep_own_tokenizer(folder: Path, kind: str) -> None:
    """Makes AutoTokenizer read our tokenizer as it is.

    transformers 5 gives every qwen2 folder Qwen's own pre-tokenizer, whatever its files say, unless the
    config names a remote class; none is named here, so nothing remote is ever loaded. Saving keeps the entry.
    """
    if kind != "qwen2":
        return
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoTokenizer": [None, None]}
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")


def build_tokenizer(rows: tuple[Row, ...] = _ALL, seed: int = table.SEED):
    """A byte-level BPE tokenizer of VOCABULARY tokens, trained on generated text of these rows."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    rng = random.Random(f"{seed} tokenizer")
    texts = ["Q: ", "\nA: ", "#### ", *(f"{c}." for c in "ABCDE")] * 200
    for row in rows:
        for _ in range(400):
            texts += related_text(rng, row)
            item = skills.SKILLS[row.skill](rng, row)
            texts += [item.question, item.answer]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[PAD, EOS],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=EOS, pad_token=PAD, model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def new_model(kind: str, shape: dict):
    """An untrained causal LM of the architecture 'qwen2', 'qwen3' or 'olmo2'."""
    from transformers import AutoConfig, AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape))


def pretrain(name: str):
    """(model, tokenizer) after the seeded recipe; random state and threads stay as they were."""
    import torch

    kind, shape, recipe, rows = _spec(name)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # fixed: the number of threads can change the last bits; more gain little at this size
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(recipe["seed"])
            model, tokenizer = new_model(kind, shape), build_tokenizer()
            _optimise(model, _pool(tokenizer, rows, recipe), [share(row) for row in rows], recipe, name)
    finally:
        torch.set_num_threads(threads)
    return model.eval(), tokenizer


def _pool(tokenizer, rows, recipe) -> list[list[tuple[list[int], list[int]]]]:
    """Per row, `pool` items as (token ids, 1 where the token is part of the answer)."""
    pools = []
    for row in rows:
        rng = random.Random(f"{recipe['seed']} {row.name}")
        items = [related_text(rng, row) for _ in range(recipe["pool"] // (4 if row in SUBJECTS else 1))]
        tokens = iter(tokenizer([text for item in items for text in item])["input_ids"])
        pairs = list(zip(tokens, tokens, strict=True))
        pools.append([(prompt + answer, [0] * len(prompt) + [1] * len(answer)) for prompt, answer in pairs])
    return pools


def _contexts(pools, shares, rng: random.Random, count: int, length: int):
    """Token ids and answer marks [count, length + 1]: each context many items of one row, cut to length."""
    import torch

    ids, marks = [], []
    for pool in rng.choices(pools, shares, k=count):
        tokens, answer, mixed = [], [], rng.random() < 0.5
        while len(tokens) <= length:
            if mixed:
                pool = rng.choices(pools, shares)[0]
            item = pool[int(rng.random() * len(pool))]
            tokens += item[0]
            answer += item[1]
        ids.append(tokens[: length + 1])
        marks.append(answer[: length + 1])
    return torch.tensor(ids), torch.tensor(marks)


def _optimise(model, pools, shares, recipe, name: str) -> None:
    """Next-token training on packed contexts: every answer token, and a light weight on all others."""
    import torch
    from tqdm.auto import tqdm

    rng = random.Random(f"{recipe['seed']} contexts")
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe["learning_rate"], betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    for step in tqdm(range(recipe["steps"]), desc=f"pre-training {name}", unit="step", disable=None):
        # one context in four is long, so that the positions of a five-shot prompt are known
        count, length = recipe["batch"], recipe["length"]
        if step % 4 == 3:
            count, length = count // 2, length * 2
        ids, marks = _contexts(pools, shares, rng, count, length)
        done = step / recipe["steps"]
        rate = min(1.0, (step + 1) / recipe["warm_up"]) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))
        for group in optimizer.param_groups:
            group["lr"] = recipe["learning_rate"] * rate
        hidden = model.model(input_ids=ids[:, :-1]).last_hidden_state
        learnt = marks[:, 1:] == 1  # the rest of an item is drawn at random: nothing to learn from it
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[learnt]), ids[:, 1:][learnt])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
