"""The candidate as a program of its own, spoken to over its socket; no sandbox here."""

from __future__ import annotations

import json
import platform
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from autograder.wire import Channel, WireError, decode
from diffusionlab.asking import ask, attempt, call, to_json

ROOT = Path(__file__).resolve().parents[2]


class Talk:
    """One candidate, and the examiner's side of the wire to it."""

    def __init__(self, **limits):
        ours, theirs = socket.socketpair()
        settings = {"fd": theirs.fileno(), "path": [str(ROOT / "labs")], "limits": limits}
        with theirs:
            command = [sys.executable, "-P", "-s", ROOT / "autograder" / "candidate.py", json.dumps(settings)]
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE,
                                            stderr=subprocess.STDOUT, env={})
        ours.settimeout(60)
        self.channel = Channel(ours)
        assert self.channel.receive()[0] == "ready"

    def __call__(self, body, arrays=()):
        self.channel.send(body, arrays)
        return self.channel.receive()

    def run(self, source, seconds=60.0, clock="wall"):
        return self({"do": "run", "source": source, "seconds": seconds, "clock": clock})[0]

    def ask(self, *nodes, targets=()):
        arrays = []
        body = {"do": "ask", "nodes": to_json(list(nodes), arrays), "targets": list(targets), "seed": 1}
        answer, arrays = self(body, arrays)
        return answer | {"values": decode(answer["values"], arrays, np.asarray)} if "values" in answer else answer

    def close(self):
        self.channel.close()
        return self.process.communicate(timeout=30)[0]


@pytest.fixture(scope="module")
def talk():
    candidate = Talk()
    yield candidate
    printed = candidate.close()
    assert candidate.process.returncode == 0 and printed == b""  # whatever cells print is nobody's


def test_cells_run_as_in_a_notebook(talk):
    assert talk.run("a = 1")["error"] == ""
    assert talk.run("%matplotlib inline\nimport matplotlib\n!true\nprint(a); display(a)\na")["error"] == ""
    assert talk.run("import asyncio\nawait asyncio.sleep(0)\nassert a == 1 and __name__ == '__main__'")["error"] == ""


def test_an_error_in_a_cell_is_told_by_name(talk):
    assert talk.run("b = 1\n1 / 0")["error"] == "ZeroDivisionError"
    assert talk.run("class A:\n  def f(:\n")["error"] == "SyntaxError"
    assert talk.run("class A:\n  def f(:\n")["error.line"] == 2
    assert talk.run("raise SystemExit")["error"] == "SystemExit"
    assert talk.run("raise KeyboardInterrupt")["error"] == "KeyboardInterrupt"
    assert talk.run("x = '\0'")["error"] in ("ValueError", "SyntaxError")
    assert talk.run("b = 2")["error"] == ""


def test_a_cell_is_stopped_when_its_time_is_up(talk):
    told = talk.run("import time\nbefore = 1\nwhile True: time.sleep(0.01)", seconds=0.3)
    assert told["error"] == "OutOfTime" and 0.2 < told["seconds"] < 20
    assert talk.run("while True: pass", seconds=0.1, clock="cpu")["error"] == "OutOfTime"
    assert talk.run("import time\ntime.sleep(0.3)", seconds=0.2, clock="cpu")["error"] == ""  # sleeping is no work
    assert talk.run("assert before == 1")["error"] == ""


def test_questions_are_answered_with_what_the_cells_define(talk):
    talk.run("class Box:\n def __init__(self, x): self.x = x\n"
             " def twice(self): return {'x': [2 * self.x, None], 'me': self}")
    answer = talk.ask(ask(call("Box", np.arange(3)), "twice"), targets=["Box"])
    assert answer["error"] == "" and answer["values"][0]["x"][0].tolist() == [0, 2, 4]
    assert answer["values"][0]["me"].name == "Box"


def test_a_call_that_stands_twice_is_made_once(talk):
    talk.run("calls = []\ndef count():\n calls.append(1)\n return len(calls)")
    once = call("count")
    assert talk.ask(once, [once, once], targets=["count"])["values"] == [1, [1, 1]]


def test_what_is_not_defined_is_named(talk):
    assert talk.ask(call("Nobody"), targets=["Nobody"])["missing"] == ["Nobody"]


@pytest.mark.parametrize("body, error", [
    ("raise ValueError('no')", "ValueError"), ("raise SystemExit(3)", "SystemExit"),
    ("raise KeyboardInterrupt", "KeyboardInterrupt"), ("raise NotImplementedError", "NotImplementedError"),
    ("return list(range(10**6))", "ValueError"),
    ("return np.zeros(10**8)", "ValueError"), ("return bad()", "RecursionError")])
def test_what_goes_wrong_in_an_answer_is_the_answer(talk, body, error):
    talk.run(f"import numpy as np\ndef bad():\n {body}")
    assert talk.ask(call("bad"), targets=["bad"])["error"] == error
    assert talk.ask(call("builtins:len", [1]))["values"] == [1]  # and the next question finds it well


def test_an_error_says_where_it_came_from(talk):
    talk.run("def inner():\n raise NotImplementedError\ndef outer():\n inner()")
    assert talk.ask(call("outer"), targets=["outer"])["error.where"] == "inner"


def test_an_exception_that_cannot_be_printed_is_still_one(talk):
    talk.run("class Bad(Exception):\n def __str__(self): raise RuntimeError\ndef bad(): raise Bad")
    answer = talk.ask(call("bad"), targets=["bad"])
    assert answer["error"] == "Bad" and answer["error.message"] == ""


def test_refusals_are_asked_for(talk):
    talk.run("def picky(x):\n if x < 0: raise ValueError('no')")
    answer = talk.ask([attempt(call("picky", 1)), attempt(call("picky", -1))], targets=["picky"])
    assert answer["values"] == [["", "ValueError"]]


def test_draws_without_a_generator_are_the_same_each_time(talk):
    talk.run("import numpy, random\ndef draw(): return [random.random(), float(numpy.random.rand())]")
    assert talk.ask(call("draw"), targets=["draw"])["values"] == talk.ask(call("draw"), targets=["draw"])["values"]


def test_the_examiners_own_modules_are_not_in_reach(talk):
    assert talk.run("import wire")["error"] == "ModuleNotFoundError"
    assert talk.run("import candidate")["error"] == "ModuleNotFoundError"


def test_limits_are_set_before_any_cell_runs():
    candidate = Talk(RLIMIT_CORE=0, RLIMIT_FSIZE=2**16)
    try:
        assert candidate.run("import resource\nassert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)")["error"] == ""
        too_large = "import tempfile\nwith tempfile.TemporaryFile() as f: f.write(bytes(2**17))"
        assert candidate.run(too_large)["error"] == "OSError"
    finally:
        candidate.close()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="the number of keyctl is not known here")
def test_the_keyring_is_not_the_one_that_was_inherited(talk):
    serial = "__import__('ctypes').CDLL(None).syscall({'x86_64': 250, 'aarch64': 219}[__import__('platform').machine()], 0, -3, 1)"
    assert talk({"do": "run", "source": f"ring = lambda: {serial}", "seconds": 9, "clock": "wall"})[0]["error"] == ""
    inside = talk.ask(call("ring"), targets=["ring"])["values"][0]
    assert inside != eval(serial)


def test_the_end_of_the_program_is_the_end_of_the_talk():
    candidate = Talk()
    with pytest.raises(WireError):
        candidate.run("import os\nos._exit(7)")
    candidate.close()
    assert candidate.process.returncode == 7
