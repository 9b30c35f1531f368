"""MODEL on the command line: files, RUN folders, names, and what is refused."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

from segcli import zoo
from segcli.categories import Categories
from segcli.errors import ModelError, UsageError
from segcli.models import MaskRCNN

TWO = Categories.from_names(["nut", "bolt"])


def test_coco_names_are_torchvisions() -> None:
    """90 slots, ten of them placeholders."""
    names = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    assert zoo.COCO_91.names == tuple(names[1:])
    assert sum(zoo.COCO_91.is_placeholder(k) for k in range(90)) == 10


def test_the_published_address_and_hash_are_torchvisions() -> None:
    """The table and torchvision's own agree, so a change of theirs is noticed."""
    row = zoo.PUBLISHED[zoo.DEFAULT_WEIGHTS]
    assert row.address == MaskRCNN_ResNet50_FPN_Weights.COCO_V1.url
    assert row.hash_prefix in row.address


@pytest.mark.parametrize(
    ("model", "message"),
    [
        pytest.param("mask-rcnn-nano", "architecture without weights", id="an architecture"),
        pytest.param("nano", "no such file, RUN folder or named weights", id="no name"),
        pytest.param("absent.safetensors", "no such file", id="no file"),
        pytest.param("some/folder/", "no such file", id="no folder"),
    ],
)
def test_what_is_no_model(model: str, message: str) -> None:
    """A usage error that says what MODEL may be."""
    with pytest.raises(UsageError, match=message):
        zoo.load_model(model)


def test_a_run_folder_stands_for_its_best_weights(tmp_path: Path) -> None:
    """And an empty folder is refused by what is missing in it."""
    with pytest.raises(UsageError, match=r"best\.safetensors"):
        zoo.load_model(str(tmp_path))
    zoo.save_model(tmp_path / "best.safetensors", zoo.new_model("mask-rcnn-nano", TWO, seed=1))
    loaded = zoo.load_model(str(tmp_path))
    assert loaded.categories == TWO
    assert loaded.sha256 == hashlib.sha256((tmp_path / "best.safetensors").read_bytes()).hexdigest()
    assert isinstance(loaded.build(), MaskRCNN)


def test_random_weights_depend_on_the_seed_alone() -> None:
    """Also when the program drew other random numbers before; and they leave its generator as it was."""
    first = zoo.new_model("mask-rcnn-nano", TWO, seed=3)
    before = torch.random.get_rng_state()
    torch.rand(7)
    again, other = (zoo.new_model("mask-rcnn-nano", TWO, seed=s) for s in (3, 4))
    torch.random.set_rng_state(before)
    name = "backbone.body.conv1.0.weight"
    assert torch.equal(first.state[name], again.state[name])
    assert not torch.equal(first.state[name], other.state[name])


def test_weights_that_do_not_fit_their_record(tmp_path: Path) -> None:
    """A missing tensor is named in one line."""
    model = zoo.new_model("mask-rcnn-nano", TWO, seed=1)
    state = {k: v for k, v in model.state.items() if not k.startswith("rpn.head.cls_logits")}
    zoo.save_model(tmp_path / "x.safetensors", replace(model, state=state))
    with pytest.raises(ModelError, match=r"do not fit mask-rcnn-nano.*cls_logits"):
        zoo.load_model(str(tmp_path / "x.safetensors")).build()


def test_unknown_architecture_and_missing_categories(tmp_path: Path) -> None:
    """A file of a later version, and one whose record was cut."""
    model = zoo.new_model("mask-rcnn-nano", TWO, seed=1)
    zoo.save_model(
        tmp_path / "a.safetensors", replace(model, spec=replace(model.spec, architecture="new"))
    )
    with pytest.raises(ModelError, match="'new' is unknown to this version"):
        zoo.load_model(str(tmp_path / "a.safetensors"))
    zoo.save_model(
        tmp_path / "b.safetensors", replace(model, categories=Categories.from_names(["nut"]))
    )
    with pytest.raises(ModelError, match="names no 2 categories"):
        zoo.load_model(str(tmp_path / "b.safetensors"))
    with pytest.raises(UsageError, match="known: mask-rcnn-r50-fpn"):
        zoo.new_model("yolo", TWO, seed=0)


def test_a_state_dict_that_is_no_mask_rcnn(tmp_path: Path) -> None:
    """One line says what is missing."""
    path = tmp_path / "x.pth"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match="holds names such as 'a'; expected a Mask R-CNN of"):
        zoo.load_model(str(path))
    torch.save({"backbone.body.conv1.weight": torch.zeros(3, 1)}, path)
    with pytest.raises(ModelError, match="has no mask head"):
        zoo.load_model(str(path))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A loopback server over `tmp_path/www`."""
    (tmp_path / "www").mkdir()
    handler = functools.partial(_Quiet, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{service.server_port}"
        service.shutdown()


def _publish(monkeypatch: pytest.MonkeyPatch, address: str, prefix: str) -> None:
    row = replace(zoo.PUBLISHED[zoo.DEFAULT_WEIGHTS], address=address, hash_prefix=prefix)
    monkeypatch.setitem(zoo.PUBLISHED, zoo.DEFAULT_WEIGHTS, row)


def test_weights_by_name_are_downloaded_once_and_cached(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hash checked; the second time no server is asked. The file is a real R50-FPN state dict, as large as theirs."""
    spec_state = zoo.new_model("mask-rcnn-r50-fpn", zoo.COCO_91, seed=0).state
    served = tmp_path / "www" / "weights.pth"
    torch.save(dict(spec_state), served)
    _publish(
        monkeypatch, f"{server}/weights.pth", hashlib.sha256(served.read_bytes()).hexdigest()[:8]
    )
    loaded = zoo.load_model(zoo.DEFAULT_WEIGHTS)
    served.unlink()
    again = zoo.load_model(zoo.DEFAULT_WEIGHTS)
    assert loaded.sha256 == again.sha256
    assert loaded.spec.conventions.numerics.bn_eps == 0.0
    assert loaded.categories is zoo.COCO_91


def test_a_wrong_hash_is_refused_and_nothing_is_kept(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start downloads anew."""
    (tmp_path / "www" / "weights.pth").write_bytes(b"something else")
    _publish(monkeypatch, f"{server}/weights.pth", "00000000")
    with pytest.raises(ModelError, match="expected 00000000"):
        zoo.load_model(zoo.DEFAULT_WEIGHTS)
    left = {p.suffix for p in (tmp_path / "segcli-home" / "weights").iterdir()}
    assert left <= {".lock"}


def test_without_a_network_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the file's place in the cache."""
    _publish(monkeypatch, "http://127.0.0.1:9/weights.pth", "00000000")
    with pytest.raises(ModelError, match=r"put the file at .*weights\.pth"):
        zoo.load_model(zoo.DEFAULT_WEIGHTS)
