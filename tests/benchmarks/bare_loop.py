"""The stages of ``extract`` in a bare loop: the same unit functions without a cluster, listing or resuming.

    python bare_loop.py DATA STORE PART COUNT

One process computes every COUNT-th video, starting with number PART. COUNT such processes compute all videos.
"""

import sys
from pathlib import Path

from data_contracts.challenge.layout import DataLayout, find_data, subjects_of_videos
from data_contracts.store.store import Store
from flows.parameters import DEFAULT_BACKBONE
from models.faces.tracking import TrackingParams
from tasks.backbones import BackboneChoice
from tasks.extract import assign_subjects, crop_faces, embed_faces, index_videos
from tasks.units import run_unit


def extract_in_loop(store: Store, layout: DataLayout, videos: dict[str, Path]) -> None:
    """Compute features of videos, one unit after the other."""
    params, backbone = crop_faces.CropParams(), BackboneChoice.find(DEFAULT_BACKBONE, None)
    source = crop_faces.source_of(params)

    def run(module, units):
        for unit in units:
            report = run_unit(store.url, module.compute, unit)
            assert report.cause is None, report

    run(index_videos, index_videos.plan_index_videos(videos))
    known = index_videos.indexed_videos(store)
    crops = crop_faces.plan_crop_faces({stem: known[stem] for stem in videos}, params=params)
    run(crop_faces, crops)
    cropped = crop_faces.cropped_videos(store, crops)
    subjects, tracking = subjects_of_videos(layout), TrackingParams()
    run(
        assign_subjects,
        assign_subjects.plan_assign_subjects(cropped, source=source, subjects=subjects, params=tracking),
    )
    faces = [f for f in embed_faces.subjects_of_source(store, source) if f.video in videos]
    run(embed_faces, embed_faces.plan_embed_faces(faces, source=source, backbone=backbone))


if __name__ == "__main__":
    data, url, part, count = sys.argv[1:]
    layout = find_data(Path(data))
    extract_in_loop(Store(url), layout, dict(sorted(layout.videos.items())[int(part) :: int(count)]))
