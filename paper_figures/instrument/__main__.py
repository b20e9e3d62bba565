"""Makes the files of msft/tiny anew: python -m paper_figures.instrument (two minutes on two cores)

Mixtures come out the same everywhere. The weights are those of one kind of processor and one torch, named in made.json with
the hash of each recipe: others give other last bits, and with them other results all through.
"""

import gzip
import hashlib
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from importlib.metadata import version
from pathlib import Path

from msft import tiny
from msft.data.mixture import SubDataset
from msft.results.provenance import processor
from paper_figures.instrument.bases import identity, make
from paper_figures.instrument.mixtures import generated

MADE = Path(__file__).with_name("made.json")


def packed(subs: list[SubDataset]) -> bytes:
    """Sub-datasets as `tiny.make_mixture` reads them."""
    rows = [
        {
            "name": sub.name,
            "group": sub.group,
            **{part: [[e.question, e.target, e.answer] for e in getattr(sub, part)] for part in tiny.PARTS},
        }
        for sub in subs
    ]
    return gzip.compress(json.dumps(rows, separators=(",", ":")).encode(), mtime=0)


def digest(name: str) -> str:
    """Of a base model's weights as they lie in msft/tiny."""
    return hashlib.sha256((tiny.base_model(name) / "model.safetensors").read_bytes()).hexdigest()


def main() -> None:
    """Writes every file, and made.json."""
    for name in tiny.MIXTURES:
        (tiny.FOLDER / f"{name}.json.gz").write_bytes(packed(generated(name).sub_datasets))
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(make, tiny.MODELS, map(tiny.base_model, tiny.MODELS)))
    bases = {name: {"recipe": identity(name), "weights": digest(name)} for name in tiny.MODELS}
    made = {"date": date.today().isoformat(), "processor": processor(), "torch": version("torch"), "bases": bases}
    MADE.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
