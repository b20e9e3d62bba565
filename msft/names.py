"""Names to things: the mixture and the model that a config's names stand for."""

import contextlib
import dataclasses
import hashlib
import inspect
import json
import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from msft import benchmarks, tiny
from msft.benchmarks import paper_mixtures
from msft.config import RunConfig
from msft.data import chat, given_back, reading
from msft.data.mixture import Mixture
from msft.errors import ConfigError, DataError, ModelError, unknown
from msft.paths import is_hub_id, is_pointer, usable
from msft.settings import DTYPES

_log = logging.getLogger(__name__)
_NUMBER = re.compile(r"\.\d+\.")  # of a layer, in the name of a weight
_SIZES = ("train_size", "test_size", "validation_size", "confirmation_size")
_KINDS = ("*.json", "*.safetensors", "*.model", "merges.txt", "vocab.txt", "*.py")  # of a model's files
_END, _BLOCK = 1 << 20, 1 << 16  # bytes of a model's file that are read at its ends, and at a place between them


def load_mixture(name_or_path: str, tokenizer=None, **sizes) -> Mixture:
    """A mixture by name or from a YAML file.

    name_or_path: tiny, tiny-5, tiny-15, tiny-21, paper-5, paper-10, paper-15, medmcqa-21, or a mixture YAML.
    tokenizer: loaded, or the name of its model; with one, examples of the paper's mixtures that are too long are left out
    before the draw, and chat rows of a YAML's mixture have the texts of its chat template.
    sizes: train_size, test_size, validation_size, confirmation_size, seed, data_dir, revision and so on, for the paper's mixtures.
    Raises DataError for an unknown name and for data that cannot be used, ConfigError for an unknown setting.
    """
    name, known = usable(name_or_path), list(inspect.signature(paper_mixtures.load).parameters)[1:]
    if wrong := [unknown("setting of a mixture", key, known) for key in sizes if key not in known]:
        raise ConfigError("this mixture cannot be loaded:", wrong)
    tokenizer = load_tokenizer(model_source(tokenizer)) if isinstance(tokenizer, str) else tokenizer
    if name in paper_mixtures.NAMES:
        return paper_mixtures.load(name, tokenizer=tokenizer, **sizes)
    lengths = ("max_tokens", "max_prompt_tokens")  # these count for every mixture, later
    if unused := [key for key, value in sizes.items() if value is not None and key not in lengths]:
        _log.warning("%s: not used, since only the paper's mixtures are drawn by them: %s", name, ", ".join(unused))
    if name in tiny.MIXTURES:
        mixture = tiny.make_mixture(name)
    elif os.path.isdir(name):
        raise DataError(f"mixture {name!r} is a folder; give the YAML file in it")
    elif name.endswith((".yaml", ".yml")) or os.path.isfile(name):
        mixture = reading.read_mixture(name, benchmarks.to_example)
    else:
        names = [*tiny.MIXTURES, *paper_mixtures.NAMES]
        raise DataError(unknown("mixture", name, names) + " Or give the path of a mixture YAML.")
    return given_back.checked(chat.rendered(mixture, tokenizer), tokenizer) if tokenizer else mixture


def mixture_of(config: RunConfig, tokenizer) -> Mixture:
    """The mixture of a run, drawn and written for its tokenizer. Raises as `load_mixture`."""
    names = (*_SIZES, "data_dir", "revision", "max_tokens", "max_prompt_tokens")
    options = {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    return load_mixture(config.mixture, tokenizer=tokenizer, **options)


def filled(config: RunConfig) -> RunConfig:
    """A config with every default filled in, as its run has it: those of a tiny model come before the paper's. What only
    draws the paper's mixtures is none for another one: a run's name has what its run depends on."""
    if config.mixture not in paper_mixtures.NAMES:
        config = dataclasses.replace(config, **dict.fromkeys((*_SIZES, "revision")))
    if config.model not in tiny.MODELS:
        return config.with_defaults({})
    # they bring no code along, and transformers looks for some where it is trusted
    return dataclasses.replace(config.with_defaults(tiny.settings(config.model)), trust_remote_code=False)


def model_source(name: str) -> str:
    """A folder or hub id for a model name. Raises ModelError for what is no tiny model, model's folder or hub id."""
    if name in tiny.MODELS:
        return str(tiny.base_model(name))
    folder = Path(usable(name))
    _files(folder)
    parts = (folder / part for part in ("adapter_config.json", "adapter_model.safetensors"))
    if adapter := next(filter(Path.is_file, parts), None):
        what = f"the folder {name!r} holds an adapter ({adapter.name}), which would not be used"
        way = "`python -m msft export RUN FOLDER --merge`, or peft's merge_and_unload() and save_pretrained(folder)"
        raise ModelError(f"{what}: merge it into its base model by {way}, tokenizer and all, and give that folder")
    if (folder / "config.json").is_file():
        return str(folder)
    if folder.is_dir():
        way = str(folder / "best") if (folder / "best").is_dir() else "a folder in Hugging Face format"
        raise ModelError(f"the folder {name!r} has no config.json; give {way}")
    if not is_hub_id(name):
        raise ModelError(unknown("model", name, list(tiny.MODELS)) + " Or a hub id (owner/name), or a local folder.")
    return name


def _files(folder: Path) -> list[Path]:
    """The files of a model's folder that it may be loaded from. Raises ModelError for what is there and cannot be read."""
    try:
        if os.path.isdir(folder):
            os.listdir(folder)  # where it may not be read, `glob` finds nothing
        files = sorted(path for kind in _KINDS for path in folder.glob(kind) if not path.is_dir())
        for path in files:
            path.open("rb").close()
    except OSError as error:
        way = "copy what a link stands for (`cp -rL`), and see that you may read it"
        raise ModelError(f"the folder {str(folder)!r} holds what cannot be read: {error}; {way}") from None
    return files


def model_identity(source: str, revision: str | None) -> str:
    """What stands for a model's weights in a run's hash: contents for a folder, name and revision for the hub."""
    folder = Path(source)
    if not folder.is_dir():
        return f"{source}@{revision}"
    digest = hashlib.sha256()
    for path in _files(folder):
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode())
        with open(path, "rb") as file:
            digest.update(file.read(_END))
            # between them all of a small file, a thousand places of a large one: training changes every matrix
            for start in range(_END, size - _END, max(_BLOCK, size >> 10)):
                file.seek(start)
                digest.update(file.read(_BLOCK))
            file.seek(max(size - _END, 0))
            digest.update(file.read(_END))
    return digest.hexdigest()


def check_base(model_then: Mapping, source: str, revision: str | None) -> None:
    """Raises ModelError where a folder's weights are not those that a run's adapter was trained on. model_then: what its
    run.json says of its model; older ones do not say which weights they were."""
    now = model_identity(source, revision)
    if model_then.get("identity", now) != now:
        what = f"the files of the base model in {source!r} are not those that the adapter was trained on"
        raise ModelError(f"{what}; put them back, or train the run again")


def check_revision(config: RunConfig, source: str) -> None:
    """Raises ConfigError for a revision of a model that is a folder, which has none."""
    if config.model_revision is not None and Path(source).is_dir():
        what = f"model_revision = {config.model_revision!r} is of the hub"
        raise ConfigError(f"{what}, and the model {config.model!r} is a folder here: leave it out")


def load_architecture(source: str, config: RunConfig):
    """The configuration of a model, without weights. Raises ModelError with the way out."""
    from transformers import AutoConfig

    hub = {"revision": config.model_revision, "trust_remote_code": config.trust_remote_code}
    with _loading("model", source):
        return AutoConfig.from_pretrained(source, **hub)


def load_tokenizer(source: str, revision: str | None = None, trust_remote_code: bool = False):
    """The tokenizer of a model. Raises ModelError with the way out."""
    from transformers import AutoTokenizer

    with _loading("tokenizer", source):
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=trust_remote_code)
        if not tokenizer("Q: 1\nA: ")["input_ids"]:  # made up where a folder has none of its files
            raise ValueError("It has no vocabulary.")
        if tokenizer.is_fast and getattr(tokenizer.backend_tokenizer.model, "dropout", None):
            raise ValueError("Its tokenizer.json has `dropout`: a text has other tokens each time; set it to null.")
        if tokenizer.init_kwargs.get("auto_map") == {"AutoTokenizer": [None, None]}:
            # of the tiny models: beside an adapter, where no config.json lies, transformers looks into these names
            tokenizer.init_kwargs["auto_map"] = {"AutoTokenizer": ["", ""]}
    return tokenizer


def load_model(source: str, precision: str, revision: str | None = None, trust_remote_code: bool = False):
    """The causal language model with its weights, in 'bf16' or 'fp32', on the CPU. Raises ModelError."""
    import torch
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM
    from transformers.utils import logging

    from msft.packing.probe import keep_apart, sees_later_tokens  # loads torch

    logging.disable_progress_bar()  # a run draws its own
    hub = {"revision": revision, "trust_remote_code": trust_remote_code, "output_loading_info": True}
    hub |= {"ignore_mismatched_sizes": True}  # they are named below
    # what a pass gives back is asked for here, whatever config.json says; some of it could not be saved at the end
    hub |= {"return_dict": True, "output_attentions": False, "output_hidden_states": False}
    with _loading("model", source):
        _check_files(source, revision)
        dtype = getattr(torch, DTYPES[precision])
        model, report = AutoModelForCausalLM.from_pretrained(source, **hub, dtype=dtype, use_safetensors=True)
        is_encoder = sees_later_tokens(model)
        keep_apart(model)
    kind, missing = type(model).__name__, sorted(report["missing_keys"])
    if others := sorted(report["mismatched_keys"]):
        shapes = f"{tuple(others[0][1])} in the file and {tuple(others[0][2])} by config.json"
        what = f"{len(others)} weights of other shapes than its config.json says, such as {others[0][0]}, {shapes}"
        raise ModelError(f"{source!r} has {what}: give the config.json that belongs to the weights")
    if type(model.config) not in MODEL_FOR_CAUSAL_LM_MAPPING and not getattr(model.config, "auto_map", None):
        what = f"a {kind}, whose checkpoints AutoModelForCausalLM cannot load: it does not know {type(model.config).__name__}"
        raise ModelError(f"{source!r} holds {what}; give another model")
    if is_encoder:
        raise ModelError(f"{source!r} holds a {kind} that sees later tokens, an encoder; give a causal language model")
    if missing:
        lacking = f"{len(missing)} weights of {kind}, such as {missing[0]}, which would begin at random"
        raise ModelError(f"{source!r} lacks {lacking}; give a folder with all weights of a causal language model")
    if surplus := _surplus(model, report["unexpected_keys"]):
        unused = f"{len(surplus)} weights that {kind} of its config.json does not use, such as {surplus[0]}"
        mend = "give the config.json that belongs to the weights, or a folder with a causal language model"
        raise ModelError(f"{source!r} has {unused}: {mend}")
    if broken := [name for name, weight in model.named_parameters() if not weight.isfinite().all()]:
        what = f"{len(broken)} weights of {source!r} hold NaN or infinity, such as {broken[0]}"
        raise ModelError(f"{what}: fetch or save it again, or give another checkpoint")
    return model


def _surplus(model, unexpected: Iterable[str]) -> list[str]:
    """Weights of the model's own layers that it has no place for, or of a classifier; other heads, such as one that
    predicts more tokens or sees images, are nothing that a language model lacks, nor are the masks of old files."""
    stacks = {_NUMBER.split(name)[0] for name in model.state_dict()}
    in_layers = [key for key in unexpected if _NUMBER.split(key)[0] in stacks]
    surplus = [key for key in in_layers if not key.endswith((".masked_bias", ".inv_freq"))]
    return sorted([*surplus, *(key for key in unexpected if key.startswith(("score.", "classifier.")))])


def _check_files(source: str, revision: str | None) -> None:
    """Raises ValueError where the config or an index names other weights than safetensors, whatever use_safetensors says,
    and where weights are whole numbers or fp8 that nothing says the scale of: they would be cast as they are."""
    from safetensors import safe_open
    from transformers.utils import cached_file

    def place(name: str) -> str | None:
        with contextlib.suppress(OSError):  # a model in one file has no index
            return cached_file(source, name, revision=revision)
        return None

    def read(name: str) -> dict:
        file = place(name)
        return json.loads(Path(file).read_text(encoding="utf-8")) if file else {}

    config = read("config.json")
    index = config.get("transformers_weights") or "model.safetensors.index.json"
    files = read(index).get("weight_map", {}).values() if index.endswith(".index.json") else [index]
    if not all(str(file).endswith(".safetensors") for file in files):
        raise ValueError("It names a pickle file as its weights.")
    files = [] if config.get("quantization_config") else dict.fromkeys(files or ["model.safetensors"])
    for file in filter(None, map(place, files)):
        with safe_open(file, "np") as weights:
            kinds = {key: weights.get_slice(key).get_dtype() for key in weights.keys() if key.endswith("weight")}
        if odd := next((key for key, kind in kinds.items() if kind not in ("F64", "F32", "F16", "BF16")), ""):
            raise ValueError(f"Its {odd} is quantised ({kinds[odd]}), for which config.json has no quantization_config")


@contextlib.contextmanager
def _loading(what: str, source: str):
    """Within it what transformers, tokenizers, safetensors and the hub raise is a ModelError with the way out."""
    try:
        yield
    except Exception as error:
        folder, lines = Path(source), [line.strip() for line in str(error).strip().splitlines()] or [""]
        first = lines[0] if len(lines[0]) > 100 else " ".join(lines[:2])
        first = first if isinstance(error, OSError | ValueError | RuntimeError) else f"{type(error).__name__} {first}"
        files = {path.suffix for path in folder.glob("*")}
        way = "Give a folder in Hugging Face format with config.json, tokenizer.json and *.safetensors, "
        way += "or a hub id where the hub can be reached."
        if any(is_pointer(path) for path in folder.glob("*") if path.is_file() and os.access(path, os.R_OK)):
            way = "Some of its files are pointers of Git LFS: fetch what they stand for with `git lfs pull`."
        elif "custom code" in first:
            way = "That code is run only with trust_remote_code=True (--trust-remote-code true): inspect it first."
        elif "pickle" in first or (what == "model" and ".bin" in files and ".safetensors" not in files):
            way = "Pickle files (*.bin) can run code and are never opened: convert them to safetensors first."
        elif "Unrecognized configuration class" in first:
            way = "Give a causal language model, one that continues text."
        raise ModelError(f"the {what} of {source!r} cannot be loaded: {first.rstrip(' .')}. {way}") from error
