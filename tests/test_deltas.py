"""Differences to the base come back bit for bit, or not at all."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from msft.errors import RunError
from msft.store import checkpoints
from msft.store.checkpoints import Store, digest

TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def weights(dtype, seed=0, scale=1.0):
    draw = torch.Generator().manual_seed(seed)
    shapes = {"embed": (50, 8), "bias": (7,), "scalar": (), "empty": (0, 4)}
    return {name: (scale * torch.randn(shape, generator=draw)).to(dtype) for name, shape in shapes.items()}


def moved(base, step):
    return {name: tensor + step for name, tensor in base.items()}


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("step", [0.0, 1e-5, 1.0, float("nan"), float("inf")])
def test_comes_back_bit_for_bit(dtype, step):
    base = weights(dtype)
    tensors = moved(base, step)
    back = checkpoints.decode(checkpoints.encode(tensors, base), base)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].shape == tensor.shape and back[name].dtype == dtype
        assert torch.equal(checkpoints.raw(back[name]), checkpoints.raw(tensor))
    assert digest(back) == digest(tensors)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40), st.integers(0, 3))
def test_any_bits_come_back(bits, seed):
    base = {"w": torch.randint(0, 2**31, (len(bits),), generator=torch.Generator().manual_seed(seed)).int()}
    base = {"w": base["w"].view(torch.float32)}
    tensors = {"w": torch.tensor(bits, dtype=torch.int64).to(torch.int32).view(torch.float32)}
    back = checkpoints.decode(checkpoints.encode(tensors, base), base)
    assert torch.equal(checkpoints.raw(back["w"]), checkpoints.raw(tensors["w"]))


def test_equal_weights_take_next_to_no_room():
    base = {"w": torch.randn(100_000, generator=torch.Generator().manual_seed(0))}
    assert checkpoints.encode(base, base)["w"].numel() < 200
    # a step below half of the last place of a bf16 weight changes few of them
    half = {"w": base["w"].bfloat16()}
    near = {"w": (half["w"].float() + 1e-5).bfloat16()}
    assert checkpoints.encode(near, half)["w"].numel() < 0.1 * 2 * 100_000


def test_only_what_has_a_counterpart_fits():
    base = weights(torch.float32)
    assert checkpoints.fits(weights(torch.float32, 1), base)
    assert not checkpoints.fits(base, None)
    assert not checkpoints.fits({"other": base["embed"]}, base)
    assert not checkpoints.fits({"embed": base["embed"].T.contiguous()}, base)
    assert not checkpoints.fits({"embed": base["embed"].bfloat16()}, base)


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-3]),
        lambda path: path.write_bytes(path.read_bytes()[:40]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\x00" * path.stat().st_size),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
    ],
    ids=["short", "head", "empty", "zeros", "flipped"],
)
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "delta"])
def test_damaged_file_is_found_out(tmp_path, harm, whole):
    base = weights(torch.float32)
    store = Store(tmp_path / "state", tmp_path / "disk.jsonl", 1000, None if whole else base)
    tensors = moved(base, 1e-3)
    name = store.put(tensors, "weights")
    assert name.endswith(".delta.safetensors") != whole
    assert digest(store.get(name)) == digest(tensors)
    harm(tmp_path / "state" / name)
    with pytest.raises(RunError, match="damaged"):
        store.get(name)
    assert not (tmp_path / "state" / name).exists()  # or the next `put` would take it for the whole file
    assert store.put(tensors, "weights") == name
    assert digest(store.get(name)) == digest(tensors)


def test_another_base_is_found_out(tmp_path):
    base = weights(torch.float32)
    name = Store(tmp_path / "state", tmp_path / "disk.jsonl", 1000, base).put(moved(base, 1e-3), "weights")
    other = Store(tmp_path / "state", tmp_path / "disk.jsonl", 1000, weights(torch.float32, 1))
    with pytest.raises(RunError, match="damaged"):
        other.get(name)


def test_bomb_is_not_unpacked(tmp_path):
    """A compressed block that claims to be larger than the tensor is refused, not unpacked."""
    import zstandard

    base = {"w": torch.zeros(10)}
    bomb = zstandard.ZstdCompressor().compress(b"\x00" * 50_000_000)
    with pytest.raises(ValueError):
        checkpoints.decode({"w": torch.frombuffer(bytearray(bomb), dtype=torch.uint8)}, base)
