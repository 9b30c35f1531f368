"""Pickles read as data: what a file says to call is written down and never called, nothing is imported.

A pickle is a program for a stack machine. Python's own machine imports and calls what the program names; this one has
the same instructions (Lib/pickletools.py describes each), but a named thing stays a `Name` and a call an `Instance`.
What those mean is for the code that reads the result to decide, which knows a short list.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, BinaryIO

from segcli.models.checkpoints.pickle_values import (
    DICTS,
    Instance,
    Name,
    Reference,
    check_keys,
    check_name,
)  # fmt: skip

_TEXT_LIMIT = 4096  # a longer 8-bit string (Python 2's way to store bytes) stays bytes


class PickleMachine:
    """One pickle of a stream.

    Args:
        stream: positioned at the pickle's first byte.
        size: of the stream in bytes; a length that reaches beyond it is refused before memory is taken.

    Attributes:
        references: the persistent ids that the pickle used.
    """

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._size = size
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._copied = 0
        self.references: list[Reference] = []

    def load(self) -> Any:
        """The pickle's value; the stream is left behind its last byte.

        Raises:
            ValueError: no whole pickle, or one that names what is refused.
        """
        try:
            while (code := self._bytes(1)) != b".":
                _INSTRUCTIONS[code](self)
            return self._stack.pop()
        except KeyError as error:
            raise ValueError(f"no pickle (unknown or lost {error})") from None
        except (IndexError, TypeError, AttributeError, struct.error, OverflowError) as error:
            raise ValueError(f"damaged pickle ({error})") from error

    def _bytes(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) != count:
            raise ValueError("ends in the middle of a pickle")
        return data

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._bytes(struct.calcsize(layout)))[0]

    def _line(self) -> str:
        line = self._stream.readline(_TEXT_LIMIT)
        if not line.endswith(b"\n"):
            raise ValueError("ends in the middle of a pickle")
        return line[:-1].decode("utf-8", "replace")

    def _unicode_line(self) -> str:
        return self._stream.readline().removesuffix(b"\n").decode("raw-unicode-escape")

    def _quoted_line(self) -> str:
        quoted = self._stream.readline().strip()[1:-1]
        return quoted.decode("unicode-escape") if b"\\" in quoted else quoted.decode("latin-1")

    def _block(self, layout: str) -> bytearray:
        """Bytes after their length, in memory that a tensor may own."""
        count = self._number(layout)
        if not 0 <= count <= self._size - self._stream.tell():
            raise ValueError(f"claims {count} bytes, more than the file has")
        data = bytearray(count)
        if self._stream.readinto(data) != count:  # type: ignore[attr-defined]  # every binary file has it
            raise ValueError("ends in the middle of a pickle")
        return data

    def _text8(self, layout: str) -> str | bytearray:
        data = self._block(layout)
        return data.decode("latin-1") if len(data) <= _TEXT_LIMIT else data

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _drop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._to_mark()

    def _put(self, key: int) -> None:
        self._memo[key] = self._stack[-1]

    def _last(self, count: int) -> None:
        items = tuple(self._stack[-count:])
        if len(items) != count:
            raise IndexError("stack is too short")
        self._stack[-count:] = [items]

    def _refer(self, identity: Any) -> None:
        self.references.append(Reference(identity))
        self._push(self.references[-1])

    def _name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a name that is no text")
        found = Name(module, name)
        check_name(found)
        self._push(found)

    def _stack_name(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._name(module, name)

    def _instance(self, of: Any, arguments: Any) -> None:
        if not isinstance(of, Name):
            raise ValueError("refused: calls what a call returned, which would run code")
        if not isinstance(arguments, tuple):
            raise TypeError("arguments that are no tuple")
        if str(of) in DICTS:  # the factory of a defaultdict is left out
            self._push(self._dict(arguments[0] if arguments else None))
        else:
            self._push(Instance(of, arguments))

    def _dict(self, content: Any) -> dict[Any, Any]:
        pairs = list(content.items()) if isinstance(content, dict) else content
        if not isinstance(pairs, list):
            return {}
        self._copied += len(pairs)
        if self._copied > self._size:
            raise ValueError("refused: copies more than the file holds")
        check_keys([key for key, _ in pairs])
        return dict(pairs)

    def _call(self) -> None:
        arguments, of = self._stack.pop(), self._stack.pop()
        self._instance(of, arguments)

    def _call_with_keywords(self) -> None:
        keywords = self._stack.pop()
        self._call()
        if isinstance(self._stack[-1], Instance):
            self._stack[-1].state = keywords

    def _marked_call(self) -> None:
        of, *arguments = self._to_mark()
        self._instance(of, tuple(arguments))

    def _named_call(self) -> None:
        self._name(self._line(), self._line())
        of = self._stack.pop()
        self._instance(of, tuple(self._to_mark()))

    def _build(self) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, Instance):
            target.state = state
        elif not isinstance(target, dict):  # an OrderedDict's is its attributes, as `_metadata`
            raise ValueError("refused: sets attributes of what is no plain object")

    def _extension(self) -> None:
        raise ValueError("refused: uses the extension registry, which would run code")

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Instance):
            target.items.extend(items)
        elif isinstance(target, set):
            target.update(check_keys(items))
        elif isinstance(target, list):
            target.extend(items)
        else:
            raise TypeError("adds to what is no list")

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        pairs = list(zip(items[::2], items[1::2], strict=True))
        if isinstance(target, Instance):
            target.items.extend(pairs)
        elif isinstance(target, dict):
            check_keys(items[::2])
            target.update(pairs)
        else:
            raise TypeError("sets items of what is no dict")

    def _marked_dict(self) -> None:
        items = self._to_mark()
        self._push({})
        self._set_items(items)

    def _two(self) -> list[Any]:
        value, key = self._stack.pop(), self._stack.pop()
        return [key, value]

    def _one_line_long(self) -> int:
        return int(self._line().rstrip("L"))

    def _one_line_int(self) -> int | bool:
        text = self._line()
        return {"00": False, "01": True}[text] if text in ("00", "01") else int(text)


_M = PickleMachine
_INSTRUCTIONS: dict[bytes, Callable[[PickleMachine], Any]] = {
    b"(": _M._mark,
    b"0": _M._drop,
    b"1": _M._to_mark,
    b"2": lambda m: m._push(m._stack[-1]),
    b"N": lambda m: m._push(None),
    b"\x88": lambda m: m._push(True),
    b"\x89": lambda m: m._push(False),
    b"I": lambda m: m._push(m._one_line_int()),
    b"J": lambda m: m._push(m._number("<i")),
    b"K": lambda m: m._push(m._number("<B")),
    b"M": lambda m: m._push(m._number("<H")),
    b"L": lambda m: m._push(m._one_line_long()),
    b"\x8a": lambda m: m._push(int.from_bytes(m._block("<B"), "little", signed=True)),
    b"\x8b": lambda m: m._push(int.from_bytes(m._block("<i"), "little", signed=True)),
    b"F": lambda m: m._push(float(m._line())),
    b"G": lambda m: m._push(m._number(">d")),
    b"S": lambda m: m._push(m._quoted_line()),
    b"T": lambda m: m._push(m._text8("<i")),
    b"U": lambda m: m._push(m._text8("<B")),
    b"V": lambda m: m._push(m._unicode_line()),
    b"X": lambda m: m._push(m._block("<I").decode("utf-8", "surrogatepass")),
    b"\x8c": lambda m: m._push(m._block("<B").decode("utf-8", "surrogatepass")),
    b"\x8d": lambda m: m._push(m._block("<Q").decode("utf-8", "surrogatepass")),
    b"B": lambda m: m._push(m._block("<I")),
    b"C": lambda m: m._push(bytes(m._block("<B"))),
    b"\x8e": lambda m: m._push(m._block("<Q")),
    b"\x96": lambda m: m._push(m._block("<Q")),
    b"]": lambda m: m._push([]),
    b"}": lambda m: m._push({}),
    b")": lambda m: m._push(()),
    b"\x8f": lambda m: m._push(set()),
    b"l": lambda m: m._push(m._to_mark()),
    b"t": lambda m: m._push(tuple(m._to_mark())),
    b"\x91": lambda m: m._push(frozenset(check_keys(m._to_mark()))),
    b"d": _M._marked_dict,
    b"\x85": lambda m: m._last(1),
    b"\x86": lambda m: m._last(2),
    b"\x87": lambda m: m._last(3),
    b"a": lambda m: m._extend([m._stack.pop()]),
    b"e": lambda m: m._extend(m._to_mark()),
    b"\x90": lambda m: m._extend(m._to_mark()),
    b"s": lambda m: m._set_items(m._two()),
    b"u": lambda m: m._set_items(m._to_mark()),
    b"p": lambda m: m._put(int(m._line())),
    b"q": lambda m: m._put(m._number("<B")),
    b"r": lambda m: m._put(m._number("<I")),
    b"\x94": lambda m: m._put(len(m._memo)),
    b"g": lambda m: m._push(m._memo[int(m._line())]),
    b"h": lambda m: m._push(m._memo[m._number("<B")]),
    b"j": lambda m: m._push(m._memo[m._number("<I")]),
    b"c": lambda m: m._name(m._line(), m._line()),
    b"\x93": _M._stack_name,
    b"R": _M._call,
    b"\x81": _M._call,
    b"\x92": _M._call_with_keywords,
    b"o": _M._marked_call,
    b"i": _M._named_call,
    b"b": _M._build,
    b"P": lambda m: m._refer(m._line()),
    b"Q": lambda m: m._refer(m._stack.pop()),
    b"\x80": lambda m: m._number("<B"),
    b"\x95": lambda m: m._number("<Q"),
    b"\x82": _M._extension,
    b"\x83": _M._extension,
    b"\x84": _M._extension,
    b"\x97": _M._extension,
    b"\x98": lambda _: None,
}
