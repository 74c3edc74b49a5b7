"""Grading with an eye on all that leaves the sandbox, for the audit. Imports nothing else of it: each hand-in is a process."""

import json
from unittest.mock import patch

from .pipeline import grade_one
from .results import HandInResult, Task
from .wire import Channel


def grade_watched(task: Task) -> HandInResult:
    """`grade_one`; every planted secret (of secrets.json beside `task.out`) that a byte stream brings goes into `leaks/`."""
    planted = [secret.encode() for secret in json.loads((task.out.parent / "secrets.json").read_text()).values()]
    read, tail = Channel._read, bytearray()

    def watched(channel, length):
        content = read(channel, length)
        tail.extend(content)
        if found := [secret for secret in planted if secret in tail]:
            (task.out / "leaks").mkdir(exist_ok=True)
            (task.out / "leaks" / task.student).write_bytes(b"\n".join(found))
        del tail[:-100]
        return content

    with patch.object(Channel, "_read", watched):
        return grade_one(task)
