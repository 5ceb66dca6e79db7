"""Folds of videos, and values that are shrunk where folds disagree."""

from collections.abc import Sequence

import numpy as np

from data_contracts.vocabulary import normalize_name, video_of_subject

# Number of folds of videos.
FOLDS = 5


def has_several_subjects_of_a_video(subjects: Sequence[str]) -> bool:
    """Return whether two of the subjects are in one video; for fingerprints.

    Only then do folds of videos differ from the folds of subjects that earlier versions used.
    """
    return len(set(_number_videos(subjects))) < len(subjects)


def split_by_video(subjects: Sequence[str], folds: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (indices to tune on, indices to score) for each fold; all subjects of a video are in the same fold.

    There are as many folds as videos if there are fewer videos than ``folds``, and none if there is one video only.
    """
    # scikit-learn takes a while to import; commands that do not tune skip it.
    from sklearn.model_selection import GroupKFold

    videos = _number_videos(subjects)
    count = min(folds, len(set(videos)))
    return list(GroupKFold(count).split(subjects, groups=videos)) if count > 1 else []


def _number_videos(subjects: Sequence[str]) -> list[int]:
    """Return the number of each subject's video, in the order in which the videos appear."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(normalize_name(video_of_subject(subject)), len(numbers)) for subject in subjects]


def jackknife_variance(replicates: np.ndarray) -> np.ndarray:
    """Return the variance of an estimate from its values [G, ...] without one of G groups each.

    The delete-a-group jackknife: (G - 1) / G times the sum of squared deviations from the mean of the replicates
    (Efron and Tibshirani 1993, An Introduction to the Bootstrap, equation 11.5, with groups for observations).
    """
    count = len(replicates)
    return np.asarray((count - 1) / count * ((replicates - replicates.mean(axis=0)) ** 2).sum(axis=0))


def shrink(estimates: np.ndarray, replicates: np.ndarray, *, target: float | None = None) -> np.ndarray:
    """Return estimates [P] that are moved towards a common value the more, the more folds disagree about them.

    Empirical Bayes with a normal prior and unequal variances (Efron and Morris 1975, Journal of the American
    Statistical Association 70, section 2): estimate p is b_p ~ N(true_p, v_p), and true_p ~ N(m, t²). Its posterior
    mean is m + t² / (t² + v_p) (b_p - m). The variances v_p are those of the jackknife over folds. t² follows from the
    moments: with a given m it is the mean of (b_p - m)² - v_p, otherwise the sample variance of b_p minus the mean of
    v_p, and at least 0; m is then the mean of b_p with weights 1 / (t² + v_p).

    Folds that agree leave the estimates unchanged; without differences beyond the noise, all become the target.

    Args:
        estimates: from all folds.
        replicates: [G, P], the same without one of the folds each, G >= 2.
        target: the value m; None: estimated.
    """
    variance = jackknife_variance(replicates)
    if not variance.any() or (target is None and len(estimates) < 2):
        return estimates.copy()
    if target is None:
        spread = max(float(estimates.var(ddof=1) - variance.mean()), 0.0)
        weights = 1 / np.maximum(spread + variance, 1e-12)
        target = float(np.average(estimates, weights=weights))
    else:
        spread = max(float(((estimates - target) ** 2 - variance).mean()), 0.0)
    total = spread + variance
    kept = np.divide(spread, total, out=np.ones_like(total), where=total > 0)
    return np.asarray(target + kept * (estimates - target))
