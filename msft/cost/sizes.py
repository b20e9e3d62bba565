"""What a run is made of, known before it starts: parameters, examples and tokens. No network, no GPU, no torch."""

import dataclasses
import functools
import json
import math
from pathlib import Path

import yaml

from msft import names, tiny
from msft.benchmarks import paper_mixtures
from msft.config import RunConfig
from msft.errors import ModelError


@dataclasses.dataclass(frozen=True)
class SetSize:
    """One sub-dataset: train examples, test items, items that decisions are taken on besides (validation).

    tokens: mean of a train example, EOS included.  item_tokens: mean of a test item, question and answer; the five
    shots are shared and not counted, as in Table 7.
    """

    name: str
    train: int
    items: int
    selection_items: int
    tokens: float
    item_tokens: float


@dataclasses.dataclass(frozen=True)
class Sizes:
    """A run's model and data.

    shape: layers, hidden, heads, kv_heads, head (size), inner, vocab; None where it is not known.
    exact: whether the tokens are counted on the very data.
    """

    parameters: int
    shape: dict | None
    sets: tuple[SetSize, ...]
    exact: bool


@functools.cache
def table() -> dict:
    """sizes.yaml: models, tokens, file_share."""
    return yaml.safe_load(Path(__file__).with_name("sizes.yaml").read_text(encoding="utf-8"))


def parameters_of(shape: dict) -> int:
    """Parameters of a Qwen2, Qwen3 or OLMo 2 model; tied embeddings count once."""
    hidden, head = shape["hidden"], shape["head"]
    queries, keys = shape["heads"] * head, shape["kv_heads"] * head
    attention = 2 * hidden * queries + 2 * hidden * keys
    # biases of Qwen2, norms of queries and keys in the others
    attention += {"qwen2": queries + 2 * keys, "qwen3": 2 * head, "olmo2": queries + keys}[shape["kind"]]
    layer = attention + 3 * hidden * shape["inner"] + 2 * hidden
    return shape["vocab"] * hidden * (1 if shape["tied"] else 2) + shape["layers"] * layer + hidden


def sizes_of(config: RunConfig) -> Sizes:
    """Model and data of a run. Raises DataError or ModelError for what can neither be looked up nor read here."""
    determining = ("model", "mixture", "train_size", "test_size", "validation_size", "data_dir", "select_on")
    determining += ("max_tokens", "max_prompt_tokens", "model_revision")
    return _sizes(*(getattr(config, name) for name in determining))


@functools.cache
def _sizes(model, mixture, train, test, validation, data_dir, select_on, max_tokens, max_prompt, revision) -> Sizes:
    shape = table()["models"].get(model)
    folder = None if shape else _folder(model, revision)
    parameters = parameters_of(shape) if shape else _count(folder)
    shape = shape or _shape(folder)
    validates = select_on == "validation"
    known = mixture in paper_mixtures.NAMES and not data_dir
    if known or (mixture in tiny.MIXTURES and shape and shape.get("tokens") == "tiny"):
        counts = _paper_counts(mixture, train, test, validation) if known else _tiny_counts(mixture)
        means = table()["tokens"][(shape or {}).get("tokens", "qwen")]
        sets = tuple(
            SetSize(
                name,
                n,
                items,
                held * validates,
                means.get(kind, means["mean"])[0],
                sum(means.get(kind, means["mean"])[1:]),
            )
            for name, kind, n, items, held in counts
        )
        return Sizes(parameters, shape, sets, not known)
    return Sizes(
        parameters,
        shape,
        _read(model, mixture, train, test, validation, data_dir, validates, max_tokens, max_prompt),
        True,
    )


def _paper_counts(mixture: str, *asked):
    """(name, name in the table, train, test, validation) of each sub-dataset, where the hub has enough."""
    sizes = (900, 200, 100) if mixture == "medmcqa-21" else (1800, 200, 200)
    sizes = [size if given is None else given for size, given in zip(sizes, asked, strict=True)]
    if mixture == "medmcqa-21":
        return [(subject, "medmcqa", *sizes) for subject in paper_mixtures.SUBJECTS]
    return [(b.name, b.name, *sizes) for b in paper_mixtures.mixture_benchmarks(mixture)]


def _tiny_counts(mixture: str):
    subs = tiny.make_mixture(mixture)
    return [(sub.name, sub.name, len(sub.train), len(sub.test), len(sub.validation)) for sub in subs]


def _read(model, mixture, train, test, validation, data_dir, validates, max_tokens, max_prompt) -> tuple[SetSize, ...]:
    """Counts the data with the model's own tokenizer; what was counted before is remembered beside the tiny models."""
    from msft.data.example import training_text
    from msft.loss.tokens import fit_mixture, tokenize

    tokenizer = names.load_tokenizer(names.model_source(model))
    asked = {"train_size": train, "test_size": test, "validation_size": validation, "data_dir": data_dir}
    limits = {"max_tokens": max_tokens, "max_prompt_tokens": max_prompt}
    given = {name: value for name, value in asked.items() if value is not None}
    loaded = names.load_mixture(mixture, tokenizer=tokenizer, **given, **limits)
    examples, fitting, _ = fit_mixture(tokenizer, loaded, max_tokens, max_prompt)
    sets = []
    for sub in fitting:
        rows, items = examples[sub.name], tokenize(tokenizer, sub.test)
        asked_of = tokenizer([training_text(example)[0] for example in sub.test])["input_ids"]
        item = sum(map(len, asked_of)) + sum(row.targets for row in items)
        tokens = sum(len(row.ids) for row in rows) / len(rows)
        held = len(sub.validation) * validates
        sets.append(SetSize(sub.name, len(rows), len(sub.test), held, tokens, item / len(sub.test)))
    return tuple(sets)


def _folder(model: str, revision: str | None) -> Path:
    """Where a model's files are on this machine: the folder given, or the hub's cache."""
    source = Path(names.model_source(model))
    if source.is_dir():
        return source
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model, "config.json", revision=revision)
    if not isinstance(found, str):
        known = ", ".join(table()["models"])
        raise ModelError(
            f"{model!r} is not on this machine, and its size is not known. Known: {known}; or give a folder"
        )
    return Path(found).parent


def _count(folder: Path) -> int:
    """Parameters in a folder's safetensors files, by their headers."""
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        total += sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    if not total:
        raise ModelError(f"{folder} has no safetensors files, so its parameters cannot be counted")
    return total


def _shape(folder: Path) -> dict | None:
    """The shape that a config.json names in the way of the Llama family, or None."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    fields = {"layers": "num_hidden_layers", "hidden": "hidden_size", "heads": "num_attention_heads"}
    fields |= {"inner": "intermediate_size", "vocab": "vocab_size"}
    if any(not config.get(name) for name in fields.values()):
        return None
    shape = {key: config[name] for key, name in fields.items()}
    shape["kv_heads"] = config.get("num_key_value_heads") or shape["heads"]
    return {**shape, "head": config.get("head_dim") or shape["hidden"] // shape["heads"]}
