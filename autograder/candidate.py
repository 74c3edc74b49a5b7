"""The candidate: runs the hand-in's cells inside the sandbox and answers questions about what they define.

Started as `python candidate.py SETTINGS` with one end of a socket pair. Whatever the hand-in does to this process, all that
leaves it is what goes through that socket, and the examiner believes none of it. No lab is known by name here.

The cells run in IPython's InteractiveShell, which understands what a notebook may hold (magics, `!`, `await`), without a
kernel's message loop, its five ports and its second to start.
"""

import builtins
import ctypes
import importlib.util
import json
import os
import platform
import random
import resource
import signal
import socket
import sys
import threading
import time
from pathlib import Path


class OutOfTime(BaseException):
    """Raised in a cell that runs for longer than it may."""


class Candidate:
    """Answers the examiner's messages one by one.

    Args:
        channel: the wire to the examiner.
    """

    def __init__(self, channel):
        self.channel, self.lock = channel, threading.Lock()
        self.shell = quiet_shell()
        self.handlers = {"run": self.run, "ask": self.ask}

    def serve(self) -> None:
        """Say that all is ready, then answer until the examiner hangs up."""
        self.channel.send("ready")
        while True:
            body, arrays = self.channel.receive()
            try:
                self.channel.send(*self.handlers[body["do"]](body, arrays))
            except Exception as error:  # a hand-in that breaks this process's own tools has no answer either
                self.channel.send(failure(error))

    def run(self, body, arrays):
        """Run one cell, for so many `seconds` on the "wall" or the "cpu" `clock`."""
        start, error = time.perf_counter(), None
        wall = body["clock"] == "wall"
        timer, alarm = (signal.ITIMER_REAL, signal.SIGALRM) if wall else (signal.ITIMER_PROF, signal.SIGPROF)
        signal.signal(alarm, out_of_time)
        signal.setitimer(timer, body["seconds"])
        try:
            result = self.shell.run_cell(body["source"], store_history=False)
            error = result.error_before_exec or result.error_in_exec
        except BaseException as late:  # the alarm may ring between two lines of the shell itself
            error = late
        finally:
            signal.setitimer(timer, 0)
        seconds = time.perf_counter() - start
        return {"seconds": seconds} | (failure(error) | {"error.line": line_of(error)} if error else {"error": ""}), []

    def ask(self, body, arrays):
        """Evaluate expressions with the hand-in's classes and functions."""
        from diffusionlab.asking import evaluate, from_json, inputs_changed

        defined = self.shell.user_ns
        if missing := [name for name in body["targets"] if name not in defined]:
            return {"missing": missing}, []
        targets = {name: defined[name] for name in body["targets"]} | {"remote model": self.remote_model}
        seed_everything(body["seed"])
        nodes, made, answers = from_json(body["nodes"], arrays), {}, []
        try:
            values = [evaluate(node, targets, made) for node in nodes]
            answer = {"error": "", "values": wire.encode(values, answers)}
        except BaseException as error:  # whatever the hand-in raises is its answer
            answer, answers = failure(error), []
        finally:
            close_figures()
        return answer | {"inputs": "changed" if inputs_changed(nodes, made) else "kept"}, answers

    def remote_model(self, number, sample_shape, num_timesteps):
        """A model whose predictions the examiner makes, who so sees every (x, t) asked for."""
        import torch
        from diffusionlab.noise_model import NoiseModel

        candidate = self

        class RemoteModel(NoiseModel):
            def __init__(self):
                super().__init__()
                self.sample_shape, self.num_timesteps = tuple(sample_shape), num_timesteps
                # Code that asks a model's tensors for their device finds one, as in the model that this stands for.
                self.register_buffer("mean", torch.zeros((), dtype=torch.float64))

            def forward(self, x, t):
                arrays = []
                question = {"model": number, "x": wire.encode(x, arrays), "t": wire.encode(t, arrays),
                            "grad": torch.is_grad_enabled(), "training": self.training}
                with candidate.lock:
                    candidate.channel.send(question, arrays)
                    body, arrays = candidate.channel.receive()
                if body["error"]:
                    raise getattr(builtins, body["error"], RuntimeError)(body["error.message"])
                answer = wire.decode(body["value"], arrays, torch.from_numpy)
                return answer.to(x.device)

        return RemoteModel()


def quiet_shell():
    """An InteractiveShell that keeps no history and prints no tracebacks: nobody is reading."""
    from IPython.core.history import HistoryManager
    from IPython.core.interactiveshell import InteractiveShell

    HistoryManager.enabled = False
    shell = InteractiveShell.instance(colors="nocolor")
    shell.showtraceback = shell.showsyntaxerror = lambda *args, **kwargs: None
    shell.enable_gui = lambda gui=None: None  # for %matplotlib: there is no event loop to hook into
    return shell


def out_of_time(*_):
    raise OutOfTime("the cell took too long")


def failure(error: BaseException) -> dict:
    """An exception as data: its type's name, its message, and the innermost function."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    try:
        message = str(error)[:500]
    except Exception:
        message = ""
    return {"error": type(error).__name__[:100], "error.message": message.encode("utf-8", "replace").decode(),
            "error.where": frame.tb_frame.f_code.co_qualname.rpartition("<locals>.")[2][:100] if frame else ""}


def line_of(error: BaseException) -> int | None:
    """The line of its cell at which an exception came up."""
    if isinstance(error, SyntaxError):
        return error.lineno
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_name != "<module>":
        frame = frame.tb_next
    return frame.tb_lineno if frame else None


def seed_everything(seed: int) -> None:
    """Make draws without a generator repeatable."""
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def close_figures() -> None:
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


def leave_keyring() -> None:
    """Join a new session keyring: the one that is inherited may hold the instructor's keys, and is shared with later hand-ins."""
    number = {"x86_64": 250, "aarch64": 219}.get(platform.machine())  # of keyctl; the C library has no function for it
    if number:
        ctypes.CDLL(None).syscall(number, 1, None)  # KEYCTL_JOIN_SESSION_KEYRING


def load_wire():
    """The module beside this file, without making its folder importable."""
    spec = importlib.util.spec_from_file_location("wire", Path(__file__).with_name("wire.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Give up what is not needed, then serve."""
    settings = json.loads(sys.argv[1])
    for name, value in settings["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    leave_keyring()
    sys.argv = [""]
    sys.path[:0] = settings["path"]
    end = socket.socket(fileno=settings["fd"])
    end.set_inheritable(False)
    candidate = Candidate(wire.Channel(end))
    # From here on the hand-in's code may run, and what it prints is nobody's.
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    try:
        candidate.serve()
    except wire.WireError:
        os._exit(0)


if __name__ == "__main__":
    wire = load_wire()
    main()
