import pytest

from data_contracts.store.bundles import Bundle
from data_contracts.store.details import HeadDetails
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.manifest import Manifest, UnitKey
from tasks.fit.subject_split import SubjectSplit
from tasks.fit.tune_postprocessing import plan_tune_postprocessing

LABELS = Manifest("l", "labels", "part-0.parquet", 1, 1)
HEAD = HeadDetails(
    task="expr",
    recipe="default",
    backbone="b",
    source="s",
    backbone_name="b",
    coverage=(),
    figure="macro_f1",
    figures={},
    seed_figures=[],
)


@pytest.mark.parametrize(
    ("subjects", "is_the_same"),
    [(["a", "b", "c_left"], True), (["a", "x_left", "x_right"], False), (["x_left", "x"], False)],
)
def test_only_videos_with_several_subjects_are_tuned_again(subjects, is_the_same):
    """The fingerprint of other post-processings is that of versions whose folds consisted of subjects."""
    outputs = {
        name: (UnitKey("outputs", (("subject", name),)), Manifest(name, name, "part-0.parquet", 1, 1))
        for name in subjects
    }
    split = SubjectSplit({"train": {}, "validation": {name: name for name in subjects}})
    head = Bundle("heads/expr-1", "f", {}, HEAD.to_json())
    job = plan_tune_postprocessing(head=head, outputs=outputs, labels=LABELS, split=split, tuning="default")
    before = fingerprint(
        stage="tune_postprocessing",
        version=2,
        outputs=[(name, name) for name in sorted(subjects)],
        labels="labels",
        tuning="default",
        folds=5,
    )
    assert (job.fingerprint == before) == is_the_same
