"""msft: train a mixture, let every sub-dataset stop at its own time, and measure it as the paper does.

    import msft
    config = msft.RunConfig(method="msft", model="tiny-qwen2", mixture="tiny")
    run = msft.run(config)          # trains; goes on with a run that was killed; reads a finished one
    run.best.accuracy, run.history, run.flops, run.disk

    msft.load_mixture("mine.yaml")                       # checks a mixture of one's own
    msft.export(run, "my-checkpoint")                    # a folder that stock transformers loads, with a model card
    msft.plan([config])                                  # what runs will cost, before anything is trained
    msft.generation.PrefixCachedLM(model, tokenizer)     # an lm-eval LM, several times as fast as HFLM

The same on the command line: python -m msft --help. Names load when they are first used, so that importing msft stays fast.
"""

import importlib

import msft._moved  # noqa: F401  old import paths

__version__ = "0.1.0"

_HOME = {
    "RunConfig": "config",
    "run": "runs",
    "Run": "results.run",
    "load_runs": "results.run",
    "load_mixture": "names",
    "Mixture": "data.mixture",
    "SubDataset": "data.mixture",
    "Example": "data.example",
    "training_text": "data.example",
    "test_prompt": "data.example",
    "score": "data.scoring",
    "export": "results.export",
    "plan": "cost.plan",
    "MsftError": "errors",
}
_MODULES = ("methods", "benchmarks", "generation", "tiny", "evaluation", "training", "config", "errors")

__all__ = ["__version__", *_HOME, *_MODULES]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f"msft.{_HOME[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"msft.{name}")
    raise AttributeError(f"module 'msft' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
