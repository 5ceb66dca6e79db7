import re

import pytest
from pydantic import TypeAdapter

from data_contracts.errors import InputError
from data_contracts.files.credentials import StoreParameter, check_no_credentials, hide_credentials, hide_secrets
from data_contracts.store.store import Store

SECRET = "wJalrXUtnFEMI"
FORM_PATTERN = TypeAdapter(StoreParameter).json_schema()["pattern"]


@pytest.mark.parametrize(
    "url",
    [
        f"s3://AKIA:{SECRET}@bucket/store",
        f"s3://{SECRET}@bucket",
        f"https://user:{SECRET}@host:9000/bucket",
        f"s3://AKIA:a@b{SECRET}@bucket/store",
        f"s3://AKIA:a/b{SECRET}/c@bucket/store",
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
    assert not re.search(FORM_PATTERN, url)


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
def test_urls_without_credentials_are_accepted(url: str) -> None:
    check_no_credentials(url, what="store")
    assert hide_credentials(url) == url
    assert re.search(FORM_PATTERN, url)


def test_credentials_of_the_environment_are_hidden(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    assert (
        hide_secrets(f"key {SECRET} is not known at http://u:p@host/x") == "key *** is not known at http://***@host/x"
    )
