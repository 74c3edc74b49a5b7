"""The machinery behind the panels: the latest wish wins, nothing queues, what was made is kept."""

import threading
import time

import pytest

from diffusionlab.explore.work import Memory, Run, Stopped, Worker


def steps(done: list, name, count: int = 200, pause: float = 0.005):
    """A job of many short pieces, which says at the end that it got there."""
    def job(run: Run) -> None:
        for i in range(count):
            run.advance(i, count)
            time.sleep(pause)
        done.append(name)
    return job


def test_a_job_is_done_in_another_thread():
    worker, seen = Worker(), []
    worker.submit(lambda run: seen.append(threading.current_thread()))
    assert worker.wait(60) and seen[0] is not threading.main_thread()


def test_the_latest_wish_wins_and_no_queue_is_left():
    worker, done, started = Worker(), [], []
    runs = []
    for i in range(50):
        def job(run, i=i):
            started.append(i)
            steps(done, i, count=10)(run)
        runs.append(worker.submit(job))
        time.sleep(0.002)
    assert worker.wait(60)
    assert done == [49]  # one result, the last
    assert len(started) < 50  # most of them never began
    assert all(run._stop.is_set() for run in runs[:-1] if runs.index(run) in started)


def test_a_new_wish_ends_the_old_work_at_its_next_piece():
    worker, done = Worker(), []
    worker.submit(steps(done, "long", count=2000))
    time.sleep(0.05)
    worker.submit(steps(done, "short", count=1))
    assert worker.wait(60) and done == ["short"]


def test_stop_ends_what_runs_and_drops_what_waits():
    worker, done = Worker(), []
    worker.submit(steps(done, "runs"))
    worker.submit(steps(done, "waits"))
    assert worker.stop()
    assert worker.wait(60) and done == []
    assert not worker.stop()  # nothing was left to stop


def test_a_stopped_run_cannot_be_swallowed_by_except_exception():
    run = Run()
    run.stop()
    with pytest.raises(Stopped):
        try:
            run.check()
        except Exception:
            pass


def test_a_job_that_raises_does_not_end_the_worker(monkeypatch):
    worker, done, reported = Worker(), [], []
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_type))
    worker.submit(lambda run: 1 / 0)
    assert worker.wait(60) and reported == [ZeroDivisionError]
    worker.submit(steps(done, "next", count=1))
    assert worker.wait(60) and done == ["next"]


def test_wait_says_when_time_is_over():
    worker = Worker()
    worker.submit(steps([], "long"))
    assert not worker.wait(0.01)
    worker.stop()
    assert worker.wait(60)


def test_progress_is_reported_at_most_ten_times_a_second():
    said = []
    run = Run(lambda done, total: said.append(done))
    end = time.monotonic() + 0.35
    while time.monotonic() < end:
        run.advance(1, 2)
    assert 1 <= len(said) <= 4


def test_memory_forgets_what_was_used_longest_ago():
    memory = Memory(size=2)
    memory.put("a", 1)
    memory.put("b", 2)
    assert memory.get("a") == 1  # used again
    memory.put("c", 3)
    assert "b" not in memory and memory.get("b") is None
    assert (memory.get("a"), memory.get("c"), len(memory)) == (1, 3, 2)
