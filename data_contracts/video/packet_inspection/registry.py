"""The inspector of each codec whose packets determine how many frames they show."""

from collections.abc import Callable

from data_contracts.video.packet_inspection.inspector import Inspection, Inspector
from data_contracts.video.packet_inspection.mpeg import Mpeg2Inspector, Mpeg4Inspector
from data_contracts.video.packet_inspection.nal_units import H264Inspector, HevcInspector
from data_contracts.video.packet_inspection.web_codecs import Av1Inspector, Vp8Inspector, Vp9Inspector

# Codecs that compress every frame on its own, or (FFV1) restart completely at a keyframe.
_INDEPENDENT = frozenset(
    "dnxhd dvvideo ffv1 ffvhuff huffyuv jpeg2000 jpegls magicyuv png prores rawvideo utvideo v210 v308 v408".split()  # noqa: SIM905
)
_PALETTE_FORMAT = "pal8"


def inspector_for(codec: str, extradata: bytes | None, pixel_format: str | None) -> Inspector | None:
    """Return an inspector for a stream, or None if packets of this codec do not determine how many frames they show."""
    if codec in _INDEPENDENT:
        return None if pixel_format == _PALETTE_FORMAT else _IndependentInspector()
    found = _INSPECTORS.get(codec)
    try:
        return found(extradata or b"") if found else None
    except IndexError:
        return None


class _IndependentInspector(Inspector):
    def inspect_data(self, data: bytes) -> Inspection:
        return Inspection(1, is_entry=True)


class _MjpegInspector(Inspector):
    _SCAN, _QUANTISATION, _HUFFMAN, _EXIF = 0xDA, 0xDB, 0xC4, 0xE1
    # Tag and type (16 bits), in both byte orders.
    _ORIENTATIONS = b"\x12\x01\x03\x00", b"\x01\x12\x00\x03"

    def __init__(self, extradata: bytes) -> None:
        super().__init__()
        self._has_huffman = self._is_oriented = False

    def inspect_data(self, data: bytes) -> Inspection:
        markers, at, has_orientation = set(), 2, False
        while data[at : at + 1] == b"\xff" and at + 4 <= len(data):
            marker = data[at + 1]
            markers.add(marker)
            if marker == self._SCAN:
                break
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
            has_orientation |= marker == self._EXIF and any(tag in data[at:end] for tag in self._ORIENTATIONS)
            at = end
        is_whole = data[:2] == b"\xff\xd8" and self._SCAN in markers and data.find(b"\xff\xd8\xff", at) < 0
        # A picture without tables uses the tables of the last picture with tables.
        has_tables = self._QUANTISATION in markers and (self._HUFFMAN in markers or not self._has_huffman)
        self._has_huffman |= self._HUFFMAN in markers
        # An orientation in EXIF data is valid until the next one.
        self._is_oriented |= has_orientation
        is_entry = has_tables and (has_orientation or not self._is_oriented)
        return Inspection(1 if is_whole else None, is_entry=is_entry)


_INSPECTORS: dict[str, Callable[[bytes], Inspector]] = {
    "h264": H264Inspector,
    "hevc": HevcInspector,
    "mpeg1video": Mpeg2Inspector,
    "mpeg2video": Mpeg2Inspector,
    "mpeg4": Mpeg4Inspector,
    "vp8": Vp8Inspector,
    "vp9": Vp9Inspector,
    "av1": Av1Inspector,
    "mjpeg": _MjpegInspector,
}
