"""Gather labelled rows or sequences for fitting, in memory-mapped files so that memory stays bounded."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.lib.format import open_memmap

from data_contracts.details.heads import LabelCoverage
from data_contracts.errors import InputError
from data_contracts.store.store import Store
from data_contracts.vocabulary import BRANCHES, BRANCHES_OF_TASK, BranchName, SetName, TaskName
from models.engines.progress import report_progress
from models.heads.rows import TrainingRows
from models.heads.sequences import SubjectSequence, is_labelled
from tasks.fit.subject_features import (
    FeaturesVariant,
    label_arrays,
    read_faces_seen,
    read_features,
    read_sequence,
)
from tasks.fit.subject_split import SubjectSplit


@dataclass(frozen=True)
class _SubjectRows:
    frames: np.ndarray
    labels: dict[BranchName, np.ndarray]


def gather_rows(
    store: Store,
    variant: FeaturesVariant,
    tables: Mapping[SetName, pa.Table],
    *,
    task: TaskName,
    split: SubjectSplit,
    folder: Path,
    with_embeddings: bool = True,
) -> tuple[TrainingRows, list[LabelCoverage]]:
    """Gather rows with a label and a face, of one or several sets, in the order of subjects and frames.

    Without embeddings, which are nearly all of the data, they are zeros that take no space.

    Raises:
        InputError: no row is left.
    """
    chosen, coverage = _choose(store, variant, tables, task=task, split=split)
    return _unpack(store, variant, chosen, folder=folder, with_embeddings=with_embeddings), coverage


def gather_sequences(
    store: Store,
    variant: FeaturesVariant,
    tables: Mapping[SetName, pa.Table],
    *,
    task: TaskName,
    split: SubjectSplit,
    folder: Path,
) -> tuple[list[SubjectSequence], list[LabelCoverage]]:
    """Gather the sequences of all subjects with a label and a face, with labels where a frame has both.

    Raises:
        InputError: no subject is left.
    """
    chosen, coverage = _choose(store, variant, tables, task=task, split=split)
    sequences = []
    for number, (subject, rows) in enumerate(chosen):
        report_progress("reading features: subject {:,} of {:,}", number + 1, len(chosen))

        def allocate(shape: tuple[int, int], dtype: Any, number: int = number) -> np.ndarray:
            return _mapped(folder / f"{number}-{np.dtype(dtype)}.npy", dtype, shape)

        found = read_sequence(store, variant, subject, allocate=allocate)
        labels: dict[BranchName, np.ndarray] = {}
        for branch, values in rows.labels.items():
            unlabelled = np.nan if branch == "va" else -1
            labels[branch] = np.full((len(found), *values.shape[1:]), unlabelled, values.dtype)
            labels[branch][rows.frames - 1] = values
        sequences.append(replace(found, labels=labels))
    return sequences, coverage


def _choose(
    store: Store,
    variant: FeaturesVariant,
    tables: Mapping[SetName, pa.Table],
    *,
    task: TaskName,
    split: SubjectSplit,
) -> tuple[list[tuple[str, _SubjectRows]], list[LabelCoverage]]:
    chosen: list[tuple[str, _SubjectRows]] = []
    coverage, without_features = [], []
    for set_name, table in tables.items():
        rows, counts, absent = _choose_rows(store, variant, table, task=task, set_name=set_name, split=split)
        chosen += rows
        without_features += absent
        coverage.append(counts)
    if not chosen:
        missing = ", ".join(without_features[:3]) if coverage else "no set"
        raise InputError(
            f"{task} {'+'.join(tables)}: expected rows with a label and a face, found none "
            f"(no features for: {missing or 'nobody'}); run extract on the labelled videos first"
        )
    return chosen, coverage


def _choose_rows(
    store: Store, variant: FeaturesVariant, table: pa.Table, *, task: TaskName, set_name: SetName, split: SubjectSplit
) -> tuple[list[tuple[str, _SubjectRows]], LabelCoverage, list[str]]:
    """Return the rows to fit on, how the labels are used, and the labelled subjects without features."""
    labels = label_arrays(table)
    labelled = is_labelled(labels, BRANCHES_OF_TASK[task])
    rows_of, frame = _rows_by_subject(table), table["frame"].to_numpy()
    rows, absent, faces_without_label, beyond, excluded = [], list[str](), 0, 0, 0
    for number, (name, here) in enumerate(rows_of.items(), 1):
        report_progress("choosing rows: {} set, subject {:,} of {:,}", set_name, number, len(rows_of))
        here = here[labelled[here]]
        if set_name == "validation" and name in split.excluded:
            excluded += len(here)
            continue
        subject = split.names[set_name].get(name)
        if subject is None:
            absent.append(name)
            continue
        seen = read_faces_seen(store, variant, subject)
        beyond += int((frame[here] > variant.last_frame(subject)).sum())
        faces_without_label += int((~np.isin(seen, frame[here])).sum())
        used = here[np.isin(frame[here], seen)]
        used = used[np.argsort(frame[used], kind="stable")]
        if len(used):
            rows.append((subject, _SubjectRows(frame[used], {b: values[used] for b, values in labels.items()})))
    used_count = sum(len(r.frames) for _, r in rows)
    coverage = LabelCoverage(
        set_name=set_name,
        subjects=len(rows_of),
        subjects_without_features=len(absent),
        labelled=int(labelled.sum()),
        used=used_count,
        labelled_without_face=int(labelled.sum()) - used_count - beyond - excluded,
        labelled_beyond_video=beyond,
        unlabelled=int((~labelled).sum()),
        faces_without_label=faces_without_label,
        excluded=excluded,
    )
    return rows, coverage, absent


def _mapped(path: Path, dtype: Any, shape: tuple[int, int]) -> np.ndarray:
    """Return a memory-mapped array whose file is already deleted: its space is freed also if the process is killed."""
    values: np.ndarray = open_memmap(path, "w+", dtype, shape)
    path.unlink()
    return values


def _rows_by_subject(table: pa.Table) -> dict[str, np.ndarray]:
    """Return the rows of each subject, ascending, in the order of names."""
    encoded = table["subject"].combine_chunks().dictionary_encode()
    number = encoded.indices.to_numpy()
    rows = np.split(np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))[:-1])
    return dict(sorted(zip(encoded.dictionary.to_pylist(), rows, strict=True)))


def _unpack(
    store: Store,
    variant: FeaturesVariant,
    chosen: list[tuple[str, _SubjectRows]],
    *,
    folder: Path,
    with_embeddings: bool,
) -> TrainingRows:
    total, start = sum(len(rows.frames) for _, rows in chosen), 0
    embeddings = logits = None
    for subject, rows in chosen:
        position = 0
        for frame, _, block, block_logits in read_features(store, variant, subject, with_embeddings=with_embeddings):
            if embeddings is None or logits is None:
                embeddings = np.broadcast_to(np.float16(0), (total, block.shape[1]))
                if with_embeddings:
                    embeddings = _mapped(folder / "embeddings.npy", np.float16, embeddings.shape)
                logits = _mapped(folder / "logits.npy", np.float32, (total, block_logits.shape[1]))
            # Label lists may name a frame twice: search, rather than intersect.
            end = int(np.searchsorted(rows.frames, frame[-1], side="right"))
            at = np.searchsorted(frame, rows.frames[position:end])
            if with_embeddings:
                embeddings[start + position : start + end] = block[at]
            logits[start + position : start + end] = block_logits[at]
            position = end
            report_progress("reading features: {:,} of {:,} rows", start + position, total)
        start += len(rows.frames)
    assert embeddings is not None and logits is not None
    labels = {b: np.concatenate([rows.labels[b] for _, rows in chosen]) for b in BRANCHES}
    return TrainingRows(embeddings=embeddings, logits=logits, labels=labels)
