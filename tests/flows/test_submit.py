import pytest

from data_contracts.editions import ABAW3_TEST_LISTS
from data_contracts.errors import InputError
from flows.submit import submit

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_same_request_same_zip_and_faults_of_the_list_are_said(demo, store_copy, tmp_path, dask_address):
    lists = demo.data / "names_of_videos_in_each_test_set"
    first = submit("expr", str(store_copy), lists / ABAW3_TEST_LISTS["expr"], dask_address=dask_address)
    from_demo = next((demo.store / "submissions").glob("abaw3-expr-*/abaw3_expr.zip"))
    with open(first, "rb") as ours:
        assert ours.read() == from_demo.read_bytes()
    (tmp_path / "list.txt").write_text("test01\nnobody\n")
    with pytest.raises(InputError, match=r"found none for 1 \(nobody\)"):
        submit("expr", str(store_copy), tmp_path / "list.txt", dask_address=dask_address)
    with pytest.raises(InputError, match="expected one for va, got one for expr"):
        submit("va", str(store_copy), lists / ABAW3_TEST_LISTS["va"], head="expr", dask_address=dask_address)
