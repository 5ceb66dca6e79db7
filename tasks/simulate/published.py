"""Published counts of Aff-Wild2 as it was distributed for ABAW3: the targets of a simulation.

Sources: the saved outputs of the authors' notebooks, ``A3 c36`` being cell 36 of ``abaw3_train`` (A4 to A7: the later
editions), and the overview of the tenth challenge (``N10``). Values without a source are derived from these; a comment
states how.
"""

from dataclasses import dataclass

from data_contracts.vocabulary import BranchName

SUBJECTS = 564  # A3 c14
VIDEOS = 548  # A3 c7
CROPS = 2_658_563  # A3 c14
CONTAINER_FRAMES = 2_610_374  # sum of the frame counts that OpenCV reads from the containers, A3 c7

# Last crop minus container count -> number of videos, A3 c7. The last two rows: -21 to -100, and below -100.
CROPS_BEYOND_CONTAINER = ((2, 2, 9), (1, 1, 263), (0, 0, 178), (-20, -1, 63), (-100, -21, 23), (-458, -101, 12))

# Two persons in one video are two subjects: SUBJECTS - VIDEOS, if no video has three.
TWO_PERSON_VIDEOS = SUBJECTS - VIDEOS


@dataclass(frozen=True)
class LabelCounts:
    """Valid labels of one task and set: of frames with a crop (``used``) and without (``missed``)."""

    used: int
    missed: int


# (task, set) -> valid labels. A3 c36, c44, c62, c69, c76, c88.
LABELS: dict[tuple[BranchName, str], LabelCounts] = {
    ("expr", "train"): LabelCounts(585_317, 12_044),
    ("expr", "validation"): LabelCounts(280_532, 3_698),
    ("va", "train"): LabelCounts(1_555_919, 25_265),
    ("va", "validation"): LabelCounts(338_755, 5_959),
    ("au", "train"): LabelCounts(1_356_861, 2_829),
    ("au", "validation"): LabelCounts(445_836, 9),
}
# Rows of the multi-task lists of ABAW3, A3 c95 and c113.
MTL_ROWS = {"train": LabelCounts(142_225, 2_666), "validation": LabelCounts(26_876, 211)}
MTL_TEST_ROWS = 51_245
MTL_LATER_TEST_ROWS = 51_159  # ABAW4 and ABAW7, A4 c106 and A7 c81
# Fewest repeated names among 169,209 rows for fitting and 51,159 rows of the test list, A4 c15, c18, c32, c108.
MTL_REPEATED_NAMES = 1_112
MTL_REPEATED = MTL_REPEATED_NAMES / 169_209
MTL_TEST_REPEATED = 718 / 51_159
# Share of rows with a valid label of each task, A4 c42 (of ABAW4; not published for ABAW3).
MTL_AVAILABLE: dict[str, dict[BranchName, float]] = {
    "train": {"va": 103_917 / 142_333, "expr": 90_645 / 142_333, "au": 103_316 / 142_333},
    "validation": {"va": 1.0, "expr": 15_440 / 26_876, "au": 1.0},
}
MTL_TEST_SUBJECTS = 82  # A4 c16

# Rows of the later sample files, A5 c104 and c205.
EXPR_TEST_ROWS, AU_TEST_ROWS = 1_022_655, 729_736
EXPR_FRAMES, AU_FRAMES = 2_620_000, 2_630_000  # of all subjects of the task, N10 (rounded there)
# Share of valid labels of valence and arousal: 2,062,165 for fitting and 927,210 test rows of 2,993,081 frames (N10).
VA_VALID = (2_062_165 + 927_210) / 2_993_081

# Frames with each class, A3 c38 and A5 c37: Neutral, Anger, Disgust, Fear, Happiness, Sadness, Surprise, Other.
EXPRESSION_COUNTS = {
    "train": (177_198, 16_573, 10_771, 9_080, 95_463, 78_751, 31_615, 165_866),
    "validation": (82_258, 6_126, 5_296, 8_408, 34_511, 25_157, 12_332, 106_444),
}
# Frames with each action unit among 1,356,861 (train), from the weights in A3 c78.
AU_TRAIN_COUNTS = (
    *(160_329, 67_650, 208_911, 361_132, 538_973, 467_499),
    *(332_410, 38_160, 42_686, 34_752, 850_250, 100_973),
)

# Derived. Frames of all subjects: valid valence and arousal labels without a crop give the share for every frame.
_VA_LABELS = [LABELS["va", "train"], LABELS["va", "validation"]]
MISSING_SHARE = sum(one.missed for one in _VA_LABELS) / sum(one.used + one.missed for one in _VA_LABELS)
FRAMES = round(CROPS / (1 - MISSING_SHARE))


def va_frames(set_name: str) -> int:
    """Return the frames of all subjects of a set of valence and arousal, derived from the share of valid labels."""
    if set_name == "test":
        return FRAMES - va_frames("train") - va_frames("validation")
    labels = LABELS["va", set_name]
    return round((labels.used + labels.missed) / VA_VALID)


def missing_frames(set_name: str) -> int:
    """Return the frames without a crop of all subjects of a set of valence and arousal."""
    if set_name == "test":
        return FRAMES - CROPS - missing_frames("train") - missing_frames("validation")
    return round(LABELS["va", set_name].missed / VA_VALID)


def au_validation_frames() -> int:
    """Return the frames of the validation subjects of action units, if the share of valid labels equals training's."""
    labels = [LABELS["au", "train"], LABELS["au", "validation"]]
    share = sum(one.used + one.missed for one in labels) / (AU_FRAMES - AU_TEST_ROWS)
    return round((labels[1].used + labels[1].missed) / share)
