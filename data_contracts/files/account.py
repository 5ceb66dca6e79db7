"""Account of a folder of inputs: how many files a reader found and used, and what it skipped and why.

Its size is bounded: numbers, and a few examples per reason. Crops can be millions of files.
"""

import os
from dataclasses import dataclass, field

from data_contracts.files.locations import Location, is_remote

HIDDEN = "hidden files and files of operating systems"
EXAMPLES = 3
# A reader counts, but does not remember, further files that matter. ``rescore`` recognises new ones by their paths.
_MOST_REMEMBERED = 10_000
_MOST_NOTES = 20
_SYSTEM_FILES = frozenset(
    {
        "__macosx",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        # NAS
        "@eadir",
        "#recycle",
        "#snapshot",
        "@recycle",
        "@__thumb",
        "@recently-snapshot",
        "@tmp",
        "network trash folder",
        "temporary items",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "lost+found",
        "lost.dir",
        "icon\r",
    }
)


def is_harmless(name: str) -> bool:
    """Return whether a file or folder of this name is hidden, or written by an operating system or a NAS."""
    return name.startswith((".", "~$")) or name.casefold() in _SYSTEM_FILES


@dataclass
class Skipped:
    """Files that were skipped for one reason. ``is_harmless``: no input is lost."""

    count: int = 0
    is_harmless: bool = True
    examples: list[str] = field(default_factory=list)


class InputAccount:
    """Counts what a reader of inputs found, used and skipped.

    Attributes:
        kind: what the reader looks for, in the plural (``videos``).
        places: where it looked.
        used: number of inputs that it used.
        skipped: reason -> files.
        lost: number of skipped files that are not harmless.
        notes: lines about inputs that were used although something about them is unusual.
        paths: paths of the first skipped files that are not harmless.
    """

    def __init__(self, kind: str, *places: Location) -> None:
        self.kind = kind
        self.places = tuple(str(place) if is_remote(place) else os.path.abspath(str(place)) for place in places)
        self._roots = [f"{root}/" for root in dict.fromkeys([*map(str, places), *self.places])]
        self.used = 0
        self.skipped: dict[str, Skipped] = {}
        self.lost = 0
        self.notes: list[str] = []
        self.paths: list[str] = []

    def use(self, count: int = 1) -> None:
        """Count inputs that are used."""
        self.used += count

    def skip(self, path: Location | str, reason: str | None = None, *, harmless: bool = False) -> None:
        """Count a file or folder that is not used.

        Args:
            path: the file.
            reason: why, in words that fit several files, because files are counted per reason. May be left out for a
                file whose name ``is_harmless``.
            harmless: no input is lost. A file whose name ``is_harmless`` always is.
        """
        text = str(path)
        if is_harmless(text.replace(os.sep, "/").rsplit("/", 1)[-1]):
            reason, harmless = HIDDEN, True
        one = self.skipped.setdefault(reason or HIDDEN, Skipped())
        one.count += 1
        one.is_harmless &= harmless
        if len(one.examples) < EXAMPLES:
            one.examples.append(self._relative(text))
        if not harmless:
            self.lost += 1
            if len(self.paths) < _MOST_REMEMBERED:
                self.paths.append(text)

    def drop(self, path: Location | str, reason: str) -> None:
        """Move an input from used to skipped, because the user asked for it; no input is lost."""
        self.used -= 1
        self.skip(path, reason, harmless=True)

    def note(self, line: str) -> None:
        """Add a line about an input that is used."""
        if len(self.notes) < _MOST_NOTES:
            self.notes.append(line)
        elif len(self.notes) == _MOST_NOTES:
            self.notes.append("... and more")

    def note_spelling(self, name: str, stored: str) -> None:
        """Add a line if a name is stored with another spelling (``normalize_name``)."""
        if name != stored:
            form = "its Unicode form NFC" if name.isprintable() else "its bytes are not UTF-8 and were read as Latin-1"
            self.note(f"{name!a} is stored and compared as {stored} ({form})")

    @property
    def found(self) -> int:
        """Number of files, used or skipped."""
        return self.used + sum(one.count for one in self.skipped.values())

    def describe_first(self) -> str:
        """Return the first reason for a skipped file in words, with examples; empty if no file was skipped."""
        if not self.skipped:
            return ""
        reason, first = min(self.skipped.items(), key=lambda item: item[1].is_harmless)
        return f"; skipped {first.count} {reason}: {', '.join(first.examples)}"

    def _relative(self, path: str) -> str:
        root = next((root for root in self._roots if path.startswith(root)), "")
        return path.removeprefix(root)
