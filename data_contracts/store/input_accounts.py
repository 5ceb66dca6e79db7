"""Accounts of inputs in a store: what the last run on each folder found, used and skipped.

An account is a bundle without files; its manifest holds the counts.
"""

import re
from dataclasses import dataclass
from typing import Self

from data_contracts.details.records import Details, LeftOut, Record
from data_contracts.files.account import InputAccount
from data_contracts.store.bundles import Bundle, read_manifest, write_manifest
from data_contracts.store.fingerprint import fingerprint, variant_name
from data_contracts.store.store import Store

INPUTS = "inputs"


@dataclass(frozen=True, kw_only=True)
class SkippedInputs(Record):
    """Files that a reader skipped for one reason. ``is_harmless``: no input is lost."""

    reason: str
    count: int
    is_harmless: bool = False
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class InputsDetails(Details):
    """``inputs``: what a reader of inputs found, used and skipped, as in ``InputAccount``."""

    kind: str
    places: tuple[str, ...]
    found: int
    used: int
    skipped: tuple[SkippedInputs, ...] = ()
    notes: LeftOut[tuple[str, ...]] = ()

    @classmethod
    def of_account(cls, account: InputAccount) -> Self:
        """Return the counts of an account. Files that may be missing in the results come first."""
        skipped = [
            SkippedInputs(reason=reason, count=one.count, is_harmless=one.is_harmless, examples=tuple(one.examples))
            for reason, one in account.skipped.items()
        ]
        return cls(
            kind=account.kind,
            places=account.places,
            found=account.found,
            used=account.used,
            skipped=tuple(sorted(skipped, key=lambda one: (one.is_harmless, -one.count, one.reason))),
            notes=tuple(account.notes),
        )

    @property
    def lost(self) -> tuple[SkippedInputs, ...]:
        """The skipped files that are not harmless."""
        return tuple(one for one in self.skipped if not one.is_harmless)

    @property
    def place(self) -> str:
        """The first place, and the number of others."""
        more = f" and {len(self.places) - 1} more" if len(self.places) > 1 else ""
        return f"{self.places[0] if self.places else ''}{more}"

    def format_counts(self) -> str:
        """Return the counts in one line."""
        skipped = self.found - self.used
        return f"{self.kind} in {self.place}: {self.found:,} found, {self.used:,} used, {skipped:,} skipped"

    def format_lost(self) -> list[str]:
        """Return one line per reason for skipped files that are not harmless."""
        return [self._format_reason(one) for one in self.lost]

    def format_lines(self) -> list[str]:
        """Return the counts, one line per reason, and the notes."""
        notes = [f"note: {self.kind}: {line}" for line in self.notes]
        return [self.format_counts(), *map(self._format_reason, self.skipped), *notes]

    def _format_reason(self, one: SkippedInputs) -> str:
        more = ", ..." if one.count > len(one.examples) else ""
        what = "ignored" if one.is_harmless else "skipped"
        return f"{self.kind}: {one.count:,} {what}, {one.reason}: {', '.join(one.examples)}{more}"


def write_account(store: Store, account: InputAccount) -> InputsDetails:
    """Write the account of some inputs, in place of the one of an earlier run, and return its details."""
    details = InputsDetails.of_account(account)
    bundle = Bundle(_folder_of(account), fingerprint(inputs=details), details=details.to_json())
    known = read_manifest(store, bundle.folder)
    if known is None or known.fingerprint != bundle.fingerprint:
        write_manifest(store, bundle)
    return details


def count_used_before(store: Store, account: InputAccount) -> int:
    """Return how many inputs the last run on the same folders used."""
    known = read_manifest(store, _folder_of(account))
    return InputsDetails.of(known).used if known else 0


def _folder_of(account: InputAccount) -> str:
    kind = re.sub("[^a-z0-9]+", "-", account.kind.lower())
    return f"{INPUTS}/{variant_name(kind, fingerprint(kind=account.kind, places=sorted(account.places)))}"
