"""What each profile trains: `smoke` for CI, `tiny` for everyone, `laptop` for a real model on a laptop, `paper` for a GPU node."""

from msft import RunConfig
from msft.errors import ConfigError, unknown

# models: of the main table.  focus: the one of the further analyses (the paper: Qwen2.5 3B).  example: that of Fig. 2,
# 3 and 9 (the paper: Qwen3 8B).  swept: those of the mean in Fig. 6 (the paper: the four for which Table 7 has C = 1).
# Where a profile names none of these three, the first of its models.
# mixtures: number of sub-datasets -> mixture (Fig. 5).  granular: the 21 sub-categories (Fig. 7).
# budgets: C of the sweep (Fig. 6).  branch: epochs of the bifurcation's branches (Fig. 3).
# settings, params: of every run, and of a method; those of the notebook stand before them.
PROFILES = {
    "smoke": {
        "models": ["tiny-smoke"],
        "mixture": "tiny-smoke",
        "mixtures": {3: "tiny-smoke"},
        "granular": "tiny-smoke",
        "seeds": [20, 30],
        "budgets": [0.5, 1.0],
        "branch": 1.0,
        "params": {
            "sft": {"epochs": 2.0},
            "continual_sft": {"budget": 1.0},
            "dynamix_sft": {"epochs": 2.0, "updates": 4, "look_ahead_batch": 4},
            "ies": {"epochs": 4.0},
            "sro_sft": {"epochs": 2.0},
            "soft_sro_sft": {"epochs": 2.0},
            "msft": {"budget": 1.0},
        },
    },
    "tiny": {
        "models": ["tiny-qwen2", "tiny-qwen3", "tiny-olmo2"],
        "mixture": "tiny",
        "mixtures": {5: "tiny-5", 10: "tiny", 15: "tiny-15"},
        "granular": "tiny-21",
        "seeds": [20, 30, 40],
        "budgets": [1.0, 3.0, 5.0],
        "branch": 6.0,
        # the look-ahead batch shrinks with the batch size and the mixture; 128 would cost many times the training
        "params": {"dynamix_sft": {"look_ahead_batch": 8}},
    },
    "laptop": {
        "models": ["HuggingFaceTB/SmolLM2-135M"],
        "mixture": "paper-10",
        "mixtures": {5: "paper-5", 10: "paper-10"},
        "granular": "medmcqa-21",
        "seeds": [20, 30],
        "budgets": [1.0, 3.0],
        "branch": 3.0,
        # mixed: Adam's steps at such rates are below what bf16 weights resolve.  The rate: the best of
        # four (benchmarks/laptop_rate.py); the batch is smaller than the paper's so that an epoch has steps enough
        "settings": {
            "train_size": 200,
            "test_size": 100,
            "validation_size": 50,
            "precision": "mixed",
            "batch_size": 16,
            "learning_rate": 5e-5,
        },
        "params": {"dynamix_sft": {"look_ahead_batch": 16}},
    },
    "paper": {
        "models": [
            "allenai/OLMo-2-0425-1B",
            "Qwen/Qwen2.5-0.5B",
            "Qwen/Qwen2.5-1.5B",
            "Qwen/Qwen2.5-3B",
            "Qwen/Qwen2.5-7B",
            "Qwen/Qwen3-8B-Base",
        ],
        "focus": "Qwen/Qwen2.5-3B",
        "example": "Qwen/Qwen3-8B-Base",
        "swept": ["allenai/OLMo-2-0425-1B", "Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-3B"],
        "mixture": "paper-10",
        "mixtures": {5: "paper-5", 10: "paper-10", 15: "paper-15"},
        "granular": "medmcqa-21",
        "seeds": [20, 30, 40],
        "budgets": [1.0, 3.0, 5.0],
        "branch": 7.0,
        "params": {},
    },
}


def profile(name: str) -> dict:
    """The settings of a profile. Raises ConfigError for another name."""
    if name not in list(PROFILES):  # papermill may give a list, which is no key
        raise ConfigError(unknown("profile", name, list(PROFILES)))
    first = PROFILES[name]["models"][0]
    return {"focus": first, "example": first, "swept": [first], **PROFILES[name]}


def config(name: str, method: str, *, model: str = "", mixture: str = "", seed: int = 20, **settings) -> RunConfig:
    """The run of a method in a profile; model and mixture '' stand for the profile's own.

    Raises ConfigError for settings that no run can have, unknown names included.
    """
    chosen = profile(name)
    params = {**chosen["params"].get(method, {}), **settings.pop("params", {})}
    given = {"model": model or chosen["focus"], "mixture": mixture or chosen["mixture"], "seed": seed}
    given |= {**chosen.get("settings", {}), **settings}
    return RunConfig.from_mapping({"method": method, "params": params, **given})
