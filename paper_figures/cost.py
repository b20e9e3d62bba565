"""What the paper's runs cost, estimated before anything is trained, and the commands that train them."""

import json
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
EXAMPLES = {"paper-5": 9_000, "paper-10": 18_000, "paper-15": 27_000, "medmcqa-21": 18_900}
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


def flops(config: RunConfig) -> float | None:
    """FLOPs that a run of the paper's size is expected to take; None where model, mixture or method are not known.

    SFT by appendix F from 90 tokens an example and 240 an evaluated item; another method by its ratio to SFT in
    Table 7 (mSFT at another C in proportion).
    """
    parameters, examples = PARAMETERS.get(config.model), EXAMPLES.get(config.mixture)
    if parameters is None or examples is None or config.method not in _COLUMNS:
        return None
    sets = {"paper-5": 5, "paper-10": 10, "paper-15": 15, "medmcqa-21": 21}[config.mixture]
    per_evaluation = FORWARD * parameters * (config.test_size or 200) * sets * ITEM_TOKENS
    sft = TRAIN * parameters * examples * TOKENS * 10 + 40 * per_evaluation
    reported = table("table7").set_index("model").loc["Average"]
    ratio = reported[_COLUMNS[config.method]] / reported["SFT"]
    if config.method == "msft":
        ratio *= config.params["budget"] / 3
    return sft * ratio


def command(config: RunConfig, runs_dir: str | Path) -> str:
    """The command line that trains a run."""
    plain = RunConfig(method=config.method)
    words = [f"python -m msft run --runs-dir {runs_dir} --method {config.method}"]
    for name, value in config.to_dict().items():
        if name not in ("method", "params") and value != getattr(plain, name):
            words.append(f"--{name.replace('_', '-')} {value}")
    changed = [f"{name}={value}" for name, value in config.params.items() if value != plain.params[name]]
    return " ".join([*words, *(["--params", *changed] if changed else [])])


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
            f"Estimated cost: {total / 1e15:,.0f} PFLOPs, about {hours:,.0f} hours of one H100 at {UTILISATION:.0%} of its "
            "dense bf16 peak (evaluation counted by appendix F, without the shared prompts)"
            + (f"; {unknown} runs of other models or mixtures are not in the estimate." if unknown else "."),
            "To train on a CPU all the same, pass allow_cpu=True with sizes cut by `settings`.",
        ]
    )


__all__ = ["EXAMPLES", "MODELS", "PARAMETERS", "command", "flops", "what_is_missing"]
