"""``affwild2 simulate``: make a data set with the statistics of Aff-Wild2, and its features in a store."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from data_contracts.errors import InputError
from data_contracts.files.local import check_output_folder
from data_contracts.store.simulations import find_simulation
from data_contracts.vocabulary import TASKS
from flows.commands.parameters import SimulateParameters
from flows.engine.console import print_line, print_table
from flows.engine.progress import progress_of
from flows.engine.run import Run
from infra.interruption import ending_on_signals
from models.heads.metrics import MAIN_METRIC
from tasks.challenge_files import write_text
from tasks.simulate import attainable, challenge_data, footage, write_features
from tasks.simulate.features import BACKBONES
from tasks.simulate.labels import CODE_VERSION, SubjectLabels, draw_labels, label_rule
from tasks.simulate.plan import SimulatedSubject, SimulationPlan, plan_simulation

# Marks the folder, and holds what its content depends on.
MARKER = "simulation.json"
_NOTE = "Simulated data with the layout and statistics of Aff-Wild2. No person and no video of Aff-Wild2 is in it."
# Bytes of manifests and index per subject, rounded up.
_BYTES_PER_SUBJECT = 8192


def simulate(parameters: SimulateParameters) -> int:
    """Write a simulated data set below ``out``: the folder ``data``, and the store with features.

    Raises:
        InputError: wrong scale, a folder that is not empty or of another simulation, or too little disk space.
    """
    started = time.monotonic()
    out = parameters.out
    plan = plan_simulation(parameters.scale, parameters.seed)
    backbones = tuple(sorted(set(parameters.backbones or ["simulated_enet_b0"])))
    _check_folder(out, plan)
    _check_space(out, plan, backbones)
    _claim(out, plan)
    print_line(
        f"simulation: scale {plan.scale:g}, seed {plan.seed}: {len(plan.subjects)} subjects, {plan.frames:,} frames"
    )
    with ending_on_signals(), Run(str(out / "store"), workers=parameters.workers) as run:
        run.is_simulated = True
        print_line("calibrating labels")
        rule = label_rule(plan.scale, plan.seed)
        run.jobs("attainable", [attainable.plan_attainable(plan, rule)], attainable.make)
        run.stage("write_features", write_features.plan_write_features(plan, rule, backbones), write_features.compute)
        _write_files(out / "data", plan)
        run.print_summary()
        _print_attainable(run)
        run.print_counts()
        run.raise_for_failures()
    print_line(
        f"finished in {time.monotonic() - started:.0f} s; data: {out / 'data'}; store: {out / 'store'}", is_result=True
    )
    return 0


def _write_files(data: Path, plan: SimulationPlan) -> None:
    """Write annotations and lists of all editions, and videos and crops of a small data set."""
    with progress_of("write_annotations", len(plan.subjects)) as progress:

        def labelled() -> Iterator[tuple[SimulatedSubject, SubjectLabels]]:
            for subject in plan.subjects:
                yield subject, draw_labels(plan, subject)
                progress.advance(subject.name, 0)

        challenge_data.write_challenge_data(data, plan, labelled())
    if not footage.has_footage(plan):
        print_line(f"no videos and crops: more than {footage.MOST_FRAMES:,} frames; choose a smaller --scale for them")
        return
    videos = {subject.video for subject in plan.subjects}
    with progress_of("write_videos_and_crops", len(videos)) as progress:
        footage.write_footage(
            data, plan, lambda subject: draw_labels(plan, subject), advance=lambda video: progress.advance(video, 0)
        )


def _check_folder(out: Path, plan: SimulationPlan) -> None:
    """Check that a folder is new, empty, or of this simulation, and write nothing."""
    check_output_folder(out)
    marker = out / MARKER
    if not marker.exists():
        if out.is_dir() and any(out.iterdir()):
            raise InputError(f"{out}: expected an empty folder, or one of an earlier simulation; choose another folder")
        return
    try:
        content = json.loads(marker.read_text())
        # The first version did not write its number.
        scale, seed, version = content["scale"], content["seed"], content.get("version", 1)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"{marker}: expected the marker of a simulation, got other content; choose another folder"
        ) from None
    if (scale, seed) != (plan.scale, plan.seed):
        raise InputError(
            f"{out}: holds a simulation of scale {scale} and seed {seed}, expected scale {plan.scale} and seed "
            f"{plan.seed}; choose another folder"
        )
    if version != CODE_VERSION:
        raise InputError(
            f"{out}: holds a simulation that another version of affwild2 made (its number {version}, this one's "
            f"{CODE_VERSION}), with other labels; choose another folder"
        )


def _claim(out: Path, plan: SimulationPlan) -> None:
    """Write the marker of this simulation into its folder, unless it is there."""
    content = {"note": _NOTE, "scale": plan.scale, "seed": plan.seed, "version": CODE_VERSION}
    if not (out / MARKER).exists():
        write_text(out / MARKER, json.dumps(content, indent=1) + "\n")


def _check_space(out: Path, plan: SimulationPlan, backbones: tuple[str, ...]) -> None:
    per_frame = challenge_data.BYTES_PER_FRAME + (footage.BYTES_PER_FRAME if footage.has_footage(plan) else 0)
    for name in backbones:
        backbone = BACKBONES[name]
        per_frame += 2 * backbone.embedding_size + 4 * len(backbone.classes) + 8
    needed = plan.frames * per_frame + len(plan.subjects) * _BYTES_PER_SUBJECT * (len(backbones) + 1)
    written = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    free = shutil.disk_usage(next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())).free
    if needed - written > free:
        raise InputError(
            f"{out}: expected {(needed - written) / 1e9:.1f} GB of free disk space, found {free / 1e9:.1f} GB; choose "
            "another disk or a smaller --scale"
        )


def _print_attainable(run: Run) -> None:
    found = find_simulation(run.store)
    if found is None:
        return
    rows = [
        [
            task,
            MAIN_METRIC[task],
            *(found.attainable.get(task, {}).get(name, {}).get(MAIN_METRIC[task]) for name in ("train", "validation")),
        ]
        for task in TASKS
    ]
    header = ["task", "metric", "train", "validation"]
    print_table("Best attainable scores", header, rows, simulated=True)
