import numpy as np
import pytest
import torch

from models.heads.rows import RowReader, TrainingRows, moments
from models.heads.sequences import SubjectSequence, to_scores

RANDOM = np.random.default_rng(0)


def rows(tmp_path=None, count=50):
    embeddings = RANDOM.normal(2, 3, (count, 4)).astype("f2")
    if tmp_path:
        np.save(tmp_path / "e.npy", embeddings)
        embeddings = np.load(tmp_path / "e.npy", mmap_mode="r")
    expr = RANDOM.integers(-1, 8, count).astype("i1")
    va = np.where(RANDOM.random((count, 1)) < 0.3, np.nan, RANDOM.uniform(-1, 1, (count, 2))).astype("f4")
    au = RANDOM.integers(-1, 2, (count, 12)).astype("i1")
    au[:10] = -1
    return TrainingRows(embeddings, RANDOM.normal(size=(count, 3)).astype("f4"), {"expr": expr, "va": va, "au": au})


def inputs(data, index, features):
    parts = {"embeddings": [data.embeddings], "scores": [data.logits], "both": [data.embeddings, data.logits]}
    return torch.from_numpy(np.concatenate(parts[features], axis=1).astype("f4")[index])


def test_labelled_rows_of_branches():
    data = rows()
    assert (data.labelled(("expr",)) == np.flatnonzero(data.labels["expr"] >= 0)).all()
    assert set(data.labelled(("au",))) == {i for i in range(50) if (data.labels["au"][i] >= 0).any()}
    whole = {i for i in range(50) if (data.labels["au"][i] >= 0).all()}
    assert set(data.labelled(("au",), drop_partial_units=True)) == whole
    both = set(data.labelled(("expr",))) | set(data.labelled(("va",)))
    assert set(data.labelled(("expr", "va"))) == both


def test_moments_equal_numpy():
    data, index = rows(), np.arange(40)
    mean, deviation = moments(data, index, "both")
    values = inputs(data, index, "both").numpy().astype("f8")
    np.testing.assert_allclose(mean, values.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(deviation, values.std(axis=0), rtol=1e-4)


def test_unequal_lengths_and_nan_are_refused():
    data = rows()
    with pytest.raises(ValueError, match="one length"):
        TrainingRows(data.embeddings[:4], data.logits, data.labels)
    broken = data.embeddings.copy()
    broken[3, 1] = np.nan
    with pytest.raises(ValueError, match="finite"):
        moments(TrainingRows(broken, data.logits, data.labels), np.arange(50), "embeddings")


@pytest.mark.parametrize("features", ["embeddings", "scores", "both"])
def test_reader_returns_the_requested_rows_in_float32(tmp_path, features):
    data = rows(tmp_path)
    reader, index = RowReader(data, features, batch_rows=8), RANDOM.integers(0, 50, 30)
    blocks = [(block, values.clone()) for block, values in reader.blocks(index)]
    assert [values.shape for _, values in blocks] == [(size, data.width(features)) for size in (8, 8, 8, 6)]
    assert blocks[0][1].dtype == torch.float32
    assert (np.concatenate([block for block, _ in blocks]) == index).all()
    assert (torch.cat([values for _, values in blocks]) == inputs(data, index, features)).all()
    with pytest.raises(IndexError, match="at most 8 rows"):
        reader.read(index)


@pytest.mark.parametrize("features", ["embeddings", "scores", "both"])
def test_reader_and_sequence_replace_logits_by_their_softmax(features):
    data, index = rows(), np.arange(50)
    exponents = np.exp(data.logits.astype("f8"))
    softmax = TrainingRows(data.embeddings, exponents / exponents.sum(axis=1, keepdims=True), data.labels)
    expected = inputs(softmax, index, features)
    torch.testing.assert_close(RowReader(data, features, scores="probabilities").read(index), expected)
    sequence = SubjectSequence(data.embeddings, data.logits, np.ones(50, bool), np.arange(50.0))
    torch.testing.assert_close(torch.from_numpy(sequence.inputs(features, "probabilities")), expected)
    mean, _ = moments(data, index, features, scores="probabilities")
    torch.testing.assert_close(mean, expected.mean(0), atol=1e-3, rtol=1e-3)


def test_reader_standardises():
    data, index = rows(), np.arange(50)
    mean, deviation = moments(data, index, "both")
    got = RowReader(data, "both", mean=mean, deviation=deviation).read(index)
    torch.testing.assert_close(got, (inputs(data, index, "both") - mean) / deviation)


def test_softmax_of_large_logits_is_finite():
    found = to_scores(np.array([[1e4, 0, -1e4], [3, 3, 3]]), "probabilities")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[1, 0, 0], [1 / 3] * 3], atol=1e-6)
