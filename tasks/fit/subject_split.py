"""Which subjects of the official sets have features, and which validation subjects are in the training set too."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from data_contracts.challenge.names import describe_respelled, match_names, subject_of_file
from data_contracts.details.datasets import LabelsDetails
from data_contracts.details.heads import ZERO_SHOT, HeadDetails
from data_contracts.errors import InputError, counted, first_names
from data_contracts.store.bundles import Bundle
from data_contracts.store.manifest import Manifest, StoredUnit
from data_contracts.store.store import Store
from data_contracts.vocabulary import SetName, TaskName, normalize_name, video_of_subject
from tasks.fit.subject_features import FeaturesVariant

_NAMES_SHOWN = 20
# Official labels differ from their videos by a few frames.
_OTHER_LENGTH = 0.1


@dataclass(frozen=True)
class SubjectSplit:
    """The subjects of the training and the validation set.

    Attributes:
        names: set -> name in the labels -> subject with features. Labelled subjects without features are missing.
        subjects: set -> all subjects of the labels, spelled as in the features where they have some.
        excluded: names in the labels of validation subjects whose video is in the training set too. Their rows are not
            validation.
    """

    names: dict[SetName, dict[str, str]] = field(default_factory=dict)
    subjects: dict[SetName, tuple[str, ...]] = field(default_factory=dict)
    excluded: tuple[str, ...] = ()

    def validation(self) -> dict[str, str]:
        """Return the names of the validation subjects that scores may depend on, as in ``names``."""
        return {name: subject for name, subject in self.names["validation"].items() if name not in self.excluded}

    def describe_respelled(self) -> dict[SetName, str]:
        """Return a line for each set with names that are spelled differently in labels and features."""
        lines = {set_name: describe_respelled(names) for set_name, names in self.names.items()}
        return {set_name: line for set_name, line in lines.items() if line}


def split_subjects(labels: Mapping[SetName, Manifest], *, task: TaskName, known: Collection[str]) -> SubjectSplit:
    """Match the subjects of the labels with those that have features (``known``), and find videos in both sets.

    Raises:
        InputError: no validation subject is left.
    """
    listed = {set_name: LabelsDetails.of(manifest).subjects for set_name, manifest in labels.items()}
    names = {set_name: match_names(subjects, known) for set_name, subjects in listed.items()}
    spelled = {s: {n: names[s].get(n, subject_of_file(normalize_name(n))) for n in listed[s]} for s in listed}
    shared = seen_subjects(spelled["validation"].values(), spelled["train"].values())
    excluded = tuple(name for name in listed["validation"] if spelled["validation"][name] in shared)
    if excluded and len(excluded) == len(listed["validation"]):
        raise InputError(
            f"annotations of {task}: all {len(excluded)} subjects of the validation set, or their videos, are in the "
            f"training set too ({', '.join(excluded[:3])}); remove them from one of the two sets"
        )
    subjects = {set_name: tuple(spelled[set_name].values()) for set_name in listed}
    return SubjectSplit(names, subjects, excluded)


def seen_subjects(subjects: Iterable[str], others: Iterable[str]) -> list[str]:
    """Return the subjects whose video is that of one of the others, as ``a_left`` and ``a_right`` are in ``a``."""
    videos = {normalize_name(video_of_subject(other)) for other in others}
    return sorted(subject for subject in set(subjects) if normalize_name(video_of_subject(subject)) in videos)


def describe_other_lengths(store: Store, labels: StoredUnit, names: Mapping[str, str], variant: FeaturesVariant) -> str:
    """Return what to say about subjects whose labels end far from the end of their video; empty without any.

    Labels belong to frames by number, so they are wrong for a copy of the video with another frame rate.

    Args:
        labels: unit of a set.
        names: name in the labels -> subject with features.
    """
    table = store.read_unit(*labels, columns=["subject", "frame"]).group_by("subject").aggregate([("frame", "max")])
    found = {}
    for name, last_label in zip(table["subject"].to_pylist(), table["frame_max"].to_pylist(), strict=True):
        if (subject := names.get(name)) and variant.frames_known_from(subject) == "video":
            frames = variant.last_frame(subject)
            if abs(last_label - frames) > _OTHER_LENGTH * max(last_label, frames):
                found[subject] = f"{subject}: {last_label:,} of {frames:,} frames"
    if not found:
        return ""
    return (
        f"the labels of {counted(len(found), 'subject')} end far from the end of the video "
        f"({first_names(list(found.values()))}); check that the videos are those that were annotated"
    )


def subjects_of_head(store: Store, head: Bundle) -> dict[SetName, tuple[str, ...]]:
    """Return the subjects of the sets that a head was fitted with.

    Heads of earlier versions do not name them; the labels that the store has for their task do.
    """
    details = HeadDetails.of(head)
    if details.train_subjects or details.validation_subjects:
        return {"train": details.train_subjects, "validation": details.validation_subjects}
    labels = store.manifests("labels", task=details.task) if details.recipe != ZERO_SHOT else {}
    found = {key.value("set"): LabelsDetails.of(manifest).subjects for key, manifest in labels.items()}
    return {"train": found.get("train", ()), "validation": found.get("validation", ())}


def describe_seen(subjects: Sequence[str], *, place: str, others: str) -> str:
    """Return a warning that names the subjects of one set or list (``place``) that are in another set too."""
    are = "subject, or its video, is" if len(subjects) == 1 else "subjects, or their videos, are"
    return f"warning: {place}: {len(subjects)} {are} also in {others}: {first_names(subjects, _NAMES_SHOWN)}"
