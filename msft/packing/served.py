"""The weights that a run's evaluations answer with: their precision, and how they lie in memory."""

import contextlib
import ctypes

import torch

from msft.packing.probe import beyond_the_probe
from msft.packing.products import laid_out
from msft.settings import DTYPES

# (parameter, value) of glibc's mallopt.  keep: no trimming, no maps.  usual: what its thresholds come to after large blocks
_KEEP = (-1, -1), (-4, 0)
_USUAL = (-1, 2**26), (-3, 2**25), (-4, 2**16)


@contextlib.contextmanager
def served(model, config):
    """Within it the weights are a copy in the precision that answers (RunConfig.answers), as a server would load them.

    An adapter stays as it is: peft loads it in fp32 beside weights of any precision. Before and after, freed memory goes
    back to the system: the passes of training and evaluation leave holes of other sizes, and a long run grew by half.
    Within it freed memory stays with the process, which saves the system a zeroed page for every 4 KiB of every result.
    """
    kept = {}
    _allocator("malloc_trim", 0)
    for setting in _KEEP:
        _allocator("mallopt", *setting)
    if config.answers != config.weights:
        kept = {p: p.data for p in model.parameters() if not (config.adapter and p.requires_grad)}
    try:
        for parameter, weights in kept.items():
            parameter.data = weights.to(getattr(torch, DTYPES[config.answers]))
        with laid_out(model, packed=not beyond_the_probe(model)):
            yield
    finally:
        for parameter, weights in kept.items():
            parameter.data = weights
        for setting in _USUAL:
            _allocator("mallopt", *setting)
        _allocator("malloc_trim", 0)


def _allocator(name: str, *arguments: int) -> None:
    with contextlib.suppress(OSError, AttributeError):  # the C library of Linux has it
        getattr(ctypes.CDLL("libc.so.6"), name)(*arguments)
