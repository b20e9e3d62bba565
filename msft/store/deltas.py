"""Weights as differences to the base model: XOR of the raw bits, byte planes apart, zstandard. Lossless.

Fine-tuning leaves most bits of most weights alone: at the paper's rate of 1e-5 an update is often smaller than half
the last place of a bf16 weight and changes nothing. What is equal becomes zero, and zeros take no room.
"""

import numpy as np
import torch
import zstandard

Weights = dict[str, torch.Tensor]


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
