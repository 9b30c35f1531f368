"""Pickles as data: the same values as Python's own machine, and nothing is ever imported or called."""

from __future__ import annotations

import argparse
import collections
import datetime
import functools
import io
import os
import pathlib
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segcli.models.checkpoints.arrays import as_tensor
from segcli.models.checkpoints.pickle_machine import PickleMachine
from segcli.models.checkpoints.pickle_values import Instance

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def read(data: bytes) -> Any:
    """What the machine makes of a pickle."""
    return PickleMachine(io.BytesIO(data), len(data)).load()


_plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False)
    | st.text(max_size=300) | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    | st.tuples(inner, inner, inner, inner),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(value=_plain, protocol=st.sampled_from([2, 3, 4, 5]))
def test_plain_values_come_back(value: Any, protocol: int) -> None:
    """As Python's own machine reads them; bytes of protocol 2 stay the call that makes them."""

    def same(a: Any, b: Any) -> bool:
        if isinstance(b, bytes):
            if isinstance(a, Instance):
                text = a.arguments[0] if a.arguments else ""
                return (text.encode("latin-1") if isinstance(text, str) else text) == b
            return bytes(a) == b
        if isinstance(b, dict):
            return a.keys() == b.keys() and all(same(a[k], b[k]) for k in b)
        if isinstance(b, list | tuple):
            return len(a) == len(b) and all(map(same, a, b))
        return type(a) is type(b) and a == b

    assert same(read(pickle.dumps(value, protocol=protocol)), value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4),
        np.asfortranarray(np.random.default_rng(0).random((3, 4, 5))),
        np.array(3.5, dtype=np.float16),
        np.zeros((0, 4), dtype=np.float32),
        np.array([True, False]),
        np.arange(700, dtype=np.int64)[::7],
        np.float32(2.5),
    ],
    ids=["plain", "fortran", "no axis", "empty", "bool", "strided", "scalar"],
)
def test_arrays_become_tensors(array: Any, protocol: int) -> None:
    """Of every protocol, bit for bit, without numpy."""
    tensor = as_tensor(read(pickle.dumps(array, protocol=protocol)), lambda _: torch.empty(0))
    assert tensor is not None
    expected = torch.from_numpy(np.array(array))
    assert tensor.dtype == expected.dtype
    assert torch.equal(tensor, expected)


def test_both_spellings_of_numpys_core() -> None:
    """Files of numpy before and after 2.0."""
    data = pickle.dumps(np.arange(5, dtype=np.float32), protocol=2)
    new, old = b"numpy._core.multiarray", b"numpy.core.multiarray"
    here = new if new in data else old
    for spelling in (new, old):
        value = read(data.replace(here, spelling))
        tensor = as_tensor(value, lambda _: torch.empty(0))
        assert tensor is not None
        assert tensor.tolist() == [0, 1, 2, 3, 4]


def test_big_endian_and_object_arrays_are_refused() -> None:
    """Neither is what weights look like; an array of objects is refused when it is asked for, not when read."""
    for array, message in (
        (np.arange(3, dtype=">f4"), "big-endian"),
        (np.array([{}, None], dtype=object), "expected numbers"),
    ):
        value = read(pickle.dumps(array, protocol=2))
        with pytest.raises(ValueError, match=message):
            as_tensor(value, lambda _: torch.empty(0))


def test_harmless_classes_are_placeholders() -> None:
    """What training programs keep beside weights."""
    value = {
        "args": argparse.Namespace(model="maskrcnn_resnet50_fpn", lr=0.02),
        "when": datetime.datetime(2026, 1, 2),
        "where": pathlib.PurePosixPath("a/b"),
        "counts": collections.defaultdict(list, {"a": [1]}),
        "ordered": collections.OrderedDict(a=1),
        "rows": collections.deque([1, 2], maxlen=5),
    }
    for protocol in PROTOCOLS:
        found = read(pickle.dumps(value, protocol=protocol))
        assert str(found["args"].of) in (
            "argparse.Namespace",
            "copyreg._reconstructor",
            "copy_reg._reconstructor",
        )
        assert found["args"].state == {"model": "maskrcnn_resnet50_fpn", "lr": 0.02}
        assert found["counts"] == {"a": [1]}
        assert found["ordered"] == {"a": 1}
        assert found["rows"].items == [1, 2]


def test_other_packages_are_never_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is there and would do harm when imported stays untouched, its name is kept."""
    (tmp_path / "trap_package.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    value = read(b"\x80\x02ctrap_package\nBuffer\nq\x00)\x81q\x01}q\x02X\x01\x00\x00\x00aK\x01sb.")
    assert isinstance(value, Instance)
    assert (str(value.of), value.state) == ("trap_package.Buffer", {"a": 1})
    assert "trap_package" not in sys.modules
    assert not (tmp_path / "ran").exists()


class _Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


_ATTACKS = {
    "os.system": (_Calls(os.system, "true"), r"(posix|nt)\.system"),
    "eval": (_Calls(eval, "1 + 1"), r"(builtins|__builtin__)\.eval"),
    "exec": (_Calls(exec, "x = 1"), r"(builtins|__builtin__)\.exec"),
    "getattr": (_Calls(getattr, "", "join"), r"(builtins|__builtin__)\.getattr"),
    "import": (_Calls(__import__, "os"), r"(builtins|__builtin__)\.__import__"),
    "open": (_Calls(open, os.devnull), r"_?io\.open"),
    "torch.hub": (_Calls(torch.hub.load, "a/b", "c"), r"torch\.hub\.load"),
    "torch.load": (_Calls(torch.load, "x"), r"torch\.serialization\.load|torch\.load"),
    "numpy load": (_Calls(np.load, "x"), r"numpy\.\S*load"),
    "partial": (_Calls(functools.partial, print), r"functools\.partial"),
    "memmap": (_Calls(np.memmap, "x"), r"numpy\.\S*memmap"),
    "a whole network": (torch.nn.Linear(1, 1), r"a pickled network \(torch\.nn\.modules\.linear\.Linear\)"),
    "tensors by plain pickle": (torch.zeros(2), r"torch\.storage\._load_from_bytes"),
}  # fmt: skip


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("attack", _ATTACKS)
def test_code_is_refused_by_name(attack: str, protocol: int) -> None:
    """At the first place where it is named, in the weights or beside them."""
    value, named = _ATTACKS[attack]
    data = pickle.dumps({"model": {}, "note": [value]}, protocol=protocol)
    with pytest.raises(ValueError, match=f"refused: .*{named}"):
        read(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"cos\nsystem\n(S'true'\ntR.", r"refused: names os\.system", id="text"),
        pytest.param(b"(ios\nsystem\n.", r"refused: names os\.system", id="INST"),
        pytest.param(b"(cos\nsystem\nS'true'\no.", r"refused: names os\.system", id="OBJ"),
        pytest.param(
            b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.", r"os\.system", id="STACK_GLOBAL"
        ),
        pytest.param(
            b"\x80\x04\x8c\x08builtins\x8c\x10dict.__class__.x\x93.",
            r"builtins\.dict\.__class__", id="a dotted name",
        ),
        pytest.param(
            b"\x80\x04\x8c\x0bcollections\x8c\x1aOrderedDict.__reduce_ex__.\x93.",
            r"refused: names collections\.OrderedDict\.", id="through an allowed class",
        ),
        pytest.param(
            b"\x80\x02cargparse\nNamespace\n)\x81cargparse\nNamespace\n)\x81\x85R.",
            "refused: calls what a call returned", id="call of a call",
        ),
        pytest.param(
            b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x08\x00\x00\x00__code__K\x01sb.",
            "refused: sets attributes", id="BUILD on a function",
        ),
        pytest.param(b"\x80\x02\x82\x01.", "extension registry", id="EXT1"),
        pytest.param(b"\x80\x02csegcli.zoo\nload_model\n.", r"segcli\.zoo\.load_model", id="ourselves"),
        pytest.param(b"\x80\x02cpip\nmain\n.", r"pip\.main", id="pip"),
        pytest.param(b"\x80\x02c\n\n.", "refused: names", id="no name"),
    ],
)  # fmt: skip
def test_hand_made_pickles_are_refused(data: bytes, message: str) -> None:
    """Every instruction that names or calls something."""
    with pytest.raises(ValueError, match=message):
        read(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        b"not a pickle",
        b"\x80\x02]q",
        b"\x80\x02h\x05.",
        b"\x80\x02X\xff\xff\xff\xff.",
        b"\x80\x02B\xff\xff\xff\x7fab.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fab.",
        b"\x80\x02\x8b\xff\xff\xff\x7f1.",
        b"\x80\x02e.",
        b"\x80\x02(u.",
        b"\x80\x02}]K\x01s.",
        b"\x80\x02.",
        b"\x80\x02K\x01\x87.",
        b"I" + b"9" * 5000 + b"\n.",
        b"\x80\x02Nb.",
    ],
)
def test_damaged_pickles_are_value_errors(data: bytes) -> None:
    """Never another exception, and no memory for a claim that the file cannot hold."""
    with pytest.raises(ValueError, match=r"."):
        read(data)


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=60))
def test_any_bytes_are_a_value_or_a_value_error(data: bytes) -> None:
    """The machine never fails in another way."""
    try:
        read(b"\x80\x04" + data + b".")
    except ValueError:
        return


DEEP = b")" + b"\x85" * 1000  # a tuple in a tuple in a tuple …
SHARED = (
    b")" + b"2\x86" * 40
)  # a tuple of itself twice, forty times: small in memory, endless to walk


@pytest.mark.parametrize("nested", [DEEP, SHARED], ids=["deep", "shared"])
@pytest.mark.parametrize(
    "layout",
    [
        b"}(%bNu.", b"}%bNs.", b"(%bNd.", b"(%b\x91.", b"\x8f(%b\x90.",
        b"ccollections\nOrderedDict\n](](%bNee\x85R.", b"}(%b\x85Nu.",
    ],
    ids=["items", "item", "dict", "frozenset", "set", "ordered", "row"],
)  # fmt: skip
def test_nested_keys_are_refused(layout: bytes, nested: bytes) -> None:
    """Hashing them would overflow the stack, or never end."""
    with pytest.raises(ValueError, match="refused: a nested key"):
        read(layout % nested)


def test_keys_of_plain_rows_are_kept() -> None:
    """Tuples of plain values are keys that users have."""
    value = {("a", 1): 2, 3: {4, 5}, "b": frozenset({("c", None)})}
    assert read(pickle.dumps(value)) == value


def test_what_refers_to_itself_is_not_printed() -> None:
    """A message that named all of it would never end."""
    value = read(b"cmine\nThing\n" + SHARED + b"R.")
    assert len(repr(value)) < 200
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage%bX\x01\x00\x00\x000NK\x01tQK\x00))tR."
    machine = read(tensor % SHARED)
    from segcli.models.checkpoints.torch_files import StorageReader

    with pytest.raises(ValueError, match="unknown type"):
        as_tensor(machine, StorageReader(io.BytesIO(), {}))


def test_dicts_made_of_one_another_are_bounded() -> None:
    """A few bytes each that copy a large dict would fill the memory."""
    pairs = b"".join(b"(K" + bytes([k]) + b"Nl" for k in range(200))
    again = b"ccollections\nOrderedDict\nq\x01" + b"h\x01h\x00\x85R0" * 300
    with pytest.raises(ValueError, match="refused: copies"):
        read(b"(" + pairs + b"lq\x000" + again + b"N.")
    assert read(b"(" + pairs + b"lq\x000ccollections\nOrderedDict\nh\x00\x85R.").keys() == {
        *range(200)
    }
