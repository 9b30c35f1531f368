"""Containers: every one reads the same tensors back; damaged, malicious and foreign files are one line."""

from __future__ import annotations

import argparse
import collections
import io
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from segcli.models.checkpoints.containers import Container, read_container


def _state() -> dict[str, Tensor]:
    base = torch.arange(100.0)
    return collections.OrderedDict(
        {
            "a.weight": torch.randn(5, 4),
            "turned": torch.randn(4, 3).t(),
            "part": base[:10],
            "window": base[50:].view(5, 10),
            "number": torch.tensor(3),
            "nothing": torch.empty(0, 4),
            "half": torch.randn(3).half(),
            "brain": torch.randn(3).bfloat16(),
            "flags": torch.tensor([True, False]),
            "double": torch.randn(2).double(),
        }
    )


def _same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[n].dtype == t.dtype and torch.equal(found[n], t) for n, t in expected.items()
    )


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrapper", ["", "model", "state_dict", "model_state_dict"])
def test_pytorch_files(zipped: bool, wrapper: str, tmp_path: Path) -> None:
    """Both formats of PyTorch, bare and as training programs wrap them, with their args beside."""
    state = _state()
    state._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]  # as state_dict() has it
    args = argparse.Namespace(model="x")
    optimizer = {"state": {0: {"momentum_buffer": torch.randn(5)}}, "param_groups": [{"lr": 0.1}]}
    content: Any = (
        {wrapper: state, "args": args, "optimizer": optimizer, "epoch": 3} if wrapper else state
    )
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    found = read_container(tmp_path / "x.pth")
    assert (found.kind, found.wrapper) == ("zip" if zipped else "legacy", wrapper)
    assert _same(found.state, dict(state))
    if wrapper:
        assert found.beside["args"].state == {"model": "x"}
        assert found.beside["epoch"] == 3


def test_parameters_and_ddp_prefixes(tmp_path: Path) -> None:
    """`nn.Parameter` reads as a tensor; `module.` goes where every name has it."""
    state = {"module.a": torch.nn.Parameter(torch.randn(3)), "module.b": torch.randn(2)}
    torch.save(state, tmp_path / "x.pth")
    found = read_container(tmp_path / "x.pth").state
    assert found.keys() == {"a", "b"}
    assert torch.equal(found["a"], state["module.a"])


def test_plain_pickles_and_safetensors(tmp_path: Path) -> None:
    """detectron2's pickles of arrays, Detectron's with numbers between, and safetensors of anybody."""
    state = {n: t for n, t in _state().items() if t.dtype != torch.bfloat16}
    arrays = {n: t.numpy() for n, t in state.items()}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "x.pkl").write_bytes(
            pickle.dumps({"model": arrays, "__author__": "us"}, protocol=protocol)
        )
        found = read_container(tmp_path / "x.pkl")
        assert (found.kind, found.beside) == ("pickle", {"__author__": "us"})
        assert _same(found.state, state)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"blobs": {**arrays, "lr": 0.1}}))
    assert _same(read_container(tmp_path / "x.pkl").state, state)
    plain = {n: t.contiguous().clone() for n, t in state.items()}
    save_file(plain, tmp_path / "x.safetensors", metadata={"by": "us"})
    found = read_container(tmp_path / "x.safetensors")
    assert found.beside == {"by": "us"}
    assert _same(found.state, state)


def test_pickles_of_python_2(tmp_path: Path) -> None:
    """Bytes are 8-bit text there (BINSTRING), of any length."""

    def text(data: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(data)) + data

    raw = torch.arange(2000.0)
    dtype = b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01(M\xd0\x07t"
        + dtype + b"\x89" + text(raw.numpy().tobytes()) + b"tb"
    )  # fmt: skip
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02}U\x05blobs}U\x03a_w" + array + b"ss.")
    assert torch.equal(read_container(tmp_path / "x.pkl").state["a_w"], raw)


class _Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("place", ["weights", "beside"])
@pytest.mark.parametrize("container", ["zip", "legacy", "pickle", "zip of a pickle by hand"])
def test_code_in_a_container_is_refused_by_name(container: str, place: str, tmp_path: Path) -> None:
    """Nothing runs, wherever it stands."""
    target, path = tmp_path / "was_here", tmp_path / "x.pth"
    bad, good = _Malicious(target), {"a": torch.zeros(2)}
    content = {"model": {**good, "b": bad}} if place == "weights" else {"model": good, "log": [bad]}
    if container in ("zip", "legacy"):
        torch.save(content, path, _use_new_zipfile_serialization=container == "zip")
    elif container == "pickle":
        path.write_bytes(pickle.dumps({k: v for k, v in content.items() if k != "a"} | {"x": bad}))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps([bad]))
    with pytest.raises(ValueError, match=r"refused: names (posix|nt|torch\.storage)\."):
        read_container(path)
    assert not target.exists()


def test_logs_of_mmengine_do_not_make_a_file_unreadable(tmp_path: Path) -> None:
    """A class that is not installed, beside the weights, is a placeholder; among the weights it is refused."""
    buffer = b"cmmengine.logging.history_buffer\nHistoryBuffer\n)\x81}X\x04\x00\x00\x00_maxK\x05sb"

    def file(where: bytes) -> bytes:
        return b"\x80\x02}(X\x05\x00\x00\x00model}(" + where + b"u."

    array = pickle.dumps(torch.ones(2).numpy(), protocol=2)[2:-1]
    weights = b"X\x01\x00\x00\x00a" + array
    path = tmp_path / "x.pth"
    path.write_bytes(file(weights + b"uX\x0b\x00\x00\x00message_hub" + buffer))
    found = read_container(path)
    assert found.state["a"].tolist() == [1, 1]
    assert str(found.beside["message_hub"].of) == "mmengine.logging.history_buffer.HistoryBuffer"
    path.write_bytes(file(weights + b"X\x01\x00\x00\x00b" + buffer + b"u"))
    with pytest.raises(
        ValueError, match=r"'b' holds a mmengine\S+HistoryBuffer, expected a tensor"
    ):
        read_container(path)


def _zip(path: Path, compression: int = zipfile.ZIP_STORED, **entries: bytes) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(f"archive/{name}", data)


def test_zip_bombs_and_programs(tmp_path: Path) -> None:
    """Compressed entries, TorchScript, no pickle, two pickles."""
    path = tmp_path / "x.pth"
    _zip(path, zipfile.ZIP_DEFLATED, **{"data.pkl": b"0" * 10_000_000})
    with pytest.raises(ValueError, match=r"refused: .*compressed"):
        read_container(path)
    _zip(path, **{"data.pkl": b"N.", "constants.pkl": b"N."})
    with pytest.raises(ValueError, match="TorchScript"):
        read_container(path)
    _zip(path, readme=b"hello")
    with pytest.raises(ValueError, match=r"0 data\.pkl"):
        read_container(path)
    _zip(path, **{"data.pkl": b"N.", "b/data.pkl": b"N."})
    with pytest.raises(ValueError, match=r"2 data\.pkl"):
        read_container(path)


def _tensor_pickle(size: str, stride: str, elements: int) -> bytes:
    storage = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    )
    return (
        b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n(" + storage
        + b"J" + struct.pack("<i", elements) + b"tQK\x00(" + size.encode() + b"t(" + stride.encode()
        + b"t\x89ccollections\nOrderedDict\n)RtRs."
    )  # fmt: skip


@pytest.mark.parametrize(
    ("size", "stride", "elements", "message"),
    [
        pytest.param("I1000000000\n", "I1\n", 4, "claims 1000000000 elements", id="too many"),
        pytest.param("I1000000000\n", "I0\n", 4, "claims 1000000000 elements", id="stride zero"),
        pytest.param("I-4\n", "I1\n", 4, "negative", id="negative"),
        pytest.param("I4\n", "I9\n", 4, "damaged tensor", id="beyond its storage"),
        pytest.param("I4\n", "I1\n", 1000, "storage 0 has 16 bytes, expected 4000", id="storage"),
        pytest.param("I4\nI4\n", "I1\n", 4, "unequal", id="strides"),
    ],
)
def test_oversized_claims(
    size: str, stride: str, elements: int, message: str, tmp_path: Path
) -> None:
    """A few bytes never become a large tensor."""
    _zip(
        tmp_path / "x.pth",
        **{"data.pkl": _tensor_pickle(size, stride, elements), "data/0": b"\0" * 16},
    )
    with pytest.raises(ValueError, match=message):
        read_container(tmp_path / "x.pth")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_truncated_and_damaged_pytorch_files(zipped: bool, tmp_path: Path) -> None:
    """Cut anywhere, or a flipped bit in a tensor of a zip archive, which has checksums."""
    whole, path = tmp_path / "whole.pth", tmp_path / "x.pth"
    torch.save({"a": torch.randn(2000)}, whole, _use_new_zipfile_serialization=zipped)
    data = whole.read_bytes()
    for length in (1, 3, 20, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"."):
            read_container(path)
    if zipped:
        damaged = bytearray(data)
        damaged[len(data) // 2] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged"):
            read_container(path)


def test_archives_without_checksums_are_read(tmp_path: Path) -> None:
    """PyTorch leaves them out on request."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(5)}, tmp_path / "x.pth")
    finally:
        torch.serialization.set_crc32_options(before)
    assert read_container(tmp_path / "x.pth").state["a"].tolist() == [1] * 5


def _tar() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        entry = tarfile.TarInfo("pickle")
        entry.size = 19
        archive.addfile(entry, io.BytesIO(b"cos\nsystem\n(S'a'\ntR."))
    return data.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(_tar(), "refused: a tar archive", id="tar"),
        pytest.param(b"\x1f\x8b\x08" + b"0" * 50, "gzip", id="gzip"),
        pytest.param(b"<!DOCTYPE html>", "web page", id="html"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS", id="lfs"),
        pytest.param(b'{"a": 1}', "JSON", id="json"),
        pytest.param(b"\0" * 600, "no pickle|damaged", id="zeros"),
        pytest.param(b"hello world", "no pickle|damaged|ends", id="text"),
        pytest.param(pickle.dumps([1, 2]), "holds a list, expected a dict", id="a list"),
        pytest.param(pickle.dumps({}), "holds no tensors", id="nothing"),
        pytest.param(pickle.dumps({"epoch": 3}), "'epoch' holds a int, expected a tensor", id="ints"),
        pytest.param((20).to_bytes(8, "little") + b"{" + b"x" * 30, "no readable safetensors", id="st"),
    ],
)  # fmt: skip
def test_wrong_files(data: bytes, message: str, tmp_path: Path) -> None:
    """One line that says what the file is."""
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        read_container(tmp_path / "x.pth")
    assert "\n" not in str(caught.value)


def test_a_folder_and_a_missing_file(tmp_path: Path) -> None:
    """Also one line."""
    for path in (tmp_path, tmp_path / "absent.pth"):
        with pytest.raises(ValueError, match="cannot be read"):
            read_container(path)
    assert Container("zip", "", {}).beside == {}


def _whole_files(path: Path) -> list[bytes]:
    state = {"a.weight": torch.ones(3, 4), "b.bias": torch.zeros(3)}
    content = {"model": state, "args": argparse.Namespace(a=1)}
    files = []
    for zipped in (True, False):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        files.append(path.read_bytes())
    save_file(state, path)
    arrays = {"model": {name: tensor.numpy() for name, tensor in state.items()}}
    return [*files, path.read_bytes(), *(pickle.dumps(arrays, protocol=p) for p in (0, 2, 5))]


@pytest.mark.parametrize("seed", range(3))
def test_damaged_bytes_are_read_or_refused(seed: int, tmp_path: Path) -> None:
    """Bytes changed, lost and put in at random: never another error than one line, in any container."""
    random, path = Random(seed), tmp_path / "x.pth"
    files = _whole_files(path)
    messages = []
    for _ in range(150):
        data = bytearray(random.choice(files))
        for _ in range(random.choice((1, 2, 5))):
            place = random.randrange(len(data))
            data[place : place + random.randrange(3)] = random.randbytes(random.randrange(1, 3))
        path.write_bytes(data)
        try:
            read_container(path)
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 50
    assert not any("\n" in message for message in messages)


def test_a_storage_without_a_size(tmp_path: Path) -> None:
    """In the old format sizes are read before any tensor is asked for."""
    pickled = _tensor_pickle("I4\n", "I1\n", 4).replace(b"J\x04\x00\x00\x00tQ", b"NtQ")
    header = [
        pickle.dumps(v, protocol=2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    ]
    (tmp_path / "x.pth").write_bytes(b"".join([*header, pickled, pickle.dumps(["0"], protocol=2)]))
    with pytest.raises(ValueError, match="a storage without a size"):
        read_container(tmp_path / "x.pth")
