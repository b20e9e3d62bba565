"""What a run is made of, known before it starts: parameters, examples and tokens. No network, no GPU, no torch."""

import dataclasses
import functools
import json
import math
from pathlib import Path

import yaml
from safetensors import safe_open

from msft import adapter, names, tiny
from msft.benchmarks import paper_mixtures
from msft.config import ADAPTER, RunConfig
from msft.data.example import training_text
from msft.errors import ModelError
from msft.prepared import shared

# of config.json, what every model of the Llama family says
_SHAPE = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")


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

    @property
    def all_items(self) -> int:
        """Items of an evaluation."""
        return self.items + self.selection_items


@dataclasses.dataclass(frozen=True)
class Sizes:
    """A run's model, its adapter among the parameters, and data. frozen: parameters that are not trained.
    shape: of config.json _SHAPE, num_key_value_heads and head_dim; None if not known."""

    parameters: int
    shape: dict | None
    sets: tuple[SetSize, ...]
    frozen: int = 0


@functools.cache
def table() -> dict:
    """sizes.yaml: models, tokens, file_share."""
    return yaml.safe_load(Path(__file__).with_name("sizes.yaml").read_text(encoding="utf-8"))


def sizes_of(config: RunConfig) -> Sizes:
    """Model and data of a run. Raises DataError or ModelError for what can neither be looked up nor read here."""
    return _sizes(shared(config))


@functools.cache
def _sizes(config: RunConfig) -> Sizes:
    if config.adapter:
        sizes = _sizes(dataclasses.replace(config, **dict.fromkeys(ADAPTER)))
        trained = adapter.trained_parameters(config, _architecture(config))
        return dataclasses.replace(sizes, parameters=sizes.parameters + trained, frozen=sizes.parameters)
    known = table()["models"].get(config.model, {})
    parameters, shape = (known["parameters"], known["config"]) if known else _measured(_folder(config))
    tokenizer = known.get("tokens", "qwen")
    # name, name in the table, train, test, validation of sub-datasets whose tokens the table has
    if config.mixture in paper_mixtures.NAMES and not config.data_dir:  # what is asked for; the hub has enough
        asked = config.train_size, config.test_size, config.validation_size
        sizes = paper_mixtures.sizes_of(config.mixture, *asked)[:3]  # confirmation items cost no FLOPs that are counted
        counts = [(b.name, b.name, *sizes) for b in paper_mixtures.mixture_benchmarks(config.mixture)]
        if config.mixture == "medmcqa-21":
            counts = [(subject, "medmcqa", *sizes) for subject in paper_mixtures.SUBJECTS]
    elif config.mixture in tiny.MIXTURES and tokenizer == "tiny":
        subs = tiny.make_mixture(config.mixture)
        counts = [(sub.name, sub.name, len(sub.train), len(sub.test), len(sub.validation)) for sub in subs]
    else:
        return Sizes(parameters, shape, _read(config))
    means, sets = table()["tokens"][tokenizer], []
    for name, kind, train, items, validation in counts:
        tokens, question, answer = means.get(kind, means["mean"])
        selection_items = validation if config.select_on == "validation" else 0
        sets.append(SetSize(name, train, items, selection_items, tokens, question + answer))
    return Sizes(parameters, shape, tuple(sets))


def _read(config: RunConfig) -> tuple[SetSize, ...]:
    """Counts the data with the model's own tokenizer."""
    from msft.loss.tokens import fit_mixture, tokenize

    tokenizer = names.load_tokenizer(names.model_source(config.model), config.model_revision, config.trust_remote_code)
    mixture = names.mixture_of(config, tokenizer)
    examples, mixture, _ = fit_mixture(tokenizer, mixture, config.max_tokens, config.max_prompt_tokens)
    sets = []
    for sub in mixture:
        rows, count, selection_items = examples[sub.name], len(sub.test), 0
        if sub.judge:  # its shots are counted too; what is generated is not known
            count, texts, answers = sub.judge.n, sub.judge.texts, ()
        else:
            texts, answers = [training_text(example)[0] for example in sub.test], tokenize(tokenizer, sub.test)
            selection_items = len(sub.validation) if config.select_on == "validation" else 0
        item_tokens = sum(map(len, tokenizer(texts)["input_ids"])) + sum(row.targets for row in answers)
        tokens = sum(len(row.ids) for row in rows) / len(rows)
        sets.append(SetSize(sub.name, len(rows), count, selection_items, tokens, item_tokens / count))
    return tuple(sets)


def _architecture(config: RunConfig):
    """The configuration of a run's model, from its shape where the table has it. Loads transformers."""
    known = table()["models"].get(config.model)
    if not known:
        return names.load_architecture(str(_folder(config)), config)
    from transformers import AutoConfig

    return AutoConfig.for_model(**known["config"])


def _folder(config: RunConfig) -> Path:
    """Where a model's files are on this machine: the folder given, or the hub's cache."""
    if (source := Path(names.model_source(config.model))).is_dir():
        return source
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(config.model, "config.json", revision=config.model_revision)
    if not isinstance(file, str):
        what = f"{config.model!r} is not on this machine, and its size not known"
        raise ModelError(f"{what}. Known: {', '.join(table()['models'])}; or give a folder")
    return Path(file).parent


def _measured(folder: Path) -> tuple[int, dict | None]:
    """Parameters in a folder's safetensors files, by their headers, and the shape that its config.json names in the way of
    the Llama family, or None."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "numpy") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())
    if not total:
        raise ModelError(f"{folder} has no safetensors files, so its parameters cannot be counted")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if not all(map(config.get, _SHAPE)):
        return total, None
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    return total, {**config, "num_key_value_heads": config.get("num_key_value_heads") or heads, "head_dim": head_dim}
