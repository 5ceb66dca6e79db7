"""The ``affwild2`` command: each flow, and small questions to a store.

Imports are inside the commands, so that help and mistakes answer at once.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.commands.download_commands import download_app
from flows.commands.ends import check_folder, guarded, run_flow
from flows.commands.models import models_app
from flows.commands.report_command import report

app = typer.Typer(
    name="affwild2",
    help="Frame-level facial affect from videos: expressions, valence and arousal, action units.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Boxes and colours around the help take longer to import than all the rest.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(models_app, name="models")
app.add_typer(download_app, name="download")

StoreOption = Annotated[str, typer.Option("--store", help="Where results lie: a path, file:// or s3:// URL.")]
WorkersOption = Annotated[int | None, typer.Option("--workers", min=1, help="Local worker processes; one per core.")]
DaskOption = Annotated[str | None, typer.Option("--dask-address", help="Dask scheduler to use instead, tcp://...")]
BackboneOption = Annotated[str | None, typer.Option("--backbone", help="Features variant, if there are several.")]
SourceOption = Annotated[str | None, typer.Option("--source", help="Faces variant, if there are several.")]
PredictionsOption = Annotated[str, typer.Option("--out", help="Folder for the predictions.")]
HeadsOption = Annotated[
    list[str] | None, typer.Option("--head", help="Head to use; default: the one per task. Repeatable.")
]
Task = Literal["expr", "va", "au", "mtl"]
Source = Literal["mtcnn", "cropped", "cropped_aligned"]
Edition = Literal["abaw3", "abaw4", "abaw5", "abaw6", "abaw7", "abaw8"]


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the data set and the store.")] = Path("demo"),
    seed: Annotated[int, typer.Option("--seed", help="Seed of the generated data set.")] = 0,
    workers: WorkersOption = None,
) -> None:
    """Everything on a small generated data set: about a minute."""
    run_flow("demo", out=out, seed=seed, workers=workers)


@app.command()
def extract(
    data: Annotated[str, typer.Argument(help="Folder in the organisers' layout, or a folder of videos.")],
    store: StoreOption,
    source: Annotated[Source | None, typer.Option("--source", help="Where face crops come from.")] = None,
    backbone: Annotated[str, typer.Option("--backbone", help="Name in the registry.")] = "emotion_lite0",
    weights: Annotated[Path | None, typer.Option("--weights", help="A safetensors file.")] = None,
    min_face_px: Annotated[int, typer.Option("--min-face-px", min=20, help="Smallest face looked for.")] = 40,
    exact: Annotated[
        bool, typer.Option("--exact", help="For publishing: search every frame, backbone in float32. Half as fast.")
    ] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Take only so many videos or subjects.")] = None,
    workers: WorkersOption = None,
    dask_address: DaskOption = None,
) -> None:
    """Videos or official crops to features."""
    run_flow(
        "extract",
        check=lambda: check_folder(data),
        data=data,
        store=store,
        source=source,
        backbone=backbone,
        weights=str(weights) if weights else None,
        min_face_px=min_face_px,
        exact=exact,
        limit=limit,
        workers=workers,
        dask_address=dask_address,
    )


@app.command()
def fit(
    task: Annotated[Task, typer.Argument(help="expr, va, au or mtl.")],
    store: StoreOption,
    annotations: Annotated[str, typer.Option("--annotations", help="The organisers' annotation folder.")],
    recipe: Annotated[Literal["default", "paper"], typer.Option("--recipe", help="Named setting.")] = "default",
    features: Annotated[
        Literal["embeddings", "scores", "both"] | None, typer.Option("--features", help="Instead of the recipe's.")
    ] = None,
    hidden_units: Annotated[int | None, typer.Option("--hidden-units", min=0, help="0 is a linear head.")] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, help="How many seeds are averaged.")] = None,
    train_on_validation: Annotated[bool, typer.Option("--train-on-validation", help="Train on both sets.")] = False,
    backbone: BackboneOption = None,
    source: SourceOption = None,
    workers: WorkersOption = None,
    dask_address: DaskOption = None,
) -> None:
    """Features and labels to a head with tuned post-processing."""
    run_flow(
        "fit",
        check=lambda: check_folder(annotations, task),
        task=task,
        store=store,
        annotations=annotations,
        recipe=recipe,
        features=features,
        hidden_units=hidden_units,
        seeds=seeds,
        train_on_validation=train_on_validation,
        backbone=backbone,
        source=source,
        workers=workers,
        dask_address=dask_address,
    )


@app.command()
def submit(
    task: Annotated[Task, typer.Argument(help="expr, va, au or mtl.")],
    store: StoreOption,
    test_list: Annotated[str, typer.Option("--test-list", help="The organisers' list of subjects, or sample file.")],
    head: Annotated[str | None, typer.Option("--head", help="Name of the head, or its beginning.")] = None,
    postprocessing: Annotated[str | None, typer.Option("--postprocessing", help="Name, or its beginning.")] = None,
    edition: Annotated[
        Edition | None, typer.Option("--edition", help="Whose formats, if the list's name misleads.")
    ] = None,
    workers: WorkersOption = None,
    dask_address: DaskOption = None,
) -> None:
    """Outputs of a head to the organisers' submission files."""
    run_flow(
        "submit",
        task=task,
        store=store,
        test_list=test_list,
        head=head,
        postprocessing=postprocessing,
        edition=edition,
        workers=workers,
        dask_address=dask_address,
    )


@app.command()
def score(
    videos: Annotated[list[str], typer.Argument(help="Video files, or folders of them.")],
    out: PredictionsOption,
    store: Annotated[str | None, typer.Option("--store", help="Where heads are and features go: OUT/store.")] = None,
    head: HeadsOption = None,
    workers: WorkersOption = None,
    dask_address: DaskOption = None,
) -> None:
    """Any video to predictions for every frame.

    Parquet and CSV. Without fitted heads, expressions.
    """
    run_flow(
        "score",
        videos=videos,
        out=out,
        store=store,
        heads=head or None,
        workers=workers,
        dask_address=dask_address,
    )


@app.command()
def rescore(
    videos: Annotated[list[str], typer.Argument(help="Folders of videos, sub-folders included, or video files.")],
    store: StoreOption,
    out: PredictionsOption,
    head: HeadsOption = None,
    settle_seconds: Annotated[
        float, typer.Option("--settle-seconds", min=0, help="How long a file must have stayed as it is.")
    ] = 60.0,
    workers: WorkersOption = None,
    dask_address: DaskOption = None,
) -> None:
    """Score the videos that have no predictions, or stale ones.

    To be run on a schedule: files that still grow wait, files that fail every time are left alone.
    """
    run_flow(
        "rescore",
        videos=videos,
        store=store,
        out=out,
        heads=head or None,
        settle_seconds=settle_seconds,
        workers=workers,
        dask_address=dask_address,
    )


@app.command()
def pretrain(
    goal: Annotated[Literal["identity", "emotion"], typer.Argument(help="identity (step 1) or emotion (step 2).")],
    data: Annotated[Path, typer.Argument(help="CSV file with labels, AffectNet's CSV, or a folder of people.")],
    store: StoreOption,
    backbone: Annotated[str, typer.Option("--backbone", help="Name in the registry.")] = "efficientnet_lite0",
    weights: Annotated[Path | None, typer.Option("--weights", help="A safetensors file to start from.")] = None,
    validation: Annotated[Path | None, typer.Option("--validation", help="Pictures to measure on.")] = None,
    images: Annotated[Path | None, typer.Option("--images", help="Folder of the pictures that a CSV names.")] = None,
    recipe: Annotated[Literal["default", "paper"], typer.Option("--recipe", help="Named setting.")] = "default",
    input_px: Annotated[
        int | None, typer.Option("--input-px", min=32, help="Input size; its own if not given.")
    ] = None,
    valence_arousal: Annotated[bool, typer.Option("--valence-arousal", help="Train these outputs as well.")] = False,
    untrained: Annotated[
        list[str] | None, typer.Option("--untrained", help="A person to learn no emotions from; repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the split, the order and the variations.")] = 0,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Take only so many pictures.")] = None,
    workers: WorkersOption = None,
    dask_address: DaskOption = None,
) -> None:
    """Train a backbone on labelled pictures of faces."""
    run_flow(
        "pretrain",
        goal=goal,
        data=data,
        store=store,
        backbone=backbone,
        weights=str(weights) if weights else None,
        validation=validation,
        images=images,
        recipe=recipe,
        input_px=input_px,
        valence_arousal=valence_arousal,
        untrained=untrained,
        seed=seed,
        limit=limit,
        workers=workers,
        dask_address=dask_address,
    )


@app.command()
def verify(
    path: Annotated[str, typer.Argument(help="Submission: zip, folder, or MTL text file.")],
    task: Annotated[Task | None, typer.Option("--task", help="Guessed from the headers if not given.")] = None,
    test_list: Annotated[str | None, typer.Option("--test-list", help="Their list, or sample file.")] = None,
    videos: Annotated[str | None, typer.Option("--videos", help="Videos that tell how many rows to expect.")] = None,
) -> None:
    """Check a submission and say what is wrong and where."""
    from flows.commands.verify import verify_named

    raise typer.Exit(guarded(lambda: verify_named(path, task=task, test_list=test_list, videos=videos)))


@app.command()
def status(store: StoreOption) -> None:
    """What is ready and what failed in a store."""
    from flows.commands.status import print_status

    raise typer.Exit(guarded(lambda: print_status(store)))


app.command()(report)


@app.command()
def forget(
    videos: Annotated[list[str], typer.Argument(metavar="VIDEO...", help="Names (without suffix) or video files.")],
    store: StoreOption,
    out: Annotated[
        str | None, typer.Option("--out", help="A folder of predictions, if it was moved since they were written.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove all that was made of a video.

    Rows, crops, features, predictions, in every dataset; what cannot be removed is listed.
    """
    from flows.commands.forget import forget as forget_videos

    raise typer.Exit(guarded(lambda: forget_videos(videos, store, out=out, dry_run=dry_run)))


def main() -> None:
    """Entry point of the ``affwild2`` script."""
    app()


if __name__ == "__main__":
    main()
