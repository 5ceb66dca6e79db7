"""Base class of packet inspectors: how many frames does a packet show, and can decoding start at it?

A packet may contain one field, a hidden frame, two frames, or none. ``registry`` selects the inspector of a codec.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, NamedTuple

from av.packet import Packet

START_CODE = b"\x00\x00\x01"


class Inspection(NamedTuple):
    """What is known about a packet.

    ``shown``: number of frames that the decoder returns for it, 0 or 1; None: unknown, or more. ``is_entry``: decoding
    can start here, and every frame from here on has the same pixels as after decoding from the beginning.
    """

    shown: int | None
    is_entry: bool


UNKNOWN = Inspection(None, is_entry=False)


class Inspector(ABC):
    """An inspector of the packets of one stream, in decoding order."""

    def __init__(self) -> None:
        self._has_received_state = False

    def inspect(self, packet: Packet[Any]) -> Inspection:
        """Inspect the next packet that is not empty."""
        # A demuxer sends palettes and changed headers once; after a seek they are missing.
        self._has_received_state |= _has_state(packet)
        try:
            found = self.inspect_data(bytes(packet))
        except IndexError:
            # The packet ends within a header.
            found = UNKNOWN
        if not self._has_received_state:
            return found
        return Inspection(found.shown, is_entry=False)

    @abstractmethod
    def inspect_data(self, data: bytes) -> Inspection:
        """Inspect the content of the next packet; an ``IndexError`` means that it ends within a header."""


def _has_state(packet: Packet[Any]) -> bool:
    has = packet.has_sidedata
    return has("palette") or has("new_extradata") or has("param_change")


class BitReader:
    """A reader of bits, highest bit first. Reading beyond the end raises ``IndexError``."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data), 8 * len(data)

    def read(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise IndexError("end of data")
        return self._value >> self._left & ((1 << count) - 1)

    def read_exponential(self) -> int:
        """Read an Exp-Golomb number, ue(v) in H.264 and HEVC."""
        zeros = 0
        while not self.read(1):
            zeros += 1
        return (1 << zeros) - 1 + self.read(zeros)


class SharedHeaders:
    """Headers that a decoder keeps for later packets, and that must be known wherever decoding starts.

    ``given`` contains the headers outside the packets (extradata). Decoders receive them at every start.
    """

    def __init__(self) -> None:
        self.given: set[bytes] = set()
        self._seen: set[bytes] = set()

    def add_packet(self, of_packet: set[bytes], later: Iterable[bytes] = ()) -> bool:
        """Add the headers of a packet; return whether it and the extradata contain all headers so far.

        ``later``: headers of the packet for the packets after it.
        """
        self._seen |= of_packet
        has_all = self._seen <= (self.given | of_packet)
        self._seen.update(later)
        return has_all
