"""Import paths of version 0.1 that a room has since been built around: they still work, with a word about the new one."""

import importlib
import importlib.abc
import importlib.util
import sys
import warnings

_NEW = {
    "batching": "loss.tokens",
    "card": "results.card",
    "catalog": "names",
    "chat": "data.chat",
    "checkpoints": "store.checkpoints",
    "commands": "cli.former",
    "grid": "launch.grid",
    "metrics": "data.metrics",
    "mixture": "data.mixture",
    "options": "cli.former",
    "paper_mixtures": "benchmarks.paper_mixtures",
    "prompts": "data.example",
    "records": "results.run",
    "tasks": "data",
    "tasks.scoring": "data.scoring",
}


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        package, _, old = name.partition(".")
        return importlib.util.spec_from_loader(name, self) if package == "msft" and old in _NEW else None

    def exec_module(self, module):
        old = module.__name__
        new = f"msft.{_NEW[old.partition('.')[2]]}"
        warnings.warn(f"{old} has moved to {new}", DeprecationWarning, stacklevel=2)
        sys.modules[old] = importlib.import_module(new)


# first: the package data would give a second copy of its scoring for tasks.scoring
sys.meta_path.insert(0, _Finder())
