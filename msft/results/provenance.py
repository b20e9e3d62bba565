"""Where a run's numbers come from: settings, versions, commit, machine, model and data."""

import contextlib
import datetime
import platform
import subprocess
from collections import Counter
from importlib import metadata
from pathlib import Path

from msft.data.metrics import LOSS

PACKAGES = ("msft", "torch", "transformers", "datasets", "lm-eval", "accelerate", "tokenizers", "numpy", "pandas")


def versions() -> dict[str, str]:
    """The packages that a run's numbers depend on, as they are now."""
    versions_here = dict.fromkeys(PACKAGES, "not installed")
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions_here[name] = metadata.version(name)
    return versions_here


def about(prepared, mixture, model) -> dict:
    """What run.json holds; the mixture is the one that is trained, long examples left out."""
    commit = getattr(model.config, "_commit_hash", None)
    return {
        "config": prepared.config.to_dict(),
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(),
        "python": platform.python_version(),
        "machine": {"platform": platform.platform(), "processor": processor(), "device": str(model.device)},
        "git_commit": git_commit(),
        "model": {"source": prepared.source, "commit": commit, "identity": prepared.contents[1]},
        "mixture": {
            "name": mixture.name,
            "fingerprint": prepared.mixture.fingerprint(),
            "groups": mixture.groups,
            "sub_datasets": {
                sub.name: {
                    "train": len(sub.train),
                    "test": len(sub.test),
                    "validation": len(sub.validation),
                    **({"confirmation": len(sub.confirmation)} if sub.confirmation else {}),
                    "left_out": sub.left_out,
                    **({"most_frequent": most_frequent(sub)} if sub.metric != LOSS else {}),
                    "source": sub.source,
                    **({"metric": sub.judge.label if sub.judge else sub.metric} if sub.metric else {}),
                    **({"judge": sub.judge.facts()} if sub.judge else {}),
                    **({"stop": sub.stop} if sub.stop else {}),
                }
                for sub in mixture
            },
            **({"judges": [judge.facts() for judge in mixture.judges]} if mixture.judges else {}),
        },
    }


def most_frequent(sub) -> float:
    """Share 0..1 of a sub-dataset's test items that have its most frequent answer: what one gets without reading."""
    return max(Counter(example.answer for example in sub.test).values()) / len(sub.test)


def processor() -> str:
    """The processor's name where the system says it: on processors of one kind, numbers come out equal."""
    cpuinfo = Path("/proc/cpuinfo")  # Linux tells `platform` the architecture alone
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def git_commit() -> str | None:
    """Commit of the checkout that this code runs from, with '+' where files changed since."""
    words = ["git", "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty=+"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.check_output(words, cwd=Path(__file__).parent, stderr=subprocess.DEVNULL, text=True).strip()
    return None
