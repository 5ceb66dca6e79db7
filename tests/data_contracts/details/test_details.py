import json
from pathlib import Path

import pytest

from data_contracts.details.backbones import BackboneDetails
from data_contracts.details.datasets import (
    FacesDetails,
    FeaturesDetails,
    LabelsDetails,
    OutputsDetails,
    SubjectsDetails,
    VideoDetails,
)
from data_contracts.details.heads import HeadDetails, PostprocessingDetails
from data_contracts.details.records import Details
from data_contracts.details.submissions import SubmissionDetails
from data_contracts.errors import InputError
from data_contracts.store.manifest import Manifest

OLD = Path(__file__).parents[2] / "data" / "store_34a2ed4" / "store"
KINDS = {
    "videos": VideoDetails,
    "frames": Details,
    "faces": FacesDetails,
    "subjects": SubjectsDetails,
    "features": FeaturesDetails,
    "labels": LabelsDetails,
    "outputs": OutputsDetails,
    "pictures": Details,
    "heads": HeadDetails,
    "postprocessing": PostprocessingDetails,
    "submissions": SubmissionDetails,
}


@pytest.mark.parametrize("kind", KINDS)
def test_details_of_a_store_of_an_earlier_version_are_read_and_written_unchanged(kind):
    paths = [path for path in (OLD / kind).rglob("*manifest*.json") if not path.name.startswith("_failed")]
    assert paths
    for path in paths:
        stored = json.loads(path.read_bytes())["details"]
        assert KINDS[kind].from_json(stored).to_json() == stored, path


def test_details_of_a_backbone_are_written_and_read():
    coverage = {
        "status": {"face": 3},
        "untrained_pictures": 0,
        "train": {"pictures": 2, "people": 1},
        "validation": {"pictures": 1, "people": 1},
        "train_pictures_per_class": {"Anger": 2},
        "too_rare": {},
    }
    figures = {"accuracy": 0.5, "balanced_accuracy": 0.5, "recall": {"Anger": None}, "pictures": {"Anger": 0}}
    stored = {"coverage": coverage, "figures": figures, "kept_epoch": 2}
    found = BackboneDetails.from_json(stored)
    assert found.coverage.train.people == 1 and found.figures.mean_ccc is None and found.to_json() == stored


def test_keys_that_an_earlier_version_did_not_write_have_defaults():
    stored = json.loads(next(OLD.glob("heads/*/manifest.json")).read_bytes())["details"]
    for key in ("trained_on", "precision", "best_epochs"):
        del stored[key]
    found = HeadDetails.from_json(stored | {"of a later version": 1})
    assert (found.trained_on, found.precision, found.best_epochs) == ((), None, None)
    assert found.coverage[0].set_name == "train"


def test_a_manifest_without_a_required_key_is_refused_in_one_line():
    manifest = Manifest("f", "f", "part", 1, 1, details={"path": "a.mp4", "frame_count": 3})
    with pytest.raises(InputError, match=r"expected file_state among .*, got frame_count, path; .* new store$"):
        VideoDetails.of(manifest)


def test_new_problems_replace_earlier_ones():
    faces = FacesDetails(first_frame=1, frame_count=2, problems=("a",))
    assert faces.with_problems([]) == faces and faces.to_json()["problems"] == ["a"]
    assert faces.with_problems(["b"]).problems == ("b",)
    assert "problems" not in FacesDetails(first_frame=1, frame_count=2).to_json()


@pytest.mark.parametrize(
    ("checks", "line", "has_no_fault"),
    [
        (None, "not checked: rows were removed, or an earlier version wrote it", False),
        ({"fault_count": 0, "faults": [], "against": "list"}, "no fault (list)", True),
        ({"fault_count": 2, "faults": ["x", "y"], "against": "list"}, "2 faults, first: x (list)", False),
    ],
)
def test_checks_of_a_submission_in_one_line(checks, line, has_no_fault):
    stored = json.loads(next(OLD.glob("submissions/*/manifest.json")).read_bytes())["details"]
    found = SubmissionDetails.from_json(stored | {"checks": checks})
    assert found.format_checks() == line and found.has_no_fault is has_no_fault
