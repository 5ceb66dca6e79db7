"""Images in ``score`` through the program: every face of each, whatever its format and orientation."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from PIL import Image

from data_contracts.details.datasets import ImageFacesDetails
from data_contracts.errors import InputError
from data_contracts.store.store import Store
from flows.commands.forget import forget
from flows.commands.parameters import ForgetParameters
from flows.engine.run_results import SomeFailedError
from flows.score import score
from flows.scoring.images import print_images
from tasks.fit.predictors import PredictorRequest, choose_predictors
from tasks.images.write_images import ImageBlock, write_images
from tests.backbone_files import backbone_bytes
from tests.processes import run_command

# Orientation of EXIF data -> how the pixels are stored, so that the image is displayed upright.
STORED = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


@pytest.fixture(scope="module")
def photos(portraits, tmp_path_factory):
    """Portraits in several formats and orientations, two of them with one name, and files that are no images."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "sub").mkdir()
    first, second = (Image.fromarray(portrait) for portrait in portraits[:2])
    both = Image.new("RGB", (first.width + second.width, max(first.height, second.height)))
    both.paste(first, (0, 0))
    both.paste(second, (first.width, 0))
    both.save(folder / "both.webp", quality=95)
    first.save(folder / "a.png")
    second.save(folder / "sub/a.png")
    for turn, transpose in STORED.items():
        exif = Image.Exif()
        exif[0x0112] = turn
        first.transpose(transpose).save(folder / f"turned{turn}.jpg", exif=exif, quality=95)
    grey = np.asarray(first.convert("L"), np.uint16)
    Image.fromarray(grey * 257).save(folder / "grey16.png")
    first.convert("CMYK").save(folder / "cmyk.tif")
    first.convert("P").save(folder / "palette.gif")
    Image.new("RGB", (64, 64), "white").save(folder / "blank.bmp")
    (folder / "bad.jpg").write_bytes((folder / "turned3.jpg").read_bytes()[:200])
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    return folder


@pytest.fixture(scope="module")
def scored(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return out, run_command("score", photos, "--out", out, "--workers", 2, "--json")


def by_name(out, photos):
    table = pl.read_parquet(out / "tables/images.parquet")
    assert table.columns == pl.read_csv(out / "tables/images.csv").columns
    return {name.removeprefix(f"{photos}/"): rows for (name,), rows in table.group_by("image", maintain_order=True)}


def test_every_face_of_each_image_is_predicted(photos, portraits, scored):
    out, ended = scored
    rows = by_name(out, photos)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    for name in ("a.png", "turned3.jpg", "turned6.jpg", "turned8.jpg", "grey16.png", "cmyk.tif", "palette.gif"):
        (face,) = rows[name].to_dicts()
        (upright,) = rows["a.png"].to_dicts()
        assert (face["height_px"], face["width_px"]) == portraits[0].shape[:2], name
        assert face["face"] == 1 and face["probability"] > 0.9 and face["expression"] is not None
        assert abs(face["box_x1_px"] - upright["box_x1_px"]) < 0.15 * upright["face_size_px"], name
        assert face["left_eye_x_px"] < face["right_eye_x_px"] and face["left_eye_y_px"] < face["left_mouth_y_px"]
    both = rows["both.webp"]
    assert both["face"].to_list() == [1, 2] and both["face_size_px"].is_sorted(descending=True)
    (blank,) = rows["blank.bmp"].to_dicts()
    assert (blank["face"], blank["width_px"], blank["expression"], blank["p_happiness"]) == (None, 64, None, None)
    assert rows["sub/a.png"]["p_neutral"][0] != rows["a.png"]["p_neutral"][0]


def test_a_bad_image_is_one_line_and_loses_no_other(photos, scored):
    out, ended = scored
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("in part: ")]
    assert f"{photos}/bad.jpg: expected an image, got a damaged file" in line
    assert "images: 1 skipped, images of formats that are not read, such as HEIC and RAW; convert them" in ended.stderr
    assert by_name(out, photos)["bad.jpg"]["width_px"].to_list() == [None]
    result = json.loads(ended.stdout)
    counts = result["counts"]
    assert (counts["noun"], counts["done"], counts["failed"], counts["used_in_part"]) == ("image", 10, 1, 0)
    assert result["images"]["unreadable"] == [f"{photos}/bad.jpg"] and len(result["images"]["scored"]) == 10
    assert result["images"]["faces"] == 10 and result["videos"]["scored"] == []
    assert result["files"] == [f"{out}/tables/images.parquet", f"{out}/tables/images.csv"]


def test_images_of_other_heads_in_the_same_table_are_named(scored, tmp_path, capsys):
    out, _ = scored
    store, target = Store(str(out / "store")), Store(str(tmp_path))
    (serving,) = choose_predictors(store, PredictorRequest())[0].heads
    faces = max(store.manifests("image_faces").items(), key=lambda unit: len(ImageFacesDetails.of(unit[1]).images))
    images = sorted(one.path for one in ImageFacesDetails.of(faces[1]).images)[:2]
    (outputs,) = (
        unit for unit in store.manifests("image_outputs").items() if unit[0].value("block") == faces[0].value("block")
    )
    other = replace(serving, head=replace(serving.head, fingerprint="0" * 64))
    first, second = (
        write_images(store, target, [ImageBlock((image,), faces, ((one, *outputs),))])[0]
        for image, one in zip(images, (serving, other), strict=True)
    )
    assert first.other_heads == () and second.other_heads == (images[0],)
    print_images(second, tmp_path)
    printed = capsys.readouterr().out
    assert f"note: 1 other image in these files with predictions of other heads ({images[0]}); score" in printed
    again, _ = write_images(store, target, [ImageBlock((images[0],), faces, ((other, *outputs),))])
    assert again.scored == (images[0],) and again.other_heads == ()


def test_only_new_and_changed_images_are_computed(photos, portraits, scored):
    out, _ = scored
    Image.fromarray(portraits[1]).save(photos / "new.png")
    Image.fromarray(portraits[1]).save(photos / "blank.bmp")
    again = run_command("score", photos, "--out", out, "--workers", 1)
    assert "12 images: 9 up to date, 2 scored, 1 failed" in again.stdout
    assert "embed_images" in again.stdout and by_name(out, photos)["blank.bmp"]["face"].to_list() == [1]
    (faces,) = [line for line in again.stdout.splitlines() if line.startswith("│embed_images ")]
    assert [cell.strip() for cell in faces.strip("│").split("│")][3] == "1", "both are in one new block"


def test_a_forgotten_image_leaves_nothing_and_others_keep_their_faces(photos, scored, capsys):
    out, _ = scored
    store, image = str(out / "store"), str(photos / "sub/a.png")
    before = by_name(out, photos)
    with pytest.raises(InputError, match=r"a\.png: expected one image of this name, found 2"):
        forget(ForgetParameters(["a.png"], store))
    assert forget(ForgetParameters([image], store, dry_run=True)) == 0 and by_name(out, photos).keys() == before.keys()
    assert forget(ForgetParameters([image], store)) == 0
    assert f"{image}: removed" in capsys.readouterr().out
    after = by_name(out, photos)
    assert before.keys() - after.keys() == {"sub/a.png"}
    for file in [path for path in out.rglob("*") if path.is_file()]:
        assert image.encode() not in file.read_bytes(), file
    blocks = Store(store).manifests("image_faces")
    stored = {one.path for manifest in blocks.values() for one in ImageFacesDetails.of(manifest).images}
    assert stored == {str(photos / name) for name in after}
    with pytest.raises(InputError, match="found none"):
        forget(ForgetParameters([image], store))


def test_images_that_are_gone_or_come_back_concern_no_others(portraits, tmp_path, dask_address):
    photos, out, weights = tmp_path / "photos", tmp_path / "out", tmp_path / "other.safetensors"
    photos.mkdir()
    weights.write_bytes(backbone_bytes())
    for name, portrait in zip("ab", portraits, strict=False):
        Image.fromarray(portrait).save(photos / f"{name}.png")
    (photos / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(SomeFailedError, match=r"2 scored, 1 failed; first: embed_images .*bad\.jpg: expected an"):
        score([photos], out, dask_address=dask_address)
    (photos / "bad.jpg").unlink()
    score([photos], out, dask_address=dask_address)

    # The faces of a block are cut out again for another backbone while one of its images is away.
    away = (photos / "a.png").rename(tmp_path / "a.png")
    score([photos], out, weights=weights, dask_address=dask_address)
    away.rename(photos / "a.png")
    with pytest.raises(SomeFailedError, match=r"1 failed; first: embed_images .*a\.png: expected an"):
        score([photos], out, weights=weights, dask_address=dask_address)
    rows = by_name(out, photos)
    assert [rows[f"{name}.png"]["expression"].null_count() for name in "ab"] == [1, 0]
    assert forget(ForgetParameters([str(photos / "a.png")], str(out / "store"))) == 0
    score([photos], out, weights=weights, dask_address=dask_address)
    rows = by_name(out, photos)
    assert set(rows) == {"a.png", "b.png", "bad.jpg"}
    assert [rows[f"{name}.png"]["expression"].null_count() for name in "ab"] == [0, 0]


def test_a_damaged_block_or_table_loses_no_rows_of_other_blocks(portraits, tmp_path, dask_address, capsys):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for name, portrait in zip("ab", portraits, strict=False):
        Image.fromarray(portrait).save(photos / f"{name}.png")
        score([photos], out, dask_address=dask_address)
    file, parts = out / "tables/images.parquet", sorted((out / "store/image_outputs").rglob("*.parquet"))
    for path in (file, parts[0]):
        data = path.read_bytes()
        path.write_bytes(data[:8] + bytes(100) + data[108:])
    damage = f"{parts[0].parent}: {parts[0].name}: .*run the same command again"
    with pytest.raises(SomeFailedError, match=f"1 scored, 1 failed; first: write_images .*{damage}"):
        score([photos], out, dask_address=dask_address)
    assert len(pl.read_parquet(file)) == 1
    score([photos], out, dask_address=dask_address)
    assert len(pl.read_parquet(file)) == 2
    file.write_bytes(b"PAR1")
    capsys.readouterr()
    score([photos / "a.png"], out, dask_address=dask_address)
    assert f"note: {file} could not be read and was written anew" in capsys.readouterr().out
