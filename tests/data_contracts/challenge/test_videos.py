"""Which files of a folder are videos, and the account of all others."""

import os
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from PIL import Image

from data_contracts.challenge import other_files
from data_contracts.challenge import videos as module
from data_contracts.challenge.layout import find_data
from data_contracts.challenge.videos import list_videos
from data_contracts.errors import InputError
from data_contracts.files.account import HIDDEN
from data_contracts.files.inputs import file_state
from data_contracts.files.locations import location
from data_contracts.files.s3_client import RetryingS3FileSystem
from data_contracts.video.packets import index_video
from data_contracts.vocabulary import VIDEO_SUFFIXES, normalize_name
from tests.video_factory import VideoSpec, write_video

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def put(root, *names, data=b"x"):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def skipped(listing):
    return {reason: (one.count, one.examples) for reason, one in listing.account.skipped.items()}


def names(listing):
    return {name: path.name for name, path in listing.videos.items()}


@pytest.mark.parametrize("suffix", sorted(VIDEO_SUFFIXES - {".gif", ".ogg", ".ogx"}))
def test_the_suffix_selects_in_any_case(tmp_path, suffix):
    put(tmp_path, f"a{suffix}", f"b{suffix.upper()}")
    listing = list_videos([tmp_path])
    assert sorted(listing.videos) == ["a", "b"] and (listing.account.used, listing.account.lost) == (2, 0)


def test_videos_of_all_subfolders_and_beside_them_are_used(tmp_path):
    put(tmp_path, "loose.mp4", "videos/a.mp4", "videos/subject1/b.MKV", "videos/x/y/z/c.avi", "batch2/d.mov")
    put(tmp_path, "videos/.hidden/e.mp4", "videos/._a.mp4", "__MACOSX/videos/a.mp4", "videos/Thumbs.db")
    (tmp_path / "videos" / "folder.mp4").mkdir()
    listing = list_videos([tmp_path])
    assert sorted(listing.videos) == ["a", "b", "c", "d", "loose"] == sorted(find_data(tmp_path).videos)
    assert set(skipped(listing)) == {HIDDEN} and skipped(listing)[HIDDEN][0] == 4 and listing.account.lost == 0


def test_folders_with_other_data_are_not_searched(tmp_path):
    put(
        tmp_path,
        "videos/a.mp4",
        "EXPR_Classification_Challenge/Train_Set/b.mp4",
        "cropped/a/00001.jpg",
        "cropped/d.mp4",
    )
    put(tmp_path, "cropped/a/c.mp4", "cropped/b/1.png", "faces/anna/e.mp4", "x/y/cropped_aligned/batch1/a/00001.jpg")
    put(tmp_path, "store/_code_versions.json", "store/videos/f.mp4", "out/g.mp4")
    listing = list_videos([tmp_path], leave_out=[tmp_path / "out"])
    assert sorted(listing.videos) == ["a", "d", "e"] and listing.account.lost == 0 and not listing.account.notes
    assert skipped(listing) == {module._CROPS: (2, ["cropped", "x/y/cropped_aligned/batch1"])}


@pytest.mark.parametrize("place", ["tmp_path", "s3_bucket"])
def test_copies_of_videos_in_pages_of_a_store_are_no_videos(place, request):
    folder = location(str(request.getfixturevalue(place))) / "data"
    for name in ("_code_versions.json", "a.mp4", "sub/b.mp4", "reports/viewers/a/video-1a2b3c4d.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    listing = list_videos([folder])
    assert sorted(listing.videos) == ["a", "b"] and skipped(listing)[module._OWN_PAGES] == (1, ["reports"])


def test_files_of_cameras_players_and_editors_are_no_videos(tmp_path):
    put(tmp_path, "DJI_1.MP4", "DJI_1.LRF", "GL01.LRV", "BDMV/index.bdmv", "BDMV/CLIPINF/0.CPI", "TS/VTS_01_0.IFO")
    put(tmp_path, "README", "LICENSE", "track.gpx2", "@Recycle/x.mp4", "#snapshot/x.mp4", data=b"some text\n")
    listing = list_videos([tmp_path])
    assert (list(listing.videos), listing.account.lost) == (["DJI_1"], 0)
    put(tmp_path, "_SUCCESS", data=b"")
    put(tmp_path, "DJI_1.MP4~", "#DJI_1.MP4#")
    listing = list_videos([tmp_path])
    assert (list(listing.videos), listing.account.lost) == (["DJI_1"], 2)
    assert skipped(listing)[other_files.UNFINISHED][1] == ["#DJI_1.MP4#", "DJI_1.MP4~"]


def test_archives_of_crops_and_annotations_hold_no_videos(tmp_path):
    put(tmp_path, "a.mp4", "cropped_aligned.zip", "cropped_new_50_vids.tar.gz", "Third ABAW Annotations.zip")
    put(tmp_path, "cropped/batch2.zip", "EXPR_Recognition_Challenge.zip")
    listing = list_videos([tmp_path])
    assert skipped(listing)[other_files.OTHER_ARCHIVES][0] == 5 and listing.account.lost == 0
    put(tmp_path, "batch2.zip", "faces/more.zip")
    assert list_videos([tmp_path]).account.lost == 2


def test_every_other_file_is_counted_with_a_reason(tmp_path):
    put(tmp_path, "a.mp4", "notes.txt", "a.srt", "poster.jpg", "batch3.zip", "b.mp4.part", "e.M3U8")
    put(tmp_path, "c.xyz", "noise", data=b"\xff\0")
    put(tmp_path, "batch4.zip", "batch4/d.mp4", "batch5.tar.gz", "batch5/f.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "lost.xyz").symlink_to("nowhere")
    (tmp_path / "round").symlink_to(tmp_path)
    listing = list_videos([tmp_path])
    assert sorted(listing.videos) == ["a", "d", "f"]
    assert skipped(listing) == {
        other_files.OTHER: (4, ["a.srt", "e.M3U8", "notes.txt"]),
        other_files.ARCHIVES: (1, ["batch3.zip"]),
        other_files.UNPACKED: (2, ["batch4.zip", "batch5.tar.gz"]),
        other_files.UNFINISHED: (1, ["b.mp4.part"]),
        other_files.NO_VIDEO: (2, ["c.xyz", "noise"]),
        module.PIPES: (1, ["pipe.mp4"]),
        module._BROKEN: (1, ["lost.xyz"]),
        module._LOOPS: (1, ["round"]),
    }
    assert listing.account.lost == 6 and listing.account.found == 16


def test_a_folder_that_cannot_be_read_is_counted(tmp_path, monkeypatch):
    put(tmp_path, "a.mp4", "closed/b.mp4")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    listing = find_data(tmp_path).video_listing
    assert list(listing.videos) == ["a"] and listing.account.lost == 1
    assert skipped(listing) == {"folders that cannot be read (Permission denied)": (1, ["closed"])}


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        *((".mp4", "libx264"), (".mov", "mpeg4"), (".mkv", "libx264"), (".webm", "libvpx"), (".avi", "mpeg4")),
        *((".wmv", "wmv2"), (".mts", "libx264"), (".m2ts", "libx264"), (".mpg", "mpeg1video"), (".vob", "mpeg2video")),
        *((".3gp", "libx264"), (".flv", "flv"), (".ogv", "libvpx"), (".mxf", "mpeg2video"), (".nut", "ffv1")),
        *((".ivf", "libvpx"), (".h264", "libx264"), (".hevc", "libx265"), (".m2v", "mpeg2video"), (".m4v", "mpeg4")),
        *((".y4m", "wrapped_avframe"), (".gif", "gif")),
    ],
)
def test_the_content_decides_without_a_known_suffix(tmp_path, suffix, codec):
    pixel_format = "rgb8" if codec == "gif" else "yuv420p"
    spec = VideoSpec(frame_count=5, codec=codec, width_px=352, height_px=288, pixel_format=pixel_format, b_frames=0)
    video = write_video(tmp_path / f"made{suffix}", spec)
    video.rename(tmp_path / "camera.xyz")
    (tmp_path / "no_suffix").write_bytes((tmp_path / "camera.xyz").read_bytes())
    assert names(list_videos([tmp_path])) == {"camera": "camera.xyz", "no_suffix": "no_suffix"}
    assert list(list_videos([tmp_path / "camera.xyz"]).videos) == ["camera"]


def test_pictures_and_sound_without_a_known_suffix_are_not_videos(tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "still.gif")
    heads = (b"\0\0\0\x18ftypheic", b"\0\0\0\x18ftypM4A ", b"\xff\xd8\xff\xe0", b"RIFF\0\0\0\0WAVE", b"", b"\0" * 999)
    put(tmp_path, "notes", data="\u00e9".encode() * 3000)
    for number, head in enumerate(heads):
        (tmp_path / f"{number}.xyz").write_bytes(head)
    (tmp_path / "sound.ogg").write_bytes(b"OggS" + b"\0" * 24 + b"\x01vorbis")
    (tmp_path / "film.ogg").write_bytes(b"OggS" + b"\0" * 24 + b"\x80theora")
    listing = list_videos([tmp_path])
    assert list(listing.videos) == ["film"]
    assert skipped(listing)[other_files.OTHER] == (
        3,
        ["notes", "sound.ogg", "still.gif"],
    ) and listing.account.lost == len(heads)


def test_broken_links_count_as_videos_and_linked_folders_are_searched(tmp_path):
    videos = tmp_path / "videos"
    put(tmp_path, "elsewhere/real.mp4")
    videos.mkdir()
    (videos / "link.mp4").symlink_to(tmp_path / "elsewhere" / "real.mp4")
    (videos / "lost.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (videos / "round.mp4").symlink_to("round.mp4")
    (videos / "elsewhere").symlink_to(tmp_path / "elsewhere")
    listing = list_videos([videos])
    assert sorted(listing.videos) == ["link", "lost", "real", "round"]
    causes = []
    for name in ("lost", "round"):
        with pytest.raises(InputError) as caught:
            index_video(listing.videos[name])
        causes.append(str(caught.value).removeprefix(f"{videos / name}.mp4: expected a video file, got "))
    advice = "which does not exist; repair the link or remove it"
    assert causes == [f"a link to {tmp_path / 'nowhere.mp4'}, {advice}", f"a link to round.mp4, {advice}"]


def test_files_that_share_a_name_do_not_affect_their_neighbours(tmp_path):
    put(tmp_path, "a.mp4", "sub/a.avi", "b.mp4")
    (tmp_path / "sub" / "b.mp4").symlink_to(tmp_path / "b.mp4")
    listing = list_videos([tmp_path, tmp_path / "sub"])
    assert list(listing.videos) == ["b"], "a link to the same file is not another video"
    assert listing.same_names == {"a": (tmp_path / "a.mp4", tmp_path / "sub" / "a.avi")}
    assert skipped(listing) == {module._SHARED_NAMES: (2, ["a.mp4", "sub/a.avi"])}


def test_names_are_compared_in_their_composed_form(tmp_path):
    put(tmp_path, f"{NFD}.mp4", "b.mp4")
    listing = list_videos([tmp_path])
    assert sorted(listing.videos) == ["b", NFC] and listing.videos[NFC].name == f"{NFD}.mp4"
    assert listing.account.notes == [rf"'cafe\u0301' is stored and compared as {NFC} (its Unicode form NFC)"]
    put(tmp_path, f"{NFC}.mp4")
    listing = list_videos([tmp_path])
    assert list(listing.videos) == ["b"] and len(listing.same_names[NFC]) == 2


def test_wrong_paths_are_reported_in_one_line(tmp_path):
    with pytest.raises(InputError, match="found nothing there"):
        list_videos([tmp_path / "typo"])
    put(tmp_path, "clip.txt", "clip.xyz")
    for name in ("clip.txt", "clip.xyz"):
        with pytest.raises(InputError, match="got another file"):
            list_videos([tmp_path / name])
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(InputError, match="got a pipe or a device"):
        list_videos([tmp_path / "pipe.mp4"])
    (tmp_path / "empty").mkdir()
    assert list_videos([tmp_path / "empty"]).videos == {}


def test_videos_on_s3_are_listed_with_few_requests(s3_bucket, monkeypatch):
    place = location(f"{s3_bucket}/data")
    many = [f"videos/day {number}/{number}.mp4" for number in range(40)]
    others = [
        "loose.MOV",
        "videos/._a.mp4",
        "__MACOSX/b.mp4",
        "videos/.hidden/c.mp4",
        "notes.txt",
        "batch9.zip",
        "d.bin",
    ]
    folders = ["cropped/a/00001.jpg", "EXPR_Classification_Challenge/Train_Set/e.mp4", "out/f.mp4", "VIDEOS/0.avi"]
    store = ["store/_code_versions.json", "store/g.mp4", "batch8.zip", "batch8/h.mp4"]
    for name in (*many, *others, *folders, *store):
        (place / name).write_bytes(b"x")
    (place / "camera").write_bytes(b"\0\0\0\x18ftypisom")
    (place / "d.bin").write_bytes(b"\xff\0")
    requests, call = [], RetryingS3FileSystem._call_s3

    async def count(self, method, *args, **options):
        requests.append(method)
        return await call(self, method, *args, **options)

    monkeypatch.setattr(RetryingS3FileSystem, "_call_s3", count)
    listing = list_videos([place], leave_out=[f"{s3_bucket}/data/out"])
    for path in listing.videos.values():
        assert file_state(path, as_listed=True).size_bytes >= 1
    assert len(requests) <= 15, requests
    assert sorted(listing.videos) == sorted([*map(str, range(1, 40)), "camera", "h", "loose"])
    assert len(listing.same_names["0"]) == 2
    counts = {reason: (one.count, one.examples) for reason, one in listing.account.skipped.items()}
    assert counts == {
        HIDDEN: (3, ["__MACOSX", "videos/._a.mp4", "videos/.hidden/c.mp4"]),
        other_files.OTHER: (1, ["notes.txt"]),
        other_files.ARCHIVES: (1, ["batch9.zip"]),
        other_files.UNPACKED: (1, ["batch8.zip"]),
        other_files.NO_VIDEO: (1, ["d.bin"]),
        module._CROPS: (1, ["cropped"]),
        module._SHARED_NAMES: (2, ["VIDEOS/0.avi", "videos/day 0/0.mp4"]),
    }


def test_names_that_are_not_utf8_are_used(tmp_path):
    for raw in (b"na\xefve.mp4", "b\N{LATIN SMALL LETTER A WITH RING ABOVE}t.mp4".encode()):
        (tmp_path / os.fsdecode(raw)).write_bytes(b"x")
    listing = list_videos([tmp_path])
    assert sorted(listing.videos) == ["b\xe5t", "na\xefve"]
    (note,) = listing.account.notes
    assert note == r"'na\udcefve' is stored and compared as naïve (its bytes are not UTF-8 and were read as Latin-1)"
    assert normalize_name(os.fsencode("b\xe5t").decode("ascii", "surrogateescape")) == "b\xe5t", "as with LC_ALL=C"


def test_a_process_that_cannot_write_a_name_says_why(tmp_path):
    """Python without UTF-8 mode in the locale C, as a program that imports the package may be."""
    put(tmp_path, "café.mp4")
    imports = "from pathlib import Path; from data_contracts.challenge.videos import list_videos"
    code = f"{imports}; list_videos([Path({str(tmp_path)!r})])"
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    finished = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "got one with the encoding ascii of its locale (LC_ALL, LANG); set PYTHONUTF8=1" in finished.stderr
