"""What a run does not take from accelerate's configuration, named at its start: most keys would pass without a word.

`accelerate launch` hands its file and flags on as environment variables. A run takes the processes from them and whether
weights are sharded (FSDP2, distributed.py); precision, batches and devices are settings of its own.
"""

import os
from collections.abc import Mapping

from msft.config import RunConfig

# variable -> (key in accelerate's file, its values that ask for nothing else than what a run does, what decides instead)
_KEYS = {
    "ACCELERATE_MIXED_PRECISION": ("mixed_precision", ("no",), "--precision decides"),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("gradient_accumulation_steps", ("1",), "--batch-size decides"),
    "ACCELERATE_GRADIENT_CLIPPING": ("gradient_clipping", ("none",), "gradients are not clipped"),
    "ACCELERATE_DYNAMO_BACKEND": ("dynamo_config", ("no",), "nothing is compiled"),
    "ACCELERATE_USE_DEEPSPEED": ("deepspeed_config", ("false",), "take fsdp_config to shard the weights"),
    "ACCELERATE_USE_MEGATRON_LM": ("megatron_lm_config", ("false",), "take fsdp_config to shard the weights"),
    "ACCELERATE_USE_PARALLELISM_CONFIG": ("parallelism_config", ("false",), "the processes share the examples alone"),
}
_SHARDED = {
    "FSDP_VERSION": ("fsdp_version", ("2",), "it is FSDP2"),
    "FSDP_OFFLOAD_PARAMS": ("fsdp_offload_params", ("false",), "weights stay on the GPUs"),
    "FSDP_RESHARD_AFTER_FORWARD": ("fsdp_reshard_after_forward", ("true", "full_shard"), "layers are sharded again"),
    "FSDP_ACTIVATION_CHECKPOINTING": ("fsdp_activation_checkpointing", ("false",), "--token-budget bounds the memory"),
    "FSDP_AUTO_WRAP_POLICY": ("fsdp_auto_wrap_policy", ("transformer_based_wrap",), "each decoder layer is a unit"),
    "FSDP_TRANSFORMER_CLS_TO_WRAP": ("fsdp_transformer_layer_cls_to_wrap", (), "each decoder layer is a unit"),
    "FSDP_IGNORED_MODULES": ("fsdp_ignored_modules", ("none",), "every module is sharded"),
}


def unused_keys(config: RunConfig, environment: Mapping[str, str] = os.environ) -> list[str]:
    """A line for each key of accelerate's configuration that asks for what this run will not do."""
    is_sharded = environment.get("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true")
    lines = [
        f"{key}: {environment[variable]} ({instead})"
        for variable, (key, plain, instead) in {**_KEYS, **(_SHARDED if is_sharded else {})}.items()
        if environment.get(variable) and environment[variable].lower() not in plain
    ]
    on_cpu = environment.get("ACCELERATE_USE_CPU", "false").lower() in ("1", "true")
    if on_cpu and not (config.device or "").startswith("cpu"):
        lines.append("use_cpu: true (--device cpu decides)")
    return lines
