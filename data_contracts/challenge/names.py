"""Names of subjects, which lists, annotations and files may spell differently."""

import re
from collections.abc import Callable, Iterable

from data_contracts.errors import first_names
from data_contracts.vocabulary import VIDEO_SUFFIXES, normalize_name

# Without suffixes of digits (.264), which names of subjects may end with.
_FILE_SUFFIXES = {suffix for suffix in VIDEO_SUFFIXES if not suffix[1:].isdigit()} | {".txt"}
_SEPARATOR = re.compile(r"[/\\]")


def subject_of_file(text: str) -> str:
    """Return the subject that a file name refers to: without folders and the suffix of a video or text file."""
    name = _SEPARATOR.split(text.strip())[-1].strip()
    stem, _, suffix = name.rpartition(".")
    return stem.rstrip() if stem and f".{suffix.lower()}" in _FILE_SUFFIXES else name


# From the strictest to the most tolerant comparison.
_FORMS: tuple[Callable[[str], str], ...] = (
    str,
    normalize_name,
    lambda name: subject_of_file(normalize_name(name)),
    lambda name: subject_of_file(normalize_name(name)).casefold(),
)


def match_names(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Return the known name that each name refers to; names with no match or several are missing.

    Equal names match first. The rest is compared in the Unicode form NFC, then without folders and suffixes of videos,
    then without regard to case. A known name matches one name at most.
    """
    matches: dict[str, str] = {}
    rest, candidates = set(names), set(known)
    for form in _FORMS:
        wanted, offered = _by_form(rest, form), _by_form(candidates, form)
        alone = (key for key in wanted if len(wanted[key]) == len(offered.get(key, ())) == 1)
        found = {wanted[key][0]: offered[key][0] for key in alone}
        matches |= found
        rest -= found.keys()
        candidates -= set(found.values())
    return matches


def _by_form(names: Iterable[str], form: Callable[[str], str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(form(name), []).append(name)
    return found


def similar_names(name: str, known: Iterable[str]) -> list[str]:
    """Return the known names that a name without a unique match could refer to."""
    loosest = _FORMS[-1]
    return sorted(one for one in known if loosest(one) == loosest(name))


def describe_respelled(matches: dict[str, str]) -> str:
    """Return the names that match a known name with another spelling, in words; empty without any."""
    others = sorted((name, known) for name, known in matches.items() if name != known)
    if not others:
        return ""
    examples = [
        f"{name} (another Unicode form)" if normalize_name(name) == normalize_name(known) else f"{name} as {known}"
        for name, known in others
    ]
    return f"{len(others)} names are spelled differently than the subjects in the store: {first_names(examples)}"
