"""The compiled trunk: equal to the plain one, kept, checked, and refused where there is no compiler."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from segcli import zoo
from segcli.categories import Categories
from segcli.config import PredictConfig
from segcli.errors import UsageError
from segcli.models.inference import Trunk
from segcli.prediction import compiled, loading
from segcli.prediction.facts import JobFacts

CLASSES = Categories.from_names(["nut", "bolt"])
needs_compiler = pytest.mark.skipif(compiled.why_not() is not None, reason=f"{compiled.why_not()}")


@pytest.fixture(scope="module")
def model() -> zoo.LoadedModel:
    """A nano with random weights."""
    return zoo.new_model("mask-rcnn-nano", CLASSES, seed=0)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SEGCLI_HOME of its own."""
    monkeypatch.setenv("SEGCLI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def _trunk(model: zoo.LoadedModel) -> Trunk:
    return Trunk(model.build()).to_type(torch.float32).eval()


def _pictures(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


def _plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is compiled, though all is there that it takes."""

    def plain(trunk: Trunk, _: str) -> Callable[[Tensor], object]:
        return lambda pictures: Trunk.grouped(trunk(pictures))

    monkeypatch.setattr(compiled, "compiled_trunk", plain)
    monkeypatch.setattr(compiled, "why_not", lambda: None)


def _never(*_: object) -> None:
    pytest.fail("compiled again")


# torch 2.11 uses parts of its own that it has deprecated
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@needs_compiler
def test_compiled_once_for_all_sizes(
    model: zoo.LoadedModel,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Equal to plain torch at several sizes and batch sizes; later starts load it; a damaged file is made anew."""
    torch.manual_seed(0)
    trunk = _trunk(model)
    engines = [compiled.compiled_trunk(trunk, "a" * 64)]
    assert "compiling the trunk" in capsys.readouterr().err
    (package,) = (home / "compiled").glob("*.pt2")
    assert {p.suffix for p in (home / "compiled").iterdir()} == {".pt2", ".sha256", ".lock"}
    with monkeypatch.context() as patch:
        patch.setattr(compiled, "_compile", _never)
        engines.append(compiled.compiled_trunk(trunk, "a" * 64))
    with torch.inference_mode():
        for shape in ((1, 3, 64, 96), (3, 3, 96, 32)):
            pictures = _pictures(shape)
            expected = trunk(pictures)
            for engine in engines:
                found = engine(pictures)
                for ours, theirs in zip(
                    (*found.features, *found.logits, *found.deltas), expected, strict=True
                ):
                    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()
    package.write_bytes(package.read_bytes()[:-1])
    made: list[Path] = []

    def write(_: Trunk, path: Path) -> None:
        made.append(path)
        path.unlink()

    monkeypatch.setattr(compiled, "_compile", write)
    with pytest.raises(UsageError, match="cannot be loaded"):
        compiled.compiled_trunk(trunk, "a" * 64)
    assert made == [package]
    assert "damaged, compiling anew" in capsys.readouterr().err


def test_files_lie_under_segcli_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the user has chosen another place."""
    monkeypatch.setenv("SEGCLI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")
    compiled.keep_compiled()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "elsewhere"
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    compiled.keep_compiled()
    folder = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    assert folder == tmp_path / "home" / "inductor"
    assert folder.stat().st_mode & 0o077 == 0 or os.name == "nt"


def test_what_another_process_has_just_compiled_is_taken(
    model: zoo.LoadedModel, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two jobs that begin together compile once: the second waits for its turn, and looks again."""
    del home
    found: list[object] = [None, lambda images: images]
    last = found[-1]
    monkeypatch.setattr(compiled, "_load", lambda _: found.pop(0))
    monkeypatch.setattr(compiled, "_compile", _never)
    assert compiled.compiled_trunk(_trunk(model), "a" * 64) is last


def test_only_the_newest_are_kept(
    model: zoo.LoadedModel, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is as large as the weights; what a killed process left behind goes too, after a day."""
    folder = home / "compiled"
    (folder / "tmpold").mkdir(parents=True)
    (folder / "tmpnew").mkdir()
    os.utime(folder / "tmpold", (1, 1))

    def write(_: Trunk, path: Path) -> None:
        path.write_bytes(b"")
        path.with_suffix(".sha256").write_text("")
        os.utime(path, (len(made), len(made)))
        made.append(path.stem)

    made: list[str] = []
    monkeypatch.setattr(compiled, "why_not", lambda: None)
    monkeypatch.setattr(compiled, "_compile", write)
    monkeypatch.setattr(compiled, "_load", lambda path: object() if path.exists() else None)
    for number in range(10):
        compiled.compiled_trunk(_trunk(model), str(number))
    assert {path.stem for path in folder.glob("*.pt2")} == set(made[2:])
    assert {path.stem for path in folder.glob("*.sha256")} == set(made[2:])
    assert [path.name for path in folder.glob("tmp*")] == ["tmpnew"]


def test_the_key_holds_what_the_code_depends_on(model: zoo.LoadedModel) -> None:
    """Weights, type and threads."""
    trunk = _trunk(model)
    keys = [compiled._key(trunk, "a"), compiled._key(trunk, "b")]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        keys.append(compiled._key(trunk, "a"))
    finally:
        torch.set_num_threads(threads)
    keys.append(compiled._key(trunk.to_type(torch.bfloat16), "a"))
    assert len(set(keys)) == 4


def test_without_a_compiler(
    model: zoo.LoadedModel, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for, it is an error that says what to do; by itself it is left alone."""
    del home
    monkeypatch.setattr(compiled.shutil, "which", lambda _: None)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UsageError, match=r"no C\+\+ compiler was found .* use --no-compile"):
        loading.predictor_for(model, PredictConfig(compile=True))
    predictor = loading.predictor_for(
        model, PredictConfig(cpu_engine="torch"), facts=JobFacts(10**6)
    )
    assert predictor.resolved["compile"] is False


@pytest.mark.parametrize(
    ("given", "pictures", "expected"),
    [(None, 10, False), (None, 10**6, True), (False, 10**6, False), (True, 1, True)],
)
def test_by_itself_where_it_pays(
    given: bool | None,
    pictures: int,
    expected: bool,
    model: zoo.LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only in a long job; a flag decides otherwise."""
    _plainly(monkeypatch)
    config = PredictConfig(compile=given, cpu_engine="torch")
    predictor = loading.predictor_for(model, config, facts=JobFacts(pictures))
    assert predictor.resolved["compile"] is expected


@pytest.mark.parametrize("chosen", [True, False])
def test_a_resumed_job_keeps_the_choice(
    chosen: bool, model: zoo.LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was chosen at the first start holds, however many pictures there are now; a flag is not overruled."""
    _plainly(monkeypatch)
    facts = JobFacts(10**6, recorded={"compile": chosen, "cpu_engine": "torch"})
    resumed = loading.predictor_for(model, PredictConfig(), facts=facts)
    assert resumed.resolved["compile"] is chosen
    asked = loading.predictor_for(model, PredictConfig(compile=not chosen), facts=facts)
    assert asked.resolved["compile"] is not chosen


@pytest.mark.parametrize("settings", [{"cpu_engine": "openvino"}, {"precision": "int8"}])
def test_compiled_and_openvino_exclude_each_other(
    settings: dict[str, str], model: zoo.LoadedModel
) -> None:
    """Both would run the trunk."""
    pytest.importorskip("openvino")
    with pytest.raises(UsageError, match="--compile is for torch"):
        loading.predictor_for(model, PredictConfig(compile=True, **settings))  # type: ignore[arg-type]
