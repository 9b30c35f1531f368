"""Who takes part, and that each computes the same."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from segcli.bench import contestants, peers
from segcli.bench.check import Difference, Truth, compare, find_truth, limits, touched_cells
from segcli.bench.contestants import PARTS, Contestant, Entry, enter, entries
from segcli.bench.inputs import Inputs, Pooling, make_inputs
from segcli.bench.workloads import QUICK, WORKLOADS

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
SMALL = replace(QUICK, channels=4)
# every entry of either device; all of them can be rehearsed on a CPU with torchvision's operator as ours
EVERYONE = {
    (e.name, e.dtype, e.layout): e
    for e in (*entries(CPU, "torchvision", 4), *entries(CUDA, "torchvision", 4))
}


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    """Training, tiny: two pictures, four levels, two heads."""
    return make_inputs(WORKLOADS["train-both"], SMALL)


def differ(contestant: Contestant, truth: Truth) -> Difference:
    """Run once and compare."""
    outputs = contestant.graph()
    return compare(contestant, outputs, contestant.backward(outputs), truth)


@pytest.mark.parametrize("who", EVERYONE.values(), ids=lambda e: f"{e.name} {e.dtype} {e.layout}")
def test_everyone_computes_the_same(who: Entry, inputs: Inputs) -> None:
    """Outputs and gradients of every contestant are the truth's within the tolerance of its type."""
    found = differ(enter(who, inputs, CPU, "torchvision"), find_truth(inputs, who.dtype))

    assert found.forward <= found.forward_limit
    assert found.backward <= found.backward_limit


@pytest.mark.parametrize("part", PARTS)
def test_parts(part: contestants.Part, inputs: Inputs) -> None:
    """A part can be run again and again; a forward has no graph, a backward gives a gradient per map."""
    contestant = enter(EVERYONE["torchvision", "fp32", "NHWC"], inputs, CPU, "torchvision")
    prepare, run = contestant.steps(part)
    first, second = (run(prepare()) for _ in range(2))

    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not any(t.requires_grad for t in first)
    if part == "forward":
        assert [len(o) for o in first] == [len(p.rois) for p in inputs.poolings]
    else:
        assert [g.shape for g in first] == [m.shape for m in inputs.maps]


def test_layouts(inputs: Inputs) -> None:
    """Features lie in memory as the entry says."""
    for who in EVERYONE.values():
        maps = enter(who, inputs, CPU, "torchvision").maps
        last = all(m.is_contiguous(memory_format=torch.channels_last) for m in maps)
        assert last == (who.layout == "NHWC")
        assert {m.dtype for m in maps} == {contestants.TYPES[who.dtype]}


@pytest.mark.parametrize(
    ("device", "backend", "levels", "names"),
    [
        (CPU, "gather", 1, {"gather", "torchvision op"}),
        (CPU, "gather", 4, {"gather", "torchvision op", "torchvision module"}),
        (
            CUDA,
            "triton",
            4,
            {
                "triton",
                "triton, atomic",
                "torchvision op",
                "torchvision module",
                "torchvision det.",
            },
        ),
    ],
)
def test_line_up(device: torch.device, backend: str, levels: int, names: set[str]) -> None:
    """On a CPU the module over one level is the operator; on a GPU there are torchvision's three and our two."""
    assert {e.name for e in entries(device, backend, levels)} == names


def test_deterministic_mode_is_left_as_it_was() -> None:
    """The peer's deterministic mode is on inside only, also after an error."""

    def modes() -> tuple[bool, bool, bool]:
        return (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,
        )

    @peers.deterministic()
    def fail() -> None:
        raise RuntimeError(str(modes()))

    before = modes()
    with pytest.raises(RuntimeError, match=re.escape("(True, False, False)")):
        fail()

    assert modes() == before


@pytest.mark.parametrize(
    ("dtype", "found"),
    [("fp32", (1e-5, 1e-4)), ("bf16", (5 / 128, 1 / 128)), ("fp16", (5 / 1024, 1 / 1024))],
)
def test_limits(dtype: str, found: tuple[float, float]) -> None:
    """fp32 has fixed limits; those of 16-bit types are their spacing times the largest feature."""
    assert limits(dtype, 5.0) == pytest.approx(found)


@pytest.mark.parametrize("wrong", ["forward", "backward", "NaN"])
def test_what_is_wrong_is_seen(wrong: str, inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    """One value that is off, or not a number, is over the limit."""
    contestant = enter(EVERYONE["torchvision", "fp32", "NHWC"], inputs, CPU, "torchvision")
    graph, backward = contestant.graph, contestant.backward

    def spoil(tensors: list[torch.Tensor], by: float) -> list[torch.Tensor]:
        tensors[0].data[-1, -1, -1, -1] += by
        return tensors

    if wrong == "backward":
        monkeypatch.setattr(contestant, "backward", lambda outs: spoil(backward(outs), 0.1))
    else:
        by = float("nan") if wrong == "NaN" else 1e-4
        monkeypatch.setattr(contestant, "graph", lambda: spoil(graph(), by))
    found = differ(contestant, find_truth(inputs, "fp32"))

    assert (found.forward <= found.forward_limit) == (wrong == "backward")
    assert (found.backward <= found.backward_limit) == (wrong != "backward")


def test_touched_cells_by_hand() -> None:
    """One box of 2 × 2 cells whose samples fall on quarters: 3 × 3 cells lie under them."""
    whole = make_inputs(WORKLOADS["box-one-level"], SMALL)
    box = torch.tensor([[0.0, 40.0, 40.0, 48.0, 48.0]])  # cells 10 to 12 at stride 4
    inputs = replace(whole, poolings=[Pooling(box, 1, torch.ones(1, SMALL.channels, 1, 1))])

    # two samples per axis, at 10.5 and 11.5: cells 10, 11 and 12
    assert touched_cells(inputs) == 9
