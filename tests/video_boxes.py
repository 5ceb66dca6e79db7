"""Containers whose structure is edited byte by byte: what other programs write, and the muxers at hand do not."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

MATROSKA_SEGMENT, MATROSKA_CLUSTER, MATROSKA_TRACKS, MATROSKA_TRACK = 0x18538067, 0x1F43B675, 0x1654AE6B, 0xAE
_MATROSKA_PARENTS = {MATROSKA_SEGMENT, MATROSKA_CLUSTER, MATROSKA_TRACKS, MATROSKA_TRACK, 0xA0, 0xE0}
_MATROSKA_LEFT_OUT = {0x114D9B74, 0x1C53BB6B, 0xEC}  # positions of other elements: SeekHead, Cues, Void
SIMPLE_BLOCK = 0xA3


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the type and content of each box of an MP4 file or box."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at + 8 : at + size]
        at += size


def box(kind: bytes, content: bytes) -> bytes:
    """Return a box of an MP4 file."""
    return struct.pack(">I4s", len(content) + 8, kind) + content


def change_boxes(data: bytes, changes: dict[bytes, Callable[[bytes], bytes | None]]) -> bytes:
    """Change the content of boxes by type at any depth; None deletes a box. The movie box is the last one."""
    result = b""
    for kind, content in boxes(data):
        if kind in changes:
            changed = changes[kind](content)
            result += b"" if changed is None else box(kind, changed)
        elif kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts"):
            result += box(kind, change_boxes(content, changes))
        else:
            result += box(kind, content)
    return result


def find_box(data: bytes, kind: bytes) -> bytes:
    """Return the content of the first box of a type."""
    for found, content in boxes(data):
        if found == kind:
            return content
        if found in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts"):
            try:
                return find_box(content, kind)
            except LookupError:
                continue
    raise LookupError(kind)


def edit_list(*edits: tuple[int, int]) -> bytes:
    """Return the content of an edit list: (duration, start in the media) in ticks, start -1 for an empty edit."""
    return struct.pack(">II", 0, len(edits)) + b"".join(struct.pack(">IiI", *edit, 1 << 16) for edit in edits)


def add_empty_samples(source: Path, path: Path) -> Path:
    """Add a sample of zero bytes after every fifth sample of an MP4 file: a frame that the recorder dropped."""
    data = source.read_bytes()
    sizes: list[int] = []
    for number, size in enumerate(_sizes(find_box(data, b"stsz"))):
        sizes += [size, 0] if number % 5 == 4 else [size]
    count = len(sizes)
    changes: dict[bytes, Callable[[bytes], bytes | None]] = {
        b"stsz": lambda _: struct.pack(f">III{count}I", 0, 0, count, *sizes),
        b"stts": lambda content: struct.pack(">IIII", 0, 1, count, struct.unpack_from(">I", content, 12)[0]),
        b"stsc": lambda _: struct.pack(">IIIII", 0, 1, 1, count, 1),
        b"edts": lambda _: None,
    }
    path.write_bytes(change_boxes(data, changes))
    return path


def join_descriptions(first: Path, second: Path, path: Path) -> Path:
    """Join two MP4 files of one stream: one track with two sample descriptions."""
    one, two = first.read_bytes(), second.read_bytes()
    media = [find_box(data, b"mdat") for data in (one, two)]
    sizes = [_sizes(find_box(data, b"stsz")) for data in (one, two)]
    ftyp = box(b"ftyp", find_box(one, b"ftyp"))
    offsets, at = [], len(ftyp) + 8
    for size in (*sizes[0], *sizes[1]):
        offsets.append(at)
        at += size
    count = len(offsets)
    first_keyframes = _numbers(find_box(one, b"stss"))
    keyframes = [*first_keyframes, *(n + len(sizes[0]) for n in _numbers(find_box(two, b"stss")))]
    moov = change_boxes(
        box(b"moov", find_box(one, b"moov")),
        {
            b"stsd": lambda content: struct.pack(">II", 0, 2) + content[8:] + find_box(two, b"stsd")[8:],
            b"stsz": lambda _: struct.pack(f">III{count}I", 0, 0, count, *sizes[0], *sizes[1]),
            b"stts": lambda content: struct.pack(">IIII", 0, 1, count, struct.unpack_from(">I", content, 12)[0]),
            b"stss": lambda _: struct.pack(f">II{len(keyframes)}I", 0, len(keyframes), *keyframes),
            b"stsc": lambda _: struct.pack(">II6I", 0, 2, 1, 1, 1, len(sizes[0]) + 1, 1, 2),
            b"stco": lambda _: struct.pack(f">II{count}I", 0, count, *offsets),
            b"edts": lambda _: None,
            b"ctts": lambda _: None,
        },
    )
    path.write_bytes(ftyp + box(b"mdat", b"".join(media)) + moov)
    return path


def _sizes(content: bytes) -> tuple[int, ...]:
    size, count = struct.unpack_from(">II", content, 4)
    return (size,) * count if size else struct.unpack_from(f">{count}I", content, 12)


def _numbers(content: bytes) -> tuple[int, ...]:
    count = struct.unpack_from(">I", content, 4)[0]
    return struct.unpack_from(f">{count}I", content, 8)


Element = tuple[int, "bytes | list[Element]"]


def matroska_elements(data: bytes) -> list[Element]:
    """Parse a Matroska file into (ID, content or child elements)."""
    elements: list[Element] = []
    at = 0
    while at < len(data):
        length = 9 - data[at].bit_length()
        identifier = int.from_bytes(data[at : at + length])
        at += length
        length = 9 - data[at].bit_length()
        size = int.from_bytes(data[at : at + length]) & ((1 << 7 * length) - 1)
        at += length
        content = data[at : at + size]
        at += size
        elements.append((identifier, matroska_elements(content) if identifier in _MATROSKA_PARENTS else content))
    return elements


def matroska_bytes(elements: list[Element], *, unknown_sizes: bool = False) -> bytes:
    """Write Matroska elements, without cues. ``unknown_sizes``: of segment and clusters, as a live stream has."""
    result = b""
    for identifier, content in elements:
        if identifier in _MATROSKA_LEFT_OUT:
            continue
        body = content if isinstance(content, bytes) else matroska_bytes(content, unknown_sizes=unknown_sizes)
        name = identifier.to_bytes((identifier.bit_length() + 7) // 8)
        unknown = unknown_sizes and identifier in (MATROSKA_SEGMENT, MATROSKA_CLUSTER)
        result += name + (b"\x01" + b"\xff" * 7 if unknown else (1 << 56 | len(body)).to_bytes(8)) + body
    return result


def change_elements(elements: list[Element], changes: dict[int, Callable[[Element], list[Element]]]) -> list[Element]:
    """Replace elements by ID at any depth."""
    result: list[Element] = []
    for identifier, content in elements:
        element = (identifier, content if isinstance(content, bytes) else change_elements(content, changes))
        result += changes[identifier](element) if identifier in changes else [element]
    return result


def change_matroska(
    source: Path,
    path: Path,
    changes: dict[int, Callable[[Element], list[Element]]] | None = None,
    *,
    unknown_sizes: bool = False,
) -> Path:
    """Copy a Matroska file with changed elements, without cues."""
    elements = change_elements(matroska_elements(source.read_bytes()), changes or {})
    path.write_bytes(matroska_bytes(elements, unknown_sizes=unknown_sizes))
    return path


def flag_keyframes(source: Path, path: Path, *, all_frames: bool) -> Path:
    """Flag all frames of a Matroska file as keyframes, or none."""

    def block(element: Element) -> list[Element]:
        assert isinstance(element[1], bytes)
        flags = element[1][3] | 0x80 if all_frames else element[1][3] & 0x7F
        return [(element[0], element[1][:3] + bytes([flags]) + element[1][4:])]

    return change_matroska(source, path, {SIMPLE_BLOCK: block})


def strip_headers(source: Path, path: Path) -> Path:
    """Move the first bytes that all frames share from the blocks to the track (header removal compression)."""
    prefix = b""
    blocks = [content for kind, content in _all(matroska_elements(source.read_bytes())) if kind == SIMPLE_BLOCK]
    for size in range(1, 5):
        if len({block[4 : 4 + size] for block in blocks}) == 1:
            prefix = blocks[0][4 : 4 + size]
    compression: list[Element] = [(0x4254, b"\x03"), (0x4255, prefix)]
    encodings: Element = (0x6D80, [(0x6240, [(0x5034, compression)])])

    def track(element: Element) -> list[Element]:
        assert isinstance(element[1], list)
        return [(element[0], [*element[1], encodings])]

    def block(element: Element) -> list[Element]:
        assert isinstance(element[1], bytes)
        return [(element[0], element[1][:4] + element[1][4 + len(prefix) :])]

    assert prefix
    return change_matroska(source, path, {MATROSKA_TRACK: track, SIMPLE_BLOCK: block})


def lace_blocks(source: Path, path: Path, *, frames: int = 4) -> Path:
    """Put several frames into each block (Xiph lacing), as some recorders of MJPEG do."""
    elements = matroska_elements(source.read_bytes())

    def cluster(element: Element) -> list[Element]:
        assert isinstance(element[1], list)
        blocks = [content for kind, content in element[1] if kind == SIMPLE_BLOCK]
        others = [child for child in element[1] if child[0] != SIMPLE_BLOCK]
        laced: list[Element] = []
        for at in range(0, len(blocks), frames):
            group = [block for block in blocks[at : at + frames] if isinstance(block, bytes)]
            sizes = b"".join(b"\xff" * ((len(b) - 4) // 255) + bytes([(len(b) - 4) % 255]) for b in group[:-1])
            head = group[0][:3] + bytes([group[0][3] | 0x02, len(group) - 1])
            laced.append((SIMPLE_BLOCK, head + sizes + b"".join(b[4:] for b in group)))
        return [(element[0], [*others, *laced])]

    path.write_bytes(matroska_bytes(change_elements(elements, {MATROSKA_CLUSTER: cluster})))
    return path


def split_superframes(source: Path, path: Path) -> Path:
    """Put the frames of each VP9 superframe into blocks of their own, as old muxers did."""

    def block(element: Element) -> list[Element]:
        assert isinstance(element[1], bytes)
        head, data = element[1][:4], element[1][4:]
        count, size = (data[-1] & 7) + 1, (data[-1] >> 3 & 3) + 1
        at = len(data) - 2 - count * size
        if data[-1] & 0xE0 != 0xC0 or data[at] != data[-1]:
            return [element]
        ends = np.cumsum([int.from_bytes(data[p : p + size], "little") for p in range(at + 1, len(data) - 1, size)])
        return [(element[0], head + part) for part in (data[s:e] for s, e in zip([0, *ends], ends, strict=False))]

    return change_matroska(source, path, {SIMPLE_BLOCK: block})


def _all(elements: list[Element]) -> Iterator[Element]:
    for element in elements:
        yield element
        if isinstance(element[1], list):
            yield from _all(element[1])


def join_flv(first: Path, second: Path, path: Path, *, shift_milliseconds: int) -> Path:
    """Append the tags of an FLV file, later by a shift, with its own sequence header."""
    data = second.read_bytes()
    result, at = first.read_bytes(), 13
    while at + 11 <= len(data):
        kind, size = data[at], int.from_bytes(data[at + 1 : at + 4])
        time = int.from_bytes(data[at + 4 : at + 7]) + (data[at + 7] << 24) + shift_milliseconds
        tag = data[at : at + 4] + (time & 0xFFFFFF).to_bytes(3) + bytes([time >> 24]) + data[at + 8 : at + 15 + size]
        if kind == 9:
            result += tag
        at += 15 + size
    path.write_bytes(result)
    return path


def change_avi_chunks(data: bytes, change: Callable[[int, bytes, bytes], list[tuple[bytes, bytes]]]) -> bytes:
    """Rewrite the video chunks of an AVI file without its index: (number, type, content) -> chunks."""
    at = data.index(b"movi") + 4
    end = at - 4 + int.from_bytes(data[at - 8 : at - 4], "little")
    chunks, number = b"", 0
    while at + 8 <= end:
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        content = data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
        for new_kind, new_content in change(number, kind, content):
            chunks += new_kind + len(new_content).to_bytes(4, "little") + new_content + b"\0" * (len(new_content) % 2)
        number += 1
    head = data[: data.index(b"movi") - 4]
    head += (len(chunks) + 4).to_bytes(4, "little") + b"movi"
    result = bytearray(head + chunks)
    result[4:8] = (len(result) - 8).to_bytes(4, "little")
    return bytes(result)


def flag_avi_keyframes(source: Path, path: Path) -> Path:
    """Flag all frames as keyframes in the index of an AVI file."""
    data = bytearray(source.read_bytes())
    for at in range(data.index(b"idx1") + 8, len(data) - 15, 16):
        data[at + 4] |= 0x10
    path.write_bytes(data)
    return path


def palette_chunk(number: int) -> tuple[bytes, bytes]:
    """Return a chunk that changes all colours of an AVI file from the next frame on."""
    colours = ((index * 7 + number * 40) % 256 for index in range(256))
    entries = b"".join(bytes([colour, colour // 2, index, 0]) for index, colour in enumerate(colours))
    return b"00pc", b"\0\0\0\0" + entries
