"""Features of other programs: what is imported, what is refused, and that heads on them work."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.challenge.editions import ABAW3_TEST_LISTS
from data_contracts.errors import InputError
from data_contracts.store.store import Store
from flows.commands.forget import forget
from flows.commands.import_features import import_features
from flows.commands.parameters import ForgetParameters, ImportFeaturesParameters
from flows.engine.run_results import SomeFailedError
from flows.fit import fit
from flows.score import score
from flows.submit import submit
from tasks.fit.subject_features import find_features, read_features, read_sequence
from tests.flows.conftest import Demo


def values_of(demo: Demo) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Subject, frame and ten values of every frame with a face, in random order."""
    store = Store(demo.store)
    variant = find_features(store)
    parts = [
        ([subject] * int(face.sum()), frame[face], embedding[face, :10].astype(np.float32))
        for subject in variant.subjects
        for frame, face, embedding, _ in read_features(store, variant, subject)
    ]
    subject, frame, values = (np.concatenate(one) for one in zip(*parts, strict=True))
    order = np.random.default_rng(0).permutation(len(frame))
    return subject[order], frame[order], values[order]


def write_csv(path, subject, frame, values):
    names = [f" v{at}" for at in range(values.shape[1] - 1)] + ["score_smile"]
    rows = (f"{s},{f},{','.join(map(repr, v))}" for s, f, v in zip(subject, frame, values.tolist(), strict=True))
    path.write_text("\n".join([",".join(["subject", " frame", *names]), *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def files(demo, tmp_path_factory):
    """The same rows as Parquet and npz; and as CSV with frames from 0 and the last value as a score."""
    folder = tmp_path_factory.mktemp("features")
    subject, frame, values = values_of(demo)
    np.savez(folder / "a.npz", subject=subject, frame=frame, embedding=values)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    pq.write_table(pa.table({"subject": subject, "frame": frame, "embedding": lists}), folder / "a.parquet")
    write_csv(folder / "a.csv", subject, frame - 1, values)
    return folder


def run(file, store, name="audio", **options):
    return import_features(ImportFeaturesParameters(file, name, str(store), workers=1, **options))


@pytest.mark.parametrize("name", ["a.npz", "a.parquet", "a.csv"])
def test_every_row_arrives_at_its_subject_and_frame(demo, files, store_copy, capsys, name):
    assert run(files / name, store_copy, first_frame=int(name != "a.csv")) == 0
    store = Store(store_copy)
    usual, found = find_features(store), find_features(store, backbone="imported_audio")
    assert not usual.is_imported and set(found.subjects) == set(usual.subjects)
    for subject in usual.subjects:
        expected, got = read_sequence(store, usual, subject), read_sequence(store, found, subject)
        assert np.array_equal(got.present, expected.present)
        joined = np.concatenate([got.embeddings, got.logits.astype(np.float16)], axis=1)
        assert np.array_equal(joined, expected.embeddings[:, :10])
        assert got.logits.shape[1] == (name == "a.csv")
    capsys.readouterr()
    assert run(files / name, store_copy, first_frame=int(name != "a.csv")) == 0
    printed = capsys.readouterr().out
    assert "up to date" in printed and f"frames of the file count from {int(name != 'a.csv')}" in printed


@pytest.mark.service
def test_heads_on_imported_features_submit_but_do_not_score(demo, files, store_copy, tmp_path, dask_address, capsys):
    assert run(files / "a.npz", store_copy) == 0
    options = {"annotations": demo.data, "seeds": 1, "dask_address": dask_address}
    head = fit("va", str(store_copy), features_variant="imported_audio", features="embeddings", **options)
    lists = demo.data / "names_of_videos_in_each_test_set"
    submit("va", str(store_copy), lists / ABAW3_TEST_LISTS["va"], head=head, dask_address=dask_address)
    assert "no fault" in capsys.readouterr().out
    with pytest.raises(InputError, match=f"head {head}: fitted on imported features .* no network computes"):
        score([demo.data / "videos"], tmp_path / "out", store=str(store_copy), heads=[head])
    with pytest.raises(InputError, match=r"expected scores, which the recipe is fitted on, found none .* --features"):
        fit("va", str(store_copy), features_variant="imported_audio", features="both", **options)
    assert forget(ForgetParameters(None, str(store_copy), features=["imported_audio"])) == 0
    assert f"not removed: head {head}, which was fitted on these features" in capsys.readouterr().out
    assert not any("imported" in key.value("backbone") for key in Store(store_copy).manifests("features"))
    with pytest.raises(InputError, match=r"--features imported_audio: .* none matches; found: none"):
        forget(ForgetParameters(None, str(store_copy), features=["imported_audio"]))


def test_rows_that_are_not_used_are_named(demo, files, store_copy, tmp_path, capsys):
    subject, frame, values = values_of(demo)
    first, second = sorted(set(subject))[:2]
    subject = np.where(subject == first, "nobody", subject)
    values[np.flatnonzero(subject == second)[0], 3] = np.nan
    frame[np.flatnonzero(subject == second)[1]] = 4_000
    with pytest.raises(SomeFailedError, match=f"{second}: 1 row of .* left out because of NaN"):
        run(write_csv(tmp_path / "b.csv", subject, frame, values), store_copy)
    printed = capsys.readouterr()
    printed = printed.out + printed.err
    assert (
        "(nobody: " in printed
        and f"1 row not used, because the frames are after the last one of the video ({second}: 1)" in printed
    )
    assert f"1 subjects of the store have no row ({first})" in printed


def broken(files, change):
    """The arrays of the npz file after a change, as a new file."""
    arrays = dict(np.load(files / "a.npz"))
    changed = {name: value for name, value in change(arrays).items() if value is not None}
    target = io.BytesIO()
    np.savez(target, **changed)
    return target.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a | {"frame": np.where(np.arange(len(a["frame"])) < 2, 7, 9)}, "one row per subject and frame, got"),
        (lambda a: a | {"frame": a["frame"] - 1}, "got frame 0; correct it; pass --first-frame 0"),
        (lambda a: a | {"frame": None}, "the arrays subject, frame and embedding"),
        (lambda a: a | {"embedding": a["embedding"][:5]}, "arrays with one row per frame"),
        (lambda a: a | {"embedding": 1e6 * (a["embedding"] + 1)}, "values up to 65,504"),
        (lambda a: a | {"subject": a["subject"].astype(object)}, "an array subject of text"),
        (lambda a: a | {"subject": np.char.add("x", a["subject"])}, "rows of subjects of the store, such as"),
    ],
)
def test_wrong_files_are_refused_in_one_line(demo, files, store_copy, tmp_path, change, message):
    file = tmp_path / "wrong.npz"
    file.write_bytes(broken(files, change))
    with pytest.raises(InputError, match=message):
        run(file, store_copy)
    assert not any("imported" in key.value("backbone") for key in Store(store_copy).manifests("features"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"subject": ["a"], "embedding": [[1.0]]}, "got no frame among"),
        ({"subject": ["a", "a"], "frame": [1, 2], "embedding": [[1.0], [1.0, 2.0]]}, "lists of 1 numbers"),
        ({"subject": ["a"], "frame": [1], "pose": ["left"]}, "columns of numbers, got 'pose'"),
        ({"subject": ["a"], "frame": [1.5], "x": [1.0]}, "whole numbers of frames"),
        ({"subject": [None], "frame": [1], "x": [1.0]}, "a subject and a frame in every row"),
    ],
)
def test_wrong_tables_are_refused_in_one_line(tmp_path, columns, message):
    from tasks.extract.feature_files import open_feature_file

    pq.write_table(pa.table(columns), tmp_path / "wrong.parquet")
    with pytest.raises(InputError, match=message):
        list(open_feature_file(tmp_path / "wrong.parquet").rows(with_values=True))


def test_missing_and_unknown_files_are_refused(tmp_path):
    from tasks.extract.feature_files import open_feature_file

    with pytest.raises(InputError, match="found none; check the path"):
        open_feature_file(tmp_path / "none.csv")
    for name, message in (("x.txt", "named like one of"), ("x.npz", "numpy.savez"), ("x.pq", "a Parquet file")):
        (tmp_path / name).write_text("x")
        with pytest.raises(InputError, match=message):
            open_feature_file(tmp_path / name)
