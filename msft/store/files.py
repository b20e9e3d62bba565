"""Files that survive a crash: written beside their place, synced and renamed, or appended and synced.

A name that stands is a whole file. Every write of a run goes through here, so that a full disk has one message.
"""

import contextlib
import gzip
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors import SafetensorError

from msft.errors import RunError

PARTIAL = ".partial"  # ends the name of a file that is being written


def cannot_write(path: Path, size: int, error: Exception) -> RunError:
    """The error of a write that failed."""
    mend = "Nothing that was saved before is lost; make room and give the same command again"
    return RunError(f"cannot write {path} ({size} bytes): {error}. {mend}")


def write_atomic(path: Path, data: bytes | str) -> None:
    """Writes a file so that it is there whole or not at all. Raises RunError where it cannot, as on a full disk."""
    data = data.encode() if isinstance(data, str) else data
    with _atomic(path, len(data)) as partial, open(partial, "wb") as file:
        file.write(data)


def write_tensors(path: Path, tensors: Mapping) -> None:
    """`write_atomic` of tensors as safetensors, from where they are: memory holds no second copy of them."""
    from safetensors.torch import save_file

    with _atomic(path, sum(tensor.nbytes for tensor in tensors.values())) as partial:
        save_file(tensors, partial)


@contextlib.contextmanager
def _atomic(path: Path, size: int):
    """Gives the name that a file is written under; at the end it is synced and gets its own name, or goes."""
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")  # two processes may fill a cache at once
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)
        sync(path.parent)  # a rename is durable once its folder is synced
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise cannot_write(path, size, error) from error


def sync(path: Path) -> None:
    """Puts a file's content, or a folder's names, on the disk itself, where a power cut leaves them."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def append(path: Path, text: str, sync: bool = True) -> None:
    """Appends lines to a file; what a crash tore off before gets a line of its own. Raises RunError where it cannot."""
    data = text.encode()
    try:
        with open(path, "ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                data = data if file.read(1) == b"\n" else b"\n" + data
            file.write(data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(path, len(data), error) from error


def write_gzip(path: Path, rows: Iterable[Mapping]) -> None:
    """Writes rows as gzipped JSON lines; equal rows give equal bytes."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomic(path, gzip.compress(text.encode(), mtime=0))


def text_of(path: Path) -> str:
    """The text of a file, '' where it is not there. Raises RunError where it may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace") if os.path.lexists(path) else ""
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error}; see that you may read it") from None


def read_lines(path: Path) -> list[dict]:
    """The JSON lines of a file that may have been torn by a crash; lines that are not whole are left out."""
    rows = []
    for line in text_of(path).splitlines():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict)]
