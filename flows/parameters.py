"""The parameters of every flow: the one definition of its options on the command line and in its Prefect form.

The first paragraphs of a docstring are the help text of the command and the description of the flow.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

from data_contracts.files.credentials import StoreParameter
from data_contracts.files.locations import Location
from data_contracts.settings import DASK_ADDRESS, read_settings
from data_contracts.vocabulary import SEGMENT_FRAMES, EditionName, MissingFaces, People, TaskName
from flows.options import (
    DeployedFrom,
    NullAsText,
    OnThisMachine,
    Option,
    SchedulerAddress,
    TextToLocation,
    TextToRecipe,
)
from models.backbones.registry import DEFAULT_BACKBONE
from models.heads.recipes import HEAD_KINDS, Features
from models.pretraining.recipes import Goal, PretrainingName

LARGEST_SEED = 2**32 - 1
Source = Literal["mtcnn", "cropped", "cropped_aligned"]

LocalPath = Annotated[Path, OnThisMachine()]
_Place = Annotated[Location, TextToLocation()]
StoreUrl = Annotated[
    StoreParameter,
    Option("Store of features, heads and results: a path, file:// or s3:// URL."),
    DeployedFrom("AFFWILD2_STORE"),
]
DataFolder = Annotated[
    _Place,
    Option("Folder in the organisers' layout, or a folder of videos: a path or s3:// URL.", is_argument=True),
    DeployedFrom("AFFWILD2_VIDEOS"),
]
Videos = Annotated[
    list[_Place],
    Option("Video files, or folders of videos: paths or s3:// URLs.", is_argument=True),
    DeployedFrom("AFFWILD2_VIDEOS"),
]
VideosAndImages = Annotated[
    list[_Place],
    Option(
        "Videos, images, or folders of them: paths or s3:// URLs. In folders with videos, images are not used.",
        is_argument=True,
    ),
    DeployedFrom("AFFWILD2_VIDEOS"),
]
PredictionsFolder = Annotated[
    _Place, Option("Folder for the predictions: a path or s3:// URL."), DeployedFrom("AFFWILD2_OUT")
]
Annotations = Annotated[
    _Place, Option("The organisers' annotation folder, or a folder that contains it: a path or s3:// URL.")
]
TestList = Annotated[
    _Place,
    Option(
        "The organisers' list of test subjects, their sample file of frames, or a folder with one of them: a path or "
        "s3:// URL."
    ),
]
Task = Annotated[
    TaskName,
    Option(
        "expr: expressions; va: valence and arousal; au: action units; mtl: all three with one head.", is_argument=True
    ),
]
_BACKBONE_HELP = (
    "Network that computes the features: a name that affwild2 models list shows, or of a backbone that pretrain wrote "
    "into the store."
)
BackboneName = Annotated[str, Option(_BACKBONE_HELP)]
BackboneToTrain = Annotated[
    str, Option("Network to train, by a name that affwild2 models list shows or pretrain printed.")
]
BackboneOfHeads = Annotated[
    str | None,
    Option(
        f"{_BACKBONE_HELP} Default: that of the heads; without fitted heads, the only one whose features are in the "
        "store, else the bundled one."
    ),
]
WeightsFile = Annotated[LocalPath | None, Option("Safetensors file to use instead of the installed weights.")]
Heads = Annotated[
    list[str] | None,
    Option(
        "Name of a head to use, or its beginning. Default: the only head of each task; mtl for tasks without one.",
        command_line_name="head",
    ),
]
Postprocessings = Annotated[
    list[str] | None,
    Option(
        "Name of the post-processing of a head, or its beginning. Default: the only one of each head.",
        command_line_name="postprocessing",
    ),
]
Persons = Annotated[
    People,
    Option(
        "all: every person in each video; main: the one who fills most of the frame for most of the time, as in the "
        "challenge."
    ),
]
FacelessValues = Annotated[
    Annotated[MissingFaces, NullAsText()],
    Option("Values of frames without a face: null, or values interpolated between the nearest frames with a face."),
]
KeepCrops = Annotated[
    bool,
    Option(
        "Store an image of every face, as extract does. If the store already has the crops, they are used.",
        has_negation=True,
    ),
]
Annotate = Annotated[
    bool,
    Option("Also write a copy of each video with boxes and predictions drawn into it, NAME.annotated.mp4."),
]
FeaturesVariant = Annotated[
    str | None,
    Option(
        "Features variant to fit on, or its beginning, as affwild2 status lists it. Required if the store contains "
        "several backbones."
    ),
]
FacesVariant = Annotated[
    str | None, Option("Faces variant to use. Required if the store contains several sources of faces.")
]
Limit = Annotated[int | None, Option("Use only the first N videos, subjects or pictures.", minimum=1)]
DaskAddress = Annotated[
    Annotated[str, SchedulerAddress()] | None,
    Option(
        f"Address of a Dask scheduler, tcp://HOST:8786. Default: the variable {DASK_ADDRESS}, unless a "
        "number of workers is given. Without an address, local workers are started."
    ),
]
Workers = Annotated[int | None, Option("Local worker processes. Default: one per core.", minimum=1, maximum=1024)]


@dataclass(frozen=True)
class DemoParameters:
    """Run the whole pipeline on a small generated data set.

    Takes about a minute.

    Examples:
        affwild2 demo
        affwild2 demo --out /tmp/demo --workers 2
    """

    out: Annotated[LocalPath, Option("Folder for the data set and the store.")] = Path("demo")
    seed: Annotated[int, Option("Random seed of the generated data set.", minimum=0, maximum=LARGEST_SEED)] = 0
    workers: Workers = None


@dataclass(frozen=True)
class ExtractParameters:
    """Extract features from videos or official crops.

    An interrupted run continues where it stopped; videos that are already extracted are not read again.

    Examples:
        affwild2 extract DATA --store STORE
        affwild2 extract s3://lab/videos --store s3://lab/store --exact --limit 3
    """

    data: DataFolder
    store: StoreUrl
    source: Annotated[
        Source | None,
        Option("Where face crops come from. Default: mtcnn (detected here) if there are videos, else official crops."),
    ] = None
    backbone: BackboneName = DEFAULT_BACKBONE
    weights: WeightsFile = None
    min_face_px: Annotated[int, Option("Size of the smallest detected face, in pixels.", minimum=20, maximum=4096)] = 40
    exact: Annotated[
        bool,
        Option("Search every frame and run the backbone in float32: for publications. Half as fast."),
    ] = False
    first_crop: Annotated[
        int,
        Option(
            "Number in the name of the first frame's crop: 1 for 00001.jpg, as the organisers count, or 0.",
            minimum=0,
            maximum=1,
        ),
    ] = 1
    people: Annotated[
        People,
        Option("main: the subjects of the challenge; all: also every other person in each video, as score uses them."),
    ] = "main"
    crops: Annotated[
        bool,
        Option(
            "Store an image of every face. --no-crops stores boxes, landmarks and features alone, computed in one "
            "pass; another backbone decodes the videos again.",
            has_negation=True,
        ),
    ] = True
    segment_frames: Annotated[int, Option("Frames per unit of work.", minimum=1)] = SEGMENT_FRAMES
    limit: Limit = None
    dask_address: DaskAddress = None
    workers: Workers = None


@dataclass(frozen=True)
class FitParameters:
    """Fit a head for one task and tune its post-processing.

    Examples:
        affwild2 fit expr --store STORE --annotations DATA
        affwild2 fit va --store STORE --annotations DATA --recipe paper --seeds 5
        affwild2 fit au --store STORE --annotations DATA --recipe my.toml
        affwild2 fit va --store STORE --annotations DATA --blend va-default --blend va-paper
    """

    task: Task
    store: StoreUrl
    annotations: Annotations
    recipe: Annotated[
        Annotated[str, TextToRecipe()],
        Option("All settings from features to decisions: a name that affwild2 recipes lists, or a TOML file."),
    ] = "default"
    features: Annotated[Features | None, Option("Features to fit on instead of the recipe's.")] = None
    hidden_units: Annotated[
        int | None,
        Option("Size of the hidden layer instead of the recipe's; 0: a linear head.", minimum=0, maximum=65536),
    ] = None
    seeds: Annotated[
        int | None, Option("Number of seeds to average instead of the recipe's.", minimum=1, maximum=100)
    ] = None
    kind: Annotated[str | None, Option("Kind of head to fit instead of the recipe's.", choices=tuple(HEAD_KINDS))] = (
        None
    )
    blend: Annotated[
        list[str] | None,
        Option(
            "Name of a fitted head of the task, or its beginning: blend two or more heads, with weights from folds, "
            "instead of fitting one."
        ),
    ] = None
    train_on_validation: Annotated[
        bool,
        Option(
            "Fit again on the training and validation sets, for the number of epochs that was best on the training "
            "set alone. Post-processing and scores stay those of the first fit."
        ),
    ] = False
    features_variant: FeaturesVariant = None
    source: FacesVariant = None
    dask_address: DaskAddress = None
    workers: Workers = None


@dataclass(frozen=True)
class ReproduceParameters:
    """Reproduce Tables 1 to 6 of the paper from one store.

    Fits every head of the tables with several seeds, and prints published values beside ours. An interrupted run
    continues with the heads that are missing. The tables are written to STORE/reproduction as Markdown and CSV, and
    shown by the report.

    Examples:
        affwild2 reproduce --store STORE --annotations DATA
        affwild2 reproduce --store STORE --backbone enet_b0_8_best_vgaf --task expr --seeds 5
    """

    store: StoreUrl
    annotations: Annotated[
        _Place | None,
        Option(
            "The organisers' annotation folders, or a folder that contains them: a path or s3:// URL. Default: the "
            "labels that the store already has."
        ),
    ] = None
    backbones: Annotated[
        list[str] | None,
        Option(
            "Backbone, or features variant, to fit on. Default: all whose features the store has.",
            command_line_name="backbone",
        ),
    ] = None
    tasks: Annotated[
        list[TaskName] | None, Option("Task to fit heads for. Default: all.", command_line_name="task")
    ] = None
    seeds: Annotated[int, Option("Number of single-seed heads per cell of the tables.", minimum=1, maximum=100)] = 3
    source: Annotated[str | None, Option("Faces variant to use. Default: all that have features.")] = None
    dask_address: DaskAddress = None
    workers: Workers = None


@dataclass(frozen=True)
class SubmitParameters:
    """Write and verify the submission files of one task.

    Examples:
        affwild2 submit expr --store STORE --test-list LIST
        affwild2 submit va --store STORE --test-list LIST --head va-default-1a2b3c4d --edition abaw6
        affwild2 submit au --store STORE --test-list LIST --head au-paper --published-five
    """

    task: Task
    store: StoreUrl
    test_list: TestList
    head: Annotated[
        str | None, Option("Name of the head, or its beginning. Default: the only head that was fitted for the task.")
    ] = None
    postprocessing: Annotated[
        str | None, Option("Name of the post-processing, or its beginning. Default: the only one of the head.")
    ] = None
    edition: Annotated[
        EditionName | None, Option("Challenge edition whose file formats to write. Default: found from the test list.")
    ] = None
    published_five: Annotated[
        bool,
        Option(
            "Write the five submissions of the paper from a head with the post-processing of recipe paper: unsmoothed, "
            "and means and medians of 5 and 15 frames. Not for mtl."
        ),
    ] = False
    allow_other_labels: Annotated[
        bool,
        Option(
            "Accept a head that was fitted on labels of other tasks, too, which challenges of a single task forbid."
        ),
    ] = False
    dask_address: DaskAddress = None
    workers: Workers = None


@dataclass(frozen=True)
class ScoreParameters:
    """Predict facial affect in videos and images.

    Writes Parquet and CSV files with a row for every person and frame, and the outputs of every head. Without fitted
    heads, writes the outputs of the backbone: expressions, and valence and arousal if it was trained for them.

    Examples:
        affwild2 score clip.mp4 --out predictions
        affwild2 score clip.mp4 --out predictions --annotate
        affwild2 score photo.jpg FOLDER_OF_PHOTOS --out predictions
        affwild2 score VIDEOS --store STORE --out predictions --head expr-default --head va-default
        affwild2 score VIDEOS --out predictions --backbone enet_b0_8_va_mtl
    """

    videos: VideosAndImages
    out: PredictionsFolder
    store: Annotated[
        StoreParameter | None, Option("Store to read heads from and write features to. Default: OUT/store.")
    ] = None
    heads: Heads = None
    postprocessings: Postprocessings = None
    people: Persons = "all"
    crops: KeepCrops = False
    annotate: Annotate = False
    missing_faces: FacelessValues = "null"
    backbone: BackboneOfHeads = None
    weights: WeightsFile = None
    dask_address: DaskAddress = None
    workers: Workers = None


@dataclass(frozen=True)
class RescoreParameters:
    """Score only new, changed and outdated videos.

    Run this command on a schedule. Files that are still growing are left for the next run; files that failed several
    times are skipped.

    Examples:
        affwild2 rescore VIDEOS --store STORE --out predictions
        affwild2 rescore s3://lab/videos --store s3://lab/store --out s3://lab/predictions --settle-seconds 300
    """

    videos: Videos
    store: StoreUrl
    out: PredictionsFolder
    heads: Heads = None
    postprocessings: Postprocessings = None
    people: Persons = "all"
    crops: KeepCrops = False
    annotate: Annotate = False
    missing_faces: FacelessValues = "null"
    backbone: BackboneOfHeads = None
    weights: WeightsFile = None
    settle_seconds: Annotated[
        float, Option("Skip files that have changed within this time, in seconds.", minimum=0)
    ] = 60.0
    retry_quarantined: Annotated[
        bool, Option("Also try the quarantined videos, which failed in several runs because of their files.")
    ] = False
    dask_address: DaskAddress = None
    workers: Workers = None


@dataclass(frozen=True)
class PretrainParameters:
    """Train a backbone on labelled pictures of faces.

    An interrupted run continues from its last checkpoint.

    Examples:
        affwild2 pretrain emotion labels.csv --store STORE
        affwild2 pretrain identity VGGFACE2 --store STORE --backbone tf_efficientnet_b0 --recipe paper
    """

    goal: Annotated[
        Goal,
        Option("identity: distinguish people (step 1); emotion: recognise expressions (step 2).", is_argument=True),
    ]
    data: Annotated[
        LocalPath,
        Option("CSV file with labels, AffectNet's CSV file, or a folder of people.", is_argument=True),
    ]
    store: StoreUrl
    backbone: BackboneToTrain = "efficientnet_lite0"
    weights: Annotated[LocalPath | None, Option("Safetensors file with the weights to start from.")] = None
    validation: Annotated[
        LocalPath | None, Option("Pictures to validate on. Default: hold out a share of the people.")
    ] = None
    images: Annotated[LocalPath | None, Option("Folder of the pictures that a CSV file names.")] = None
    recipe: Annotated[PretrainingName, Option("Named setting of the training.")] = "default"
    input_px: Annotated[
        int | None, Option("Input size in pixels. Default: the input size of the backbone.", minimum=32, maximum=1024)
    ] = None
    valence_arousal: Annotated[bool, Option("Train valence and arousal outputs as well.")] = False
    untrained: Annotated[
        list[str] | None,
        Option("Person whose emotions are not used for training, only for validation."),
    ] = None
    seed: Annotated[
        int, Option("Random seed of the split, the order and the augmentation.", minimum=0, maximum=LARGEST_SEED)
    ] = 0
    limit: Limit = None
    dask_address: DaskAddress = None
    workers: Workers = None


FLOWS: dict[str, type] = {
    "demo": DemoParameters,
    "extract": ExtractParameters,
    "fit": FitParameters,
    "reproduce": ReproduceParameters,
    "submit": SubmitParameters,
    "score": ScoreParameters,
    "rescore": RescoreParameters,
    "pretrain": PretrainParameters,
}


class _OnCluster(Protocol):
    @property
    def dask_address(self) -> str | None: ...

    @property
    def workers(self) -> int | None: ...


def scheduler_of(parameters: _OnCluster) -> str | None:
    """Return the address of the scheduler that a run uses; None: local workers.

    The environment sets the default. A number of local workers overrides it.
    """
    default = read_settings().dask_address if parameters.workers is None else None
    return parameters.dask_address or default
