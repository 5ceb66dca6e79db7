"""Inspection of H.264 and HEVC packets, which consist of NAL units: each follows its length or a start code."""

from abc import abstractmethod
from collections.abc import Iterator

from data_contracts.video.packet_inspection.inspector import START_CODE, BitReader, Inspection, Inspector, SharedHeaders


class _NalInspector(Inspector):
    def __init__(self, extradata: bytes) -> None:
        super().__init__()
        self._length_bytes, self._state, self._is_simple = 0, SharedHeaders(), True
        if extradata[:1] == b"\x01":
            self._length_bytes, units = self._read_configuration(extradata)
        else:
            units = list(_units_after_start_codes(extradata))
        for unit in units:
            if self._is_parameter_set(unit):
                self._state.given.add(unit.rstrip(b"\0"))
                self._is_simple &= self._is_simple_set(unit)

    def _units(self, data: bytes) -> Iterator[bytes]:
        return _units_with_lengths(data, self._length_bytes) if self._length_bytes else _units_after_start_codes(data)

    def inspect_data(self, data: bytes) -> Inspection:
        sets: set[bytes] = set()
        later: set[bytes] = set()
        shown, is_entry, has_picture = 0, False, list[bool]()
        try:
            for unit in self._units(data):
                has_picture.append(self._has_picture(unit))
                if self._is_parameter_set(unit):
                    one = unit.rstrip(b"\0")
                    if one not in self._state.given and one not in sets:
                        self._add_set(one)
                    (later if shown else sets).add(one)
                elif self._kind(unit) == self._SEI:
                    messages = list(_messages(unit[self._HEADER_BYTES :]))
                    # A display orientation is valid until the next one.
                    orientations = (payload for kind, payload in messages if kind == _DISPLAY_ORIENTATION)
                    (later if shown else sets).update(orientations)
                    self._read_messages(messages)
                else:
                    starts, enters = self._read_unit(unit)
                    shown += starts
                    is_entry |= enters
        except IndexError:
            self._is_simple = False
        is_complete = self._state.add_packet(sets, later)
        if self._is_simple and has_picture and not any(has_picture):
            # Only headers, or a layer that decoders ignore.
            return Inspection(0, is_entry=False)
        return Inspection(1 if self._is_simple and shown == 1 else None, is_entry=is_entry and is_complete)

    def _add_set(self, unit: bytes) -> None:
        """Add a parameter set of a packet. A second, different sequence set may change the size or drop frames."""
        kind = self._kind(unit)
        if kind == self._SEQUENCE_SET and any(self._kind(one) == kind for one in self._state.given):
            self._is_simple = False
        self._is_simple &= self._is_simple_set(unit)
        if not any(self._kind(one) == kind for one in self._state.given):
            # A raw stream or a broadcast: the demuxer found its first parameter sets here.
            self._state.given.add(unit)

    _SEQUENCE_SET: int
    _SEI: int
    _HEADER_BYTES: int

    @abstractmethod
    def _read_configuration(self, extradata: bytes) -> tuple[int, list[bytes]]:
        """Return the size of length fields in bytes, and the parameter sets of an MP4 configuration record."""

    @abstractmethod
    def _kind(self, unit: bytes) -> int: ...

    @abstractmethod
    def _is_parameter_set(self, unit: bytes) -> bool: ...

    @abstractmethod
    def _is_simple_set(self, unit: bytes) -> bool:
        """Return whether pictures with this parameter set are whole frames that are shown."""

    def _read_messages(self, messages: list[tuple[int, bytes]]) -> None:
        """Read the SEI messages, type and content, before a picture."""

    @abstractmethod
    def _has_picture(self, unit: bytes) -> bool:
        """Return whether a unit may contain a part of a decoded picture; true for damaged units."""

    @abstractmethod
    def _read_unit(self, unit: bytes) -> tuple[int, bool]:
        """Return the number of pictures that start with a unit, and whether decoding can start at it."""


class H264Inspector(_NalInspector):
    """Inspector of H.264: packets of whole frames, without extra slices or partitions."""

    _SEQUENCE_SET, _PICTURE_SET, _SEI, _HEADER_BYTES = 7, 8, 6, 1
    _SLICE, _FIRST_PARTITION, _LAST_PARTITION, _IDR, _END = 1, 2, 4, 5, (10, 11)
    # Messages, headers, filler, and the units of layers (SVC, MVC) that decoders of plain H.264 ignore.
    _WITHOUT_PICTURE = frozenset((6, 7, 8, 9, 12, 13, 14, 15, 20, 21))

    def __init__(self, extradata: bytes) -> None:
        self._recovers_at_once = False
        super().__init__(extradata)

    def _read_configuration(self, extradata: bytes) -> tuple[int, list[bytes]]:
        units, at = [], 6
        for count in (extradata[5] & 31, None):
            if count is None:
                count, at = extradata[at], at + 1
            for _ in range(count):
                size = int.from_bytes(extradata[at : at + 2])
                units.append(extradata[at + 2 : at + 2 + size])
                at += 2 + size
        return (extradata[4] & 3) + 1, units

    def _kind(self, unit: bytes) -> int:
        return unit[0] & 31

    def _is_parameter_set(self, unit: bytes) -> bool:
        return bool(unit) and self._kind(unit) in (self._SEQUENCE_SET, self._PICTURE_SET)

    def _is_simple_set(self, unit: bytes) -> bool:
        if self._kind(unit) == self._PICTURE_SET:
            return True
        try:
            return _has_only_frames(BitReader(_without_emulation(unit[1:])))
        except IndexError:
            return False

    def _has_picture(self, unit: bytes) -> bool:
        return self._kind(unit) not in self._WITHOUT_PICTURE

    def inspect_data(self, data: bytes) -> Inspection:
        self._recovers_at_once = False
        return super().inspect_data(data)

    def _read_messages(self, messages: list[tuple[int, bytes]]) -> None:
        points = (BitReader(payload) for kind, payload in messages if kind == _RECOVERY_POINT)
        self._recovers_at_once |= any(bits.read_exponential() == 0 for bits in points)

    def _read_unit(self, unit: bytes) -> tuple[int, bool]:
        kind = self._kind(unit)
        if self._FIRST_PARTITION <= kind <= self._LAST_PARTITION or kind in self._END:
            self._is_simple = False
        elif kind in (self._SLICE, self._IDR):
            starts = int(unit[1] >= 128)  # first_mb_in_slice is 0
            return starts, kind == self._IDR or (self._recovers_at_once and _is_intra_slice(unit))
        return 0, False


class HevcInspector(_NalInspector):
    """Inspector of HEVC: packets of one picture of the base layer that is always shown."""

    _SEQUENCE_SET, _PICTURE_SET, _SEI, _HEADER_BYTES = 33, 34, 39, 2
    _SETS, _SLICES, _ENTRIES = range(32, 35), range(32), range(16, 22)
    # After the end of a sequence, and after a broken link, a decoder skips pictures.
    _BROKEN_LINKS, _END = range(16, 19), (36, 37)
    _WITHOUT_PICTURE = frozenset((32, 33, 34, 35, 38, 39, 40))

    def __init__(self, extradata: bytes) -> None:
        self._pictures = 0
        super().__init__(extradata)

    def _read_configuration(self, extradata: bytes) -> tuple[int, list[bytes]]:
        units, at = [], 23
        for _ in range(extradata[22]):
            count, at = int.from_bytes(extradata[at + 1 : at + 3]), at + 3
            for _ in range(count):
                size = int.from_bytes(extradata[at : at + 2])
                units.append(extradata[at + 2 : at + 2 + size])
                at += 2 + size
        return (extradata[21] & 3) + 1, units

    def _kind(self, unit: bytes) -> int:
        return unit[0] >> 1 & 63

    def _is_base_layer(self, unit: bytes) -> bool:
        return not unit[0] & 1 and not unit[1] >> 3

    def _has_picture(self, unit: bytes) -> bool:
        return len(unit) < self._HEADER_BYTES or (
            self._is_base_layer(unit) and self._kind(unit) not in self._WITHOUT_PICTURE
        )

    def _is_parameter_set(self, unit: bytes) -> bool:
        return len(unit) > 1 and self._kind(unit) in self._SETS and self._is_base_layer(unit)

    def _is_simple_set(self, unit: bytes) -> bool:
        if self._kind(unit) != self._PICTURE_SET:
            return True
        try:
            bits = BitReader(_without_emulation(unit[2:20]))
            bits.read_exponential(), bits.read_exponential()
            bits.read(1)
            return not bits.read(1)  # output_flag_present_flag
        except IndexError:
            return False

    def _read_unit(self, unit: bytes) -> tuple[int, bool]:
        kind = self._kind(unit)
        if kind in self._END or (kind in self._BROKEN_LINKS and self._pictures):
            self._is_simple = False
        if kind in self._SLICES and self._is_base_layer(unit):
            starts = int(unit[2] >= 128)  # first_slice_segment_in_pic_flag
            self._pictures += starts
            return starts, kind in self._ENTRIES
        return 0, False


def _units_with_lengths(data: bytes, length_bytes: int) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        end = at + length_bytes + int.from_bytes(data[at : at + length_bytes])
        if end > len(data):
            raise IndexError("a unit ends beyond its packet")
        if end > at + length_bytes:
            yield data[at + length_bytes : end]
        at = end


def _units_after_start_codes(data: bytes) -> Iterator[bytes]:
    at = data.find(START_CODE)
    while at >= 0:
        after = data.find(START_CODE, at + 3)
        unit = data[at + 3 : after if after >= 0 else len(data)]
        if unit:
            yield unit
        at = after


def _without_emulation(unit: bytes) -> bytes:
    """Remove the emulation prevention bytes, which prevent start codes within a unit."""
    return unit.replace(b"\x00\x00\x03", b"\x00\x00")


_RECOVERY_POINT, _DISPLAY_ORIENTATION = 6, 47
_HIGH_PROFILES = frozenset((44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244))


def _has_only_frames(bits: BitReader) -> bool:
    """Return frame_mbs_only_flag of an H.264 sequence parameter set."""
    profile = bits.read(8)
    bits.read(16)
    bits.read_exponential()
    if profile in _HIGH_PROFILES:
        chroma = bits.read_exponential()
        if chroma == 3:
            bits.read(1)
        bits.read_exponential(), bits.read_exponential()
        bits.read(1)
        if bits.read(1):
            for number in range(12 if chroma == 3 else 8):
                _skip_scaling_list(bits, 16 if number < 6 else 64)
    bits.read_exponential()
    order = bits.read_exponential()
    if order == 0:
        bits.read_exponential()
    elif order == 1:
        bits.read(1)
        bits.read_exponential(), bits.read_exponential()
        for _ in range(bits.read_exponential()):
            bits.read_exponential()
    bits.read_exponential()
    bits.read(1)
    bits.read_exponential(), bits.read_exponential()
    return bool(bits.read(1))


def _skip_scaling_list(bits: BitReader, size: int) -> None:
    if not bits.read(1):
        return
    last = following = 8
    for _ in range(size):
        if following:
            code = bits.read_exponential()
            following = (last + (code + 1) // 2 * (1 if code % 2 else -1)) % 256
        last = following or last


def _messages(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of each message in an SEI unit."""
    data, at = _without_emulation(content), 0
    while at + 2 < len(data):
        values = []
        for _ in range(2):
            value = 0
            while data[at] == 255:
                value, at = value + 255, at + 1
            values.append(value + data[at])
            at += 1
        kind, size = values
        yield kind, data[at : at + size]
        at += size


def _is_intra_slice(unit: bytes) -> bool:
    bits = BitReader(_without_emulation(unit[1:12]))
    bits.read_exponential()
    return bits.read_exponential() % 5 in (2, 4)
