"""Large pictures in tiles: an inner predictor that segments bright shapes exactly must find them whole and once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from segcli.categories import Categories
from segcli.config import PredictConfig
from segcli.errors import UsageError
from segcli.instances import Instances
from segcli.masks import Masks
from segcli.prediction.profile import StageTimes
from segcli.prediction.tiling import LargePicture, TiledPredictor, cut_into_tiles

Picture = NDArray[np.uint8]
TILE = 100


class ShapeFinder:
    """Finds every connected shape of one brightness: in red those of class 0, in green those of class 1.

    Shapes of two brightnesses that touch are two objects. The score grows with the share of the tile.
    """

    def __init__(self, batch_size: int = 4) -> None:
        self.categories = Categories.from_names(["red", "green"])
        self.batch_size = batch_size
        self.resolved: dict[str, Any] = {
            "model_sha256": "0",
            "categories": self.categories.to_coco(),
            "batch_size": batch_size,
        }
        self.batches: list[int] = []
        self.seen: list[tuple[int, ...]] = []

    def prepare(self, image: Picture) -> Picture:
        return image.copy()

    def predict(self, pictures: Sequence[Picture]) -> list[Instances]:
        self.batches.append(len(pictures))
        self.seen += [picture.shape for picture in pictures]
        return [self._one(picture) for picture in pictures]

    def _one(self, picture: Picture) -> Instances:
        size = (picture.shape[0], picture.shape[1])
        dense, labels = [], []
        for label in (0, 1):
            plane = picture[..., label]
            for value in np.unique(plane[plane > 0]):
                count, parts = cv2.connectedComponents(
                    (plane == value).astype(np.uint8), connectivity=8
                )
                dense += [parts == i for i in range(1, count)]
                labels += [label] * (count - 1)
        if not dense:
            return Instances.empty(size)
        masks = Masks.from_dense(np.array(dense))
        scores = (0.5 + masks.area() / (2 * size[0] * size[1])).astype(np.float32)
        order = np.argsort(-scores, kind="stable")
        return Instances(size, masks.boxes(), np.array(labels, np.int32), scores, masks)[order]


def blank(height: int, width: int) -> Picture:
    return np.zeros((height, width, 3), np.uint8)


def disc(picture: Picture, x: int, y: int, radius: int, colour: tuple[int, int] = (200, 0)) -> None:
    """Filled, of one brightness in red and green; where the colour is 0 the picture stays."""
    rows, columns = np.ogrid[: picture.shape[0], : picture.shape[1]]
    inside = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
    for channel, value in enumerate(colour):
        if value:
            picture[inside, channel] = value


def found_in(picture: Picture, overlap: float = 0.2, tile: int = TILE, **more: Any) -> Instances:
    predictor = TiledPredictor(ShapeFinder(), tile, overlap, **more)
    return predictor.predict([predictor.prepare(picture)])[0]


def check_exact(found: Instances, picture: Picture) -> None:
    """The objects are those that are found on the picture in one piece, mask for mask and box for box."""
    whole = ShapeFinder().predict([picture])[0]
    assert found.image_size == whole.image_size
    assert described(found) == described(whole)
    assert found.scores is not None
    assert np.all(np.diff(found.scores) <= 0)


def described(objects: Instances) -> list[tuple[object, ...]]:
    """Everything but the score, in an order of its own."""
    assert objects.masks is not None
    rows = [
        (int(objects.labels[i]), objects.boxes[i].tolist(), objects.masks.runs(i).tolist())
        for i in range(len(objects))
    ]
    return sorted(rows, key=str)


def across_one_seam() -> Picture:
    picture = blank(90, 180)
    disc(picture, 90, 45, 30)
    return picture


def ring_over_four_tiles() -> Picture:
    picture = blank(180, 180)
    cv2.circle(picture, (90, 90), 60, (200, 0, 0), 15)
    return picture


def bar_over_five_tiles() -> Picture:
    picture = blank(60, 420)
    picture[20:35, 10:405, 0] = 200
    return picture


def diagonal_over_many_tiles() -> Picture:
    picture = blank(350, 380)
    cv2.line(picture, (15, 20), (360, 330), (0, 200, 0), 9)
    return picture


def touching_discs_on_a_seam() -> Picture:
    picture = blank(90, 180)
    disc(picture, 90, 20, 20)
    disc(picture, 90, 61, 20, (150, 0))
    return picture


def two_classes_at_one_place() -> Picture:
    picture = blank(90, 180)
    disc(picture, 90, 45, 30, (200, 200))
    return picture


def inside_a_strip() -> Picture:
    picture = blank(90, 180)
    disc(picture, 90, 45, 6)
    return picture


def inside_four_tiles() -> Picture:
    picture = blank(180, 180)
    disc(picture, 90, 90, 5)
    return picture


def arms_of_a_u() -> Picture:
    """The left tile shows two bars, the right one what joins them."""
    picture = blank(90, 180)
    picture[10:80, 20:150, 0] = 200
    picture[20:55, 20:130, 0] = 0
    return picture


def arms_of_a_comb() -> Picture:
    """Seven thin teeth of unequal length, none of which is half of the strip."""
    picture = blank(180, 180)
    for i, y in enumerate(range(10, 80, 10)):
        picture[y : y + 3, 5 + 9 * i : 140, 0] = 200
    picture[10:73, 130:140, 0] = 200
    return picture


def whole_with_its_tip_in_the_neighbour() -> Picture:
    picture = blank(90, 180)
    disc(
        picture, 60, 45, 25
    )  # to x = 85: whole in the left tile, cut to 5 columns in the right one
    return picture


def full_of_one_object() -> Picture:
    return np.full((250, 330, 3), (200, 0, 0), np.uint8)


def small_on_large() -> Picture:
    picture = blank(90, 180)
    picture[5:85, 5:175, 0] = 200
    disc(picture, 90, 45, 7, (90, 0))
    return picture


def random_discs() -> Picture:
    picture, rng = blank(300, 420), np.random.default_rng(0)
    for _ in range(60):
        x, y, radius = rng.integers(0, 420), rng.integers(0, 300), rng.integers(2, 40)
        colour = rng.permutation([int(rng.integers(1, 255)), 0])
        disc(picture, x, y, radius, (int(colour[0]), int(colour[1])))
    return picture


SHAPES = [
    across_one_seam, ring_over_four_tiles, bar_over_five_tiles, diagonal_over_many_tiles,
    touching_discs_on_a_seam, two_classes_at_one_place, inside_a_strip, inside_four_tiles, arms_of_a_u,
    arms_of_a_comb, whole_with_its_tip_in_the_neighbour, full_of_one_object, small_on_large,
]  # fmt: skip


@pytest.mark.parametrize("overlap", [0.2, 0.5, 0.75])
@pytest.mark.parametrize("make", SHAPES, ids=lambda make: make.__name__)
def test_no_seams_and_no_doubles(make: Any, overlap: float) -> None:
    """Each shape is one object with the exact mask and box that it has on the picture in one piece."""
    picture = make()
    check_exact(found_in(picture, overlap), picture)


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_every_direction_alike(turn: int) -> None:
    """The rules know no left and no top."""
    for make in SHAPES:
        picture = np.ascontiguousarray(np.rot90(make(), turn))
        check_exact(found_in(picture), picture)


def test_the_shapes_need_more_than_one_tile() -> None:
    """The tests above test something: without merging, every shape would come out in pieces or twice."""
    for make in SHAPES:
        picture = make()
        tiles = cut_into_tiles(picture.shape[:2], TILE, 0.2)
        pieces = sum(
            len(f)
            for f in ShapeFinder().predict([LargePicture(picture, tiles).cut(t) for t in tiles])
        )
        assert pieces > len(ShapeFinder().predict([picture])[0])


def test_many_shapes_at_once() -> None:
    """Sixty discs of two classes, over and beside each other, at seams and corners: all but bits that a seam hides."""
    picture = random_discs()
    found = described(found_in(picture))
    assert len(found) == len({str(row) for row in found})
    whole = described(ShapeFinder().predict([picture])[0])
    assert len(whole) > 50
    assert found == whole


def test_nothing_found() -> None:
    """No objects, and a result of the picture's size."""
    found = found_in(blank(150, 230))
    assert len(found) == 0
    assert found.image_size == (150, 230)
    assert found.masks is not None
    assert found.masks.size == (150, 230)


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 250), (250, 1), (3, 101), (101, 100), (100, 101), (101, 101), (99, 301)]
)
def test_awkward_sizes(size: tuple[int, int]) -> None:
    """Strips one pixel wide, and one pixel more than a tile."""
    picture = blank(*size)
    picture[:, size[1] // 4 : size[1] - 1, 0] = 200
    picture[-1:, -1:, 1] = 90
    check_exact(found_in(picture), picture)


@pytest.mark.parametrize("size", [(100, 100), (40, 100), (1, 1), (64, 7)])
def test_a_picture_not_larger_than_a_tile_is_predicted_as_it_is(size: tuple[int, int]) -> None:
    """Prepared by the model itself, and exactly what it finds without tiles, scores and all."""
    picture = blank(*size)
    disc(picture, size[1] // 2, size[0] // 2, 20)
    inner = ShapeFinder()
    predictor = TiledPredictor(inner, TILE, 0.2)
    prepared = predictor.prepare(picture)
    found = predictor.predict([prepared])[0]
    expected = inner.predict([picture])[0]
    assert isinstance(prepared, np.ndarray)
    assert described(found) == described(expected)
    assert np.array_equal(found.scores, expected.scores)  # type: ignore[arg-type]


def test_without_overlap_pieces_stay() -> None:
    """Nothing can be compared then: what crosses a seam comes in pieces, what does not is there once."""
    picture = blank(100, 200)
    disc(picture, 100, 50, 20)
    disc(picture, 30, 50, 10, (0, 200))
    found = found_in(picture, overlap=0.0)
    assert found.labels.tolist().count(0) == 2
    assert found.labels.tolist().count(1) == 1
    moved_inward = blank(100, 150)  # the second tile begins at 50, so that these two do overlap
    disc(moved_inward, 75, 50, 40)
    check_exact(found_in(moved_inward, overlap=0.0), moved_inward)


def test_the_best_score_stands_for_all_pieces() -> None:
    """A merged object has the highest score of its pieces; a whole view has that of all views."""
    picture = bar_over_five_tiles()
    tiles = cut_into_tiles(picture.shape[:2], TILE, 0.2)
    pieces = [ShapeFinder().predict([LargePicture(picture, tiles).cut(t)])[0] for t in tiles]
    best = max(float(p.scores.max()) for p in pieces if p.scores is not None)
    scores = found_in(picture).scores
    assert scores is not None
    assert scores.tolist() == [pytest.approx(best)]


def test_the_limit_of_the_picture() -> None:
    """The best ones remain; without a limit all do, however many."""
    picture = blank(100, 900)
    for i in range(40):
        picture[10 : 20 + i, 20 * i + 5 : 20 * i + 15, 0] = 100 + i
    everything = found_in(picture)
    limited = found_in(picture, max_detections=7)
    assert len(everything) == 40
    assert described(limited) == described(everything[:7])


@pytest.mark.parametrize(
    ("size", "overlap", "lefts", "tops"),
    [
        ((100, 100), 0.2, [0], [0]),
        ((30, 20), 0.2, [0], [0]),
        ((101, 180), 0.2, [0, 80], [0, 1]),
        ((100, 181), 0.2, [0, 80, 81], [0]),
        ((300, 100), 0.0, [0], [0, 100, 200]),
        ((250, 100), 0.0, [0], [0, 100, 150]),
        ((200, 1), 0.5, [0], [0, 50, 100]),
        ((1, 175), 0.75, [0, 25, 50, 75], [0]),
    ],
)
def test_tiles(size: tuple[int, int], overlap: float, lefts: list[int], tops: list[int]) -> None:
    """Row by row; the last ones end at the border; all of one size."""
    tiles = cut_into_tiles(size, 100, overlap)
    assert tiles[:, 0].tolist() == lefts * len(tops)
    assert tiles[:, 1].tolist() == [y for y in tops for _ in lefts]
    assert np.all(tiles[:, 2] - tiles[:, 0] == min(size[1], 100))
    assert np.all(tiles[:, 3] - tiles[:, 1] == min(size[0], 100))
    seen = np.zeros(size, bool)
    for x0, y0, x1, y1 in tiles:
        seen[y0:y1, x0:x1] = True
    assert seen.all()


def test_tiles_are_predicted_in_batches() -> None:
    """As many at a time as the model takes; a large picture itself is kept as it came, without a copy."""
    picture = blank(260, 340)
    inner = ShapeFinder(batch_size=5)
    predictor = TiledPredictor(inner, TILE, 0.2)
    prepared = predictor.prepare(picture)
    predictor.predict([prepared])
    assert prepared.image is picture
    assert inner.batches == [5, 5, 2]
    assert set(inner.seen) == {(100, 100, 3)}


def test_pictures_of_a_batch_do_not_depend_on_each_other() -> None:
    """Small and large ones together give what they give alone."""
    pictures = [across_one_seam(), blank(50, 60), bar_over_five_tiles()]
    predictor = TiledPredictor(ShapeFinder(), TILE, 0.2)
    together = predictor.predict([predictor.prepare(p) for p in pictures])
    assert predictor.predict([]) == []
    for picture, found in zip(pictures, together, strict=True):
        check_exact(found, picture)


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        (63, 0.2, "--tile 63: expected at least 64 pixels"),
        (0, 0.2, "--tile 0: expected"),
        (100, -0.1, r"--overlap -0.1: expected 0 to 0.75"),
        (100, 0.76, r"--overlap 0.76: expected 0 to 0.75"),
        (100, float("nan"), "--overlap nan: expected"),
    ],
)
def test_wrong_settings(tile: int, overlap: float, message: str) -> None:
    """Refused in one line that says what is allowed."""
    with pytest.raises(UsageError, match=message):
        TiledPredictor(ShapeFinder(), tile, overlap)


def test_all_that_changes_predictions_is_recorded() -> None:
    """The tiles, and what the model itself says, also what it says only later."""
    inner = ShapeFinder(batch_size=5)
    predictor = TiledPredictor(inner, 128, 0.25)
    inner.resolved["threads"] = 2
    assert predictor.resolved == {
        **inner.resolved, "batch_size": 1, "tile_batch_size": 5, "tile": 128, "overlap": 0.25,
        "max_detections_of_picture": None,
    }  # fmt: skip
    assert predictor.resolved["threads"] == 2
    assert predictor.categories is inner.categories
    assert predictor.batch_size == 1


def test_a_profile_shows_the_merging() -> None:
    """And hands the clock on to a model that measures stages of its own."""
    inner = ShapeFinder()
    inner.stages = StageTimes()  # type: ignore[attr-defined]
    predictor = TiledPredictor(inner, TILE, 0.2)
    predictor.stages = times = StageTimes()
    predictor.predict([predictor.prepare(across_one_seam())])
    assert times.sums()["merge tiles"].calls == 1
    assert inner.stages is times  # type: ignore[attr-defined]


def test_a_resume_refuses_other_tiles(start: Any) -> None:
    """Tile, overlap and limit are settings that change predictions; going on with the same ones works."""
    for path in start.photos.rglob("*.png"):
        if path.name != "broken.png":
            Image.fromarray(ring_over_four_tiles()).save(path)

    def opener(config: PredictConfig) -> TiledPredictor:
        assert config.tile is not None
        limit = config.max_detections
        return TiledPredictor(ShapeFinder(), config.tile, config.overlap, max_detections=limit)

    start.opener = opener
    config = PredictConfig(model="m", tile=100)
    start(config, limit=2)
    for changed, message in [
        ({"tile": 90}, "tile: was 100, now 90"),
        ({"overlap": 0.3}, r"overlap: was 0\.2, now 0\.3"),
        ({"max_detections": 9}, "max_detections_of_picture: was not set, now 9"),
    ]:
        with pytest.raises(UsageError, match=message):
            start(replace(config, **changed))
    assert start(config).left == 0


def test_the_network_in_tiles(tmp_path: Path) -> None:
    """`open_predictor` wraps the real predictor; what fits a tile comes out as without tiles, to the bit."""
    from segcli import zoo
    from segcli.prediction.loading import open_predictor
    from segcli.prediction.predictor import Predictor

    path = tmp_path / "nano.safetensors"
    zoo.save_model(path, zoo.new_model("mask-rcnn-nano", Categories.from_names(["a", "b"]), seed=0))
    plain = PredictConfig(model=str(path), precision="fp32", min_size=64, max_size=64)
    tiled = open_predictor(replace(plain, tile=64, max_detections=5))
    image = np.random.default_rng(0).integers(0, 256, (64, 150, 3), dtype=np.uint8)
    assert isinstance(open_predictor(plain), Predictor)
    assert isinstance(tiled, TiledPredictor)
    assert tiled.max_detections == tiled.resolved["max_detections"] == 5

    small = image[:, :60]
    alone = open_predictor(replace(plain, max_detections=5))
    expected = alone.predict([alone.prepare(small)])[0]
    found = tiled.predict([tiled.prepare(small)])[0]
    assert len(expected) > 0
    assert described(found) == described(expected)
    assert np.array_equal(found.scores, expected.scores)  # type: ignore[arg-type]

    tiled.max_detections = None
    found = tiled.predict([tiled.prepare(image)])[0]  # three tiles
    assert found.image_size == (64, 150)
    assert 5 < len(found) <= 15


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        pytest.param(["--tile", "63"], "63 is not in the range x>=64", id="small tile"),
        pytest.param(["--tile", "1.5"], "'1.5' is not a valid integer", id="no whole number"),
        pytest.param(["--tile", "99", "--overlap", "0.8"], "0<=x<=0.75", id="large overlap"),
        pytest.param(["--tile", "99", "--overlap", "-0.1"], "0<=x<=0.75", id="negative overlap"),
        pytest.param(["--overlap", "0.2"], "--overlap needs --tile", id="overlap of nothing"),
    ],
)
def test_wrong_flags_are_refused_in_one_line(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, before anything is opened or written."""
    from segcli.cli.main import main

    path = tmp_path / "a.png"
    Image.fromarray(blank(8, 8)).save(path)
    out = tmp_path / "out"
    given = ["predict", "image", str(path), "--model", "m", "--output", str(out), *flags]
    assert main(given) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not out.exists()
