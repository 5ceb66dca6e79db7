import numpy as np
import pytest
import torch

from models.heads.rows import RowReader, TrainingRows, moments

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


def test_inputs_are_the_requested_rows(tmp_path):
    data, index = rows(tmp_path), np.array([7, 3, 3])
    expected = np.concatenate([data.embeddings[index], data.logits[index]], axis=1).astype("f4")
    assert (data.inputs(index, "both").numpy() == expected).all()
    assert data.inputs(index, "scores").shape == (3, data.width("scores"))
    assert data.inputs(index, "embeddings").dtype == torch.float32


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
    values = data.inputs(index, "both").numpy().astype("f8")
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
def test_reader_equals_inputs(tmp_path, features):
    data = rows(tmp_path)
    reader, index = RowReader(data, features, batch_rows=8), RANDOM.integers(0, 50, 30)
    blocks = [(block, inputs.clone()) for block, inputs in reader.blocks(index)]
    assert [len(block) for block, _ in blocks] == [8, 8, 8, 6]
    assert (np.concatenate([block for block, _ in blocks]) == index).all()
    assert (torch.cat([inputs for _, inputs in blocks]) == data.inputs(index, features)).all()
    with pytest.raises(IndexError, match="at most 8 rows"):
        reader.read(index)


def test_reader_standardises():
    data, index = rows(), np.arange(50)
    mean, deviation = moments(data, index, "both")
    got = RowReader(data, "both", mean=mean, deviation=deviation).read(index)
    torch.testing.assert_close(got, (data.inputs(index, "both") - mean) / deviation)
