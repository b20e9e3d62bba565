"""The journal: one checksummed line for every finished verb of a run and for every saved state.

A restarted method runs again from its first line; verbs that the journal holds return their recorded result.
Verbs wait in memory until the state behind them is on disk, then go out in one write that ends with the name of
that state. So the last such line that is whole is always a place to go on from.
"""

import json
import zlib
from itertools import takewhile
from pathlib import Path

from msft.errors import RunError
from msft.store.files import append, text_of, write_atomic

_OLD_STATES = 20  # superseded states in the journal at which it is written anew without them


def _line(entry: dict) -> str:
    text = json.dumps(entry, sort_keys=True)
    # not sorted: what was recorded comes back in its order, which is the mixture's
    return json.dumps({"entry": entry, "sum": zlib.crc32(text.encode())}) + "\n"


def _parse(line: str) -> dict | None:
    try:
        row = json.loads(line)
        text = json.dumps(row["entry"], sort_keys=True)
        return row["entry"] if zlib.crc32(text.encode()) == row["sum"] else None
    except (ValueError, KeyError, TypeError):
        return None


class Journal:
    """Append-only record of a run's verbs, notes and saved states."""

    def __init__(self, path: Path):
        self.path = path
        lines = text_of(path).splitlines()
        self.entries: list[dict] = list(takewhile(bool, map(_parse, lines)))
        self.torn = len(lines) - len(self.entries)
        self._pending: list[dict] = []
        self._next = 0

    @property
    def saved(self) -> list[dict]:
        """Saved states, the newest last."""
        return [entry for entry in self.entries if entry["kind"] == "saved"]

    @property
    def state(self) -> dict | None:
        """The state that the run goes on from."""
        return self.saved[-1]["state"] if self.saved else None

    def verbs(self) -> list[dict]:
        """Finished verbs and notes in order, those still in memory too."""
        return [entry for entry in [*self.entries, *self._pending] if entry["kind"] != "saved"]

    def rewind(self, count: int) -> None:
        """Forgets everything behind the first `count` entries, on disk too."""
        self.entries = self.entries[:count]
        self._pending, self._next, self.torn = [], 0, 0
        write_atomic(self.path, "".join(map(_line, self.entries)))

    def replay(self, verb: str, arguments: dict) -> dict | None:
        """The recorded result of the next verb, or None where the record ends. Raises RunError where it holds another verb:
        the method's code is not the one that began the run; and for arguments that no record could hold."""
        try:
            arguments = json.loads(json.dumps(arguments))
        except TypeError as error:  # here, not once what the verb asks for is trained
            raise RunError(f"{verb}: {error}; give plain numbers, texts and lists, such as float(epochs)") from None
        if self._next >= len(verbs := self.verbs()):
            return None
        entry = verbs[self._next]
        if entry["kind"] != verb or entry["arguments"] != arguments:
            what = f"the journal goes on with {entry['kind']} {entry['arguments']}, the method with {verb} {arguments}"
            why = "The method's code changed since this run began: delete the run's folder to start anew"
            raise RunError(f"{self.path}: {what}. {why}")
        self._next += 1
        return entry["result"]

    def add(self, verb: str, arguments: dict, result: dict) -> None:
        """Holds a finished verb until the next `commit`."""
        self._pending.append({"kind": verb, "arguments": arguments, "result": result})
        self._next += 1

    def commit(self, state: dict) -> None:
        """Writes what waits and the saved state, in one synced append; now and then anew, without superseded states."""
        entries = [*self._pending, {"kind": "saved", "state": state}]
        if len(self.saved) > _OLD_STATES:
            self.entries = [*self.verbs(), entries[-1]]
            write_atomic(self.path, "".join(map(_line, self.entries)))
        else:
            append(self.path, "".join(map(_line, entries)))
            self.entries += entries
        self._pending = []
