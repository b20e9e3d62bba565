"""What each profile trains: `smoke` for CI, `tiny` for a laptop, `paper` for a GPU node."""

from msft import RunConfig
from msft.errors import ConfigError, unknown

PROFILES = {
    "smoke": {
        "models": ["tiny-smoke"],
        "mixture": "tiny-smoke",
        "seeds": [20],
        "settings": {},
        "params": {"sft": {"epochs": 2.0}, "msft": {"budget": 1.0}},
    },
    "tiny": {
        "models": ["tiny-qwen2", "tiny-qwen3", "tiny-olmo2"],
        "mixture": "tiny",
        "seeds": [20, 30, 40],
        "settings": {},
        "params": {},
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
        "mixture": "paper-10",
        "seeds": [20, 30, 40],
        "settings": {},
        "params": {},
    },
}


def profile(name: str) -> dict:
    """The settings of a profile. Raises ConfigError for another name."""
    if name not in PROFILES:
        raise ConfigError(unknown("profile", name, list(PROFILES)))
    return PROFILES[name]


def config(name: str, method: str, *, model: str = "", mixture: str = "", seed: int = 20, **settings) -> RunConfig:
    """The run of a method in a profile; model and mixture '' stand for the profile's first."""
    chosen = profile(name)
    params = {**chosen["params"].get(method, {}), **settings.pop("params", {})}
    return RunConfig(
        method=method,
        model=model or chosen["models"][0],
        mixture=mixture or chosen["mixture"],
        seed=seed,
        params=params,
        **{**chosen["settings"], **settings},
    )
