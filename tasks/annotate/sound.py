"""The sound of a video for its copy: packets are copied where MP4 files and browsers allow it, else encoded as AAC."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.filter import Graph
from av.packet import Packet
from av.stream import Discard

_LOGGER = logging.getLogger(__name__)
# Sound in these codecs plays in every browser, also from MP4 files.
_COPIED = ("aac", "mp3", "opus", "flac")
# Sampling rates of AAC (ISO/IEC 14496-3, table 1.18) that browsers play.
_AAC_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_STEREO, _MONO = "stereo", "mono"


class Sound:
    """Writes the sound of an opened video into an MP4 file, a piece at a time.

    Damaged packets are left out. ``problem``: one line if the sound ended early; else None.
    """

    def __init__(self, source: InputContainer, target: OutputContainer, *, start_seconds: float) -> None:
        """Add a stream to ``target`` if the source has sound. ``start_seconds``: time of the first frame of video."""
        self.problem: str | None = None
        self._start_seconds, self._target = start_seconds, target
        self._last_dts: int | None = None
        self._next: Packet[Any] | None = None
        self._packets: Iterator[Packet[Any]] = iter(())
        self._encoder: _AacEncoder | None = None
        stream = source.streams.best("audio") if source.streams.audio else None
        if not isinstance(stream, AudioStream) or stream.codec_context is None:
            return
        for other in source.streams:
            if other is not stream:
                other.discard = Discard.all
        self._packets = source.demux(stream)
        if stream.codec_context.codec.canonical_name in _COPIED and stream.codec_context.sample_rate:
            self._stream: AudioStream = target.add_stream_from_template(stream)
        else:
            self._encoder = _AacEncoder(stream, target)
            self._stream = self._encoder.stream

    def write_until(self, seconds: float) -> None:
        """Write all sound that starts before a time, in seconds since the first frame of video."""
        while (packet := self._next or self._read()) is not None:
            at = packet.pts if packet.pts is not None else packet.dts
            if at is not None and float(at * packet.time_base) - self._start_seconds > seconds:
                self._next = packet
                return
            self._next = None
            self._write(packet)
        if self._encoder is not None and seconds == float("inf"):
            self._mux(self._encoder.finish())

    def _read(self) -> Packet[Any] | None:
        try:
            return next(self._packets, None)
        except av.FFmpegError as error:
            self.problem = f"the sound ends early: {error.strerror}"
            return None

    def _write(self, packet: Packet[Any]) -> None:
        shift = round(self._start_seconds / packet.time_base)
        if self._encoder is not None:
            self._mux(self._encoder.encode(packet, shift=shift))
        elif packet.dts is not None and packet.pts is not None:
            packet.dts, packet.pts = packet.dts - shift, packet.pts - shift
            # Sound before the first frame of video has no place in the copy.
            if packet.pts + (packet.duration or 0) > 0 and (self._last_dts is None or packet.dts > self._last_dts):
                self._last_dts = packet.dts
                packet.stream = self._stream
                self._mux([packet])

    def _mux(self, packets: list[Packet[Any]]) -> None:
        for packet in packets:
            try:
                self._target.mux(packet)
            except ValueError as error:
                # FFmpeg refuses the packet, and the file goes on without it.
                _LOGGER.debug("packet of sound: %s", error)


class _AacEncoder:
    """Decodes packets of sound and encodes them as AAC. Gaps become silence, so that sound stays in step with video."""

    def __init__(self, source: AudioStream, target: OutputContainer) -> None:
        rate_hz = source.codec_context.sample_rate
        self._rate_hz = rate_hz if rate_hz in _AAC_RATES_HZ else _AAC_RATES_HZ[-1]
        self._layout = _MONO if source.codec_context.layout.nb_channels == 1 else _STEREO
        self.stream: AudioStream = target.add_stream("aac", rate=self._rate_hz, layout=self._layout)
        self._graph: Graph | None = None
        self._built_for: tuple[object, ...] | None = None

    def encode(self, packet: Packet[Any], *, shift: int) -> list[Packet[Any]]:
        """Return the encoded sound of a packet, ``shift`` ticks earlier."""
        encoded: list[Packet[Any]] = []
        try:
            for frame in cast(list[AudioFrame], packet.decode()):
                if frame.pts is not None:
                    frame.pts -= shift
                if frame.pts is None or frame.pts >= 0:
                    encoded += self._push(frame)
        except av.FFmpegError as error:
            _LOGGER.debug("packet of sound: %s", error.strerror)
        return encoded

    def _push(self, frame: AudioFrame) -> list[Packet[Any]]:
        properties = frame.format.name, frame.layout.name, frame.sample_rate
        encoded = []
        if self._built_for != properties:
            encoded += self._pull(end=True)
            self._graph, self._built_for = self._build(frame), properties
        assert self._graph
        self._graph.push(frame)
        return encoded + self._pull()

    def _pull(self, *, end: bool = False) -> list[Packet[Any]]:
        encoded: list[Packet[Any]] = []
        if self._graph is None:
            return encoded
        if end:
            self._graph.push(None)
        while True:
            try:
                encoded += self.stream.encode(cast(AudioFrame, self._graph.pull()))
            except (av.BlockingIOError, av.EOFError):
                return encoded

    def finish(self) -> list[Packet[Any]]:
        """Return the last packets."""
        encoded = self._pull(end=True)
        self._graph = None
        return encoded + self.stream.encode(None)

    def _build(self, frame: AudioFrame) -> Graph:
        graph = Graph()
        source = graph.add_abuffer(
            sample_rate=frame.sample_rate,
            format=frame.format.name,
            layout=frame.layout.name,
            time_base=frame.time_base or Fraction(1, frame.sample_rate),
        )
        # async=1 fills gaps with silence, and cuts what overlaps.
        resample = graph.add("aresample", f"{self._rate_hz}:async=1")
        wanted = graph.add("aformat", f"sample_fmts=fltp:sample_rates={self._rate_hz}:channel_layouts={self._layout}")
        graph.link_nodes(source, resample, wanted, graph.add("abuffersink")).configure()
        return graph
