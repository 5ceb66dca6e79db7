"""Find and remove a head and all that was computed with it: outputs, post-processings, submissions, comparisons.

Imported features are removed in the same way.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from data_contracts.details.heads import HeadDetails, PostprocessingDetails
from data_contracts.details.submissions import SubmissionDetails
from data_contracts.errors import InputError
from data_contracts.store.bundles import find_bundle, list_bundles, read_manifest
from data_contracts.store.contents import is_comparison_of
from data_contracts.store.manifest import UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import is_imported
from tasks.results.forget import StoredFolder, measure_folder
from tasks.results.prediction_folder import read_record, read_settings

_HEADS, _POSTPROCESSING, _SUBMISSIONS, _FEATURES = "heads", "postprocessing", "submissions", "features"
_OUTPUTS = ("person_outputs", "outputs", "image_outputs")


@dataclass(frozen=True)
class HeadTraces:
    """Everything that was made with one head.

    Attributes:
        folders: in the order in which they are removed, the head last.
        predictions: folder outside of the store -> number of subjects whose predictions were made with the head.
        notes: what depends on the head, or what it depends on, and stays.
    """

    name: str
    folders: list[StoredFolder]
    predictions: dict[str, int]
    notes: tuple[str, ...] = ()


def resolve_head(store: Store, given: str) -> str:
    """Return the name of a head, which may be damaged or half removed: the given one, or the only one that starts so.

    Raises:
        InputError: no head matches, or several do.
    """
    known = {*store.list_folder(_HEADS), *_heads_with_outputs(store)}
    return _only_match(known, given, f"--head {given}: expected the name of one head in {store.url}")


def _heads_with_outputs(store: Store) -> Iterator[str]:
    folders = (name for dataset in _OUTPUTS for name in store.list_folder(dataset))
    names = (name for name in folders if name.startswith("head="))
    return (unquote(name.removeprefix("head="), errors="surrogateescape") for name in names)


def find_head_traces(store: Store, name: str, folders: Sequence[Store], *, beside: Collection[str] = ()) -> HeadTraces:
    """Find everything of a head in the store, and its predictions in ``folders`` outside.

    ``beside``: other heads that are removed, too.
    """
    paths = [f"reports/{one}" for one in store.list_folder("reports") if is_comparison_of(one, name)]
    paths += [
        f"{_SUBMISSIONS}/{one}" for one in store.list_folder(_SUBMISSIONS) if _head_of_submission(store, one) == name
    ]
    paths += [
        f"{_POSTPROCESSING}/{one}" for one in store.list_folder(_POSTPROCESSING) if _is_tuned_for(store, one, name)
    ]
    found = [measure_folder(store, path) for path in paths]
    for dataset in _OUTPUTS:
        rows = sum(manifest.rows for manifest in store.manifests(dataset, head=name).values())
        found.append(measure_folder(store, UnitKey(dataset, (("head", name),)).folder, rows))
    found.append(measure_folder(store, f"{_HEADS}/{name}"))
    predictions = {folder.root: count for folder in folders if (count := _count_predictions(folder, name))}
    notes = tuple(_notes_on_head(store, name, beside))
    return HeadTraces(name, [one for one in found if one.files], predictions, notes)


def _head_of_submission(store: Store, name: str) -> str | None:
    bundle = read_manifest(store, f"{_SUBMISSIONS}/{name}")
    return SubmissionDetails.of(bundle).head if bundle else None


def _is_tuned_for(store: Store, name: str, head: str) -> bool:
    bundle = read_manifest(store, f"{_POSTPROCESSING}/{name}")
    # Names of post-processings start with the name of their head; without a manifest, only that is known.
    return PostprocessingDetails.of(bundle).head == head if bundle else name.startswith(f"{head}-")


def _count_predictions(folder: Store, head: str) -> int:
    made = {
        settings.name
        for settings in read_settings(folder)
        if any(branch and branch.head == head for branch in (settings.expr, settings.va, settings.au))
    }
    return sum(record.settings in made for record in read_record(folder).values())


def resolve_imported(store: Store, given: str) -> str:
    """Return the variant of imported features with this name, or the only one whose name starts so.

    Raises:
        InputError: none matches, or several do.
    """
    folders = (name for name in store.list_folder(_FEATURES) if name.startswith("backbone="))
    names = (unquote(name.removeprefix("backbone="), errors="surrogateescape") for name in folders)
    known = {name for name in names if is_imported(name)}
    return _only_match(known, given, f"--features {given}: expected the name of imported features in {store.url}")


def _only_match(known: Collection[str], given: str, expected: str) -> str:
    matches = [given] if given in known else sorted(name for name in known if given and name.startswith(given))
    if len(matches) == 1:
        return matches[0]
    problem = "several match" if matches else "none matches"
    raise InputError(f"{expected}, {problem}; found: {', '.join(matches or sorted(known)) or 'none'}")


def find_imported(store: Store, name: str, *, beside: Collection[str] = ()) -> HeadTraces:
    """Find a variant of imported features. Heads that were fitted on it stay, but for those ``beside``."""
    rows = sum(manifest.rows for manifest in store.manifests(_FEATURES, backbone=name).values())
    folder = measure_folder(store, UnitKey(_FEATURES, (("backbone", name),)).folder, rows)
    return HeadTraces(name, [folder], {}, tuple(_notes_on_features(store, name, beside)))


def _notes_on_head(store: Store, name: str, beside: Collection[str]) -> Iterator[str]:
    """Yield a line for each head that depends on a head, and one for the members of a blend: they stay."""
    heads = {one.name: HeadDetails.of(one) for one in list_bundles(store, _HEADS) if one.name not in beside}
    for other, details in heads.items():
        if any(member.head == name for member in details.members):
            yield (
                f"head {other} blends this head, and predicts no more without it; blend others with fit --blend, or "
                "remove it with --head"
            )
        if details.scores_of == name:
            yield (
                f"head {other}, which was fitted on train and validation and keeps the scores and the "
                "post-processing of this head; remove it with --head"
            )
    bundle = find_bundle(store, f"{_HEADS}/{name}")
    members = [one.head for one in HeadDetails.of(bundle).members if one.head in heads] if bundle else []
    if members:
        yield f"the members of this blend, {', '.join(members)}; remove them with --head"


def _notes_on_features(store: Store, variant: str, beside: Collection[str]) -> Iterator[str]:
    """Yield a line for each head that was fitted on features, and for each blend with such a member."""
    for head in list_bundles(store, _HEADS):
        details = HeadDetails.of(head)
        members = [member.head for member in details.members if member.backbone == variant]
        what = f"blends {', '.join(members)}" if members else "was fitted"
        if (members or details.backbone == variant) and head.name not in beside:
            yield f"head {head.name}, which {what} on these features; remove it with --head"
