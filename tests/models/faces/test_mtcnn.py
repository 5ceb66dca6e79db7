import numpy as np
import pytest
import torch
from facenet_pytorch import MTCNN
from PIL import Image
from torchvision.ops import batched_nms

from models.engines.openvino import run_network
from models.faces.detection import Detections, DetectorParams, detector_weights_digest, level_cells, level_size
from models.faces.kernels import first_layer
from models.faces.mtcnn import AreaPooling, FaceDetector, build_networks, grouped_nms
from models.faces.mtcnn_cpu import (
    FIRST_CHANNELS,
    ROUNDING_MARGIN,
    CpuFaceDetector,
    arrange_on_canvas,
    first_layer_weights,
    load_proposer,
    load_refiner,
    pooled_side,
)
from models.faces.tracking import iou

both = pytest.mark.parametrize("detector_class", [FaceDetector, CpuFaceDetector])


def make_scene(portraits, *, height=360, width=640, placed=()):
    image = np.full((height, width, 3), 90, np.uint8)
    for portrait, size, x, y in placed:
        small = np.asarray(Image.fromarray(portraits[portrait]).resize((size, size)))
        visible = small[max(0, -y) : height - y, max(0, -x) : width - x]
        image[max(y, 0) : max(y, 0) + visible.shape[0], max(x, 0) : max(x, 0) + visible.shape[1]] = visible
    return image


SCENES = {
    "one": [(0, 300, 40, 20)],
    "two": [(0, 260, 10, 60), (1, 330, 280, 10)],
    "small and large": [(0, 120, 20, 20), (1, 350, 250, 5)],
    "cut by the edges": [(1, 320, -110, -60), (0, 300, 460, 150)],
    "none": [],
}


@both
@pytest.mark.parametrize("min_face_px", [20, 40, 80])
def test_equals_facenet_pytorch(portraits, detector_class, min_face_px):
    frames = np.stack([make_scene(portraits, placed=placed) for placed in SCENES.values()])
    reference = MTCNN(keep_all=True, min_face_size=min_face_px, post_process=False)
    found = detector_class(DetectorParams(min_face_px=min_face_px)).detect(frames)
    assert [len(f) > 0 for f in found[:3]] == [True] * 3
    for frame, ours in zip(frames, found, strict=True):
        boxes, probabilities, landmarks = reference.detect(frame, landmarks=True)
        if boxes is None:
            assert len(ours) == 0
            continue
        assert len(boxes) == len(ours)
        for box, points, probability in zip(boxes, landmarks, probabilities, strict=True):
            at = np.abs(ours.box_xyxy_px - box).max(axis=1).argmin()
            assert np.abs(ours.box_xyxy_px[at] - box).max() < 1e-2
            assert np.abs(ours.landmarks_xy_px[at] - points).max() < 1e-2
            assert abs(ours.probability[at] - probability) < 1e-4


@both
def test_boxes_and_landmarks_are_at_the_faces(portraits, detector_class):
    (found,) = detector_class().detect(make_scene(portraits, placed=SCENES["two"])[None])
    centres = sorted((found.box_xyxy_px[:, :2] + found.box_xyxy_px[:, 2:])[:, 0] / 2)
    assert len(found) == 2 and centres[0] < 270 < 280 < centres[1]
    area = (found.box_xyxy_px[:, 2:] - found.box_xyxy_px[:, :2]).prod(axis=1)
    assert area[0] >= area[1]
    eye, other_eye, nose, mouth, _ = found.landmarks_xy_px[0]
    assert eye[0] < nose[0] < other_eye[0] and eye[1] < nose[1] < mouth[1]


@both
def test_detections_do_not_depend_on_the_batch(portraits, detector_class):
    frames = np.stack([make_scene(portraits, placed=SCENES[name]) for name in ("one", "none", "two")])
    detector = detector_class()
    for alone, together in zip(
        [detector.detect(f[None])[0] for f in frames], detector.detect(list(frames)), strict=True
    ):
        np.testing.assert_allclose(alone.box_xyxy_px, together.box_xyxy_px, atol=1e-3)


@both
def test_tiny_and_missing_frames_have_no_faces(detector_class):
    detector = detector_class()
    assert detector.detect(np.zeros((0, 100, 100, 3), np.uint8)) == []
    assert [len(found) for found in detector.detect(np.zeros((2, 8, 8, 3), np.uint8))] == [0, 0]


@both
def test_invalid_frames_and_parameters_are_refused(detector_class):
    with pytest.raises(ValueError, match="uint8 frames"):
        detector_class().detect(np.zeros((1, 50, 50, 3), np.float32))
    with pytest.raises(ValueError, match="search_every_frames"):
        DetectorParams(search_every_frames=0)
    with pytest.raises(ValueError, match="min_face_px"):
        DetectorParams(min_face_px=4)
    with pytest.raises(ValueError, match="rnet_threshold"):
        DetectorParams(rnet_threshold=1.5)
    with pytest.raises(ValueError, match="expected shapes"):
        Detections(np.zeros((1, 4)), np.zeros((2, 5, 2)), np.zeros(1))


def test_weights_digest_is_stable():
    assert len(detector_weights_digest()) == 64
    assert detector_weights_digest() == detector_weights_digest()


def test_frames_of_other_sizes_do_not_change_later_results(portraits):
    detector, frame = CpuFaceDetector(), make_scene(portraits, placed=SCENES["two"])
    first = detector.detect(frame[None])[0]
    for other in (np.full((700, 500, 3), 255, np.uint8), frame[: frame.shape[0] // 2], frame[:, 7:-9]):
        detector.detect(np.ascontiguousarray(other)[None])
    again = detector.detect(frame[None])[0]
    np.testing.assert_array_equal(again.box_xyxy_px, first.box_xyxy_px)


@pytest.mark.parametrize("scene", ["one", "small and large", "cut by the edges"])
def test_detect_near_finds_the_same_face_as_detect(portraits, scene):
    frame, detector = make_scene(portraits, placed=SCENES[scene]), CpuFaceDetector()
    whole = detector.detect(frame[None])[0]
    assert len(whole)
    for box in whole.box_xyxy_px:
        side = box[2] - box[0]
        shifted = box + np.array([0.06, -0.05, 0.1, -0.02], np.float32) * side
        near = detector.detect_near(frame, shifted)
        assert len(near) == 1
        assert iou(near.box_xyxy_px, box[None])[0, 0] > 0.8


def test_detect_near_finds_nothing_far_from_a_face(portraits):
    frame, detector = make_scene(portraits, placed=SCENES["one"]), CpuFaceDetector()
    for box in ([500, 200, 600, 300], [-90, -90, -10, -10], [0, 0, 639, 359], [600, 320, 700, 420]):
        assert len(detector.detect_near(frame, np.array(box, np.float32))) == 0


def test_area_pooling_equals_adaptive_average_pooling():
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (2, 90, 130, 3), dtype=np.uint8)
    pooling = AreaPooling(torch.from_numpy(frames))
    boxes = [(0, 0, 130, 90), (5, 7, 29, 31), (10, 20, 17, 23), (129, 89, 130, 90), (3, 1, 100, 80)]
    for size in (24, 48):
        for owner in (0, 1):
            pooled = pooling.pool(torch.tensor(boxes), torch.full((len(boxes),), owner), size_px=size)
            for (x1, y1, x2, y2), got in zip(boxes, pooled, strict=True):
                crop = torch.from_numpy(frames[owner, y1:y2, x1:x2]).permute(2, 0, 1).double()
                expected = torch.nn.functional.adaptive_avg_pool2d(crop, size)
                torch.testing.assert_close(got.double(), expected, atol=1e-4, rtol=0)


def test_area_pooling_is_correct_when_sums_wrap_around():
    frames = np.full((1, 3000, 3000, 3), 255, np.uint8)
    assert 3000 * 3000 * 255 > 2**31
    pooled = AreaPooling(torch.from_numpy(frames)).pool(
        torch.tensor([[2900, 2900, 3000, 3000]]), torch.tensor([0]), size_px=24
    )
    assert (pooled == 255).all()


@pytest.mark.parametrize(("count", "groups"), [(1, 1), (2, 1), (400, 1), (600, 9), (300, 300)])
@pytest.mark.parametrize("iou", [0.5, 0.7])
def test_grouped_nms_equals_torchvision(count, groups, iou):
    random = torch.Generator().manual_seed(count + groups)
    # A crowded square of whole pixels with equal scores: long chains in which each box depends on the previous one.
    start = torch.randint(0, 60, (count, 2), generator=random)
    boxes = torch.cat([start, start + torch.randint(10, 30, (count, 2), generator=random)], dim=1).float()
    score = torch.randint(0, 50, (count,), generator=random) / 50
    group = torch.randint(0, groups, (count,), generator=random) * 7
    kept = grouped_nms(boxes, score, group, iou)
    expected = batched_nms(boxes, score, group, iou)
    assert set(kept.tolist()) == set(expected.tolist())
    assert groups > 100 or count < 3 or len(kept) < count
    for one in group.unique():
        assert score[kept[group[kept] == one]].diff().le(0).all()


def test_grouped_nms_of_no_boxes_and_of_empty_boxes():
    assert grouped_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long), 0.5).tolist() == []
    points = torch.tensor([[5.0, 5.0, 5.0, 5.0]] * 2)
    assert sorted(grouped_nms(points, torch.ones(2), torch.zeros(2, dtype=torch.long), 0.5).tolist()) == [0, 1]


@pytest.mark.parametrize("frame", [(360, 640), (1080, 1920), (1280, 720), (41, 3000), (12, 12), (97, 97)])
@pytest.mark.parametrize("min_face_px", [12, 20, 40])
def test_levels_do_not_overlap_on_the_canvas_and_fill_most_of_it(frame, min_face_px):
    levels = [level_size(*frame, scale) for scale in DetectorParams(min_face_px=min_face_px).scales(*frame)]
    if not levels:
        return
    sizes = [(pooled_side(rows), pooled_side(columns)) for rows, columns in levels]
    assert [level_cells(*level) for level in levels] == [(rows - 4, columns - 4) for rows, columns in sizes]
    corners, canvas = arrange_on_canvas(sizes)
    taken = np.zeros(canvas, int)
    for (row, column), (rows, columns) in zip(corners, sizes, strict=True):
        assert row + rows <= canvas[0] and column + columns <= canvas[1]
        taken[row : row + rows, column : column + columns] += 1
    assert taken.max() == 1
    assert taken.mean() > 0.75


def random_array(*shape):
    return np.random.default_rng(3).uniform(-1, 1, shape).astype(np.float32)


# Even and odd sizes, because pooling rounds up.
@pytest.mark.parametrize("size", [(12, 12), (13, 12), (12, 15), (31, 64), (33, 77)])
def test_both_parts_of_pnet_equal_the_whole_network(size):
    level, plain = random_array(1, 3, *size), build_networks()["pnet"]
    with torch.no_grad():
        first = plain.pool1(plain.prelu1(plain.conv1(torch.from_numpy(level)))).numpy()
        expected = [output.numpy() for output in plain(torch.from_numpy(level))]
    rows, columns = first.shape[2:]
    maps = np.full((FIRST_CHANNELS, rows + 3, columns + 5), 7, np.float32)
    first_layer(level[0], *first_layer_weights(), maps, (2, 4))
    np.testing.assert_allclose(maps[:, 2 : 2 + rows, 4 : 4 + columns], first[0], atol=1e-5)
    maps[:, 2 : 2 + rows, 4 : 4 + columns] = 7
    assert (maps == 7).all(), "values outside of its area were written"
    for shape in ([1, *first.shape[1:]], [1, FIRST_CHANNELS, -1, -1]):
        for got, wanted in zip(run_network(load_proposer(shape), first), expected, strict=True):
            np.testing.assert_allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize("noise", [0, 60, 255])
def test_pnet_in_bfloat16_differs_by_less_than_its_margin(portraits, noise):
    scene = make_scene(portraits, placed=SCENES["small and large"]).astype(np.float32)
    level = np.clip(scene + noise * random_array(*scene.shape), 0, 255).transpose(2, 0, 1) / 128 - 1
    maps = np.zeros((1, FIRST_CHANNELS, *map(pooled_side, level.shape[1:])), np.float32)
    first_layer(np.ascontiguousarray(level), *first_layer_weights(), maps[0], (0, 0))
    shape = [1, FIRST_CHANNELS, -1, -1]
    (_, exact), (_, rounded) = (
        [values.copy() for values in run_network(load_proposer(shape, precision), maps)]
        for precision in ("float32", "bfloat16")
    )
    assert np.abs(rounded - exact).max() < ROUNDING_MARGIN / 2


@pytest.mark.parametrize("frame", [np.zeros((300, 400, 3)), np.full((300, 400, 3), 255)])
def test_frames_without_candidates_have_no_faces(frame):
    assert len(CpuFaceDetector().detect(frame[None].astype(np.uint8))[0]) == 0


@pytest.mark.parametrize(("name", "size"), [("rnet", 24), ("onet", 48)])
def test_refiners_take_any_number_of_crops(name, size):
    request = load_refiner(name)
    for count in (1, 5, 2):
        crops = random_array(count, 3, size, size)
        with torch.no_grad():
            expected = build_networks()[name](torch.from_numpy(crops))
        for got, wanted in zip(run_network(request, crops), expected, strict=True):
            np.testing.assert_allclose(got, wanted.numpy(), atol=1e-5)
