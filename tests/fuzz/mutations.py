"""Mutate valid files into hostile ones; a seed makes each mutation reproducible."""

import random
from collections.abc import Callable

_TOKENS = (
    b"",
    b",",
    b",,,,",
    b"\n",
    b"\r",
    b"\r\n",
    b"\0",
    b" ",
    b"nan",
    b"inf",
    b"-0",
    b"1e999",
    b"9" * 40,
    b"-5",
    b"0x1F",
    b"1_0",
    b"../",
    b"/etc/passwd",
    b"\\",
    b'"',
    b"{",
    b"[" * 5000,
    b"null",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    "\u0663\u2028\x85".encode(),
    b"image_location",
    b"PK\x05\x06",
)
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF)


def _flip(data: bytearray, source: random.Random) -> None:
    for _ in range(source.choice((1, 1, 2, 8, 64))):
        data[source.randrange(len(data))] ^= 1 << source.randrange(8)


def _cut(data: bytearray, source: random.Random) -> None:
    at = source.randrange(len(data))
    del data[at : at + source.choice((1, 2, 4, 64, len(data)))]


def _repeat(data: bytearray, source: random.Random) -> None:
    at = source.randrange(len(data))
    piece = data[at : at + source.choice((1, 4, 32, 512))]
    data[at:at] = piece * source.choice((1, 2, 50))


def _noise(data: bytearray, source: random.Random) -> None:
    at = source.randrange(len(data))
    length = source.choice((1, 4, 16, 256))
    data[at : at + length] = source.randbytes(length)


def _number(data: bytearray, source: random.Random) -> None:
    size = source.choice((1, 2, 4, 8))
    at = source.randrange(len(data))
    value = source.choice(_NUMBERS) & (1 << 8 * size) - 1
    data[at : at + size] = value.to_bytes(size, source.choice(("big", "little")))


def _token(data: bytearray, source: random.Random) -> None:
    at = source.randrange(len(data))
    data[at : at + source.choice((0, 0, 1, 4))] = source.choice(_TOKENS)


def _swap(data: bytearray, source: random.Random) -> None:
    a, b = sorted(source.randrange(len(data)) for _ in range(2))
    data[:] = data[b:] + data[a:b] + data[:a]


_MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip,
    _cut,
    _repeat,
    _noise,
    _number,
    _token,
    _swap,
)


def mutate(data: bytes, source: random.Random) -> bytes:
    """Apply one to four mutations of one or more bytes."""
    changed = bytearray(data)
    for _ in range(source.choice((1, 1, 1, 2, 4))):
        if not changed:
            break
        source.choice(_MUTATIONS)(changed, source)
    return bytes(changed)
