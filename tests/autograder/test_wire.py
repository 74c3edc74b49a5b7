"""Messages from a side that nobody trusts."""

from __future__ import annotations

import functools
import json
import socket
import struct
import threading
from collections import namedtuple

import numpy as np
import pytest

from autograder.wire import ARRAY_BYTES, HEADER_BYTES, Channel, Other, WireError, decode, encode


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Channel(ours), theirs


def frame(header) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("!I", len(text)) + text


def passed(body, arrays=()):
    """What comes out of the far end; sent from another thread, for a socket's buffer is small."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=Channel(theirs).send, args=(body, arrays))
        sender.start()
        message = Channel(ours).receive()
        sender.join()
        return message


def test_values_and_arrays_arrive_as_they_were_sent():
    arrays = [np.arange(6, dtype=np.int16).reshape(2, 3), np.float64(2.5), np.zeros((0, 4), bool),
              np.ones(300_000, np.float32)]
    body, received = passed({"a": [1, None, "é"]}, arrays)
    assert body == {"a": [1, None, "é"]}
    for sent, got in zip(arrays, received, strict=True):
        assert got.dtype == sent.dtype and got.shape == np.shape(sent)
        np.testing.assert_array_equal(got, sent)


def test_arrays_in_any_memory_order_keep_their_values():
    array = np.arange(12.0).reshape(3, 4).T[::2]
    np.testing.assert_array_equal(passed(None, [array])[1][0], array)


def test_what_is_too_large_is_not_sent(ends):
    with pytest.raises(ValueError, match="too large"):
        ends[0].send("x" * (HEADER_BYTES + 1))
    with pytest.raises(ValueError, match="too large"):
        ends[0].send(None, [np.broadcast_to(np.float64(0), ARRAY_BYTES // 8 + 1)])


@pytest.mark.parametrize("sent", [
    struct.pack("!I", HEADER_BYTES + 1),
    frame(b"not json"),
    frame(b"\xff\xfe"),
    frame(b"[" * 100_000),
    frame(b'{"body": NaN, "arrays": []}'),
    frame([]),
    frame({"body": 1}),
    frame({"body": 1, "arrays": 5}),
    frame({"body": 1, "arrays": [["object", [1]]]}),
    frame({"body": 1, "arrays": [["float64", [-1]]]}),
    frame({"body": 1, "arrays": [["float64", [1.5]]]}),
    frame({"body": 1, "arrays": [["float64", [True]]]}),
    frame({"body": 1, "arrays": [["float64", [2**40, 2**40]]]}),
    frame({"body": 1, "arrays": [["float64", [ARRAY_BYTES]]]}),
    frame({"body": 1, "arrays": [["uint8", [ARRAY_BYTES]], ["uint8", [1]]]}),
    frame({"body": 1, "arrays": [["uint8", [1] * 33]]}),
    frame({"body": 1, "arrays": [[["float64"], [1]]]}),
    frame({"body": 1, "arrays": [["float64", [4]]]}) + b"short",
    frame({"body": 1, "arrays": [["float64", [0, 2**26, 2**26, 2**26]]]}),
    b"\0\0",
    b"",
])
def test_what_is_no_message_is_refused(ends, sent):
    channel, theirs = ends
    theirs.sendall(sent)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(WireError):
        channel.receive()


def test_waiting_ends_when_it_is_given_up():
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(WireError, match="given up"):
        Channel(ours, lambda: True).receive()
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(WireError, match="given up"):
        Channel(ours, lambda: True).send(None, [np.zeros(ARRAY_BYTES // 8)])  # nobody reads


def there_and_back(value):
    arrays = []
    return decode(json.loads(json.dumps(encode(value, arrays))), arrays, lambda array: ("tensor", array))


def test_results_of_every_kind_come_back_as_data():
    Pair = namedtuple("Pair", "a b")
    assert there_and_back({"a": [1, 2.5, True, None, "text"], 3: (1, Pair("x", float("inf")))}) == \
        {"a": [1, 2.5, True, None, "text"], "3": (1, ("x", float("inf")))}
    assert np.isnan(there_and_back(float("nan")))
    np.testing.assert_array_equal(there_and_back(np.eye(2)), np.eye(2))
    np.testing.assert_array_equal(there_and_back(range(3)), [0, 1, 2])
    assert there_and_back(np.float64("nan")).dtype == np.float64  # a numpy number keeps its dtype
    assert there_and_back("\ud800") == "?"


def test_tensors_are_told_from_arrays():
    class Tensor:
        def detach(self): return self
        def cpu(self): return self
        def numpy(self): return np.ones(2)

    kind, array = there_and_back(Tensor())
    assert kind == "tensor" and array.tolist() == [1, 1]


@pytest.mark.parametrize("value", [object(), {1, 2}, 2**80, b"bytes", np.array(["text"]), np.array([None]), 1j, lambda: 0])
def test_what_is_no_data_says_only_its_type(value):
    back = there_and_back(value)
    assert isinstance(back, Other) and back.name == type(value).__name__


def test_an_object_that_raises_when_looked_at_is_no_data():
    class Spiteful:
        def __array__(self, *args, **kwargs):
            raise RuntimeError("no")

    assert isinstance(there_and_back(Spiteful()), Other)


def test_endless_results_are_refused():
    endless = []
    endless.append(endless)
    with pytest.raises((ValueError, RecursionError)):
        encode(endless, [])
    with pytest.raises(ValueError, match="too many"):
        encode(list(range(30_000)), [])


@pytest.mark.parametrize("value", [
    {"$array": 0}, {"$array": -1}, {"$array": "0"}, {"$array": True}, {"$tensor": 5}, {"$float": "1e3"},
    {"$dict": [[1, 2, 3]]}, {"$tuple": 5}, {"$call": {"what": "os:system"}}, {"$other": 5}, {}, {"a": 1}, {"$dict": 5}])
def test_what_is_no_value_is_refused(value):
    with pytest.raises(WireError):
        decode(value, [], np.asarray)


@pytest.mark.parametrize("value", [[0] * 20_001, [[[0] * 100] * 100] * 3, 2**63, functools.reduce(lambda inner, _: [inner], range(60), 0)],
                         ids=["wide", "wide within", "no int64", "deep"])
def test_what_is_too_much_to_be_a_value_is_refused(value):
    with pytest.raises(WireError):
        decode(value, [], np.asarray)
