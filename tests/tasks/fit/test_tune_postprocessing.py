import json

import pytest

from data_contracts.details.heads import PostprocessingDetails, TuningFigures
from data_contracts.store.bundles import Bundle, find_bundle, read_file, write_bundle
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.manifest import Manifest, StoredUnit, UnitKey
from data_contracts.store.store import Store
from models.decisions.recipes import PAPER
from tasks.fit.stored_heads import RULE_FILE
from tasks.fit.subject_split import SubjectSplit
from tasks.fit.tune_postprocessing import plan_tune_postprocessing, remove_subjects
from tests.details_factory import head_details

LABELS = Manifest("l", "labels", "part-0.parquet", 1, 1)


@pytest.mark.parametrize(
    ("subjects", "is_the_same"),
    [(["a", "b", "c_left"], True), (["a", "x_left", "x_right"], False), (["x_left", "x"], False)],
)
def test_only_videos_with_several_subjects_are_tuned_again(subjects, is_the_same):
    """The fingerprint of other post-processings is that of versions whose folds consisted of subjects."""
    outputs = {
        name: StoredUnit(UnitKey("outputs", (("subject", name),)), Manifest(name, name, "part-0.parquet", 1, 1))
        for name in subjects
    }
    split = SubjectSplit({"train": {}, "validation": {name: name for name in subjects}})
    head = Bundle("heads/expr-1", "f", {}, head_details("expr").to_json())
    job = plan_tune_postprocessing(
        head=head, outputs=outputs, labels=LABELS, split=split, recipe=PAPER, frames_per_second={"a": 25.0}
    )
    before = fingerprint(
        stage="tune_postprocessing",
        version=2,
        outputs=[(name, name) for name in sorted(subjects)],
        labels="labels",
        tuning="paper",
        direction="published",
        folds=5,
    )
    assert (job.fingerprint == before) == is_the_same


@pytest.mark.parametrize("folds", [None, [{"subjects": ["ada", "bob"], "bias": 1}]])
def test_a_removed_subject_is_named_nowhere_and_the_rules_stay(tmp_path, folds):
    """Post-processings of earlier versions have no folds."""
    store = Store(tmp_path / "store")
    details = PostprocessingDetails(
        head="expr-1", task="expr", tuning="default", figures=TuningFigures(), subjects=("ada", "bob")
    )
    content = {"postprocessing": {"bias": 2}} | ({"folds": folds} if folds else {})
    tuned = write_bundle(
        store, "postprocessing/one", {RULE_FILE: json.dumps(content).encode()}, fingerprint="f", details=details
    )
    remove_subjects(store, tuned, {"ada"})
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"ada" in path.read_bytes()]
    left = find_bundle(store, tuned.folder)
    assert left is not None and left.fingerprint == "f" and PostprocessingDetails.of(left).subjects == ("bob",)
    assert json.loads(read_file(store, left, RULE_FILE)) == content | (
        {"folds": [{"subjects": ["bob"], "bias": 1}]} if folds else {}
    )
