"""Files that survive a crash: atomic writes, tensors by content, pruning, and the ledger of their bytes.

Every file is written beside its place, synced and renamed; a name that stands is a whole file. Weights are kept
as safetensors under the SHA-256 of their bytes, so equal weights are one file and a damaged one is noticed.
"""

import gzip
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from msft.errors import RunError

Weights = dict[str, torch.Tensor]


def write_atomic(path: Path, data: bytes | str) -> None:
    """Writes a file so that it is there whole or not at all. Raises RunError when the disk is full."""
    data = data.encode() if isinstance(data, str) else data
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RunError(
            f"cannot write {path} ({len(data)} bytes): {error}. Nothing that was saved before is lost; make room "
            "and give the same command again"
        ) from error
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_gzip(path: Path, rows: Iterable[Mapping]) -> None:
    """Writes rows as gzipped JSON lines; equal rows give equal bytes."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomic(path, gzip.compress(text.encode(), mtime=0))


def snapshot(model) -> Weights:
    """A copy of a model's weights in host memory; tied weights are there once."""
    tensors = dict(model.named_parameters())
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


@torch.no_grad()
def restore(model, weights: Weights) -> None:
    """Puts a snapshot's weights back, bit for bit."""
    tensors = dict(model.named_parameters())
    for name, tensor in weights.items():
        tensors[name].copy_(tensor)


def optimizer_tensors(optimizer) -> Weights:
    """Adam's moments and step counts under flat names."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{key}": torch.as_tensor(v).cpu() for i, entry in state.items() for key, v in entry.items()}


def load_optimizer(optimizer, tensors: Weights) -> None:
    """Puts `optimizer_tensors` back."""
    state: dict[int, dict] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


class Store:
    """The tensor files of a run, by content, with a ledger line for every write and deletion.

    model_bytes: size of one model copy, the unit of the ledger's `copies`.
    """

    def __init__(self, folder: Path, ledger: Path, model_bytes: int):
        self.folder, self.ledger, self.model_bytes = folder, ledger, model_bytes
        folder.mkdir(parents=True, exist_ok=True)
        for partial in folder.glob("*.partial"):
            partial.unlink()

    def put(self, tensors: Weights, kind: str) -> str:
        """Stores tensors; returns the file's name. Equal content is stored once."""
        from safetensors.torch import save

        data = save({name: tensor.contiguous() for name, tensor in tensors.items()})
        name = f"{kind}-{hashlib.sha256(data).hexdigest()}.safetensors"
        if not (self.folder / name).exists():
            write_atomic(self.folder / name, data)
            self._note(f"write {kind}", len(data))
        return name

    def get(self, name: str) -> Weights:
        """Tensors of a file. Raises RunError where the bytes are not those that were written."""
        from safetensors.torch import load

        try:
            data = (self.folder / name).read_bytes()
        except OSError as error:
            raise RunError(f"saved file {name} cannot be read: {error}") from error
        if hashlib.sha256(data).hexdigest() not in name:
            (self.folder / name).unlink()  # or `put` would take it for the whole file
            raise RunError(f"saved file {name} is damaged: its checksum does not match")
        return load(data)

    def retain(self, names: Iterable[str]) -> None:
        """Deletes every file but these (Algorithm 4: what nobody holds goes)."""
        wanted = set(names)
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name not in wanted:
                size = path.stat().st_size
                path.unlink()
                self._note(f"delete {path.name.split('-')[0]}", -size)

    def bytes(self) -> int:
        """Bytes of all files there are."""
        return sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))

    def _note(self, event: str, change: int) -> None:
        total = self.bytes()
        models = sum(p.stat().st_size for p in self.folder.glob("weights-*.safetensors"))
        row = {"time": time.time(), "event": event, "change": change, "bytes": total}
        row["copies"] = round(models / self.model_bytes, 4)
        with open(self.ledger, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
