"""The command line: python -m msft run | plan | grid | status | eval | export | mixture | methods.

python -m msft run --method msft --model tiny-qwen2 --mixture tiny --params budget=3
python -m msft run --config settings.yaml --seed 30
python -m msft plan --grid paper
"""

import errno
import os
import re
import sys

from msft.distributed import say
from msft.errors import MsftError, unknown
from msft.paths import unread_variables


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0, 2 for settings or data that cannot be used, 1 for a run that stopped, 130
    for Ctrl-C where nothing can be saved."""
    words = sys.argv[1:] if argv is None else list(argv)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # it was closed
    if unreadable := [word for word in words if re.search("[\ud800-\udfff]", word)]:
        shown = ", ".join(map(ascii, unreadable))
        say(f"this locale ({sys.getfilesystemencoding()}) cannot read {shown}: set PYTHONUTF8=1")
        return 2
    if "utf" not in (sys.stdout.encoding or "utf").lower():  # names that a locale cannot write are shown escaped
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = _main(words)
        sys.stdout.flush()  # here, not at exit, where a closed pipe can no longer be caught
        return code
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:  # a second one, or one where nothing is there to save yet
        say("stopped; what was saved is kept, and the same command goes on")
        return 130
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):  # full, or what a user may take of it
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        what = "a file" if error.filename else "the standard output"
        say(f"{what} cannot be written ({error}); what was saved is kept")
        return 1


def _main(words: list[str]) -> int:
    from msft.cli.commands import COMMANDS
    from msft.cli.options import read

    if not words or words[0] in ("-h", "--help", "help"):
        print("usage: msft COMMAND [flags]\n\nTrain mixtures with an early stop for each sub-dataset.\n")
        for name, (kind, _) in COMMANDS.items():
            print(f"  {name:8} {kind.__doc__}")
        print("\nmsft COMMAND --help tells its flags.\nTry: msft run --method msft --model tiny-qwen2 --mixture tiny")
        return 0
    if words[0] == "--version":
        from msft import __version__

        print(__version__)
        return 0
    if words[0] not in COMMANDS:
        print(unknown("command", words[0], list(COMMANDS)), file=sys.stderr)
        return 2
    if unread := unread_variables(()):
        print(f"environment variables that no command reads: {', '.join(unread)}; see its flags", file=sys.stderr)
    if words[0] != "run":  # all else is of one process, whatever a launcher or a cluster left in the environment
        os.environ.pop("WORLD_SIZE", None)
    kind, command = COMMANDS[words[0]]
    try:
        return command(read(kind, words[1:]))
    except MsftError as error:
        say(error)
        return 2 if isinstance(error, ValueError) else 1
