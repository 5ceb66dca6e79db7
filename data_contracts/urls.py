"""What a URL of a store or an input may hold. What lies there is the business of ``store`` and ``layout``."""

import re

from data_contracts.errors import InputError

_USER_IN_URL = re.compile(r"(?<=://)[^/?#]*@")
_SECRET_IN_QUERY = re.compile(
    r"([?&](?:x-amz-[\w-]*|signature|sig|[\w-]*(?:access_?-?key|secret|token|password|credential)[\w-]*)=)[^&#]*",
    re.IGNORECASE,
)


def check_no_credentials(url: str, *, what: str) -> None:
    """That a URL holds no user, password, key or signature: URLs are shown in logs, parameters and reports.

    Raises:
        InputError: it does; the message (of ``what``, a parameter's name) shows none of them.
    """
    shown = without_credentials(url)
    if shown != url:
        raise InputError(
            f"{what}: expected a URL without credentials, got {shown!r}; give them in AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or in a profile of ~/.aws/credentials, and change a key that was shown"
        )


def without_credentials(text: str) -> str:
    """The text with ``***`` in place of what is a secret within URLs; unchanged if there is none."""
    return _SECRET_IN_QUERY.sub(r"\1***", _USER_IN_URL.sub("***@", text))
