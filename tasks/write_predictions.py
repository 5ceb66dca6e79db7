"""Per-frame predictions of one video for people: decisions and probabilities of every head, with time in seconds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from data_contracts.bundles import Bundle, list_bundles
from data_contracts.manifest import UnitKey
from data_contracts.schemas import OUTPUT_COLUMNS
from data_contracts.store import Store
from data_contracts.vocabulary import ACTION_UNITS, BRANCHES_OF_TASK, DIMENSIONS, EXPRESSIONS, BranchName
from models.postprocessing import PostProcessing, untuned_postprocessing
from tasks.predict_outputs import read_outputs
from tasks.write_submission import load_postprocessing


def write_predictions(store: Store, subject: str, *, heads: Sequence[tuple[Bundle, str]], out: Path) -> list[Path]:
    """Write ``<subject>.parquet`` and ``<subject>.csv``; nothing if no head has outputs for the subject.

    ``heads`` come with the faces variant that their outputs are of.
    Columns: frame, time_seconds, has_face, and per head the decisions (expression by name, valence and arousal,
    action units 0 or 1) and smoothed probabilities. Frames without a face carry interpolated values.
    """
    columns: dict[str, pa.Array] = {}
    for head, source in heads:
        key = UnitKey("outputs", (("head", head.name), ("source", source), ("subject", subject)))
        manifest = store.manifests("outputs", head=head.name, source=source).get(key)
        if manifest is None:
            continue
        branches = BRANCHES_OF_TASK[head.details["task"]]
        present, outputs = read_outputs(store, key, manifest, branches)
        columns |= _base_columns(store, subject, present)
        columns |= _decision_columns(_rule(store, head), present, outputs)
    if not columns:
        return []
    out.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    pq.write_table(table, out / f"{subject}.parquet")
    pa_csv.write_csv(table, out / f"{subject}.csv", pa_csv.WriteOptions(quoting_style="needed"))
    return [out / f"{subject}.parquet", out / f"{subject}.csv"]


def _rule(store: Store, head: Bundle) -> PostProcessing:
    tuned = [b for b in list_bundles(store, "postprocessing") if b.details["head"] == head.name]
    return load_postprocessing(store, tuned[-1]) if tuned else untuned_postprocessing(head.details["task"])


def _base_columns(store: Store, subject: str, present: np.ndarray) -> dict[str, pa.Array]:
    frame = np.arange(1, len(present) + 1, dtype=np.int32)
    return {
        "frame": pa.array(frame),
        "time_seconds": _time_seconds(store, subject, len(frame)),
        "has_face": pa.array(present),
    }


def _time_seconds(store: Store, subject: str, frame_count: int) -> pa.Array:
    key = UnitKey("frames", (("video", subject),))
    manifest = store.manifests("frames", video=subject).get(key)
    if manifest is None or manifest.rows != frame_count:
        return pa.nulls(frame_count, pa.float64())
    return store.read_unit(key, manifest, columns=["pts_seconds"])["pts_seconds"].combine_chunks()


def _decision_columns(
    rule: PostProcessing, present: np.ndarray, outputs: dict[BranchName, np.ndarray]
) -> dict[str, pa.Array]:
    columns: dict[str, pa.Array] = {}
    if not present.any():
        return columns
    decisions, smoothed = rule.apply(outputs, present), rule.smooth(outputs, present)
    for branch, values in smoothed.items():
        if branch == "expr":
            columns["expression"] = pa.array(np.array(EXPRESSIONS)[decisions["expr"]])
        elif branch == "va":
            columns |= {name: pa.array(decisions["va"][:, i]) for i, name in enumerate(DIMENSIONS)}
            continue
        else:
            columns |= {name: pa.array(decisions["au"][:, i].astype(np.int8)) for i, name in enumerate(ACTION_UNITS)}
        columns |= {c.name: pa.array(values[:, i]) for i, c in enumerate(OUTPUT_COLUMNS[branch])}
    return columns
