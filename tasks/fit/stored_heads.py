"""Heads and post-processings of a store: read them, and check that they are those that a run expects."""

import functools
import json
from collections.abc import Sequence

from data_contracts.details.heads import HeadDetails
from data_contracts.errors import InputError
from data_contracts.store.bundles import Bundle, find_bundle, read_file
from data_contracts.store.store import Store
from data_contracts.vocabulary import BRANCHES_OF_TASK, BranchName
from models.decisions.blending import AnyHead, BlendedHead
from models.decisions.postprocessing import PostProcessing, untuned_postprocessing
from models.heads.head import Head, head_class, head_from_bytes
from tasks.fit.head_selection import ServingHead

RULE_FILE = "postprocessing.json"


def load_head(store: Store, bundle: Bundle) -> AnyHead:
    """Read the head of a bundle.

    Raises:
        InputError: a member of a blend is gone, or was fitted again.
    """
    if HeadDetails.of(bundle).members:
        heads = [_load_fitted(store, member) for member in members_of(store, bundle)]
        return BlendedHead(heads, weights_for(HeadDetails.of(bundle)))
    return _load_fitted(store, bundle)


def _load_fitted(store: Store, bundle: Bundle) -> Head:
    return head_from_bytes({name: read_file(store, bundle, name) for name in ("head.safetensors", "head.json")})


def members_of(store: Store, blend: Bundle) -> list[Bundle]:
    """Return the members of a blend; nothing of another head.

    Raises:
        InputError: one is gone, or was fitted again in another way.
    """
    found = []
    for member in HeadDetails.of(blend).members:
        bundle = find_bundle(store, f"heads/{member.head}")
        if bundle is None or bundle.fingerprint != member.fingerprint:
            got = "one that was fitted again" if bundle else "none"
            raise InputError(
                f"head {blend.name}: expected its member {member.head} as it was blended, found {got}; blend the heads "
                "again with fit --blend, or remove this one with forget --head"
            )
        found.append(bundle)
    return found


def weights_for(details: HeadDetails, subject: str | None = None) -> dict[BranchName, list[float]]:
    """Return the weights of a blend; for a validation subject, those that were chosen without its video."""
    for fold in details.weights_of_folds:
        if subject in fold.subjects:
            return {branch: fold.weights[branch] for branch in BRANCHES_OF_TASK[details.task]}
    return {branch: [one.weights[branch] for one in details.members] for branch in BRANCHES_OF_TASK[details.task]}


def open_head(store: Store, bundle: Bundle) -> AnyHead:
    """Read a head before any work.

    Raises:
        InputError: its kind is unknown, its files are not those of a head, or see ``members_of``.
    """
    for one in members_of(store, bundle) or [bundle]:
        _check_kind(one)
    try:
        return load_head(store, bundle)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"head {bundle.name}: {error}; run fit again") from error


def _check_kind(bundle: Bundle) -> None:
    try:
        head_class(HeadDetails.of(bundle).kind)
    except ValueError as error:
        raise InputError(f"head {bundle.name}: {error}; predict with the version of affwild2 that fitted it") from error


def needs_sequences(heads: Sequence[Bundle]) -> bool:
    """Return whether the outputs of one of the heads depend on other frames or on time."""
    return any(head_class(HeadDetails.of(head).kind).works_on == "sequences" for head in heads)


def check_head_fits(head: Bundle, backbone: str) -> None:
    """Check that a head was fitted on features of this variant.

    Raises:
        InputError: they are those of another backbone, or the kind of the head is unknown.
    """
    fitted_on = HeadDetails.of(head).backbone
    if fitted_on != backbone:
        raise InputError(
            f"head {head.name}: fitted on features of {fitted_on}, got those of {backbone}; "
            "extract with the head's backbone and weights"
        )
    if not HeadDetails.of(head).members:
        _check_kind(head)


@functools.lru_cache(maxsize=8)
def cached_head(store_url: str, folder: str, head_fingerprint: str) -> tuple[AnyHead, HeadDetails]:
    """Return a head of the store and its facts; the process keeps the last eight.

    Raises:
        InputError: the head is gone, or is another one.
    """
    store = Store(store_url)
    bundle = find_bundle(store, folder)
    if bundle is None or bundle.fingerprint != head_fingerprint:
        found = "another one" if bundle else "none"
        raise InputError(f"{folder}: expected the head that the run began with, got {found}; run again")
    return load_head(store, bundle), HeadDetails.of(bundle)


def load_postprocessing(store: Store, bundle: Bundle) -> PostProcessing:
    """Read a post-processing.

    Raises:
        InputError: its file is damaged.
    """
    try:
        return PostProcessing.from_dict(json.loads(read_file(store, bundle, RULE_FILE))["postprocessing"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{bundle.folder}: expected a post-processing, got: {error}; run fit again") from error


def rule_of(store: Store, serving: ServingHead) -> PostProcessing:
    """Return the post-processing of a head; without one, thresholds of 0.5 and no smoothing."""
    tuned = serving.postprocessing
    return load_postprocessing(store, tuned) if tuned else untuned_postprocessing(HeadDetails.of(serving.head).task)
