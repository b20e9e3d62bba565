"""The embedded mixtures and their small base models: files beside this one, made by `python -m paper_figures.instrument`.

A small invented world (stones and their colours, animals and their homes, small sums) is asked about in the styles of the
paper's ten benchmarks. The models have the architectures of Qwen2, Qwen3 and OLMo 2 and have met the same world in other words.
"""

import gzip
import json
from pathlib import Path

from msft.data.example import Example
from msft.data.mixture import PARTS, Mixture, SubDataset
from msft.errors import DataError, ModelError, unknown

FOLDER = Path(__file__).parent
MIXTURES = ("tiny", "tiny-5", "tiny-15", "tiny-21", "tiny-smoke")
# the learning rates at which plain SFT is best (benchmarks/calibration.py --rates)
_RATES = {"tiny-qwen2": 4e-4, "tiny-qwen3": 8e-4, "tiny-olmo2": 4e-4, "tiny-smoke": 4e-4}
_SETTINGS = {"batch_size": 16, "precision": "fp32", "max_new_tokens": 32, "eval_batch_size": 512, "threads": 1}
MODELS = tuple(_RATES)


def settings(name: str) -> dict:
    """The default settings of runs of a tiny model."""
    return {"learning_rate": _RATES[name], **_SETTINGS}


def base_model(name: str) -> Path:
    """The folder (Hugging Face format) of a tiny base model. Raises ModelError for an unknown name."""
    if name not in MODELS:
        raise ModelError(unknown("tiny model", name, MODELS))
    return FOLDER / name


def make_mixture(name: str = "tiny") -> Mixture:
    """An embedded mixture. Raises DataError for an unknown name."""
    if name not in MIXTURES:
        raise DataError(unknown("tiny mixture", name, MIXTURES))
    subs = json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))
    source = {"source": "made up for this package", "licence": "that of this package"}
    examples = [{part: [Example(*row) for row in sub.pop(part)] for part in PARTS} for sub in subs]
    return Mixture(name, [SubDataset(**sub, **of, source=source) for sub, of in zip(subs, examples, strict=True)])
