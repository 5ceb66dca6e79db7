"""Kinds of video files that the tests and ``compare_with_ffmpeg`` share, each a few kilobytes and quick to write.

The name of a kind is a file name; its suffix selects the container.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.video_boxes import (
    add_empty_samples,
    change_avi_chunks,
    change_boxes,
    change_matroska,
    edit_list,
    flag_avi_keyframes,
    flag_keyframes,
    join_descriptions,
    join_flv,
    lace_blocks,
    palette_chunk,
    split_superframes,
    strip_headers,
)
from tests.video_factory import TICKS_PER_SECOND, VideoSpec, cut_file, hide_sides, write_video
from tests.video_streams import (
    FRAMES_PER_SECOND,
    coloured_picture,
    encode_with_program,
    even_times,
    h264_fields,
    mpeg2_fields,
    packets_of,
    remux,
    run_program,
    write_fields,
    write_headers_alone,
    write_hevc_layers,
    write_mjpeg_fields,
    write_not_coded_mpeg4,
    write_packed_mpeg4,
    write_packets,
    write_svc,
    write_vp9_layers,
)

HOUR_TICKS = 3600 * TICKS_PER_SECOND
UNEVEN_TICKS = [tick + place for place, tick in enumerate(np.cumsum(np.tile([0, 256, 512, 1024, 3000], 8)).tolist())]
OPEN_GOP = {"x264-params": "open-gop=1"}
REALTIME = {"deadline": "realtime", "cpu-used": "8"}

# Writes a file of its kind to a path.
Writer = Callable[[Path], object]

PLAIN_KINDS = {
    "closed.mp4": VideoSpec(),
    "open.mp4": VideoSpec(b_frames=3, codec_options=OPEN_GOP),
    "one_gop.mp4": VideoSpec(gop_frames=250),
    "every_frame_a_keyframe.mp4": VideoSpec(gop_frames=1, b_frames=0),
    "intra_refresh.mp4": VideoSpec(b_frames=0, codec_options={"x264-params": "intra-refresh=1"}),
    "uneven.mp4": VideoSpec(tick=UNEVEN_TICKS),
    "edit_list.mp4": VideoSpec(shift_ticks=-5 * 512),
    "edit_list_open.mp4": VideoSpec(b_frames=3, codec_options=OPEN_GOP, shift_ticks=-14 * 512),
    "fragments.mp4": VideoSpec(container_options={"movflags": "frag_keyframe+empty_moov"}),
    "rotated.mp4": VideoSpec(rotation_degrees_ccw=90),
    "one_frame.mp4": VideoSpec(frame_count=1),
    "odd_sides.mp4": VideoSpec(width_px=99, height_px=67, pixel_format="yuv444p"),
    "ten_bit.mp4": VideoSpec(pixel_format="yuv420p10le"),
    "hevc.mp4": VideoSpec(codec="libx265", b_frames=3),
    "hevc_leading.mp4": VideoSpec(codec="libx265", b_frames=3, codec_options={"x265-params": "open-gop=0:radl=2"}),
    "mpeg4.mp4": VideoSpec(codec="mpeg4"),
    "mpeg4.avi": VideoSpec(codec="mpeg4"),
    "h264.avi": VideoSpec(),
    "mjpeg.avi": VideoSpec(codec="mjpeg", b_frames=0, pixel_format="yuvj420p"),
    "open.mkv": VideoSpec(b_frames=3, codec_options=OPEN_GOP),
    "cut_in_gop.mkv": VideoSpec(drop_packets=frozenset(range(5))),
    "starts_at_open_gop.mkv": VideoSpec(b_frames=3, codec_options=OPEN_GOP, drop_packets=frozenset(range(9))),
    "hevc_starts_at_open_gop.mkv": VideoSpec(codec="libx265", b_frames=3, drop_packets=frozenset(range(9))),
    "lost_packets.mp4": VideoSpec(drop_packets=frozenset({14, 15, 16})),
    "broadcast.ts": VideoSpec(),
    "mpeg2.mpg": VideoSpec(codec="mpeg2video"),
    "vp9.webm": VideoSpec(codec="libvpx-vp9", b_frames=0, codec_options=REALTIME),
    "grey.mkv": VideoSpec(codec="ffv1", pixel_format="gray", b_frames=0),
    "interlaced.mp4": VideoSpec(codec_options={"x264-params": "tff=1"}),
    "interlaced.mpg": VideoSpec(codec="mpeg2video", codec_options={"flags": "+ilme+ildct"}),
    "jump_of_an_hour.mp4": VideoSpec(tick=[*range(0, 20 * 512, 512), *range(HOUR_TICKS, HOUR_TICKS + 20 * 512, 512)]),
    "jump_of_an_hour.mkv": VideoSpec(tick=[*range(0, 20 * 512, 512), *range(HOUR_TICKS, HOUR_TICKS + 20 * 512, 512)]),
    "rotated_180.mp4": VideoSpec(rotation_degrees_ccw=180),
    "rotated_270.mov": VideoSpec(rotation_degrees_ccw=270),
    "ten_bit_hevc.mkv": VideoSpec(codec="libx265", pixel_format="yuv420p10le", b_frames=3),
    "odd.avi": VideoSpec(codec="mjpeg", b_frames=0, pixel_format="yuvj444p", width_px=97, height_px=65),
    "uneven.mkv": VideoSpec(tick=np.cumsum(np.tile([512, 100, 900, 3000], 10)).tolist()),
    "elementary.h264": VideoSpec(b_frames=0),
}


X264 = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-bf", "2", "-g", "12")
TWO_PASS_ALTREF = ("-auto-alt-ref", "1", "-lag-in-frames", "16", "-b:v", "60k", "-cpu-used", "5")
OTHER_SIZE = {"width_px": 128, "height_px": 96}
OTHER_CODING = {"x264-params": "cabac=0:8x8dct=0:qp=30"}
CLOCK_SET_TICKS = [0, *range(20 * HOUR_TICKS, 20 * HOUR_TICKS + 39 * 512, 512)]
MJPEG = VideoSpec(codec="mjpeg", b_frames=0, pixel_format="yuvj420p")


def _of_spec(spec: VideoSpec) -> Writer:
    return lambda path: write_video(path, spec)


def _by_program(*options: str, **parameters: Any) -> Writer:
    return lambda path: encode_with_program(path, *options, **parameters)


def _in_two_passes(*options: str) -> Writer:
    def write(path: Path) -> None:
        log = str(path.with_name(f"{path.stem}.passes"))
        for number in ("1", "2"):
            encode_with_program(path, *options, "-pass", number, "-passlogfile", log, frame_count=60)
        Path(f"{log}-0.log").unlink()

    return write


def _source(path: Path, name: str, spec: VideoSpec, **parameters: int) -> Path:
    """Write a file that kinds are made from, once for all kinds in a folder."""
    source = path.parent / "sources" / name
    if not source.exists():
        source.parent.mkdir(exist_ok=True)
        write_video(source, spec, **parameters)
    return source


def _copied(name: str, spec: VideoSpec, *options: str, before: tuple[str, ...] = ()) -> Writer:
    return lambda path: remux(_source(path, name, spec), path, *options, before=before)


def _boxes(changes: dict[bytes, Callable[[bytes], bytes | None]]) -> Writer:
    return lambda path: path.write_bytes(change_boxes(_source(path, "a.mp4", VideoSpec()).read_bytes(), changes))


def _edits(*edits: tuple[int, int]) -> Writer:
    return _boxes({b"elst": lambda _: edit_list(*edits)})


def _matroska(spec: VideoSpec, change: Callable[[Path, Path], object], suffix: str = "mkv") -> Writer:
    return lambda path: change(_source(path, f"{spec.codec}.{suffix}", spec), path)


def _avi(spec: VideoSpec, change: Callable[[int, bytes, bytes], list[tuple[bytes, bytes]]]) -> Writer:
    return lambda path: path.write_bytes(change_avi_chunks(_source(path, "a.avi", spec).read_bytes(), change))


def _with_new_palette(*options: str) -> Writer:
    def write(path: Path) -> None:
        data = encode_with_program(path, *options, "-pix_fmt", "pal8", picture=coloured_picture).read_bytes()
        new = palette_chunk(3)
        path.write_bytes(
            change_avi_chunks(data, lambda number, kind, content: [new] * (number == 20) + [(kind, content)])
        )

    return write


def _halves(path: Path, codec: str = "libx264", suffix: str | None = None, **changes: Any) -> tuple[Path, Path]:
    """Two files with frames 1 to 20 and 21 to 40; ``changes`` to the second."""
    suffix = suffix or path.suffix
    b_frames = changes.pop("first_b_frames", 2 if suffix == ".ts" else 0)
    spec = VideoSpec(frame_count=20, gop_frames=10, codec=codec, b_frames=b_frames)
    first = _source(path, f"{codec}{b_frames}1{suffix}", spec)
    return first, _source(path, f"{path.stem}2{suffix}", replace(spec, **changes), first_number=21)


def _joined(codec: str = "libx264", **changes: Any) -> Writer:
    def write(path: Path) -> None:
        first, second = _halves(path, codec, **changes)
        path.write_bytes(first.read_bytes() + second.read_bytes())

    return write


def _joined_by_program(*options: str, **changes: int) -> Writer:
    def write(path: Path) -> None:
        first = encode_with_program(path, *options, frame_count=20).read_bytes()
        second = encode_with_program(path, *options, frame_count=20, first_number=21, **changes).read_bytes()
        path.write_bytes(first + second)

    return write


def _joined_flv(**changes: Any) -> Writer:
    return lambda path: join_flv(*_halves(path, **changes), path, shift_milliseconds=800)


def _joined_mp4(**changes: Any) -> Writer:
    return lambda path: join_descriptions(*_halves(path, **changes), path)


def _joined_vpx(codec: str) -> Writer:
    def write(path: Path) -> None:
        first, second = _halves(path, codec, ".webm", codec_options=REALTIME, **OTHER_SIZE)
        units = [*packets_of(first), *packets_of(second)]
        write_packets(path, first, even_times(units))

    return write


def _without_start(name: str, spec: VideoSpec, ts_packets: int) -> Writer:
    return lambda path: path.write_bytes(_source(path, name, spec).read_bytes()[188 * ts_packets :])


def _cut(spec: VideoSpec) -> Writer:
    spec = replace(spec, frame_count=60)
    return lambda path: cut_file(_source(path, f"long{path.suffix}", spec), path, fraction=0.7)


def _oriented(*options: str) -> Writer:
    """H.264 whose own messages (SEI), not the container, say how to turn the frames."""
    bitstream_filter = ":".join(("h264_metadata=display_orientation=insert", *options))
    return lambda path: remux(_source(path, "a.mp4", VideoSpec()), path, "-bsf:v", bitstream_filter)


def _turned_half(path: Path) -> None:
    first, second = _halves(path)
    turned = path.with_name(f"{path.stem}3.ts")
    remux(second, turned, "-bsf:v", "h264_metadata=display_orientation=insert:rotate=90")
    path.write_bytes(first.read_bytes() + turned.read_bytes())
    turned.unlink()


def _split_superframes(path: Path) -> None:
    source = write_kind("altref_vp9.webm", path.parent)
    split_superframes(source, path)


def _repeated_times(path: Path) -> None:
    source = _source(path, "j.mkv", MJPEG)
    times = [Fraction(number - (number % 8 == 5), FRAMES_PER_SECOND) for number in range(40)]
    units = [(unit, time, time, key) for (unit, key), time in zip(packets_of(source), times, strict=True)]
    write_packets(path, source, units)


def _cover_first(path: Path) -> None:
    picture = encode_with_program(path.with_suffix(".png"), "-frames:v", "1", width_px=200, height_px=200)
    video = _source(path, "a.mp4", VideoSpec())
    cover = ("-map", "1", "-map", "0", "-c", "copy", "-disposition:v:0", "attached_pic")
    run_program("-i", video, "-i", picture, *cover, path)


def _two_videos(path: Path) -> None:
    small = _source(path, "a.mp4", VideoSpec())
    large = _source(path, "large.mp4", VideoSpec(width_px=192, height_px=128))
    run_program("-i", small, "-i", large, "-map", "0", "-map", "1", "-c", "copy", path)


def _telecined(path: Path) -> None:
    """MPEG-2 that tells the player to repeat fields (3:2 pulldown)."""
    data = bytearray(encode_with_program(path, "-c:v", "mpeg2video", "-bf", "2", "-g", "12").read_bytes())
    at = number = 0
    while (at := data.find(b"\0\0\1\xb5", at)) >= 0:
        if data[at + 4] >> 4 == 8:
            data[at + 7] |= (0x02 if number % 2 == 0 else 0) | (0x80 if number % 4 in (0, 3) else 0)
            number += 1
        at += 4
    path.write_bytes(data)


# The reports describe videos of which another program gave wrong frames, wrong times, or none.
REPORTED_KINDS: dict[str, Writer] = {
    # Field pictures: FFMS2 #83, #206, #315; VideoIO.jl #468; MythTV #610.
    "paff.ts": lambda path: write_fields(path, h264_fields(), pairs=False),
    "paff.mkv": lambda path: write_fields(path, h264_fields(), pairs=False),
    "paff.mp4": lambda path: write_fields(path, h264_fields(), pairs=False),
    "paff_pairs.ts": lambda path: write_fields(path, h264_fields(), pairs=True),
    "paff_pairs.mp4": lambda path: write_fields(path, h264_fields(), pairs=True),
    "mpeg2_fields.mkv": lambda path: write_fields(path, mpeg2_fields(path.parent), pairs=False),
    "mpeg2_fields.mpg": lambda path: write_fields(path, mpeg2_fields(path.parent), pairs=True),
    "mpeg2_fields.ts": lambda path: write_fields(path, mpeg2_fields(path.parent), pairs=False),
    "mbaff.MTS": _by_program("-f", "mpegts", "-mpegts_m2ts_mode", "1", *X264, "-x264-params", "interlaced=1"),
    # Hidden frames: FFMS2 #88, #293, #319, #391; L-SMASH-Works #79; mpv #7804, #10140.
    "altref_vp8.webm": _in_two_passes("-c:v", "libvpx", *TWO_PASS_ALTREF),
    "altref_vp9.webm": _in_two_passes("-c:v", "libvpx-vp9", *TWO_PASS_ALTREF),
    "altref_levels_vp9.webm": _in_two_passes("-c:v", "libvpx-vp9", *TWO_PASS_ALTREF, "-auto-alt-ref", "6"),
    "split_superframes_vp9.webm": _split_superframes,
    "hidden_av1.mp4": _by_program("-c:v", "libaom-av1", "-lag-in-frames", "19", "-cpu-used", "8", "-g", "20"),
    "open_av1.mkv": _by_program("-c:v", "libsvtav1", "-preset", "10", "-g", "16", "-svtav1-params", "irefresh-type=1"),
    # Layers of one frame in a packet: VideoProcessingFramework #538.
    "layers_vp9.webm": write_vp9_layers,
    "layers_svc.mkv": write_svc,
    "layers_svc.mp4": write_svc,
    "layers_hevc.mkv": write_hevc_layers,
    "layers_hevc.mp4": write_hevc_layers,
    # Packets with nothing but headers.
    "headers_alone.mkv": write_headers_alone,
    "headers_alone.mp4": write_headers_alone,
    # Packed and not coded frames: javacv #841, curator #9, AetherEngine #516.
    "packed.avi": write_packed_mpeg4,
    "packed.mkv": write_packed_mpeg4,
    "packed.mp4": write_packed_mpeg4,
    "packed_two.avi": partial(write_packed_mpeg4, b_frames=2),
    "not_coded.avi": write_not_coded_mpeg4,
    "not_coded.mp4": write_not_coded_mpeg4,
    "xvid.avi": _by_program("-c:v", "libxvid", "-bf", "1", "-g", "12", "-q:v", "4"),
    # A palette or headers that come once, at the start or between frames: PyAV #349, #1987; mp4parse-rust #160.
    "palette_rle.mov": _by_program("-c:v", "qtrle", "-pix_fmt", "gray", "-g", "12"),
    "palette_smc.mov": _by_program("-c:v", "smc", "-pix_fmt", "pal8", "-g", "12", picture=coloured_picture),
    "palette_raw.avi": _by_program("-c:v", "rawvideo", "-pix_fmt", "pal8", picture=coloured_picture),
    "palette_rle.avi": _by_program("-c:v", "msrle", "-pix_fmt", "pal8", "-g", "12", picture=coloured_picture),
    "palette_zmbv.avi": _by_program("-c:v", "zmbv", "-pix_fmt", "pal8", "-g", "12", picture=coloured_picture),
    "palette_change_raw.avi": _with_new_palette("-c:v", "rawvideo"),
    "palette_change_rle.avi": _with_new_palette("-c:v", "msrle", "-g", "10"),
    "new_headers.flv": _joined_flv(codec_options=OTHER_CODING),
    "new_size.flv": _joined_flv(**OTHER_SIZE),
    "two_descriptions.mp4": _joined_mp4(codec_options=OTHER_CODING),
    "two_descriptions_new_size.mp4": _joined_mp4(**OTHER_SIZE),
    # A change of the frame size within the video: OpenCV #15352.
    "new_size.ts": _joined(**OTHER_SIZE),
    "new_size.h264": _joined(**OTHER_SIZE),
    "new_size.hevc": _joined("libx265", **OTHER_SIZE),
    "new_size.m2v": _joined("mpeg2video", **OTHER_SIZE),
    "new_size_vp8.webm": _joined_vpx("libvpx"),
    "new_size_vp9.webm": _joined_vpx("libvpx-vp9"),
    # Frames flagged as keyframes that are none, or none flagged: mpv #448, FFMS2 #403.
    "no_sync_table.mp4": _boxes({b"stss": lambda _: None}),
    "all_keyframes.avi": lambda path: flag_avi_keyframes(_source(path, "b.avi", VideoSpec(codec="mpeg4")), path),
    "all_keyframes_h264.avi": lambda path: flag_avi_keyframes(_source(path, "h.avi", VideoSpec()), path),
    "all_keyframes.mkv": _matroska(VideoSpec(), partial(flag_keyframes, all_frames=True)),
    "no_keyframes.webm": _matroska(
        VideoSpec(codec="libvpx", b_frames=0, codec_options=REALTIME), partial(flag_keyframes, all_frames=False), "webm"
    ),
    "wrong_keyframes.mov": _by_program("-c:v", "rpza", "-g", "12", "-pix_fmt", "rgb555"),
    "no_idr.ts": _of_spec(VideoSpec(b_frames=0, gop_frames=9999, codec_options={"x264-params": "intra-refresh=1"})),
    # The first frame is no keyframe, or needs earlier ones: d2vsource #36, LAVFilters #330, OpenCV #20227.
    "starts_in_gop.ts": _without_start("t.ts", VideoSpec(), 24),
    "starts_in_open_gop.ts": _without_start("o.ts", VideoSpec(b_frames=3, codec_options=OPEN_GOP), 20),
    "starts_in_gop_mpeg2.ts": _without_start("m.ts", VideoSpec(codec="mpeg2video"), 24),
    "starts_in_gop_hevc.ts": _without_start("h.ts", VideoSpec(codec="libx265", b_frames=3), 30),
    "cut_copy.mkv": _copied("open.mp4", VideoSpec(60, b_frames=3, codec_options=OPEN_GOP), before=("-ss", "0.9")),
    "cut_copy.mp4": _copied("open.mp4", VideoSpec(60, b_frames=3, codec_options=OPEN_GOP), before=("-ss", "0.9")),
    "cut_copy.avi": _copied("open.mp4", VideoSpec(60, b_frames=3, codec_options=OPEN_GOP), before=("-ss", "0.9")),
    "cut_copy_hevc.mkv": _copied("hevc.mp4", VideoSpec(60, codec="libx265", b_frames=3), before=("-ss", "0.9")),
    "cut_copy_hevc.mp4": _copied("hevc.mp4", VideoSpec(60, codec="libx265", b_frames=3), before=("-ss", "0.9")),
    # B-frames whose display order the container does not say, or short groups of pictures: FFMS2 #403, torchcodec #179.
    "reordered.h264": _by_program(*X264),
    "reordered.hevc": _of_spec(VideoSpec(codec="libx265", b_frames=3)),
    "every_second_a_keyframe.h264": _of_spec(VideoSpec(b_frames=1, gop_frames=2, codec_options=OPEN_GOP)),
    "every_second_a_keyframe_hevc.mp4": _of_spec(VideoSpec(codec="libx265", b_frames=1, gop_frames=2)),
    # The decoder learns in the middle how many frames to reorder: FFMS2 #301.
    "more_reordering.ts": _joined(b_frames=3, codec_options={"x264-params": "b-pyramid=normal"}, first_b_frames=0),
    "more_reordering.h264": _joined(b_frames=3, codec_options={"x264-params": "b-pyramid=normal"}),
    # Edits and negative times: torchcodec #331, #1502; OpenCV #23472, #27819.
    "starts_late.mp4": _edits((1000, -1), (1600, 1024)),
    "starts_late.mkv": _copied("a.mp4", VideoSpec(), "-output_ts_offset", "2"),
    "two_edits.mp4": _edits((400, 1024), (600, 1024 + 20 * 512)),
    "repeated_edit.mp4": _edits((800, 1024), (800, 1024)),
    "edit_in_gop.mp4": _edits((800, 1024 + 7 * 512)),
    "edit_at_zero.mp4": _edits((1600, 0)),
    "no_edit.mp4": _by_program(*X264, "-use_editlist", "0"),
    "negative_offsets.mp4": _by_program(*X264, "-movflags", "negative_cts_offsets"),
    "no_offsets.mp4": _boxes({b"ctts": lambda _: None, b"edts": lambda _: None}),
    # Clocks that jump, wrap, restart, repeat or jitter: FFMS2 #258, #295; OpenCV #9053, #12810; VALI #108.
    "clock_set.mp4": _of_spec(VideoSpec(tick=CLOCK_SET_TICKS)),
    "clock_set.mkv": _of_spec(VideoSpec(tick=CLOCK_SET_TICKS)),
    "clock_set.ts": _of_spec(VideoSpec(tick=CLOCK_SET_TICKS)),
    "clock_wraps.ts": _copied("t.ts", VideoSpec(), "-output_ts_offset", str(((1 << 33) - 90_000) / 90_000)),
    "clock_restarts.ts": _joined(),
    "repeated_times.mkv": _repeated_times,
    "jitter.ts": _of_spec(VideoSpec(tick=[place * 512 + (place * 37 % 11 - 5) * 7 + 35 for place in range(40)])),
    "telecined.m2v": _telecined,
    "telecined.mkv": _of_spec(VideoSpec(codec_options={"x264-params": "pulldown=32:tff=1"})),
    # Fragments.
    "fragment_per_frame.mp4": _by_program(*X264, "-movflags", "frag_every_frame+empty_moov+default_base_moof"),
    "dash.mp4": _by_program(*X264, "-movflags", "cmaf+frag_keyframe+global_sidx"),
    # Matroska without sizes or cues, with stripped headers, with several frames per block: FFMS2 #15, ebml-go #134.
    "unknown_sizes.mkv": _matroska(VideoSpec(), partial(change_matroska, unknown_sizes=True)),
    "no_cues.mkv": _matroska(VideoSpec(), change_matroska),
    "stripped_headers.mkv": _matroska(MJPEG, strip_headers),
    "laced.mkv": _matroska(MJPEG, lace_blocks),
    # AVI with dropped frames or without an index: OpenCV #4362, #13824, #28683.
    "dropped_frames.avi": _avi(
        VideoSpec(codec="mpeg4", b_frames=0), lambda number, kind, data: [(kind, data), (kind, b"")][: 1 + number % 2]
    ),
    "no_index.avi": _avi(VideoSpec(codec="mpeg4", b_frames=0), lambda _, kind, data: [(kind, data)]),
    "empty_samples.mp4": lambda path: add_empty_samples(_source(path, "p.mp4", VideoSpec(b_frames=0)), path),
    # Files that were written one after the other: FFMS2 #258, bestsource #74.
    "concatenated.mkv": _joined(),
    "concatenated.webm": _joined("libvpx", codec_options=REALTIME, **OTHER_SIZE),
    "concatenated.mpg": _joined("mpeg2video"),
    "concatenated.avi": _joined("mpeg4"),
    "chained.ogv": _joined_by_program("-c:v", "libtheora", "-g", "12"),
    "chained_new_size.ogv": _joined_by_program("-c:v", "libtheora", "-g", "12", **OTHER_SIZE),
    # Packets that were lost on the way: mpv #9645.
    "lost_packets.ts": lambda path: path.write_bytes(
        (data := _source(path, "t.ts", VideoSpec()).read_bytes())[: 188 * 30] + data[188 * 33 :]
    ),
    # Cut files: OpenCV #11782, #16576, #17257.
    "truncated.flv": _cut(VideoSpec()),
    "truncated.mkv": _cut(VideoSpec()),
    "truncated.avi": _cut(VideoSpec()),
    "truncated.ts": _cut(VideoSpec()),
    "truncated_fragments.mp4": _cut(VideoSpec(container_options={"movflags": "frag_keyframe+empty_moov"})),
    # Pictures and other streams beside the video: OpenCV #15352.
    "cover_first.mp4": _cover_first,
    "two_videos.mp4": _two_videos,
    # Display.
    "mirrored.mp4": _of_spec(VideoSpec(mirrored=True)),
    "turned_and_mirrored.mov": _of_spec(VideoSpec(rotation_degrees_ccw=90, mirrored=True)),
    "mirrored.mkv": _of_spec(VideoSpec(rotation_degrees_ccw=180, mirrored=True)),
    "wide_pixels.mp4": _of_spec(VideoSpec(aspect=Fraction(2))),
    "narrow_pixels.mkv": _of_spec(VideoSpec(aspect=Fraction(1, 2), b_frames=3, codec_options=OPEN_GOP)),
    "wide_turned_pixels.mp4": _of_spec(VideoSpec(aspect=Fraction(4, 3), rotation_degrees_ccw=90)),
    "new_aspect.ts": _joined(aspect=Fraction(2)),
    "new_orientation.ts": _turned_half,
    "cropped.mkv": lambda path: hide_sides(_source(path, "a.mkv", VideoSpec()), path, sides_px=(8, 4, 6, 2)),
    "turned_by_sei.mp4": _oriented("rotate=90"),
    "turned_by_sei.ts": _oriented("rotate=180"),
    "mirrored_by_sei.mp4": _oriented("flip=horizontal"),
    "turned_and_mirrored_by_sei.ts": _oriented("rotate=90", "flip=vertical"),
    "cropped_by_header.mp4": _copied(
        "a.mp4", VideoSpec(), "-bsf:v", "h264_metadata=crop_left=8:crop_right=4:crop_top=6:crop_bottom=2"
    ),
    # Other codecs and containers.
    "theora.ogv": _by_program("-c:v", "libtheora", "-g", "12", "-q:v", "7"),
    "wmv2.wmv": _by_program("-c:v", "wmv2", "-g", "12"),
    "msmpeg4.avi": _by_program("-c:v", "msmpeg4", "-g", "12"),
    # The first B-frame after the start of decoding sets the unit of time, by which later ones are dropped or kept.
    "interlaced_mpeg4.mp4": _by_program("-c:v", "mpeg4", "-flags", "+ilme+ildct", "-bf", "2", "-g", "12"),
    "h263.3gp": _by_program("-c:v", "h263", "-g", "12", width_px=128, height_px=96),
    "mpeg1.mpg": _by_program("-c:v", "mpeg1video", "-bf", "2", "-g", "12"),
    "mpeg2.vob": _by_program("-f", "vob", "-c:v", "mpeg2video", "-bf", "2", "-g", "12"),
    "mpeg2.mxf": _by_program("-c:v", "mpeg2video", "-bf", "2", "-g", "12", "-pix_fmt", "yuv422p"),
    "flv1.flv": _by_program("-c:v", "flv", "-g", "12"),
    "flash_screen.flv": _by_program("-c:v", "flashsv2", "-g", "12"),
    "alpha.webm": _by_program("-pix_fmt", "yuva420p", "-c:v", "libvpx", "-auto-alt-ref", "0", "-deadline", "realtime"),
    "prores_interlaced.mov": _by_program("-vf", "setfield=tff", "-c:v", "prores_ks", "-flags", "+ildct"),
    "mjpeg_fields.avi": write_mjpeg_fields,
    "gif.gif": _by_program("-vf", "split[a][b];[a]palettegen[p];[b][p]paletteuse", picture=coloured_picture),
    "animated.apng": _by_program("-c:v", "apng", "-pred", "mixed"),
    "realvideo.rm": _by_program("-c:v", "rv20", "-g", "12", width_px=176, height_px=144),
    "raw.y4m": _by_program("-pix_fmt", "yuv420p"),
    "elementary.mjpeg": _by_program("-c:v", "mjpeg", "-pix_fmt", "yuvj420p"),
    "elementary.obu": _by_program("-c:v", "libaom-av1", "-lag-in-frames", "19", "-cpu-used", "8", "-g", "20"),
    "recorded.wtv": _by_program("-c:v", "mpeg2video", "-bf", "2", "-g", "12"),
    "hevc.flv": _of_spec(VideoSpec(codec="libx265", b_frames=2)),
    "h264.vob": _by_program("-f", "vob", *X264),
    "h264.asf": _of_spec(VideoSpec(b_frames=3, codec_options={"x264-params": "b-pyramid=normal"})),
    "mpeg4.wmv": _by_program("-f", "asf", "-c:v", "mpeg4", "-bf", "2", "-g", "12"),
    "uneven_select.mkv": _by_program(*X264, "-vf", r"select=not(eq(mod(n\,5)\,3))", "-fps_mode", "vfr"),
    "two_rates.ts": _by_program(*X264, "-vf", r"setpts=if(lt(N\,20)\,N\,20+(N-20)*2)/25/TB", "-fps_mode", "vfr"),
    "repeated_frames.ogv": _by_program("-vf", "fps=50", "-c:v", "libtheora", "-g", "12"),
    "screen.avi": _by_program("-c:v", "zmbv", "-g", "12"),
    "cinepak.avi": _by_program("-c:v", "cinepak", "-g", "12"),
}

KINDS: dict[str, Writer] = {name: _of_spec(spec) for name, spec in PLAIN_KINDS.items()} | REPORTED_KINDS


def write_kind(name: str, folder: Path) -> Path:
    """Write the file of a kind into a folder, unless it exists there."""
    path = folder / name
    if not path.exists():
        KINDS[name](path)
    return path
