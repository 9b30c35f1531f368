"""Compile the Triton kernels for GPUs that are not here, and say what the machine code is like.

python scripts/compile_kernels.py [--arch 80 90] [--only WORDS] [--json FILE] [--update-golden]

The launchers of `segcli.models.roi_align` are called with tensors that have shapes and no memory, and each launch is
written down instead of run: kernel, types, alignment, block sizes, warps. Those are compiled. So what is looked at is
what a GPU would be given, and a launcher that looked into a tensor before choosing its grid would fail here.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from segcli.models import paste_kernel
from segcli.models.conventions import MaskPaste, Postprocess
from segcli.models.inference import nms_kernel, preprocess_kernel
from segcli.models.roi_align import backward_atomic, backward_kernel, forward_kernel
from segcli.models.roi_align.levels import area_thresholds
from segcli.models.roi_align.sampling import Mode, Sampling

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "models" / "golden" / "kernels.json"
ARCHITECTURES = (80, 90)
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SIZES = {"box": (7, 7), "mask": (14, 14)}
SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)
PICTURES, HEIGHT, WIDTH, ROIS = 2, 800, 1344, 1000

_TYPES = {
    torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.float64: "fp64",
    torch.int8: "i8", torch.uint8: "u8", torch.int32: "i32", torch.int64: "i64", torch.bool: "i1",
}  # fmt: skip


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel: what `triton.compile` has to know."""

    kernel: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    aligned: tuple[int, ...]
    options: dict[str, int]


def variants() -> Iterator[tuple[str, Callable[[], object]]]:
    """Name of each variant, and a call that makes its launches. A new kernel needs a few lines here."""
    for dtype in DTYPES:
        for ratio in (2, 0):
            for size in SIZES:
                for mode in ("avg", "max"):
                    yield _forward(dtype, ratio, size, mode, 256)
                if ratio == 2:
                    yield _forward(dtype, ratio, size, "avg", 64)
            for channels in (256, 64):
                yield _backward("backward", backward_kernel.backward, dtype, ratio, channels)
            yield _backward("atomic", backward_atomic.backward, dtype, ratio, 256)
        yield _preprocess(dtype)
    yield _nms("nms fp32 levels K1000", 5 * PICTURES, 1000, labels=False)
    yield _nms("nms fp32 classes K2048", PICTURES, 2048, labels=True)
    yield from (_paste(walk, rule) for rule in get_args(MaskPaste) for walk in ("count", "write"))


def _forward(
    dtype: str, ratio: int, size: str, mode: Mode, channels: int
) -> tuple[str, Callable[[], object]]:
    maps = [_blank(shape, DTYPES[dtype]) for shape in _shapes(channels)]
    name, rois = f"forward {dtype} {mode} samples{ratio} {size} C{channels}", _blank((ROIS, 5))
    return name, lambda: forward_kernel.forward(maps, rois, SIZES[size], _sampling(ratio, mode))


def _backward(
    form: str, backward: Callable[..., object], dtype: str, ratio: int, channels: int
) -> tuple[str, Callable[[], object]]:
    grads = [_blank((ROIS, *size, channels), DTYPES[dtype]) for size in SIZES.values()]
    rois = [_blank((ROIS, 5)) for _ in grads]
    return f"{form} {dtype} samples{ratio} C{channels}", lambda: backward(
        grads, rois, _shapes(channels), DTYPES[dtype], _sampling(ratio, "avg")
    )


def _preprocess(dtype: str) -> tuple[str, Callable[[], object]]:
    batch = _blank((PICTURES, 3, HEIGHT, WIDTH), DTYPES[dtype])
    batch = batch.contiguous(memory_format=torch.channels_last)
    pixels, table = _blank((480 * 640 * 3,), torch.uint8), _blank((PICTURES, 5), torch.int64)
    args = (pixels, table, _blank((256, 3)), batch)
    return f"preprocess {dtype}", partial(preprocess_kernel.preprocess, *args)


def _nms(name: str, groups: int, count: int, *, labels: bool) -> tuple[str, Callable[[], object]]:
    boxes, valid = _blank((groups, count, 4)), _blank((groups, count), torch.bool)
    named = _blank((groups, count), torch.int64) if labels else None
    return name, partial(nms_kernel.suppress, boxes, valid, 0.5, named)


def _paste(walk: str, rule: MaskPaste) -> tuple[str, Callable[[], object]]:
    masks, tables = _blank((100, 28, 28)), (_blank((100, 4), torch.int32), _blank((100, 4)))
    size, how = (HEIGHT, WIDTH), Postprocess(mask_paste=rule)
    out = _blank((100, WIDTH), torch.int32 if walk == "count" else torch.int64)
    args = (masks, tables, None if walk == "count" else out, out, size, how)
    return f"paste fp32 {rule} {walk}", partial(paste_kernel.launch, *args)


def _sampling(ratio: int, mode: Mode) -> Sampling:
    return Sampling(SCALES, area_thresholds(2, 5, "torchvision"), ratio, mode=mode)


def _shapes(channels: int) -> list[tuple[int, int, int, int]]:
    return [(PICTURES, int(HEIGHT * s), int(WIDTH * s), channels) for s in SCALES]


def _blank(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


@contextmanager
def written_down() -> Iterator[list[Launch]]:
    """Launches inside the block are written down and not run."""
    launches: list[Launch] = []

    def note(kernel: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        del grid, warmup
        launches.append(_launch(kernel, args, kwargs))

    before = JITFunction.run
    JITFunction.run = note
    try:
        yield launches
    finally:
        JITFunction.run = before


def _launch(kernel: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Launch:
    """Types and alignment as Triton would find them at the launch; fresh tensors are aligned."""
    names = {p.name for p in kernel.params}
    options = {name: number for name, number in kwargs.items() if name not in names}
    given = inspect.signature(kernel.fn).bind(
        *args, **{n: a for n, a in kwargs.items() if n in names}
    )
    given.apply_defaults()
    signature, constants, aligned = {}, {}, []
    for parameter in kernel.params:
        value = given.arguments[parameter.name]
        one = type(value) is int and value == 1 and not parameter.do_not_specialize
        if parameter.is_constexpr or value is None or one:
            signature[parameter.name] = "constexpr"
            constants[parameter.name] = value
            continue
        signature[parameter.name] = _type(value)
        if isinstance(value, Tensor) or (
            type(value) is int and value % 16 == 0 and not parameter.do_not_specialize
        ):
            aligned.append(parameter.num)
    return Launch(kernel, signature, constants, tuple(aligned), options)


def _type(value: object) -> str:
    if isinstance(value, Tensor):
        return "*" + _TYPES[value.dtype]
    if isinstance(value, bool):
        return "u1"
    if isinstance(value, int):
        return "i32" if -(2**31) <= value < 2**31 else "i64"
    assert isinstance(value, float), value
    return "fp32"


def compiled(launch: Launch, architecture: int) -> dict[str, Any]:
    """Compile one launch.

    Returns:
        `warps`; `registers` and `spills`, the latter in bytes of stack, per thread; `shared`, bytes per program; and
        `figures` of the PTX.
    """
    source = ASTSource(
        fn=launch.kernel,
        signature=launch.signature,
        constexprs=launch.constants,
        attrs={(i,): [["tt.divisibility", 16]] for i in launch.aligned},
    )
    kernel = triton.compile(
        source, target=GPUTarget("cuda", architecture, 32), options=launch.options
    )
    return {
        "warps": kernel.metadata.num_warps,
        **_resources(kernel.asm["cubin"]),
        "shared": kernel.metadata.shared,
        **figures(kernel.asm["ptx"]),
    }


def figures(ptx: str) -> dict[str, Any]:
    """Facts about PTX.

    Returns:
        `target`; `loads`, how many of each width in bytes from global memory; `atomics` and how many of them are
        `vector_atomics`; `exact_divisions`, the slow kind.
    """
    target = re.search(r"^\.target (\w+)", ptx, re.MULTILINE)
    assert target is not None
    atomics = re.findall(r"\b(?:atom|red)\.[\w.:]+", ptx)
    return {
        "target": target[1],
        "loads": _load_widths(ptx),
        "atomics": len(atomics),
        "vector_atomics": sum(bool(re.search(r"\.v[248]\b", name)) for name in atomics),
        "exact_divisions": len(re.findall(r"\bdiv\.rn\.f", ptx)),
    }


def _load_widths(ptx: str) -> dict[str, int]:
    """How many loads of each width in bytes, widest first; JSON's keys are texts."""
    counts: dict[int, int] = {}
    for vector, bits in re.findall(r"\bld\.global[\w.:]*?(?:\.v(\d))?\.[bfus](\d+)\b", ptx):
        width = int(vector or 1) * int(bits) // 8
        counts[width] = counts.get(width, 0) + 1
    return {str(width): counts[width] for width in sorted(counts, reverse=True)}


def _resources(cubin: bytes) -> dict[str, int]:
    """What a thread and a program of the finished code take, as the tool that comes with Triton reads it.

    From the cubin that Triton's own options made: another run of the assembler with others gives other registers.
    """
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        run = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True, check=True)
    found = re.search(r"REG:(\d+) STACK:(\d+)", run.stdout)
    assert found is not None, run.stdout
    return {"registers": int(found[1]), "spills": int(found[2])}


def compile_all(architecture: int, words: list[str]) -> dict[str, dict[str, Any]]:
    """Figures by `variant: kernel`; only variants whose name holds all of the words."""
    found: dict[str, dict[str, Any]] = {}
    for name, make in variants():
        if not set(words) <= set(name.split()):
            continue
        with written_down() as launches:
            make()
        for launch in launches:
            kernel = launch.kernel.fn.__name__
            found[f"{name}: {kernel}"] = compiled(launch, architecture)
    return found


def as_text(report: dict[str, Any]) -> str:
    """JSON with a line per kernel, so that a change is a line."""
    parts = [f'"triton": {json.dumps(report["triton"])}']
    for architecture in (key for key in report if key != "triton"):
        rows = ",\n".join(
            f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in report[architecture].items()
        )
        parts.append(f"{json.dumps(architecture)}: {{\n{rows}\n}}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> int:
    """Print a line per kernel, or write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", type=int, nargs="+", default=list(ARCHITECTURES))
    parser.add_argument("--only", nargs="+", default=[], help="words of the variants' names")
    parser.add_argument("--json", type=Path, help="write what was found")
    parser.add_argument("--update-golden", action="store_true", help=f"rewrite {GOLDEN.name}")
    given = parser.parse_args()
    if given.update_golden and (given.only or tuple(given.arch) != ARCHITECTURES):
        parser.error("--update-golden writes every kernel: leave out --arch and --only")
    report: dict[str, Any] = {"triton": triton.__version__}
    for architecture in given.arch:
        report[f"sm_{architecture}"] = compile_all(architecture, given.only)
    for target in filter(None, (given.json, GOLDEN if given.update_golden else None)):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(as_text(report))
    if given.json is None:
        print(as_text(report), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
