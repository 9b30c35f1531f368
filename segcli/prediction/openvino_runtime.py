"""OpenVINO and NNCF, imported only when needed, quiet, and reporting to nobody."""

from __future__ import annotations

import functools
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from typing import Any

from segcli.errors import UsageError

_INSTALL = 'pip install "segcli[openvino]"'
_REPORTS = "openvino_telemetry"


def runtime() -> Any:
    """The package `openvino`.

    Raises:
        UsageError: it cannot be imported.
    """
    try:
        with _unreported():
            import openvino
    except ImportError as error:
        raise UsageError(
            f"OpenVINO cannot be imported ({error}); install it with {_INSTALL}, or use --cpu-engine torch"
        ) from error
    return openvino


@functools.cache
def core() -> Any:
    """The one `openvino.Core` of this process, with its plugin for CPUs loaded; it is kept to the end.

    A plugin gives the thread that loads it another stack for signal handlers, and takes that stack away when it is
    unloaded, in the wrong order where there were several: the next Ctrl-C, or the end of a child process, would then
    end this process by a segmentation fault. So there is one, loaded by a thread that ends.
    Source: class SigAltStackSetup, https://github.com/openvinotoolkit/openvino/pull/11894.

    Raises:
        UsageError: OpenVINO cannot be imported.
    """
    found = runtime().Core()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(found.get_property, "CPU", "FULL_DEVICE_NAME").result()
    return found


def nncf() -> Any:
    """The package `nncf`.

    Raises:
        UsageError: it cannot be imported.
    """
    try:
        with _unreported(), quiet():
            import nncf as package
    except ImportError as error:
        raise UsageError(
            f"--precision int8: NNCF cannot be imported ({error}); install it with {_INSTALL}"
        ) from error
    package.set_log_level(logging.ERROR)
    return package


@contextmanager
def _unreported() -> Iterator[None]:
    """Without the package by which both report to their makers' servers; they do without it.

    Merely importing NNCF with it would leave an identity in the user's home.
    """
    absent = object()
    before: Any = sys.modules.get(_REPORTS, absent)
    sys.modules[_REPORTS] = None  # type: ignore[assignment]  # Python's way to say that there is none
    try:
        yield
    finally:
        del sys.modules[_REPORTS]
        if before is not absent:
            sys.modules[_REPORTS] = before


@contextmanager
def quiet() -> Iterator[None]:
    """Without NNCF's bars on stdout, and what it and the parts of torch that it imports warn of."""
    logger = logging.getLogger("torch.utils.cpp_extension")  # "No CUDA runtime is found"
    before, logger.disabled = logger.disabled, True
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before
