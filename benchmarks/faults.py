"""Kills and write faults: is anything that was committed ever lost, and is a run that goes on the same, bit for bit?

    make faults                                                # 50 kills, 220 write faults, 5 full disks: half an hour
    python benchmarks/faults.py --kills 1 --writes 2 --results runs/check        # a check

Kills: a real `python -m msft run` process gets SIGKILL at a random moment of its work, is started again, is killed
again, and in the end compared with a run that nobody disturbed: history, every generated answer, best weights.
Write faults: the n-th write, sync or rename of a run fails (error), half of a write arrives and then it fails (torn),
the process dies after half of a write (crash), or nothing can be written from there on (full).
Full disks: a real file system (tmpfs) that is too small; it grows, and the run goes on. Needs the right to mount.
"""

import argparse
import builtins
import contextlib
import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import types
import warnings
from pathlib import Path

from recording import RESULTS

KINDS = ("error", "torn", "crash", "full")
KEEP = ("memory", "disk")
METHODS = {
    "sft": {"epochs": 4},
    "msft": {"budget": 1},
    "ies": {"epochs": 5},
    "dynamix_sft": {"epochs": 4, "updates": 8, "look_ahead_batch": 4},
    "sro_sft": {"epochs": 2},
}
# as often as can be: the point is what happens around a save
SETTINGS = {"model": "tiny-smoke", "mixture": "tiny-smoke", "save_share": 1.0, "save_minutes": 0.0}


class Crash(BaseException):
    """Stands for the end of the process: nothing catches it."""


class Faults:
    """The disk of `msft.files` with one fault.

    at: number of the operation (write, sync, rename; from 1) that goes wrong; 0 for none.  count: operations so far.
    """

    def __init__(self, kind: str = "error", at: int = 0):
        self.kind, self.at, self.count = kind, at, 0

    def operation(self, data: bytes | None = None) -> bytes | None:
        """None where the operation may go on; the bytes that still arrive where a write breaks. Raises what goes wrong."""
        self.count += 1
        if not self.at or self.count < self.at or (self.count > self.at and self.kind != "full"):
            return None
        if data is not None:
            return b"" if self.kind == "error" else data[: len(data) // 2]
        if self.kind == "full" and self.count > self.at:
            return None  # a full disk still syncs and renames what is there
        raise self.error()

    def error(self) -> BaseException:
        """What the program is told."""
        if self.kind == "crash":
            return Crash()
        return OSError(errno.ENOSPC if self.kind == "full" else errno.EIO, "injected fault")

    def open(self, path, mode="r", *rest, **more):
        """`open`, with writes that may break."""
        file = builtins.open(path, mode, *rest, **more)
        return _File(file, self) if set(mode) & set("wa+") else file

    def fsync(self, handle) -> None:
        """`os.fsync`, which may fail."""
        self.operation()
        os.fsync(handle)

    def replace(self, source, target) -> None:
        """`os.replace`, which may fail."""
        self.operation()
        os.replace(source, target)

    def save_file(self, tensors, path) -> None:
        """safetensors' `save_file`, which may break."""
        self.library(tensors, path)
        if (arrives := self.operation(Path(path).read_bytes())) is not None:
            Path(path).write_bytes(arrives)
            raise self.error()

    @contextlib.contextmanager
    def at_work(self):
        """msft writes through this disk."""
        import safetensors.torch
        import transformers.modeling_utils  # noqa: F401  keeps the library's own function, for best/

        from msft.store import files

        self.library = safetensors.torch.save_file

        own = {**vars(os), "fsync": self.fsync, "replace": self.replace}
        files.open, files.os = self.open, types.SimpleNamespace(**own)
        safetensors.torch.save_file = self.save_file
        try:
            yield self
        finally:
            del files.open
            files.os, safetensors.torch.save_file = os, self.library


class _File:
    def __init__(self, file, faults: Faults):
        self.file, self.faults = file, faults

    def write(self, data: bytes) -> int:
        arrives = self.faults.operation(data)
        if arrives is None:
            return self.file.write(data)
        self.file.write(arrives)
        self.file.flush()
        raise self.faults.error()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()


def fingerprint(run) -> dict[str, str]:
    """SHA-256 of what a finished run has to show: journal, history, every answer, best weights, data order."""

    def of(data: bytes) -> str:
        return hashlib.sha256(data).hexdigest()

    outputs = sorted((run.directory / "outputs").glob("*.gz"))
    return {
        "verbs": of(json.dumps(run.journal, sort_keys=True).encode()),
        "history": of((run.directory / "history.csv").read_bytes()),
        "answers": of(b"".join(path.name.encode() + path.read_bytes() for path in outputs)),
        "best": of((run.directory / "best" / "model.safetensors").read_bytes()),
        "result": of(json.dumps(run.result["best"]).encode()),
    }


def config_of(method: str, **more):
    """The RunConfig of a method in this campaign."""
    import msft

    return msft.RunConfig(method=method, params=METHODS[method], **{**SETTINGS, **more})


def check_ledger(run) -> None:
    """The ledger's last sum is what the file system holds."""
    places = [run.directory / "state", run.directory / "best"]
    there = sum(path.stat().st_size for place in places for path in place.rglob("*") if path.is_file())
    told = int(run.disk.bytes.iloc[-1])
    assert told == there, f"{run.directory.name}: the ledger says {told} bytes, the file system {there}"


# write faults -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _noting(committed: list):
    """Notes every state once it is committed."""
    from msft.store.journal import Journal

    commit = Journal.commit

    def noting(self, state):
        commit(self, state)
        committed.append(json.loads(json.dumps(state)))

    Journal.commit = noting
    try:
        yield
    finally:
        Journal.commit = commit


def write_fault(method: str, kind: str, at: int, keep_peaks: str, whole: dict, runs_dir: Path) -> str | None:
    """One case: a run whose at-th disk operation goes wrong, then the same command again.

    whole: fingerprint of the undisturbed run. Returns where the fault fell, None where the run had fewer operations
    (how often it saves depends on the clock); raises AssertionError for a loss.
    """
    import msft
    from msft.errors import MsftError
    from msft.run_directory import state_files
    from msft.runs import prepare
    from msft.store.checkpoints import Store, snapshot
    from msft.store.journal import Journal

    config, committed, told = config_of(method, keep_peaks=keep_peaks), [], ""
    with _noting(committed), Faults(kind, at).at_work() as faults:
        try:
            msft.run(config, runs_dir, progress=False)
        except Crash:
            told = "crash"
        except MsftError as error:
            told = str(error)
            assert "make room" in told, f"the message does not say what to do: {told}"
    prepared = prepare(config)
    directory = runs_dir / prepared.name
    where = f"{method}, {kind} at operation {at}, peaks in {keep_peaks}"
    if faults.count < at:
        return None
    assert told, f"{where}: the fault went by unnoticed"
    if committed:
        saved = [entry["state"] for entry in Journal(directory / "journal.jsonl").saved]
        # one more where its line arrived but not the word that it is synced
        assert committed[-1] in saved[-2:], f"{where}: the last committed state is gone"
        if (directory / "state").is_dir() and not (directory / "result.json").is_file():
            store = Store(directory / "state", directory / "check.jsonl", 1, snapshot(prepared.load_model()))
            for name in {*state_files(committed[-1]), *state_files(saved[-1])}:
                store.get(name)  # raises where it is damaged
            (directory / "check.jsonl").unlink(missing_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*was damaged or its last state was", UserWarning)
        run = msft.run(config, runs_dir, progress=False)
    found = fingerprint(run)
    assert found == whole, f"{where}: another {', '.join(k for k in whole if found[k] != whole[k])}"
    check_ledger(run)
    return f"after {len(committed)} saved states"


def write_faults(cases: int, seed: int, methods=tuple(METHODS), say=print) -> list[dict]:
    """`cases` faults of each kind for every method, at operations drawn at random; a row a case."""
    import msft

    rows, draw = [], random.Random(seed)
    for method in methods:
        for number, kind in enumerate(KINDS):
            keep = KEEP[(number + len(method)) % len(KEEP)]
            with tempfile.TemporaryDirectory() as folder, Faults().at_work() as faults:
                whole = fingerprint(msft.run(config_of(method, keep_peaks=keep), folder, progress=False))
            for _ in range(cases):
                found = None
                while found is None:
                    at = draw.randint(1, faults.count)
                    with tempfile.TemporaryDirectory() as folder:
                        found = write_fault(method, kind, at, keep, whole, Path(folder))
                rows.append({"method": method, "kind": kind, "operation": at, "of": faults.count, "peaks": keep})
            say(f"write faults: {method}, {kind}: {cases} cases, nothing lost (the last {found})")
    return rows


# kills --------------------------------------------------------------------------------------------------------


def _command(method: str, runs_dir: Path, keep: str) -> list[str]:
    params = [f"{name}={value}" for name, value in METHODS[method].items()]
    given = {**SETTINGS, "keep_peaks": keep}
    flags = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    words = [sys.executable, "-m", "msft", "run", "--method", method, "--runs-dir", str(runs_dir)]
    return [*words, *flags, "--params", *params]


def _start(method: str, runs_dir: Path, keep: str):
    own = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(_command(method, runs_dir, keep), env=own, text=True, **out)


def _wait_for_work(process, runs_dir: Path, before: set) -> None:
    """Until the process has written something: from there on it trains."""
    while process.poll() is None:
        if {(p, p.stat().st_mtime_ns) for p in runs_dir.glob("*/*.json*")} - before:
            return
        time.sleep(0.02)


def kills(count: int, seed: int, methods=tuple(METHODS), say=print) -> list[dict]:
    """`count` SIGKILLs of each method at random moments of the work that is left; a row a kill."""
    from msft.results.run import Run
    from msft.runs import prepare

    rows, draw = [], random.Random(seed)
    for method in methods:
        keep = KEEP[len(method) % len(KEEP)]
        name = prepare(config_of(method)).name
        with tempfile.TemporaryDirectory() as folder:
            process = _start(method, Path(folder), keep)
            _wait_for_work(process, Path(folder), set())
            started = time.monotonic()
            assert process.wait() == 0, process.stderr.read()
            length = time.monotonic() - started
            whole = fingerprint(Run(Path(folder) / name))
        left = count
        while left:
            with tempfile.TemporaryDirectory() as folder:
                runs_dir, run = Path(folder), Run(Path(folder) / name)
                for _ in range(min(left, draw.randint(1, 4))):
                    before = {(p, p.stat().st_mtime_ns) for p in runs_dir.glob("*/*.json*")}
                    process = _start(method, runs_dir, keep)
                    _wait_for_work(process, runs_dir, before)
                    # what is left is not known; most moments of the whole are worth a try
                    moment = draw.uniform(0, 0.8 * length)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(moment)
                    process.send_signal(signal.SIGKILL)
                    process.communicate()
                    if run.status == "finished":
                        break  # it came to its end first: no kill
                    verbs = len(run.journal)
                    rows.append({"method": method, "second": round(moment, 2), "peaks": keep, "verbs on disk": verbs})
                    left -= 1
                process = _start(method, runs_dir, keep)
                _, errors = process.communicate()
                assert process.returncode == 0, f"{method}: it did not go on: {errors[-2000:]}"
                found = fingerprint(run)
                assert found == whole, f"{method}: another {', '.join(k for k in whole if found[k] != whole[k])}"
                check_ledger(run)
        say(f"kills: {method}: {count}, every run ends bit for bit as the undisturbed one")
    return rows


# full disks ---------------------------------------------------------------------------------------------------


def full_disks(seed: int, methods=tuple(METHODS), say=print) -> list[dict]:
    """Each method once on a file system of its own that is too small and then grows; a row a disk. [] without mount."""
    import msft

    rows, draw = [], random.Random(seed)
    for method in methods:
        with tempfile.TemporaryDirectory() as folder:
            undisturbed = msft.run(config_of(method), Path(folder) / "whole", progress=False)
            whole, most = fingerprint(undisturbed), int(undisturbed.disk.bytes.max())
            small = Path(folder) / "small"
            small.mkdir()
            size = int(most * draw.uniform(0.1, 0.9))
            mounted = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", small], capture_output=True
            )
            if mounted.returncode:
                say(f"full disks: not run, {mounted.stderr.decode().strip()}")
                return []
            try:
                told = ""
                try:
                    msft.run(config_of(method), small, progress=False)
                except msft.errors.RunError as error:
                    told = str(error)
                assert "make room" in told, f"{method}: a disk of {size} bytes was large enough or said: {told!r}"
                subprocess.run(["mount", "-o", f"remount,size={40 * most}", small], check=True)
                found = fingerprint(msft.run(config_of(method), small, progress=False))
                assert found == whole, f"{method}: another run after a full disk"
            finally:
                subprocess.run(["umount", small], check=True)
            rows.append(
                {"method": method, "bytes": size, "message": told.splitlines()[0].replace(str(small), "<disk>")}
            )
            say(f"full disks: {method}: stopped at {size} bytes, went on after the disk grew")
    return rows


def main() -> None:
    """Runs the campaign and writes <results>/faults.{json,md}."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10, help="SIGKILLs of each of the five methods")
    parser.add_argument("--writes", type=int, default=11, help="write faults of each of four kinds and five methods")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--results", default=str(RESULTS))
    options = parser.parse_args()
    started = time.monotonic()

    def say(line: str) -> None:
        print(line, flush=True)

    found = {
        "write faults": write_faults(options.writes, options.seed, say=say),
        "full disks": full_disks(options.seed, say=say),
        "kills": kills(options.kills, options.seed, say=say),
    }
    minutes = (time.monotonic() - started) / 60
    command = f"python benchmarks/faults.py --kills {options.kills} --writes {options.writes} --seed {options.seed}"
    folder = Path(options.results)
    folder.mkdir(parents=True, exist_ok=True)
    about = {"command": command, "date": time.strftime("%Y-%m-%d"), "minutes": round(minutes, 1)}
    (folder / "faults.json").write_text(json.dumps({**about, **found}, indent=1) + "\n", encoding="utf-8")
    lines = [
        "# Kills and write faults",
        f"`{command}`, {about['date']}, {minutes:.0f} minutes. Every case ended with the history, the answers and the best",
        "weights of an undisturbed run, bit for bit; no committed state was lost.",
        "",
        "| method | SIGKILLs | " + " | ".join(f"{kind} writes" for kind in KINDS) + " | full disks |",
        "|---|" + "---|" * (len(KINDS) + 2),
    ]
    for method in METHODS:
        own = {what: [row for row in rows if row["method"] == method] for what, rows in found.items()}
        counts = [sum(row["kind"] == kind for row in own["write faults"]) for kind in KINDS]
        cells = [len(own["kills"]), *counts, len(own["full disks"])]
        lines.append(f"| {method} | " + " | ".join(map(str, cells)) + " |")
    (folder / "faults.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
