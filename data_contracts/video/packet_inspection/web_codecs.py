"""Inspection of VP8, VP9 and AV1 packets, which may contain hidden frames."""

from collections.abc import Iterator

from data_contracts.video.packet_inspection.inspector import UNKNOWN, BitReader, Inspection, Inspector, SharedHeaders


class Vp8Inspector(Inspector):
    """Inspector of VP8: packets of one frame, shown or hidden."""

    def __init__(self, extradata: bytes) -> None:
        super().__init__()

    def inspect_data(self, data: bytes) -> Inspection:
        return Inspection(data[0] >> 4 & 1, is_entry=not data[0] & 1)


class Vp9Inspector(Inspector):
    """Inspector of VP9: packets of hidden frames and at most one that is shown."""

    def __init__(self, extradata: bytes) -> None:
        super().__init__()

    def inspect_data(self, data: bytes) -> Inspection:
        try:
            frames = [self._read_frame(frame) for frame in self._frames(data)]
        except IndexError:
            return UNKNOWN
        shown = sum(is_shown for is_shown, _ in frames)
        return Inspection(shown if shown <= 1 else None, is_entry=bool(frames) and frames[0][1])

    @staticmethod
    def _frames(data: bytes) -> list[bytes]:
        """Split a packet that contains hidden frames beside the one that is shown."""
        marker = data[-1]
        count, size_bytes = (marker & 7) + 1, (marker >> 3 & 3) + 1
        index_bytes = 2 + count * size_bytes
        if marker & 0xE0 != 0xC0 or len(data) < index_bytes or data[-index_bytes] != marker:
            return [data]
        sizes, frames, at = data[-index_bytes + 1 : -1], [], 0
        for number in range(count):
            size = int.from_bytes(sizes[number * size_bytes : (number + 1) * size_bytes], "little")
            if size:
                frames.append(data[at : at + size])
            at += size
        return frames

    @staticmethod
    def _read_frame(frame: bytes) -> tuple[bool, bool]:
        """Return whether a frame is shown, and whether it is a keyframe."""
        bits = BitReader(frame[:2])
        if bits.read(2) != 2:
            raise IndexError("no frame marker")
        profile = bits.read(1) | bits.read(1) << 1
        if profile == 3:
            bits.read(1)
        if bits.read(1):
            return True, False
        is_key = not bits.read(1)
        return bool(bits.read(1)), is_key


class Av1Inspector(Inspector):
    """Inspector of AV1: packets of one scalability layer, with at most one frame that is shown."""

    _SEQUENCE, _FRAME_HEADER, _FRAME = 1, 3, 6

    def __init__(self, extradata: bytes) -> None:
        super().__init__()
        self._state, self._is_still = SharedHeaders(), False
        if extradata:
            self._state.given = {unit for kind, _, unit in self._units(extradata[4:]) if kind == self._SEQUENCE}

    def inspect_data(self, data: bytes) -> Inspection:
        shown, is_key, is_simple, sequences = 0, False, True, set()
        try:
            for kind, layer, unit in self._units(data):
                is_simple &= not layer
                if kind == self._SEQUENCE:
                    sequences.add(unit)
                    self._is_still = bool(unit[0] & 8)  # reduced_still_picture_header
                elif kind in (self._FRAME_HEADER, self._FRAME):
                    is_shown, shows_key = self._read_frame(unit)
                    shown += is_shown
                    is_key |= shows_key
        except IndexError:
            return UNKNOWN
        is_complete = self._state.add_packet(sequences)
        return Inspection(shown if is_simple and shown <= 1 else None, is_entry=is_key and is_complete)

    def _read_frame(self, unit: bytes) -> tuple[bool, bool]:
        """Return whether a frame is shown, and whether it is a keyframe that is shown at once."""
        if self._is_still:
            return True, True
        bits = BitReader(unit[:1])
        if bits.read(1):
            return True, False
        kind, is_shown = bits.read(2), bool(bits.read(1))
        return is_shown, kind == 0 and is_shown

    @staticmethod
    def _units(data: bytes) -> Iterator[tuple[int, bool, bytes]]:
        """Yield for each unit its type, whether its scalability layer is above the first, and its content."""
        at = 0
        while at < len(data):
            header, at = data[at], at + 1
            layer = False
            if header & 4:
                layer, at = bool(data[at] & 0xF8), at + 1
            size, shift = len(data) - at, 0
            if header & 2:
                size = 0
                while True:
                    size |= (data[at] & 127) << shift
                    shift, at = shift + 7, at + 1
                    if data[at - 1] < 128:
                        break
            yield header >> 3 & 15, layer, data[at : at + size]
            at += size
