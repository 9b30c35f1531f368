"""The trunk by OpenVINO against the trunk in plain torch."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from segcli.device import dtype_of
from segcli.errors import PredictionError, UsageError
from segcli.models import MaskRCNN, ModelSpec
from segcli.models.architectures import ARCHITECTURES
from segcli.models.inference import Trunk, TrunkOutput
from segcli.models.inference.heads import BoxHead, MaskHead
from segcli.models.inference.units import pack
from segcli.models.spec import Anchors
from segcli.prediction import openvino_store as store
from segcli.prediction.calibration import Calibration, digest
from segcli.prediction.openvino_engine import OpenVINOModule, converted, open_trunk

pytest.importorskip("openvino", reason="openvino is not installed")
pytest.importorskip("nncf", reason="nncf is not installed")


def network(name: str) -> MaskRCNN:
    """Seeded weights under which features keep their size, and norms that matter."""
    torch.manual_seed(0)
    net = MaskRCNN(ModelSpec(name, 3, Anchors(), ARCHITECTURES[name].conventions)).eval()
    for part, module in net.backbone.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if part.endswith("conv3"):  # ends a residual branch
                module.weight.data.mul_(0.2)
        for kind, tensor in module.named_buffers(recurse=False):
            if kind == "running_var":
                tensor.uniform_(0.8, 1.3)
    return net


@pytest.fixture(scope="session")
def nets() -> dict[str, MaskRCNN]:
    return {name: network(name) for name in ("mask-rcnn-nano", "mask-rcnn-r50-fpn")}


@pytest.fixture
def nano(nets: dict[str, MaskRCNN]) -> Callable[[], Trunk]:
    """Makes a trunk of the small network, always the same."""
    return lambda: Trunk(nets["mask-rcnn-nano"]).eval()


def picture(seed: int, *shape: int) -> Tensor:
    """Smooth values float32 (N, 3, H, W), channels last."""
    coarse = torch.randn(shape[0], 3, 4, 5, generator=torch.Generator().manual_seed(seed))
    smooth = nn.functional.interpolate(coarse, shape[1:], mode="bilinear")
    return smooth.contiguous(memory_format=torch.channels_last)


def calibration() -> Calibration:
    return Calibration.on([picture(seed, 1, 64, 96) for seed in range(3)])


def flat(found: TrunkOutput) -> list[Tensor]:
    return [*found.features, *found.logits, *found.deltas]


def expected(trunk: Trunk, images: Tensor) -> list[Tensor]:
    with torch.inference_mode():
        return list(trunk(images))


def differences(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> list[float]:
    """Per output: root mean square of the difference over that of the values."""
    assert [a.shape for a in found] == [b.shape for b in wanted]
    return [
        float((a.double() - b.double()).norm() / b.double().norm())
        for a, b in zip(found, wanted, strict=True)
    ]


@pytest.mark.parametrize("shape", [(0, 64, 64), (1, 0, 64)], ids=["no pictures", "no rows"])
def test_nothing_is_refused(nano: Callable[[], Trunk], shape: tuple[int, int, int]) -> None:
    """A batch without pixels is named, not run."""
    engine = open_trunk(nano(), "fp32")

    with pytest.raises(ValueError, match=r"expected float32 \(N, 3, H, W\)"):
        engine(torch.zeros(shape[0], 3, *shape[1:]))
    with pytest.raises(ValueError, match="float64"):
        engine(torch.zeros(1, 3, 64, 64, dtype=torch.float64))


@pytest.mark.parametrize("name", ["mask-rcnn-nano", "mask-rcnn-r50-fpn"])
@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-4), ("bf16", 4e-2)])
def test_equals_torch(nets: dict[str, MaskRCNN], name: str, precision: str, most: float) -> None:
    """Three sizes in turn, a batch of two among them, awkward sides, give what torch gives, and stay as they are."""
    trunk = Trunk(nets[name]).eval()
    engine = open_trunk(copy.deepcopy(trunk), precision)
    batches = [picture(1, 1, 64, 96), picture(2, 2, 96, 64), picture(3, 1, 77, 99)]

    found = [engine(images) for images in batches]
    before = [t.clone() for t in flat(found[0])]
    engine(picture(4, 1, 64, 96))

    for output, images in zip(found, batches, strict=True):
        assert max(differences(flat(output), expected(trunk, images))) < most
        assert {f.dtype for f in output.features} == {dtype_of(precision)}
        assert {t.dtype for t in (*output.logits, *output.deltas)} == {torch.float32}
        assert all(f.is_contiguous(memory_format=torch.channels_last) for f in output.features)
    assert all(torch.equal(a, b) for a, b in zip(flat(found[0]), before, strict=True))


def test_same_bits_in_any_company(nano: Callable[[], Trunk]) -> None:
    """What came before, what else is in the batch, and the memory format change no bit."""
    one, two = picture(1, 1, 64, 96), picture(2, 1, 64, 96)
    fresh = flat(open_trunk(nano(), "bf16")(one))
    used = open_trunk(nano(), "bf16")
    used(picture(3, 2, 96, 128))

    again = flat(used(one.contiguous()))
    paired = [t[:1] for t in flat(used(torch.cat([one, two])))]

    assert all(torch.equal(a, b) for a, b in zip(fresh, again, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(fresh, paired, strict=True))


def test_results_outlive_the_engine(nano: Callable[[], Trunk]) -> None:
    """Results are the caller's, also when the engine is gone."""
    engine = open_trunk(nano(), "fp32")
    found = flat(engine(picture(1, 1, 64, 96)))
    before = [t.clone() for t in found]
    del engine
    other = open_trunk(nano(), "fp32")
    other(picture(2, 1, 64, 96))

    assert all(torch.equal(a, b) for a, b in zip(found, before, strict=True))


def test_int8_of_r50_is_correlated(nets: dict[str, MaskRCNN]) -> None:
    """No output is lost in 8 bits, also behind biases of zeros, with which OpenVINO loses the RPN's convolution."""
    trunk = Trunk(nets["mask-rcnn-r50-fpn"]).eval()
    images = picture(7, 1, 64, 96)
    wanted = expected(copy.deepcopy(trunk), images)

    found = flat(open_trunk(trunk, "int8", calibration())(images))

    assert max(differences(found, wanted)) < 0.3


def test_lost_outputs_are_refused(
    nano: Callable[[], Trunk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A calibrated model that gives something else is an error, and is not kept."""
    other = nano()
    other.head.deltas.weight.data.zero_()
    wrong = converted(other, [torch.zeros(1, 3, 64, 64)], [(0, 2, 3)])
    monkeypatch.setattr("segcli.prediction.calibration.calibrated", lambda *_: wrong)

    with pytest.raises(
        PredictionError, match=r"outputs \[9, 10, 11, 12, 13\] of the trunk are lost"
    ):
        open_trunk(nano(), "int8", calibration())
    assert list(store.path_for("int8", {}).parent.glob("int8-*")) == []


def test_int8_is_correlated_and_repeatable(nano: Callable[[], Trunk]) -> None:
    """In 8 bits values stay close, differ from fp32, and calibrating anew on the same pictures gives the same bits."""
    images = picture(7, 2, 64, 96)
    found = flat(open_trunk(nano(), "int8", calibration())(images))
    wanted = expected(nano(), images)
    for path in store.path_for("int8", {}).parent.iterdir():
        path.unlink()

    again = flat(open_trunk(nano(), "int8", calibration())(images))

    both = [
        torch.stack([a.double().flatten(), b.double().flatten()])
        for a, b in zip(found, wanted, strict=True)
    ]
    assert all(float(torch.corrcoef(pair)[0, 1]) > 0.95 for pair in both)
    assert max(differences(found, wanted)) > 1e-3
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


def test_int8_goes_on_without_its_pictures(nano: Callable[[], Trunk]) -> None:
    """A job that goes on reads the kept model, not the pictures; where it is gone, changed pictures are refused."""
    first = calibration()
    found = flat(open_trunk(nano(), "int8", first)(picture(7, 1, 64, 96)))

    def refuse() -> list[Tensor]:
        raise AssertionError("not to be read")

    resumed = open_trunk(nano(), "int8", Calibration.again(first.record(), refuse))
    again = flat(resumed(picture(7, 1, 64, 96)))
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))

    for path in store.path_for("int8", {}).parent.glob("int8-*"):
        path.unlink()
    changed = Calibration.again(first.record(), lambda: [picture(9, 1, 64, 96)])
    with pytest.raises(UsageError, match="have changed; begin anew with --overwrite"):
        open_trunk(nano(), "int8", changed)


def test_calibration_is_identified_by_its_pictures() -> None:
    """Values and sizes count; only the first eight; none at all is an error."""
    pictures = [picture(seed, 1, 32, 32) for seed in range(10)]

    assert Calibration.on(pictures).record() == {"pictures": 8, "sha256": digest(pictures[:8])}
    assert digest(pictures[:2]) != digest(pictures[1:3])
    assert digest([pictures[0]]) != digest([pictures[0].reshape(1, 3, 16, 64)])
    with pytest.raises(UsageError, match="no picture that can be read"):
        Calibration.on([])


def test_kept_models_are_used_again(
    nano: Callable[[], Trunk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second start converts nothing and computes the same bits; other weights are another file."""
    images = picture(1, 1, 64, 96)
    found = flat(open_trunk(nano(), "fp32")(images))
    (kept,) = store.path_for("trunk", {}).parent.iterdir()
    assert kept.parent.stat().st_mode & 0o777 == 0o700

    with monkeypatch.context() as patch:
        patch.setattr("torch.jit.trace", None)
        again = flat(open_trunk(nano(), "fp32")(images))
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))

    other = nano()
    other.head.logits.weight.data.add_(1e-3)
    open_trunk(other, "fp32")
    assert len(list(kept.parent.iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_damaged_files_are_not_trusted(
    nano: Callable[[], Trunk], damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file whose hash is wrong is named, and made anew."""
    found = flat(open_trunk(nano(), "fp32")(picture(1, 1, 64, 64)))
    (path,) = store.path_for("trunk", {}).parent.iterdir()
    whole = path.read_bytes()
    middle = len(whole) // 2
    changed = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    path.write_bytes({"cut": whole[:middle], "changed": changed, "empty": b""}[damage])

    again = flat(open_trunk(nano(), "fp32")(picture(1, 1, 64, 64)))

    assert f"warning: {path}: damaged" in capsys.readouterr().err
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    assert store.read(path) is not None


def test_few_files_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number of files of a kind those unused for longest go."""
    monkeypatch.setitem(store._KEPT, "trunk", 2)
    paths = [store.path_for("trunk", {"n": n}) for n in range(3)]
    for age, path in zip((300, 200), paths, strict=False):
        store.write(path, b"x")
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    assert store.read(paths[0]) == b"x"  # now used last
    store.write(paths[2], b"y")

    assert [store.read(path) for path in paths] == [b"x", None, b"y"]


def test_packed_units_are_refused(nano: Callable[[], Trunk]) -> None:
    """Weights in oneDNN's own layout cannot be converted."""
    trunk = nano()
    pack(trunk)

    with pytest.raises(ValueError, match="packed for oneDNN"):
        store.fingerprint(trunk)


def test_fingerprint_sees_what_weights_do_not() -> None:
    """A stride is no weight, yet another module."""
    from segcli.models.inference.units import ConvUnit

    conv = nn.Conv2d(1, 1, 3)
    other = copy.deepcopy(conv)
    other.stride = (2, 2)

    assert store.fingerprint(ConvUnit(conv)) == store.fingerprint(ConvUnit(conv))
    assert store.fingerprint(ConvUnit(conv)) != store.fingerprint(ConvUnit(other))


@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-4), ("bf16", 3e-2)])
def test_heads(nets: dict[str, MaskRCNN], precision: str, most: float) -> None:
    """Any module: no RoIs, one, many; several inputs and outputs."""
    heads, dtype = nets["mask-rcnn-nano"].roi_heads, dtype_of(precision)
    box, mask = BoxHead(heads).eval(), MaskHead(heads).eval()
    boxes = OpenVINOModule.of(box, [torch.zeros(2, 64, 7, 7)], precision)
    masks = OpenVINOModule.of(
        mask, [torch.zeros(2, 64, 14, 14), torch.ones(2, dtype=torch.int64)], precision
    )

    for rows in (0, 1, 5):
        generator = torch.Generator().manual_seed(rows)
        small = torch.randn(rows, 64, 7, 7, generator=generator)
        large = torch.randn(rows, 64, 14, 14, generator=generator)
        labels = torch.randint(1, 4, (rows,), generator=generator)
        logits, deltas = boxes(small.to(dtype))
        probabilities = masks(large.to(dtype), labels)
        assert (logits.shape, deltas.shape) == ((rows, 4), (rows, 16))
        assert probabilities.shape == (rows, 28, 28)
        if rows:
            with torch.inference_mode():
                wanted = [*box(small), mask(large, labels)]
            assert max(differences([logits, deltas, probabilities], wanted)) < most


def test_calibration_belongs_to_int8(nano: Callable[[], Trunk]) -> None:
    """Int8 without pictures and pictures without int8 are mistakes of the caller."""
    with pytest.raises(ValueError, match="int8 needs it"):
        open_trunk(nano(), "int8")
    with pytest.raises(ValueError, match="calibration is for int8"):
        open_trunk(nano(), "bf16", calibration())


QUIET = """
import torch
from segcli.models import ModelSpec, MaskRCNN
from segcli.models.architectures import NANO
from segcli.models.inference import Trunk
from segcli.models.spec import Anchors
from segcli.prediction.calibration import Calibration
from segcli.prediction.openvino_engine import open_trunk
trunk = Trunk(MaskRCNN(ModelSpec(NANO.name, 1, Anchors(), NANO.conventions)).eval())
open_trunk(trunk, "int8", Calibration.on([torch.zeros(1, 3, 64, 64)]))(torch.zeros(1, 3, 64, 64))
"""


@pytest.mark.slow
def test_nothing_is_reported_to_anybody(tmp_path: Path) -> None:
    """Neither conversion nor calibration leaves an identity for telemetry in the user's home, or speaks on stdout."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {k: v for k, v in os.environ.items() if k not in ("CI", "NNCF_CI")}
    environment = {**kept, "HOME": str(home), "SEGCLI_HOME": str(tmp_path / "cache")}
    found = subprocess.run(
        [sys.executable, "-c", QUIET], env=environment, capture_output=True, text=True, check=False
    )

    assert found.returncode == 0, found.stderr
    assert found.stdout == ""
    assert found.stderr == "calibrating int8 on 1 pictures; the result is kept\n"
    assert not (home / "intel").exists()


_SIGNALLED = """
import gc, signal
import torch
from segcli.models import MaskRCNN, ModelSpec
from segcli.models.architectures import ARCHITECTURES
from segcli.models.inference import Trunk
from segcli.models.spec import Anchors
from segcli.prediction.calibration import Calibration
from segcli.prediction.openvino_engine import open_trunk
net = MaskRCNN(ModelSpec("mask-rcnn-nano", 3, Anchors(), ARCHITECTURES["mask-rcnn-nano"].conventions)).eval()
picture = torch.rand(1, 3, 64, 96).contiguous(memory_format=torch.channels_last)
engines = [open_trunk(Trunk(net).eval(), "fp32", None) for _ in range(2)]
engines.append(open_trunk(Trunk(net).eval(), "int8", Calibration.on([picture])))
while engines:  # the first comes first: not the order in which a stack is cleared
    engines.pop(0)
    gc.collect()
arrived = []
signal.signal(signal.SIGTERM, lambda *_: arrived.append(True))
signal.raise_signal(signal.SIGTERM)
print(len(arrived))
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("handlers", [(), ("-X", "faulthandler")], ids=["plain", "faulthandler"])
def test_signals_are_handled_when_engines_are_gone(handlers: tuple[str, ...]) -> None:
    """Each plugin of OpenVINO brings a stack for signal handlers; a signal on one that is gone ends the process."""
    done = subprocess.run(
        [sys.executable, *handlers, "-c", _SIGNALLED], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
