"""Inspection of MPEG-1, MPEG-2 and MPEG-4 packets: headers and pictures after start codes."""

from collections.abc import Iterator
from itertools import pairwise

from data_contracts.video.packet_inspection.inspector import START_CODE, BitReader, Inspection, Inspector, SharedHeaders

_FRAME_STRUCTURE = 3


class Mpeg2Inspector(Inspector):
    """Inspector of MPEG-1 and MPEG-2: packets of whole frames."""

    _PICTURE, _SEQUENCE, _EXTENSION = 0x00, 0xB3, 0xB5
    _PICTURE_CODING = 8

    def __init__(self, extradata: bytes) -> None:
        super().__init__()

    def inspect_data(self, data: bytes) -> Inspection:
        pictures, is_whole, has_sequence = 0, True, False
        for code, at in _codes(data):
            if code == self._PICTURE:
                pictures += 1
            elif code == self._SEQUENCE:
                has_sequence = True
            elif code == self._EXTENSION and data[at] >> 4 == self._PICTURE_CODING:
                is_whole &= data[at + 2] & 3 == _FRAME_STRUCTURE
        # A sequence header resets all state of the decoder.
        return Inspection(1 if pictures == 1 and is_whole else None, is_entry=has_sequence)


class Mpeg4Inspector(Inspector):
    """Inspector of MPEG-4 part 2: packets of one coded picture."""

    _PICTURE, _USER_DATA, _LAYERS = 0xB6, 0xB2, range(0x20, 0x30)

    def __init__(self, extradata: bytes) -> None:
        super().__init__()
        self._time_bits: int | None = None
        self._state = SharedHeaders()
        self._state.given = self._read_headers(extradata)

    def inspect_data(self, data: bytes) -> Inspection:
        headers = self._read_headers(data)
        pictures = [at for code, at in _codes(data) if code == self._PICTURE]
        shown, is_intra = 0, False
        for at in pictures:
            is_coded, is_intra = self._read_picture(data, at)
            shown += is_coded
        # Workarounds for faults of encoders depend on their names in user data.
        is_complete = self._state.add_packet(headers)
        is_simple = self._time_bits is not None and len(pictures) == shown == 1
        return Inspection(1 if is_simple else None, is_entry=is_intra and is_complete)

    def _read_headers(self, data: bytes) -> set[bytes]:
        found = set()
        starts = [*_codes(data), (-1, len(data) + 4)]
        for (code, at), (_, after) in pairwise(starts):
            if code in self._LAYERS or code == self._USER_DATA:
                found.add(data[at - 1 : after - 4])
            if code in self._LAYERS:
                self._time_bits = _time_bits_of_layer(data[at : after - 4])
        return found

    def _read_picture(self, data: bytes, at: int) -> tuple[bool, bool]:
        """Return whether a picture is coded, and whether it needs no other picture."""
        try:
            bits = BitReader(data[at : at + 16])
            kind = bits.read(2)
            while bits.read(1):
                pass
            bits.read(1 + (self._time_bits or 0) + 1)
            return bool(bits.read(1)), kind == 0
        except IndexError:
            return False, False


def _time_bits_of_layer(layer: bytes) -> int | None:
    """Return the number of bits of a time in picture headers; None for layers of other shapes than rectangles."""
    try:
        bits = BitReader(layer)
        bits.read(9)
        if bits.read(1):
            bits.read(7)
        if bits.read(4) == 15:
            bits.read(16)
        if bits.read(1):
            bits.read(3)
            if bits.read(1):
                bits.read(79)
        if bits.read(2) != 0:
            return None
        bits.read(1)
        return max(1, (bits.read(16) - 1).bit_length())
    except IndexError:
        return None


def _codes(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield each start code and the offset after it."""
    at = data.find(START_CODE)
    while 0 <= at < len(data) - 4:
        yield data[at + 3], at + 4
        at = data.find(START_CODE, at + 3)
