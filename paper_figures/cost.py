"""What the paper's runs cost, estimated before anything is trained, and the commands that train them."""

import json
import shlex
from collections.abc import Iterable
from pathlib import Path

from msft import RunConfig
from msft.flops import FORWARD, TRAIN
from paper_figures.reported_numbers import MODELS, table

# parameters as the model cards state them, embeddings included
PARAMETERS = {
    "allenai/OLMo-2-0425-1B": 1.48e9,
    "Qwen/Qwen2.5-0.5B": 0.494e9,
    "Qwen/Qwen2.5-1.5B": 1.54e9,
    "Qwen/Qwen2.5-3B": 3.09e9,
    "Qwen/Qwen2.5-7B": 7.62e9,
    "Qwen/Qwen3-8B-Base": 8.19e9,
}
# mixture: (sub-datasets, train examples of each), where no setting says otherwise
MIXTURES = {"paper-5": (5, 1_800), "paper-10": (10, 1_800), "paper-15": (15, 1_800), "medmcqa-21": (21, 900)}
TEST_SIZE = 200  # test examples a sub-dataset, and validation examples where they choose the checkpoint
TOKENS = 90  # an example, prompt, answer and EOS (protocol, section 3)
ITEM_TOKENS = 240  # an evaluated item: between the 100 and 380 that Table 7 implies
UTILISATION, PEAK = 0.4, 989e12  # assumed share of an H100's dense bf16 peak
# columns of Table 7: the FLOPs of a method over those of SFT, averaged over the models
_COLUMNS = {
    "sft": "SFT",
    "continual_sft": "Continual SFT",
    "dynamix_sft": "DynamixSFT",
    "ies": "IES",
    "sro_sft": "SRO SFT",
    "soft_sro_sft": "Soft SRO SFT",
    "msft": "mSFT (C=3)",
}
_AFTER_SEARCH = ("sro_sft", "soft_sro_sft")


def flops(config: RunConfig) -> float | None:
    """FLOPs that a run of the paper's size is expected to take; None where model, mixture or method are not known.

    SFT by appendix F from 90 tokens an example and 240 an evaluated item; another method by its ratio to SFT in
    Table 7, in proportion to its epochs (10 there) or its budget C (3 there).  SRO and Soft SRO read their search from
    the SFT run, which is counted there alone.  The bifurcation is taken to fork in its first roll-out.
    """
    parameters, mixture = PARAMETERS.get(config.model), MIXTURES.get(config.mixture)
    if parameters is None or mixture is None or config.method not in (*_COLUMNS, "bifurcation"):
        return None
    sets, train_size = mixture
    items = config.test_size or TEST_SIZE
    if config.select_on == "validation":
        items += TEST_SIZE if config.validation_size is None else config.validation_size
    evaluations = 10 * config.evaluations_per_epoch
    sft = TRAIN * parameters * sets * (config.train_size or train_size) * TOKENS * 10
    sft += evaluations * FORWARD * parameters * sets * items * ITEM_TOKENS
    if config.method == "bifurcation":
        return sft * (config.params["budget"] + 2 * config.params["branch"]) / 10
    reported = table("table7").set_index("model").loc["Average"]
    ratio = reported[_COLUMNS[config.method]] / reported["SFT"] - (config.method in _AFTER_SEARCH)
    share = config.params["budget"] / 3 if "budget" in config.params else config.params["epochs"] / 10
    return sft * ratio * share


def command(config: RunConfig, runs_dir: str | Path) -> str:
    """The command line that trains a run, quoted for a shell."""
    plain = RunConfig(method=config.method, methods_dir=config.methods_dir)
    words = ["python", "-m", "msft", "run", "--runs-dir", str(runs_dir), "--method", config.method]
    for name, value in config.to_dict().items():
        # methods_dir stands in `plain` too, without which a method of one's own cannot be checked
        if name not in ("method", "params") and (value != getattr(plain, name) or (name == "methods_dir" and value)):
            words += [f"--{name.replace('_', '-')}", str(value)]
    changed = [f"{name}={value}" for name, value in config.params.items() if value != plain.params[name]]
    return shlex.join([*words, *(["--params", *changed] if changed else [])])


def what_is_missing(configs: Iterable[RunConfig], needed: int, runs_dir: str | Path, why: str) -> str:
    """One message: how many runs are missing, the commands that train them, and what they are estimated to cost."""
    configs = list({json.dumps(config.to_dict(), sort_keys=True): config for config in configs}.values())
    known = [flops(config) for config in configs]
    total = sum(value for value in known if value is not None)
    hours = total / (UTILISATION * PEAK) / 3600
    unknown = sum(value is None for value in known)
    return "\n".join(
        [
            f"{len(configs)} of {needed} runs are not in {runs_dir}, and they are not trained here: {why}.",
            "On a machine with a GPU and the data, this notebook trains them itself, and so do these commands:",
            *(f"    {command(config, runs_dir)}" for config in configs),
            f"Estimated cost: {total / 1e15:,.0f} PFLOPs, about {hours:,.1f} hours of one H100 at {UTILISATION:.0%} of its "
            "dense bf16 peak (evaluation counted by appendix F, without the shared prompts)"
            + (f"; {unknown} runs of other models, mixtures or methods are not in the estimate." if unknown else "."),
            "To train on a CPU all the same, pass allow_cpu=True with sizes cut by `settings`.",
        ]
    )


__all__ = ["MIXTURES", "MODELS", "PARAMETERS", "command", "flops", "what_is_missing"]
