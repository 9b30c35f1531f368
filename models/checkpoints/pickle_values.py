"""What a pickle may name, and the values that stand for it.

Names of the standard library, of torch and of numpy that are not listed here are refused: among them are all that run
code (`os.system`, `builtins.eval`, `torch.hub.load` …), and no weights need them. Names of other packages, such as
the log buffers that mmengine keeps beside its weights, are read as placeholders; none is ever imported.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Name:
    """Something that a pickle names by module and name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Instance:
    """A call that a pickle asks for.

    Attributes:
        of: what would be called.
        arguments: with these.
        state: what the result would be updated with.
        items: what would be put into it, if it is a container.
    """

    of: Name
    # none is printed: what refers to itself twice, thirty levels deep, is a billion words
    arguments: tuple[Any, ...] = field(repr=False)
    state: Any = field(default=None, repr=False)
    items: list[Any] = field(default_factory=list, repr=False)


@dataclass(frozen=True, eq=False)
class Reference:
    """A persistent id: PyTorch's files name the storages of tensors by them."""

    id: Any = field(repr=False)


STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip
DICTS = {
    *(f"collections.{name}" for name in ("OrderedDict", "defaultdict", "Counter")),
    *("builtins.dict", "__builtin__.dict"),
}
_PLAIN = {"set", "frozenset", "list", "dict", "tuple", "int", "long", "float", "bool", "complex", "str", "unicode",
          "bytes", "bytearray", "object", "slice", "range", "xrange"}  # fmt: skip
_PATHS = {"Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"}
_SCALARS = {f"{kind}{bits}" for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64)}
_KNOWN: dict[str, set[str]] = {
    "argparse": {"Namespace"},
    "collections": {"OrderedDict", "defaultdict", "deque", "Counter"},
    "datetime": {"datetime", "date", "time", "timedelta", "timezone"},
    "pathlib": _PATHS,
    "pathlib._local": _PATHS,
    "copyreg": {"_reconstructor"},
    "copy_reg": {"_reconstructor"},
    "builtins": _PLAIN,
    "__builtin__": _PLAIN,
    "_codecs": {"encode"},
    "types": {"SimpleNamespace"},
    "torch._utils": {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter", "_rebuild_parameter_with_state"},
    "torch": {*STORAGES, *STORAGES.values(), "Size", "device", "ComplexFloatStorage", "ComplexDoubleStorage"},
    "torch.storage": {"UntypedStorage"},
    "torch.serialization": {"_get_layout"},
    "numpy": {"ndarray", "dtype", "bool_", "bool", "str_", *_SCALARS},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy.core.numeric": {"_frombuffer"},
    "numpy._core.numeric": {"_frombuffer"},
}  # fmt: skip
# installed nearly everywhere, and able to run what they are given
_RUNNERS = {
    "pip", "setuptools", "pkg_resources", "wheel", "_distutils_hack", "IPython", "ipykernel", "jupyter_client",
    "cloudpickle", "dill", "joblib", "pandas", "scipy", "sympy", "numba", "cffi", "cython", "Cython", "pyximport",
    "psutil", "pexpect", "ptyprocess", "sh", "plumbum", "invoke", "fabric", "paramiko", "requests", "urllib3", "httpx",
    "aiohttp", "fsspec", "jinja2", "mako", "yaml", "nose", "pytest", "_pytest", "py", "torchvision", "torchaudio",
    "transformers", "triton", "fire", "click", "nt", "posix", "commands", "urllib2", "cPickle", "segcli",
}  # fmt: skip
_CHECKED = set(sys.stdlib_module_names) | {"torch", "numpy"} | _RUNNERS | set(_KNOWN)


def check_keys(keys: Sequence[Any]) -> Sequence[Any]:
    """The keys of a dict or set, unless they are nested: hashing a deep one overflows the stack of the process.

    Raises:
        ValueError: a key is more than a plain value or a row of plain values.
    """
    for key in keys:
        parts = key if isinstance(key, tuple) else (key,)
        if any(isinstance(part, tuple | frozenset) for part in parts):
            raise ValueError("refused: a nested key, which no weights have")
    return keys


def check_name(name: Name) -> None:
    """Refuse a name that could run code.

    Raises:
        ValueError: with the name.
    """
    if name.name in _KNOWN.get(name.module, ()):
        return
    if name.module == "numpy.dtypes" and name.name.endswith("DType"):
        return
    package = name.module.partition(".")[0]
    if package == "torch" and name.module.startswith("torch.nn."):
        raise ValueError(
            f"refused: a pickled network ({name}), loading it would run code; its state_dict is read"
        )
    if package in _CHECKED or not package.isidentifier():
        raise ValueError(f"refused: names {name}, loading it would run code")
