import pytest

from data_contracts.errors import InputError
from data_contracts.store import Store
from data_contracts.urls import check_no_credentials, without_credentials

SECRET = "wJalrXUtnFEMI"


@pytest.mark.parametrize(
    "url",
    [
        f"s3://AKIA:{SECRET}@bucket/store",
        f"s3://{SECRET}@bucket",
        f"https://user:{SECRET}@host:9000/bucket",
        f"s3://AKIA:a@b{SECRET}@bucket/store",
        f"s3://bucket/store?X-Amz-Signature={SECRET}&X-Amz-Credential={SECRET}",
        f"s3://bucket/store?aws_secret_access_key={SECRET}",
        f"https://host/store?sv=1&sig={SECRET}",
        f"simplecache::s3://AKIA:{SECRET}@bucket/store",
    ],
)
def test_credentials_in_a_url_are_refused_without_being_shown(url: str) -> None:
    for refuse in (Store, lambda url: check_no_credentials(url, what="data")):
        with pytest.raises(InputError, match="expected a URL without credentials") as caught:
            refuse(url)
        assert SECRET not in str(caught.value) and "***" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "/data/store",
        "a@b/c",
        "s3://bucket/a@b/store",
        "s3://bucket/video?=1",
        "file:///x?token",
        "s3://bucket/sig=ok/x",
    ],
)
def test_other_urls_pass(url: str) -> None:
    check_no_credentials(url, what="store")
    assert without_credentials(url) == url
