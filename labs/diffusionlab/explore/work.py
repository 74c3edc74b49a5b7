"""Work behind a panel: a thread that does the latest thing asked for, and a memory of what was done before.

Nothing here knows of widgets or of samplers.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable


class Stopped(BaseException):
    """Raised inside work that is no longer wanted. No Exception, so that a sampler's `except Exception` lets it through."""


class Run:
    """One piece of work while it goes on.

    Args:
        report: called as `report(done, total)` on progress, at most ten times a second.
    """

    def __init__(self, report: Callable[[int, int], None] = lambda done, total: None):
        self._stop, self._report, self._reported = threading.Event(), report, 0.0

    def stop(self) -> None:
        """Ask the work to end; it does at its next `check`."""
        self._stop.set()

    def check(self) -> None:
        """Raise Stopped if the work is no longer wanted."""
        if self._stop.is_set():
            raise Stopped

    def advance(self, done: int, total: int) -> None:
        """Say how far the work is; also a `check`."""
        self.check()
        if (now := time.monotonic()) - self._reported > 0.1:
            self._reported = now
            self._report(done, total)


class Worker:
    """A thread that does one job at a time: a new job stops the one that runs and replaces the one that waits.

    So a slider may ask a hundred times a second: no queue forms, and what is asked last is done. The thread ends when there
    is nothing left to do.
    """

    def __init__(self):
        self._changed = threading.Condition()
        self._waiting: tuple[Run, Callable[[Run], None]] | None = None
        self._current: Run | None = None
        self._alive = False

    def submit(self, job: Callable[[Run], None], run: Run | None = None) -> Run:
        """Do `job(run)` as soon as the job that runs now has noticed that it is out of date."""
        run = run or Run()
        with self._changed:
            if self._current:
                self._current.stop()
            self._waiting = run, job
            if not self._alive:
                self._alive = True
                threading.Thread(target=self._work, daemon=True, name="explorer").start()
        return run

    def stop(self) -> bool:
        """Drop what waits and stop what runs; whether there was anything."""
        with self._changed:
            anything, self._waiting = self._alive, None
            if self._current:
                self._current.stop()
        return anything

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to do; False if it took longer than `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._alive, timeout)

    def _work(self) -> None:
        while True:
            with self._changed:
                if self._waiting is None:
                    self._alive, self._current = False, None
                    self._changed.notify_all()
                    return
                (self._current, job), self._waiting = self._waiting, None
            try:
                job(self._current)
            except Stopped:
                pass
            except BaseException:  # the thread must go on, or every later wait would hang; threads report by this hook
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))


class Memory:
    """Results by what they depend on; the least recently used are forgotten.

    Args:
        size: how many results to keep.
    """

    def __init__(self, size: int = 200):
        self._size, self._lock, self._results = size, threading.Lock(), OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._results

    def __len__(self) -> int:
        return len(self._results)

    def get(self, key: Hashable):
        """The result stored under a key, None where there is none."""
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
            return self._results.get(key)

    def put(self, key: Hashable, result) -> None:
        """Store a result, which must not be None."""
        with self._lock:
            self._results[key] = result
            self._results.move_to_end(key)
            while len(self._results) > self._size:
                self._results.popitem(last=False)

    def forget(self, wanted: Callable[[Hashable], bool]) -> None:
        """Forget every result whose key is `wanted`."""
        with self._lock:
            for key in [key for key in self._results if wanted(key)]:
                del self._results[key]
