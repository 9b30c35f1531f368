"""Joins by name and by id, and what cannot be joined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segcli.annotations import Dataset, Picture
from segcli.categories import Categories
from segcli.errors import DataError
from segcli.evaluation.joining import join_class_ids, join_classes, join_pictures
from segcli.masks import Masks
from segcli.prediction.reader import PredictionsFile
from segcli.prediction.rows import PredictedPicture, ScoredObjects

TRUTH = Categories(("cat", "dog", "N/A", "cat"), (5, 3, 9, 11))


@pytest.mark.parametrize(
    ("names", "labels", "dropped", "truth_only"),
    [
        pytest.param([], [], (), ("cat", "dog", "N/A", "cat"), id="empty"),
        pytest.param(["dog", "cat"], [1, 0], (), ("N/A", "cat"), id="other order"),
        pytest.param(["dog", "cow"], [1, -1], ("cow",), ("cat", "N/A", "cat"), id="more"),
        pytest.param(["N/A", "dog"], [-1, 1], ("N/A",), ("cat", "N/A", "cat"), id="placeholder"),
        pytest.param(["dog", "dog"], [1, 1], (), ("cat", "N/A", "cat"), id="equal names"),
    ],
)
def test_classes_join_by_name(
    names: list[str], labels: list[int], dropped: tuple[str, ...], truth_only: tuple[str, ...]
) -> None:
    """Names decide, whatever the ids; the first of equal names in the truth is meant; placeholders are nothing."""
    join = join_classes(Categories.from_names(names), TRUTH)
    assert join.labels.tolist() == labels
    assert join.dropped == dropped
    assert join.truth_only == truth_only


def test_classes_join_by_id() -> None:
    """A bare list's ids decide, as numbers or as text."""
    join = join_class_ids([3, "5", 77], TRUTH)
    assert join.labels.tolist() == [1, 0, -1]
    assert join.dropped == ("id 77",)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param(["cow", "Cat"], "cow, Cat.*cat, dog", id="other names"),
        pytest.param(["N/A"], "no class in common by name", id="only a placeholder"),
        pytest.param(list("qrstuvw"), r"q, r, s, t, u, … \(7 in all\)", id="many"),
    ],
)
def test_no_common_class_is_refused(names: list[str], expected: str) -> None:
    """Both sides are listed, shortened where they are long."""
    with pytest.raises(DataError, match=expected):
        join_classes(Categories.from_names(names), TRUTH)


def test_no_common_id_is_refused() -> None:
    """The same for a bare list."""
    with pytest.raises(DataError, match="by id: the predictions have id 1, the truth has id 5"):
        join_class_ids([1], TRUTH)


def test_dropped_classes_go_with_their_masks() -> None:
    """Detections of dropped classes vanish, the others get the truth's labels and keep their numbers."""
    join = join_classes(Categories.from_names(["cow", "dog", "cat"]), TRUTH)
    objects = ScoredObjects(
        labels=np.array([2, 0, 1], np.int32),
        scores=np.array([0.1, 0.2, 0.3]),
        boxes=np.arange(12.0).reshape(3, 4),
        masks=Masks.from_dense(np.eye(3, dtype=bool)[:, None]),
    )
    kept = join.apply(objects)
    assert kept.labels.tolist() == [0, 1]
    assert kept.scores.tolist() == [0.1, 0.3]
    assert kept.boxes[:, 0].tolist() == [0, 8]
    assert kept.masks is not None
    assert [kept.masks.full(i)[0].tolist() for i in range(2)] == [[1, 0, 0], [0, 0, 1]]
    assert join.messages() == [
        "dropped, since the truth has no such class: cow",
        "not predicted, 0 where the truth has such objects: N/A, cat",
    ]


def truth(*names: str) -> Dataset:
    pictures = tuple(Picture(n, name, None, (4, 4)) for n, name in enumerate(names))
    return Dataset(Path("truth.json"), None, pictures, TRUTH)


def predictions(*names: str | None, ids: list[int | str] | None = None) -> PredictionsFile:
    ids = ids or [100 + n for n in range(len(names))]
    pictures = [
        PredictedPicture(Path("p.json"), i, name, None, (), {})
        for i, name in zip(ids, names, strict=True)
    ]
    return PredictionsFile(Path("p.json"), None, (), pictures)


@pytest.mark.parametrize(
    ("known", "predicted", "pairs", "unknown", "missing"),
    [
        pytest.param([], [], [], [], [], id="empty"),
        pytest.param(["a", "b"], [], [], [], ["0", "1"], id="nothing predicted"),
        pytest.param(["a", "b"], ["b", "a"], [(1, 100), (0, 101)], [], [], id="same"),
        pytest.param(["a", "b"], ["b", "c"], [(1, 100)], ["c"], ["a"], id="partly"),
        pytest.param(["x/a", "y/a"], ["y/a"], [(1, 100)], [], ["x/a"], id="folders matter"),
        pytest.param(["x\\a"], ["./x//a"], [(0, 100)], [], [], id="normalised"),
        pytest.param(["v/a", "v/b"], ["a", "b"], [(0, 100), (1, 101)], [], [], id="truth deeper"),
        pytest.param(
            ["v/a", "v/b"], ["b"], [(1, 100)], [], ["a"], id="truth deeper, fewer predicted"
        ),
        pytest.param(["v/a"], ["a", "b"], [(0, 100)], ["b"], [], id="truth deeper, more predicted"),
        pytest.param(
            ["a"], ["i/v/a", "i/v/b"], [(0, 100)], ["b"], [], id="predictions deeper by two"
        ),
        pytest.param(["v/a"], ["w/v/a"], [(0, 100)], [], [], id="both have folders"),
        pytest.param(["v/1/a", "v/2/a"], ["2/a"], [(1, 100)], [], ["1/a"], id="folders below"),
    ],
)
def test_pictures_join_by_name(
    known: list[str],
    predicted: list[str],
    pairs: list[tuple[int, int]],
    unknown: list[str],
    missing: list[str],
) -> None:
    """Relative names decide, after one constant leading folder is left away where nothing matches with it."""
    join = join_pictures(predictions(*predicted), truth(*known))
    assert [(p.id, q.image_id) for p, q in join.pairs] == pairs
    assert list(join.unknown) == unknown
    assert list(join.missing) == missing


@pytest.mark.parametrize(
    ("known", "predicted", "line"),
    [
        pytest.param(["i/v/a"], ["a"], "the truth's file names: left away i/v/", id="truth"),
        pytest.param(["a"], ["v/a"], "the predictions' file names: left away v/", id="predictions"),
    ],
)
def test_what_was_left_away_is_said(known: list[str], predicted: list[str], line: str) -> None:
    """The folder and the side are named."""
    assert join_pictures(predictions(*predicted), truth(*known)).messages() == [line]


@pytest.mark.parametrize(
    ("known", "predicted"),
    [
        pytest.param(["a", "b"], ["c", "d"], id="other names"),
        pytest.param(["v/a", "v/b"], ["a", "c"], id="not every name matches"),
        pytest.param(["v/a", "w/b"], ["a", "b"], id="the folder is not constant"),
        pytest.param(["v/a"], ["w/a"], id="folders on both sides"),
    ],
)
def test_no_common_picture_is_refused(known: list[str], predicted: list[str]) -> None:
    """A doubtful join is refused, and both sides are listed."""
    expected = f"{', '.join(predicted)}, the truth has {', '.join(known)}"
    with pytest.raises(DataError, match=expected):
        join_pictures(predictions(*predicted), truth(*known))


def test_pictures_without_names_join_by_id() -> None:
    """A bare list joins by image_id, as number or text; the rest is counted."""
    join = join_pictures(predictions(None, None, ids=["1", 9]), truth("a", "b"))
    assert [(p.file_name, q.image_id) for p, q in join.pairs] == [("b", "1")]
    assert join.messages() == [
        "1 predicted pictures are left out, the truth lacks them: 9",
        "1 pictures of the truth have no predictions, all misses: 0",
    ]


def test_one_picture_without_a_name_is_unknown() -> None:
    """Among named pictures one without a name matches nothing, and is said."""
    join = join_pictures(predictions("a", None), truth("a"))
    assert list(join.unknown) == ["picture 101 (no file_name)"]


@pytest.mark.parametrize(
    ("known", "predicted", "file"),
    [
        pytest.param(["a", "a"], ["a"], "truth.json", id="in the truth"),
        pytest.param(["a"], ["a", "./a"], "p.json", id="in the predictions"),
    ],
)
def test_two_pictures_of_one_name_are_refused(
    known: list[str], predicted: list[str], file: str
) -> None:
    """Which is meant cannot be known."""
    with pytest.raises(DataError, match=f"{file}: two pictures are called a"):
        join_pictures(predictions(*predicted), truth(*known))
