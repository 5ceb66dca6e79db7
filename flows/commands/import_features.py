"""``affwild2 import-features``: put features that another program computed into a store."""

import re
import tempfile
from pathlib import Path

from data_contracts.errors import InputError, first_names
from data_contracts.store.store import Store
from data_contracts.vocabulary import is_imported
from flows.commands.parameters import ImportFeaturesParameters
from flows.engine.console import print_line, print_table, print_warning
from flows.engine.run import Run
from infra.interruption import ending_on_signals
from tasks.extract import import_features as stage
from tasks.extract.feature_files import open_feature_file
from tasks.fit.subject_features import list_features
from tasks.units import split_pending


def import_features(parameters: ImportFeaturesParameters) -> int:
    """Import a file of features under a name; print which frames of the store's subjects have a row.

    Returns:
        1 if rows of the file are not used, which is printed; else 0.

    Raises:
        InputError: the file cannot be read, has a frame twice, or no row of the store's subjects; wrong name.
    """
    if not re.fullmatch(r"\w[\w.-]*", parameters.name):
        raise InputError(f"--name {parameters.name}: expected letters, digits, - and _, as in audio or openface2")
    file = open_feature_file(parameters.file.absolute())
    with (
        ending_on_signals(),
        Run(parameters.store, workers=parameters.workers, may_be_new=False) as run,
        tempfile.TemporaryDirectory(prefix="affwild2-import-") as folder,
    ):
        known = _known_subjects(run.store)
        if not known:
            print_line("note: the store has features of no subject; all subjects of the file are imported")
        survey = stage.survey_rows(file, known, first_frame=parameters.first_frame)
        units = stage.plan_import_features(
            file, survey, name=parameters.name, first_frame=parameters.first_frame, folder=Path(folder)
        )
        if split_pending(run.store, units).todo:
            stage.unpack_file(file, Path(folder))
        summary = run.stage("import_features", units, stage.compute)
        run.print_summary()
        _print_coverage(file.path, survey, parameters.first_frame)
        variant = units[0].key.value("backbone")
        _print_variant(run.store, variant, values=file.embedding_size, scores=len(file.score_names))
        run.print_counts()
        run.raise_for_failures()
    return 1 if survey.lost() or summary.failures else 0


def _known_subjects(store: Store) -> dict[str, stage.KnownSubject]:
    """Return the subjects with features that were extracted, each with its largest number of frames."""
    known: dict[str, stage.KnownSubject] = {}
    for variant in list_features(store):
        for subject in () if variant.is_imported else variant.subjects:
            frames = variant.last_frame(subject)
            if subject not in known or frames > known[subject].frames:
                known[subject] = stage.KnownSubject(frames, variant.frames_known_from(subject))
    return known


def _print_coverage(path: Path, survey: stage.Survey, first_frame: int) -> None:
    coverage = survey.coverage()
    print_table(f"Rows of {path.name}", list(coverage), [list(coverage.values())])
    print_line(
        f"frames of the file count from {first_frame}; frames without a row are treated as frames without a face"
    )
    respelled = {name: subject for name, subject in survey.respelled.items() if name != subject}
    if respelled:
        name, subject = next(iter(respelled.items()))
        print_line(f"note: {len(respelled)} names are spelled differently than in the store: {name} as {subject}")
    if survey.without:
        names = first_names(survey.without)
        print_line(f"note: {len(survey.without)} subjects of the store have no row ({names}); fit leaves them out")
    for line in survey.lost():
        print_warning(f"in part: {path}: {line}")


def _print_variant(store: Store, variant: str, *, values: int, scores: int) -> None:
    name = variant.rsplit("-", 1)[0]
    others = sorted(
        {one.backbone for one in list_features(store) if one.backbone.rsplit("-", 1)[0] == name} - {variant}
    )
    for other in others:
        print_line(
            f"note: {other} is an import of another file under this name; name one of them to fit, or remove it with "
            f"affwild2 forget --features {other}"
        )
    chosen = variant if others else name
    what = f"{values:,} values" + (f" and {scores:,} scores" if scores else ", no scores")
    print_line(f"features: {variant}: {what} a frame; use them with affwild2 fit --features-variant {chosen}")
    assert is_imported(variant)
