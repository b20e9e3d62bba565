"""LoRA through peft: an adapter is trained, measured in place, saved and taken back; the model's own weights stay."""

from msft import distributed
from msft.errors import ConfigError, ModelError, check_installed, unknown
from msft.seeds import generator

FILE = "adapter_config.json"  # peft's, in the folder of an adapter
WEIGHT = ".lora_"  # peft's, in the name of every weight of an adapter
ALL = "all-linear"  # peft's name for every linear layer but the output embedding


def available() -> None:
    """Raises ConfigError where peft is not installed; loads nothing."""
    check_installed("an adapter", "peft")


def check(config) -> None:
    """Raises ConfigError where a run's adapter cannot be had on this machine; loads nothing."""
    if config.adapter:
        available()
    if config.lora_dropout and distributed.size() > 1:
        what = f"lora_dropout = {config.lora_dropout} with {distributed.size()} processes"
        raise ConfigError(f"{what}: what is dropped would depend on their number; take 0, or one process")


def added(model, config):
    """The model with a run's fresh adapter in its layers and all else frozen, or as it is where the run has none.

    An adapter is in fp32 beside half-precision weights, as peft makes it. It starts as the base model, bit for bit.
    """
    if not config.adapter:
        return model
    import torch
    from peft import LoraConfig
    from peft.tuners.tuners_utils import cast_adapter_dtype

    names = config.lora_target_modules
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        revision=config.model_revision,
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=names.split(",") if names and names != ALL else names,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator(config.seed, "adapter").integers(2**62)))
        model.add_adapter(lora)
    cast_adapter_dtype(model, "default")
    return model


def trained_parameters(config, architecture) -> int:
    """Parameters of a run's adapter on a model that is known by its configuration alone, without weights.

    Raises ConfigError for a target module that the model lacks, ModelError where peft knows no default ones for it.
    """
    check(config)
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(architecture, trust_remote_code=config.trust_remote_code)
        head = model.get_output_embeddings()
        kinds = ("Linear", "Conv1D")  # GPT-2's linear layers are a Conv1D
        parts = [(name, part) for name, part in model.named_modules() if type(part).__name__ in kinds]
        linear = [f".{name}" for name, part in parts if part is not head]
        allowed = sorted({name.rpartition(".")[2] for name in linear})
        asked = [] if config.lora_target_modules in (None, ALL) else config.lora_target_modules.split(",")
        lacking = [target for target in asked if not any(name.endswith(f".{target}") for name in linear)]
        if lacking:
            wrong = [unknown("linear layer", target, allowed) + f" Or {ALL} alone." for target in lacking]
            raise ConfigError(f"lora_target_modules does not fit the model {config.model!r}:", wrong)
        try:
            added(model, config)
        except ValueError as error:
            mend = "pip install -U peft transformers"  # they must fit together
            if "target_modules" in str(error):
                mend = f"give lora_target_modules. Allowed, with commas: {', '.join(allowed)}. Or {ALL} alone."
            raise ModelError(f"{config.model!r} takes no adapter as it is ({error}): {mend}") from error
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def loaded(model, folder):
    """peft's model of a base model and the adapter in a folder."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, folder)
