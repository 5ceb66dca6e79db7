"""The parameters of the commands that run no flow."""

from dataclasses import dataclass
from typing import Annotated, Literal

from data_contracts.files.credentials import StoreParameter
from data_contracts.vocabulary import TaskName
from flows.options import Option
from flows.parameters import LARGEST_SEED, Heads, LocalPath, Postprocessings, StoreUrl, Workers

_Name = Annotated[str, Option("Name of a backbone, as affwild2 models list shows it.", is_argument=True)]


@dataclass(frozen=True)
class VerifyParameters:
    """Check submission files and report every fault.

    Reports file, line and cause, and exits with code 1 if there is a fault. Without --test-list and --videos, checks
    only the format.

    Examples:
        affwild2 verify abaw3_expr.zip --test-list LIST --videos DATA
        affwild2 verify FOLDER --task va
    """

    path: Annotated[StoreParameter, Option("Submission: zip file, folder, or text file of mtl.", is_argument=True)]
    task: Annotated[TaskName | None, Option("Task of the submission. Default: found from the headers.")] = None
    test_list: Annotated[
        StoreParameter | None, Option("The organisers' list of test subjects, or their sample file of frames.")
    ] = None
    videos: Annotated[
        StoreParameter | None, Option("Folder of the videos, whose frames determine the expected number of rows.")
    ] = None


@dataclass(frozen=True)
class SimulateParameters:
    """Simulate a data set with the statistics of Aff-Wild2.

    OUT/data is the folder of annotations and test lists, OUT/store the store with the features. Everything made from
    it is marked as simulated. An interrupted command continues where it stopped.

    Examples:
        affwild2 simulate OUT
        affwild2 simulate OUT --scale 1 --backbone simulated_enet_b0 --backbone simulated_mobilenet
    """

    out: Annotated[LocalPath, Option("Folder for the data set and the store.", is_argument=True)]
    scale: Annotated[
        float, Option("Share of the frames of Aff-Wild2; 1: 564 subjects, 2.7 million frames, 7 GB per backbone.")
    ] = 0.01
    seed: Annotated[int, Option("Random seed of the data.", minimum=0, maximum=LARGEST_SEED)] = 0
    backbones: Annotated[
        list[str] | None,
        Option(
            "Simulated backbone to write features of. Default: simulated_enet_b0.",
            choices=("simulated_mobilenet", "simulated_enet_b0", "simulated_enet_b2"),
            command_line_name="backbone",
        ),
    ] = None
    workers: Workers = None


@dataclass(frozen=True)
class ImportFeaturesParameters:
    """Import features that another program computed.

    The file has a row per subject and frame, with the columns subject and frame and columns of numbers, or a list named
    embedding. Columns score_NAME, or a list named scores, are scores. Prints which frames of the store's subjects have
    a row, and exits with code 1 if rows are not used. To fit a head on the features: fit --features-variant
    imported_audio --features embeddings.

    Examples:
        affwild2 import-features audio.parquet --name audio --store STORE
        affwild2 import-features openface.csv --name openface --store STORE --first-frame 0
    """

    file: Annotated[LocalPath, Option("Parquet, CSV or npz file.", is_argument=True)]
    name: Annotated[str, Option("Name of the features, such as audio; fit names them imported_audio.")]
    store: StoreUrl
    first_frame: Annotated[
        int, Option("Number of the first frame in the file: 1, as in 00001.jpg, or 0.", minimum=0, maximum=1)
    ] = 1
    workers: Workers = None


@dataclass(frozen=True)
class StatusParameters:
    """Show what a store contains, and what failed and why.

    Exits with code 1 if anything failed or could be used only in part.

    Examples:
        affwild2 status --store STORE
        affwild2 status --store s3://lab/store
    """

    store: StoreUrl


@dataclass(frozen=True)
class ReportParameters:
    """Write an HTML report of the store and all metrics.

    The page is STORE/reports/store/index.html and replaces the last one.

    Examples:
        affwild2 report --store STORE
    """

    store: StoreUrl


@dataclass(frozen=True)
class ServeParameters:
    """Show reports, viewers, submissions and annotated videos.

    Serves them to browsers on this machine, read-only, until Ctrl-C ends it. From another machine, use a tunnel: ssh -L
    8420:127.0.0.1:8420 HOST.

    Examples:
        affwild2 serve STORE
        affwild2 serve s3://lab/store --port 9000
    """

    store: Annotated[StoreParameter, Option("Store: a path, file:// or s3:// URL.", is_argument=True)]
    port: Annotated[int, Option("Port on this machine; 0: any free one.", minimum=0, maximum=65535)] = 8420


@dataclass(frozen=True)
class ViewParameters:
    """Write a page per video with a timeline of every person.

    The page is STORE/reports/viewers/VIDEO/index.html. It links the video file, or a copy where browsers do not play
    it. Shows the newest predictions; without any, what the fitted heads predicted for the store. Exits with code 1 if
    a video has no predictions.

    Examples:
        affwild2 view clip --out predictions
        affwild2 view clip.mp4 other.mp4 --store STORE
        affwild2 view --store STORE --head expr-default
    """

    videos: Annotated[
        list[str] | None,
        Option(
            "Names of videos without suffix, or video files. Default: all that have predictions.",
            is_argument=True,
            may_be_left_out=True,
        ),
    ]
    store: Annotated[StoreParameter | None, Option("Store that the videos were scored with. Default: OUT/store.")] = (
        None
    )
    out: Annotated[
        StoreParameter | None,
        Option("Folder of predictions. Default: the folders that were scored from the store."),
    ] = None
    heads: Heads = None
    postprocessings: Postprocessings = None
    no_thumbnails: Annotated[bool, Option("Leave out the faces.")] = False


@dataclass(frozen=True)
class CompareParameters:
    """Compare two heads on the same validation subjects.

    Prints every metric of both, and the differences with paired bootstrap intervals over videos. Also writes a page
    with charts, STORE/reports/compare-A-B/index.html.

    Examples:
        affwild2 compare expr-paper expr-default --store STORE
        affwild2 compare paper default --task au --store STORE
    """

    a: Annotated[str, Option("Name of a head or its beginning, or a recipe.", is_argument=True)]
    b: Annotated[str, Option("The head or recipe to compare it with.", is_argument=True)]
    store: StoreUrl
    task: Annotated[
        TaskName | None, Option("Task of the two heads. Required if a recipe has heads of several tasks.")
    ] = None


@dataclass(frozen=True)
class ForgetParameters:
    """Remove videos, images, heads or features from a store.

    Removes everything derived from a video or image: rows, crops, features and predictions. With --head, removes a head
    with its outputs, post-processings and submissions; with --features, imported features. Lists what cannot be
    removed. Exits with code 1 if a folder of predictions could not be reached.

    Examples:
        affwild2 forget clip --store STORE --dry-run
        affwild2 forget clip other.mp4 photo.jpg --store STORE
        affwild2 forget --head expr-default-1a2b3c4d --store STORE
        affwild2 forget --features imported_audio-1a2b3c4d --store STORE
        affwild2 forget --drop-folder /mnt/old/predictions --store STORE
    """

    videos: Annotated[
        list[str] | None,
        Option(
            "Names of videos without suffix, video files, or image files by path or name.",
            is_argument=True,
            may_be_left_out=True,
        ),
    ]
    store: StoreUrl
    heads: Annotated[list[str] | None, Option("Name of a head, or its beginning.", command_line_name="head")] = None
    features: Annotated[list[str] | None, Option("Name of imported features, as affwild2 status lists it.")] = None
    out: Annotated[
        StoreParameter | None, Option("Folder of predictions, if it was moved since the predictions were written.")
    ] = None
    drop_folders: Annotated[
        list[str] | None,
        Option(
            "Folder of predictions that no longer exists: remove it from the list in the store, not its files.",
            command_line_name="drop-folder",
        ),
    ] = None
    dry_run: Annotated[bool, Option("Only show what would be removed.")] = False


@dataclass(frozen=True)
class DownloadSubmissionParameters:
    """Download the zip of a submission and verify its hash.

    Examples:
        affwild2 download submission --store s3://lab/store --to DIR
        affwild2 download submission --store STORE --run abaw3-expr-1a2b3c4d
    """

    store: StoreUrl
    run: Annotated[str, Option("Name of a submission or its beginning, or latest: the one written last.")] = "latest"
    to: Annotated[str, Option("Folder on this machine to write the zip file to.")] = "."


@dataclass(frozen=True)
class ListModelsParameters:
    """List the backbones, and which of them are installed.

    Examples:
        affwild2 models list
    """


@dataclass(frozen=True)
class ListRecipesParameters:
    """List the recipes of fit.

    Examples:
        affwild2 recipes
        affwild2 recipes show default --task expr
    """


@dataclass(frozen=True)
class ShowRecipeParameters:
    """Print a recipe as TOML: every setting from features to decisions.

    Redirect it to a file, change its name and values, and pass the file to fit with --recipe.

    Examples:
        affwild2 recipes show default
        affwild2 recipes show my.toml --task expr
    """

    name: Annotated[str, Option("Name of a recipe, or a TOML file to check.", is_argument=True)]
    task: Annotated[TaskName | None, Option("Print only the settings of one task.")] = None


@dataclass(frozen=True)
class FetchModelParameters:
    """Download published weights, verify their hash, and convert them.

    Examples:
        affwild2 models fetch enet_b0_8_best_vgaf
    """

    name: _Name


@dataclass(frozen=True)
class ConvertModelParameters:
    """Convert published weights without executing anything in the file.

    Examples:
        affwild2 models convert ~/Downloads/enet_b0_8_best_vgaf.pt
        affwild2 models convert weights.pt --name enet_b2_8 --out enet_b2_8.safetensors
    """

    file: Annotated[
        LocalPath, Option("File with published weights that was downloaded by other means.", is_argument=True)
    ]
    name: Annotated[str | None, Option("Name of the weights, if their hash is unknown.")] = None
    out: Annotated[LocalPath | None, Option("Safetensors file to write. Default: a file in the cache.")] = None


@dataclass(frozen=True)
class ExportHeadParameters:
    """Export a head to ONNX and compare it with the original.

    Seeds, standardisation and activations are parts of the network. NAME.onnx.json describes its inputs and outputs.

    Examples:
        affwild2 heads export expr-tcn --store STORE --out exported
    """

    name: Annotated[str, Option("Name of a head, or its beginning, as affwild2 status lists it.", is_argument=True)]
    store: StoreUrl
    out: Annotated[LocalPath, Option("Folder for the exported files.")]


@dataclass(frozen=True)
class ExportModelParameters:
    """Export a backbone for devices and compare it with the original.

    The format web is a folder with a page for browsers, also of phones: every face of a photo or of the camera.

    Examples:
        affwild2 models export emotion_lite0 --out exported
        affwild2 models export emotion_lite0 --out page --format web
        affwild2 models export enet_b0_8_best_vgaf --out exported --format onnx --format openvino --pictures FACES
    """

    name: _Name
    out: Annotated[LocalPath, Option("Folder for the exported files.")]
    formats: Annotated[
        list[Literal["onnx", "onnx-int8", "openvino", "executorch", "web"]] | None,
        Option("Format to write. Default: all but web.", command_line_name="format"),
    ] = None
    weights: Annotated[LocalPath | None, Option("Safetensors file to use instead of the installed weights.")] = None
    pictures: Annotated[LocalPath | None, Option("Folder of pictures of faces to calibrate and compare with.")] = None
