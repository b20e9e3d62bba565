"""Several processes for one run: what they agree on, share out and gather; with one process nothing happens here.

    accelerate launch --config_file msft/launch/accelerate/ddp.yaml -m msft run ...
    torchrun --nproc_per_node 2 -m msft run --device cpu ...

Every process runs the same method over the same journal; process 0 alone writes. The examples of a step and the items
of an evaluation are dealt out, gradients are summed and results gathered, so that all processes hold the same history.
"""

from __future__ import annotations  # torch is loaded where it is needed: the command line starts without it

import atexit
import contextlib
import copy
import datetime
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import compress
from typing import TYPE_CHECKING

from msft.errors import ConfigError, ModelError, MsftError, RunError

if TYPE_CHECKING:
    import torch

# a process may wait as long as another job holds the run's lock; one that dies is noticed by its connections
_PATIENCE = datetime.timedelta(days=7)
_ARRIVAL = datetime.timedelta(minutes=10)  # from the first process to the last
_LAST_WORDS = 10  # seconds
_SILENCE = 10.0  # seconds of waiting for other processes before one says so
_SMALL = 2**18  # elements; gradients below travel in one message, since each message costs more than its bytes


def size() -> int:
    """Number of processes of this run. Raises ConfigError where the environment says nonsense of it."""
    number, of = os.environ.get("RANK"), os.environ.get("WORLD_SIZE") or "1"
    if number is None or of == "1":
        return 1
    if not (number.isdecimal() and of.isdecimal() and int(number) < int(of)):
        what = f"RANK = {number!r} with WORLD_SIZE = {of!r} in the environment is no process of several"
        raise ConfigError(f"{what}: a launcher such as torchrun sets them; unset both for one process")
    return int(of)


def rank() -> int:
    """Number of this process, 0 for the one that writes."""
    return int(os.environ["RANK"]) if size() > 1 else 0


def is_main() -> bool:
    """Whether this process writes and speaks for all."""
    return rank() == 0


def start(device: str | None) -> None:
    """Joins the processes that a launcher started; device: as in RunConfig. Raises RunError where they cannot be reached."""
    if size() == 1 or _dist().is_initialized():
        return
    if not is_main():  # what all of them would warn of, one says
        logging.getLogger("msft").setLevel(logging.ERROR)
    import torch
    import torch.distributed as dist

    on_cpu = (device or "").startswith("cpu") or not torch.cuda.is_available()
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"  # transformers would load the weights in one process alone
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    text = f"process {rank()} of {size()} (RANK, WORLD_SIZE) waits for the others at {where}, {_ARRIVAL} hours at most"
    word = threading.Timer(_SILENCE, print, [f"{text}; for a run of one process unset RANK"], {"file": sys.stderr})
    word.start()
    try:
        store, number, processes = next(dist.rendezvous("env://", timeout=_ARRIVAL))
        store.set_timeout(_PATIENCE)
        backend = "gloo" if on_cpu else "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend, store=store, rank=number, world_size=processes, timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        way = "Start a run on several processes with `accelerate launch -m msft run ...` or `torchrun -m msft run ...`"
        raise RunError(f"process {rank()} of {size()} cannot reach the others: {error}. {way}") from error
    finally:
        word.cancel()
    atexit.register(dist.destroy_process_group)  # its threads must not outlive the interpreter


def device(name: str | None) -> torch.device:
    """The device of this process, tried; None takes CUDA where it is there, of which each process has one of its own.
    Raises ModelError where it cannot be used."""
    import torch

    device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and size() > 1:
        if device.index is not None:
            raise ModelError(f"device {name!r} is one GPU for {size()} processes: give cuda, or leave it out")
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        there = torch.cuda.device_count()
        if device.index >= there:
            raise ModelError(f"this machine has {there} GPUs, which is fewer than its processes (--num_processes)")
        torch.cuda.set_device(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"device {name!r}: this machine has no CUDA device; take cpu")
    try:
        torch.zeros(1, device=device).item()
    # a build of torch without that kind of device asserts
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0]
        raise ModelError(f"device {name!r} cannot be used: {why}. Allowed: cpu, cuda, cuda:0, cuda:1, ...") from None
    return device


@contextlib.contextmanager
def reaching() -> Iterator[None]:
    """Within it, the end of another process is a RunError that says so."""
    try:
        yield
    except RuntimeError as error:
        words = ("gloo", "nccl", "connection closed", "connection reset", "process group")
        if size() == 1 or isinstance(error, MsftError) or not any(word in str(error).lower() for word in words):
            raise
        what = "another process of this run ended, or cannot be reached; what was saved last is kept"
        way = "Give the same command again, with any number of processes"
        raise RunError(f"{what}. {way}. ({str(error).strip().splitlines()[0]})") from error


def say(error: Exception) -> None:
    """Prints an error that ends all processes, on process 0; the others give it the time to."""
    with contextlib.suppress(ConfigError):  # which process this is may be what is wrong
        if not is_main():
            time.sleep(_LAST_WORDS)  # the launcher ends all processes as soon as one has ended
            return
    print(error, file=sys.stderr, flush=True)


def _dist():
    import torch.distributed  # only where processes are several

    return torch.distributed


# agreement ----------------------------------------------------------------------------------------------------


def gather(value) -> list:
    """The values of all processes, in their order."""
    values = [value] * size()
    if size() > 1:
        _dist().all_gather_object(values, value)
    return values


def same(value):
    """Process 0's value, in every process."""
    box = [value]
    if size() > 1:
        _dist().broadcast_object_list(box, src=0)
    return box[0]


def any_of(*flags: bool) -> tuple[bool, ...]:
    """For each flag, whether it is true in any process."""
    if size() == 1:
        return flags
    import torch

    return tuple(count > 0 for count in add_up(torch.tensor(flags, dtype=torch.int32)).tolist())


@contextlib.contextmanager
def agreed() -> Iterator[None]:
    """An error of ours that one process meets within is raised by all of them."""
    failure = None
    try:
        yield
    except MsftError as error:
        failure = error
    for error in gather(failure):
        if error is not None:
            raise error


def on_main(function: Callable, *args):
    """What a function gives on process 0, where alone it runs; all processes get the result, or its error."""
    with agreed():
        result = function(*args) if is_main() else None
    return same(result)


def check_same(run: str) -> None:
    """Raises RunError where a process has another run than process 0."""
    runs = gather(run)
    for number, other in enumerate(runs):
        if other != runs[0]:
            what = f"process {number} has another run than process 0: {other} and {runs[0]}"
            raise RunError(f"{what}. Data and model must be the same everywhere: give a folder that all machines share")


# shares of rows, items and gradients --------------------------------------------------------------------------


def mine(items: Sequence) -> Sequence:
    """This process's share of items."""
    return items[rank() :: size()]


def woven(shares: Sequence[Sequence]) -> list:
    """The items of all processes' shares (`mine`) in their order."""
    whole = [None] * sum(map(len, shares))
    for number, share in enumerate(shares):
        whole[number :: len(shares)] = share
    return whole


def add_up(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over all processes, in place."""
    if size() > 1:
        _dist().all_reduce(tensor)
    return tensor


def add_up_gradients(model) -> None:
    """Sums the gradients of all processes, in place; the backward pass of a sharded model has done it."""
    if size() == 1 or is_sharded(model):
        return
    import torch
    import torch.distributed as dist
    from torch.nn.utils import parameters_to_vector, vector_to_parameters

    parameters = [p for p in model.parameters() if p.requires_grad]
    # what nobody's rows touched keeps no gradient, as with one process
    has_gradient = any_of(*(p.grad is not None for p in parameters))
    pending, small = [], {}
    for parameter in compress(parameters, has_gradient):
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if parameter.numel() < _SMALL:
            small.setdefault(parameter.dtype, []).append(parameter.grad)
        else:
            pending.append(dist.all_reduce(parameter.grad, async_op=True))
    for grads in small.values():
        flat = parameters_to_vector(grads)
        dist.all_reduce(flat)
        vector_to_parameters(flat, grads)
    for work in pending:
        work.wait()


# sharded weights (FSDP2) --------------------------------------------------------------------------------------


def backward(loss: torch.Tensor, model) -> None:
    """Adds the gradients of a share of a step's loss, the step's loss being the sum of the shares."""
    if is_sharded(model):
        loss = loss * size()  # it averages over the processes
    loss.backward()


def is_sharded(model) -> bool:
    """Whether every process holds a part of the weights only."""
    if size() == 1:
        return False
    from torch.distributed.fsdp import FSDPModule

    return isinstance(model, FSDPModule)


def for_training(model):
    """The model to train: itself, or, where accelerate's configuration asks for FSDP, a copy that is sharded (FSDP2).

    The model that was given stays whole on every device, which costs one copy of the weights there and, while this runs,
    two: evaluations measure it once `refresh` has filled it.
    """
    if size() == 1 or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() not in ("1", "true"):
        return model
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = copy.deepcopy(model)
    mesh = init_device_mesh(model.device.type, (size(),))
    kinds = getattr(model, "_no_split_modules", None) or ()
    for layer in [part for part in model.modules() if type(part).__name__ in kinds]:
        fully_shard(layer, mesh=mesh)
    # a root that stays gathered after a forward pass without a backward one would keep old weights
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    return model


def refresh(whole, model) -> None:
    """Fills the whole model with what was trained of the sharded one."""
    for ours, theirs in zip(whole.parameters(), model.parameters(), strict=True):
        if theirs.requires_grad and theirs is not ours:
            ours.detach().copy_(theirs.full_tensor().detach())


def gathered(tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, whole tensor) one after the other on process 0; the others take part and get nothing."""
    for name, tensor in tensors:
        whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # a DTensor has it
        if is_main():
            yield name, whole


def handed_out(tensors: Mapping[str, torch.Tensor], device) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of process 0's tensors one after the other, in every process."""
    if size() == 1:
        yield from tensors.items()
        return
    import torch

    for name, shape, dtype in same([(name, t.shape, t.dtype) for name, t in tensors.items()]):
        tensor = tensors[name].to(device) if is_main() else torch.empty(shape, dtype=dtype, device=device)
        _dist().broadcast(tensor, src=0)
        yield name, tensor


def like(parameter: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """A whole tensor in the parameter's form: sharded, or as it is."""
    if not hasattr(parameter, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)
