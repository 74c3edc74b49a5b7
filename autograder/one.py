"""The process of one hand-in: `python -m autograder.one MODULE:FUNCTION`, with the task on standard input.

It imports nothing that grading does not need, for it is started once for each hand-in.
"""

import ctypes
import importlib
import pickle
import signal
import sys

from .course import Refusal

REFUSED = 2
"""The exit status where nothing can be graded on this machine."""


def die_with_parent() -> None:
    """End this process when the one that started it ends, however that comes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def main() -> None:
    """Call the function with the task; die with the process that started this one. A refusal is one line on standard error."""
    die_with_parent()
    task = pickle.load(sys.stdin.buffer)  # comes from `grade`, our own parent process
    module, _, function = sys.argv[1].partition(":")
    try:
        getattr(importlib.import_module(module), function)(task)
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        sys.exit(REFUSED)


if __name__ == "__main__":
    main()
