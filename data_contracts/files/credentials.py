"""Credentials in URLs and messages: refuse or hide them."""

import os
import re
from typing import Annotated, Any

from data_contracts.errors import InputError

# Secret keys of AWS contain slashes. After a colon before the first slash, everything up to the last @ is secret.
_USER = r"(?:[^/?#:]*:[^?#]*|[^/?#]*)@"
_USER_IN_URL = re.compile(rf"(?<=://){_USER}")
_SECRET_IN_QUERY = re.compile(
    r"([?&](?:x-amz-[\w-]*|signature|sig|[\w-]*(?:access_?-?key|secret|token|password|credential)[\w-]*)=)[^&#]*",
    re.IGNORECASE,
)
# The same in the JSON schema of forms, so that a server refuses credentials before it stores them. Patterns in browsers
# have no flag that ignores case.
_FORM_PATTERN = (
    rf"^(?!.*://{_USER})(?!.*[?&](?:[Xx]-[Aa][Mm][Zz]-|[Ss]ig=|[Ss]ignature=|"
    r"[^&=]*(?:[Ss]ecret|[Tt]oken|[Pp]assword|[Cc]redential|[Aa]ccess_?-?[Kk]ey)[^&=]*=))"
)
_SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")


def check_no_credentials(url: str, *, what: str) -> None:
    """Check that a URL contains no user, password, key or signature, because logs and reports show URLs.

    Raises:
        InputError: it does. The message names ``what`` (a parameter) and hides the credentials.
    """
    shown = hide_credentials(url)
    if shown != url:
        raise InputError(
            f"{what}: expected a URL without credentials, got {shown!r}; give them in AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or in a profile of ~/.aws/credentials, and change a key that was shown"
        )


def hide_credentials(text: str) -> str:
    """Replace credentials inside URLs with ``***``. Text without credentials is returned unchanged."""
    return _SECRET_IN_QUERY.sub(r"\1***", _USER_IN_URL.sub("***@", text))


def hide_secrets(text: str) -> str:
    """Replace credentials inside URLs and those of the environment: some servers repeat them in error messages."""
    for name in _SECRET_VARIABLES:
        secret = os.environ.get(name, "")
        text = text.replace(secret, "***") if secret else text
    return hide_credentials(text)


class NoCredentials:
    """Annotation for pydantic, without importing it: forms refuse URLs with credentials."""

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        return handler(schema) | {"pattern": _FORM_PATTERN}


StoreParameter = Annotated[str, NoCredentials()]
