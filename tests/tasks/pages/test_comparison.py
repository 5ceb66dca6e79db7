import numpy as np
import pytest
from scipy.stats import bootstrap

from data_contracts.errors import InputError
from data_contracts.store.bundles import Bundle
from models.decisions.postprocessing import untuned_postprocessing
from models.decisions.subject_outputs import SubjectOutputs
from models.heads.metrics import score_branch
from tasks.pages.comparison import compare_evaluations
from tasks.results.evaluations import Evaluation


def evaluation(name, skill, *, videos=9, frames=120, without=()):
    """A head of valence and arousal whose values are the labels with noise, on the same labels for every ``skill``."""
    rows = []
    for number in range(videos):
        labels = np.random.default_rng(number).uniform(-1, 1, (frames, 2)).astype(np.float32)
        noise = np.random.default_rng([number, int(100 * skill)]).normal(0, 1 - skill, labels.shape)
        frame = np.setdiff1d(np.arange(frames), without)
        outputs = {"va": np.clip(labels + noise, -1, 1).astype(np.float32)}
        rows.append(SubjectOutputs(f"video{number}", outputs, np.ones(frames, bool), frame, {"va": labels[frame]}))
    rule = untuned_postprocessing("va")
    of_subject = dict.fromkeys((one.name for one in rows), rule)
    return Evaluation(
        Bundle(f"heads/{name}", "f" * 64), "va", rows, {"untuned": of_subject, "in-sample": of_subject}, rule
    )


def test_differences_are_those_of_a_paired_bootstrap_over_rows():
    a, b = evaluation("a", 0.3), evaluation("b", 0.6)

    def difference(drawn):
        scores = [
            score_branch(
                "va",
                np.concatenate([one.rows[int(at)].labels["va"] for at in drawn]),
                np.concatenate([one.rows[int(at)].outputs["va"] for at in drawn]),
            )["mean_ccc"]
            for one in (a, b)
        ]
        return scores[1] - scores[0]

    # A resample of all videos ties with the difference, or not, by rounding.
    expected = bootstrap(
        (np.arange(9),), difference, n_resamples=1_000, vectorized=False, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    found = compare_evaluations(a, b)
    one = next(one for one in found.differences if (one.score, one.metric) == ("untuned", "mean_ccc"))
    assert one.difference.value == pytest.approx(one.b - one.a) == pytest.approx(difference(range(9)))
    assert (one.difference.low, one.difference.high) == pytest.approx((expected.low, expected.high), rel=0.01)
    assert one.difference.low > 0
    assert (found.videos, found.rows) == (9, 1080)
    assert any(note.startswith("In-sample scores are too high") for note in found.notes)


def test_only_common_rows_of_the_same_subjects_are_compared():
    found = compare_evaluations(evaluation("a", 0.3, without=[0, 1]), evaluation("b", 0.3, without=[1, 2]))
    assert found.rows == 9 * 117
    assert all(one.difference.value == 0 for one in found.differences)
    assert "Scored on the 1,053 labelled rows that both heads are scored on." in found.notes
    with pytest.raises(InputError, match="expected the same validation subjects, found 9 and 8, 8 of them in both"):
        compare_evaluations(evaluation("a", 0.3), evaluation("b", 0.6, videos=8))
