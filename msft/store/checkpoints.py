"""The tensors of a run on disk: by content, whole or as differences to the base, pruned, every byte in a ledger.

A file's name carries the SHA-256 of the tensors in it, so equal weights are one file, and what comes back is checked
bit for bit, whichever way it was stored. Only safetensors are written and read.

A difference is the XOR of the raw bits, byte planes apart, zstandard; lossless. Fine-tuning leaves most bits of most
weights alone: at the paper's rate of 1e-5 an update is often smaller than half the last place of a bf16 weight and changes
nothing. What is equal becomes zero, and zeros take no room.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import zstandard
from safetensors import SafetensorError
from safetensors.torch import load

from msft import distributed
from msft.errors import RunError
from msft.store.files import append, read_lines, write_tensors

Weights = dict[str, torch.Tensor]
_WHOLE, _DELTA = ".safetensors", ".delta.safetensors"


def trained(model) -> list[tuple[str, torch.nn.Parameter]]:
    """(name, parameter) of all that training changes, and so all that is saved: every weight, or an adapter's alone."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def bytes_of(model) -> int:
    """Bytes of what `snapshot` copies."""
    return sum(parameter.nbytes for _, parameter in trained(model))


def snapshot(model) -> Weights:
    """A copy of a model's trained weights in host memory, on process 0 alone ({} on others); tied ones are there once."""
    return _copied(trained(model))


def _copied(named: Sequence[tuple[str, torch.Tensor]]) -> Weights:
    """Copies in the memory of process 0."""
    rooms = _rooms([t for _, t in named], "cpu")
    return {name: next(rooms[t.dtype]).view(t.shape).copy_(t.detach()) for name, t in distributed.gathered(named)}


def _rooms(tensors: Sequence[torch.Tensor], device) -> dict[torch.dtype, Iterator[torch.Tensor]]:
    """{type: flat room for each tensor of it}, one block a type: when it is dropped its memory goes back to the system,
    while that of hundreds of small ones stays with the process (benchmarks/NOTES.md)."""
    sizes = {dtype: [t.numel() for t in tensors if t.dtype == dtype] for dtype in {t.dtype for t in tensors}}
    return {d: iter(torch.empty(sum(size), dtype=d, device=device).split(size)) for d, size in sizes.items()}


@torch.no_grad()
def restore(model, weights: Weights) -> None:
    """Puts a snapshot's weights back, bit for bit; process 0 has it."""
    tensors = dict(trained(model))
    for name, tensor in distributed.handed_out(weights, model.device):
        tensors[name].copy_(distributed.like(tensors[name], tensor))


def optimizer_tensors(optimizer) -> Weights:
    """A copy of Adam's moments and step counts in host memory, under flat names."""
    state = optimizer.state_dict()["state"]
    return _copied([(f"{i}.{key}", torch.as_tensor(v)) for i, entry in state.items() for key, v in entry.items()])


def load_optimizer(optimizer, tensors: Weights) -> None:
    """Puts `optimizer_tensors` back."""
    state: dict[int, dict] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, tensor in distributed.handed_out(tensors, parameters[0].device):
        index, key = name.split(".", 1)
        shard = tensor if key == "step" else distributed.like(parameters[int(index)], tensor)
        state.setdefault(int(index), {})[key] = shard
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


@contextlib.contextmanager
def undone(optimizer) -> Iterator[None]:
    """Within it the optimizer may step: weights and its state are put back at the end, bit for bit."""
    state = {p: dict(optimizer.state[p]) for group in optimizer.param_groups for p in group["params"]}
    tensors = [tensor.detach() for p, entries in state.items() for tensor in (p, *entries.values())]
    tensors = [t.to_local() if hasattr(t, "to_local") else t for t in tensors]  # of a DTensor its shard
    rooms = _rooms(tensors, tensors[0].device)
    copies = [next(rooms[tensor.dtype]).view(tensor.shape).copy_(tensor) for tensor in tensors]
    yield
    for tensor, copied in zip(tensors, copies, strict=True):
        tensor.copy_(copied)
    optimizer.state.update(state)  # nothing, where there was none


def raw(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor, [n] uint8."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def fits(tensors: Weights, reference: Weights | None) -> bool:
    """Whether every tensor has a counterpart of its shape and type."""
    return reference is not None and all(
        name in reference and t.shape == reference[name].shape and t.dtype == reference[name].dtype
        for name, t in tensors.items()
    )


def encode(tensors: Weights, reference: Weights) -> Weights:
    """{name: compressed difference to the reference, [m] uint8}."""
    compressor = zstandard.ZstdCompressor(level=1)
    coded = {}
    for name, tensor in tensors.items():
        difference = raw(tensor) ^ raw(reference[name])
        # bytes of equal rank side by side: the high ones are nearly all zero, the low ones are noise
        planes = difference.reshape(-1, tensor.element_size()).T.contiguous()
        coded[name] = torch.frombuffer(bytearray(compressor.compress(planes.numpy())), dtype=torch.uint8)
    return coded


def decode(coded: Weights, reference: Weights) -> Weights:
    """Undoes `encode`, bit for bit. Raises ValueError for bytes that are no difference to this reference."""
    decompressor = zstandard.ZstdDecompressor()
    tensors = {}
    for name, data in coded.items():
        if name not in reference:
            raise ValueError(f"the base model has no tensor {name}")
        base, size = reference[name], reference[name].nbytes
        try:
            planes = decompressor.decompress(data.numpy().tobytes(), max_output_size=size)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error
        if len(planes) != size:
            raise ValueError(f"{name} has {len(planes)} bytes, not {size}")
        difference = torch.from_numpy(np.frombuffer(planes, np.uint8).copy()).reshape(base.element_size(), -1).T
        tensors[name] = (difference.reshape(-1) ^ raw(base)).view(base.dtype).reshape(base.shape)
    return tensors


def digest(tensors: Weights) -> str:
    """SHA-256 over names, types, shapes and bits."""
    whole = hashlib.sha256()
    for name in sorted(tensors):
        whole.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)} ".encode())
        whole.update(raw(tensors[name]).numpy())
    return whole.hexdigest()


class Store:
    """The tensor files of a run, by content, with a ledger line for every write and deletion.

    model_bytes: size of one model copy, the unit of the ledger's `copies`.  reference: the weights that the run began with, to
    which those of their shapes are stored as differences.  result: the folder of the finished checkpoint, whose bytes count too.
    facts: what every ledger line says besides: stage and bound.
    """

    def __init__(
        self, folder: Path, ledger: Path, model_bytes: int, reference: Weights | None = None, result: Path | None = None
    ):
        self.folder, self.ledger, self.model_bytes = folder, ledger, model_bytes
        self.reference, self.result, self.facts = reference, result, {}
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            # ours and safetensors' own, of a process that was killed while it wrote
            if path.is_file() and path.suffix != _WHOLE:
                path.unlink()
        known, there = read_lines(ledger), sum(self._sizes().values())
        before = known[-1].get("bytes", 0) if known else 0
        if before != there:  # a kill fell between a file and its line
            self.note("found after a restart", there - before)

    def put(self, tensors: Weights, kind: str) -> str:
        """Stores tensors ('weights' or 'optimizer'); returns the file's name. Equal content is stored once."""
        stem = f"{kind}-{digest(tensors)}"
        for end in (_WHOLE, _DELTA):
            if (self.folder / (stem + end)).exists():
                return stem + end
        if kind == "weights" and fits(tensors, self.reference):
            name, tensors = stem + _DELTA, encode(tensors, self.reference)
        else:
            name, tensors = stem + _WHOLE, {key: tensor.contiguous() for key, tensor in tensors.items()}
        write_tensors(self.folder / name, tensors)
        self.note(f"write {kind}", (self.folder / name).stat().st_size)
        return name

    def get(self, name: str) -> Weights:
        """Tensors of a file. Raises RunError where they are not those that were stored."""
        path = self.folder / name
        try:
            tensors = load(path.read_bytes())
            if name.endswith(_DELTA):
                tensors = decode(tensors, self.reference or {})
            if digest(tensors) not in name:
                raise ValueError("its checksum does not match")
        except OSError as error:
            raise RunError(f"saved file {name} cannot be read: {error}") from error
        except (SafetensorError, ValueError, RuntimeError, OverflowError) as error:
            self._discard(path)  # or `put` would take it for the whole file
            raise RunError(f"saved file {name} is damaged: {error}") from error
        return tensors

    def retain(self, names: Iterable[str]) -> None:
        """Deletes every file but these (Algorithm 4: what nobody holds goes)."""
        wanted = set(names)
        for path in sorted(self.folder.glob(f"*{_WHOLE}")):
            if path.name not in wanted:
                self._discard(path)

    def _discard(self, path: Path) -> None:
        size = path.stat().st_size
        path.unlink()
        self.note(f"delete {path.name.split('-')[0]}", -size)

    def _sizes(self) -> dict[Path, int]:
        """Bytes of all checkpoint files there are, the finished one's too."""
        places = [self.folder, *([self.result] if self.result else [])]
        return {path: path.stat().st_size for place in places for path in place.rglob("*") if path.is_file()}

    def note(self, event: str, change: int, **more) -> None:
        """Writes a ledger line: time, event, change and sum in bytes, weights in model copies, `facts`, and more."""
        sizes = self._sizes()
        weights = sum(s for p, s in sizes.items() if p.suffix == _WHOLE and not p.name.startswith("optimizer-"))
        row = {"time": time.time(), "event": event, "change": change, "bytes": sum(sizes.values())}
        row |= {"copies": round(weights / self.model_bytes, 4), **self.facts, **more}
        # not synced: the ledger tells of the files, and is set right by what is found at the next start
        append(self.ledger, json.dumps(row) + "\n", sync=False)
