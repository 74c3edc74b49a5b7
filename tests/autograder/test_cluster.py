"""A dask cluster on this machine gives the marks that its cores give."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing

import pytest


def free_port() -> int:
    with closing(socket.socket()) as any_port:
        any_port.bind(("127.0.0.1", 0))
        return any_port.getsockname()[1]


@pytest.fixture
def cluster(tmp_path):
    """The address of a scheduler with two workers of one thread each."""
    address = f"tcp://127.0.0.1:{free_port()}"
    commands = [["scheduler", "--host", address.removeprefix("tcp://").partition(":")[0], "--port", address.rpartition(":")[2], "--no-dashboard"],
                *[["worker", address, "--nthreads", "1", "--no-dashboard", "--local-directory", str(tmp_path / f"dask-{i}")] for i in "ab"]]
    with ExitStack() as stack:
        for command in commands:
            log = stack.enter_context((tmp_path / f"{command[0]}.log").open("a"))
            process = subprocess.Popen([sys.executable, "-m", "dask", *command], stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        yield address


@pytest.mark.slow
def test_two_workers_give_the_same_marks_as_this_machine(fake_class, cluster):
    from distributed import Client

    source = fake_class.lab.lesson.with_name("tinylab.ipynb").read_bytes()
    for name, content in {"ada": source, "ben": source.replace(b"/ len(self.numbers)", b"/ 2"), "cem": b"no notebook"}.items():
        fake_class.hand_in(name, raw=content)
    fake_class.grade(grade_one="autograder.pipeline:grade_one", seed=11)
    here = (fake_class.out / "grades.csv").read_bytes()
    fake_class.out.rename(fake_class.folder / "out-here")
    with Client(cluster, timeout="60s") as client:
        client.wait_for_workers(2, timeout=120)
    fake_class.grade(grade_one="autograder.pipeline:grade_one", seed=11, scheduler=cluster)
    assert (fake_class.out / "grades.csv").read_bytes() == here
    assert b"ada,tinylab,9,10,graded" in here
