"""Details of heads and submissions for tests: every required field has a value, and the caller changes what matters."""

from data_contracts.details.heads import HeadDetails, TuningFigures
from data_contracts.details.submissions import SubmissionDetails
from models.heads.metrics import MAIN_METRIC


def head_details(task, *, backbone="net-1", source="mtcnn-1", backbone_name="net", **facts):
    """Return details of a head without scores."""
    required = {"recipe": "default", "coverage": (), "figure": MAIN_METRIC[task], "figures": {}, "seed_figures": []}
    return HeadDetails(task=task, backbone=backbone, source=source, backbone_name=backbone_name, **required | facts)


def submission_details(task, zip_name):
    """Return details of a submission to ABAW3 without scores and rows."""
    return SubmissionDetails(
        edition="abaw3",
        task=task,
        head=f"{task}-1",
        recipe="default",
        postprocessing=f"{task}-1-default",
        fingerprints={},
        figures=TuningFigures(),
        coverage=(),
        zip=zip_name,
    )
