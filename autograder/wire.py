"""Messages between the examiner and a candidate that nobody trusts: a bounded JSON header and raw array bytes.

Nothing that arrives is unpickled, evaluated or believed to be as large as it says. Stands alone, for it also runs in the
sandbox.
"""

from __future__ import annotations

import json
import math
import socket
import struct
from collections.abc import Callable, Mapping

import numpy as np

HEADER_BYTES = 2**20
ARRAY_BYTES = 2**26
DTYPES = frozenset(["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32",
                    "float64"])
MAX_ITEMS, MAX_DEPTH = 20_000, 50

_LENGTH = struct.Struct("!I")


class WireError(Exception):
    """The other side is gone, or sent what is not a message."""


class Channel:
    """One end of a socket pair.

    Args:
        end: the connected socket; the channel owns it.
        given_up: asked every half second while waiting; once it is true, waiting ends with a WireError.
    """

    def __init__(self, end: socket.socket, given_up: Callable[[], bool] | None = None):
        self.socket, self.given_up = end, given_up
        self.socket.settimeout(0.5 if given_up else None)

    def send(self, body, arrays=()) -> None:
        """Send JSON values and arrays; raises ValueError where they are over the bounds, WireError where nobody reads."""
        arrays = [np.asarray(array, order="C") for array in arrays]
        header = json.dumps({"body": body, "arrays": [[array.dtype.name, array.shape] for array in arrays]}).encode()
        if len(header) > HEADER_BYTES or sum(array.nbytes for array in arrays) > ARRAY_BYTES:
            raise ValueError("the message is too large")
        self._write(_LENGTH.pack(len(header)) + header)
        for array in arrays:
            self._write(array.reshape(-1).view(np.uint8).data)

    def receive(self) -> tuple[object, list[np.ndarray]]:
        """The next message's JSON values and arrays; raises WireError on anything but a message within the bounds."""
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        if length > HEADER_BYTES:
            raise WireError(f"a header of {length} bytes")
        header = self._read(length)
        try:
            message = json.loads(header, parse_constant=_refuse)
            body, layout = message["body"], [_array_layout(*each) for each in message["arrays"]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise WireError(f"not a message: {type(error).__name__}") from error
        if sum(nbytes for _, _, nbytes in layout) > ARRAY_BYTES:
            raise WireError("the arrays are too large")
        try:
            return body, [np.frombuffer(self._read(nbytes), dtype).reshape(shape) for dtype, shape, nbytes in layout]
        except ValueError as error:  # more dimensions or a larger product than there can be, and no bytes
            raise WireError("not an array") from error

    def close(self) -> None:
        self.socket.close()

    def _write(self, data) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self.socket.send(view):]
            except TimeoutError:
                self._look_up()
            except OSError as error:
                raise WireError("the other side is gone") from error

    def _read(self, length: int) -> bytearray:
        buffer = bytearray(length)
        view = memoryview(buffer)
        while view:
            try:
                count = self.socket.recv_into(view)
            except TimeoutError:
                self._look_up()
                continue
            except OSError as error:
                raise WireError("the other side is gone") from error
            if count == 0:
                raise WireError("the other side is gone")
            view = view[count:]
        return buffer

    def _look_up(self) -> None:
        if self.given_up and self.given_up():
            raise WireError("given up")


def _refuse(constant: str):
    raise ValueError(constant)


def _array_layout(dtype, shape) -> tuple[np.dtype, tuple[int, ...], int]:
    if dtype not in DTYPES or len(shape) > 32 or not all(type(n) is int and 0 <= n <= ARRAY_BYTES for n in shape):
        raise ValueError("not an array")
    return np.dtype(dtype), tuple(shape), math.prod(shape) * np.dtype(dtype).itemsize


# ---------------------------------------------------------------------------------------------- values


def encode(value, arrays: list[np.ndarray], left: list[int] | None = None):
    """Any result as JSON values; tensors and arrays go into `arrays`; what is neither data nor a container says its type.

    Raises:
        ValueError: too many items.
    """
    left = [MAX_ITEMS] if left is None else left
    left[0] -= 1
    if left[0] < 0:
        raise ValueError("the result has too many items")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value[:2000]).encode("utf-8", "replace").decode()
    if isinstance(value, int) and abs(value) < 2**63:
        return int(value)
    if isinstance(value, float) and not isinstance(value, np.generic):
        return float(value) if math.isfinite(value) else {"$float": str(float(value))}
    if isinstance(value, Mapping):
        return {"$dict": [[str(key)[:200], encode(each, arrays, left)] for key, each in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [encode(each, arrays, left) for each in value]
        return {"$tuple": items} if isinstance(value, tuple) else items
    array = _as_array(value)
    if array is None:
        return {"$other": type(value).__name__[:100]}
    arrays.append(array)
    return {"$tensor" if hasattr(value, "detach") else "$array": len(arrays) - 1}


def decode(value, arrays: list[np.ndarray], tensor: Callable[[np.ndarray], object]):
    """Undo `encode`, with `tensor` making tensors; raises WireError on anything else, too many items and too deep ones too."""
    try:
        return _decode(value, arrays, tensor, [MAX_ITEMS], MAX_DEPTH)
    except (KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
        raise WireError(f"not a value: {type(error).__name__}") from error


def _decode(value, arrays, tensor, left, depth):
    left[0] -= 1
    if left[0] < 0 or depth == 0:
        raise ValueError("too many values, or too deep ones")

    def inner(each):
        return _decode(each, arrays, tensor, left, depth - 1)

    match value:
        case int() if abs(value) >= 2**63:
            raise ValueError("not an int64")
        case None | bool() | int() | float() | str():
            return value
        case list():
            return list(map(inner, value))
        case {"$tuple": list(items)}:
            return tuple(map(inner, items))
        case {"$dict": list(items)}:
            return {str(key): inner(each) for key, each in items}
        case {"$float": "nan" | "inf" | "-inf" as text}:
            return float(text)
        case {"$array": int(number)} if number >= 0:
            return arrays[number]
        case {"$tensor": int(number)} if number >= 0:
            return tensor(arrays[number])
        case {"$other": str(name)}:
            return Other(name[:100])
    raise ValueError("not a value")


class Other:
    """Stands for a result that is no data; all that is known of it is its type's name."""

    def __init__(self, name: str):
        self.name = name


def _as_array(value) -> np.ndarray | None:
    try:
        array = np.array(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
    except Exception:  # a student's class may raise anything here; then it is not data
        return None
    return array if array.dtype.name in DTYPES else None
