"""What a URL of a store or an input may hold. What lies there is the business of ``store`` and ``layout``."""

import os
import re
from typing import Annotated, Any

from data_contracts.errors import InputError

# Keys of AWS hold slashes, so that a colon before the first one makes all up to the last @ a secret.
_USER = r"(?:[^/?#:]*:[^?#]*|[^/?#]*)@"
_USER_IN_URL = re.compile(rf"(?<=://){_USER}")
_SECRET_IN_QUERY = re.compile(
    r"([?&](?:x-amz-[\w-]*|signature|sig|[\w-]*(?:access_?-?key|secret|token|password|credential)[\w-]*)=)[^&#]*",
    re.IGNORECASE,
)
# What a form may hold, for servers that check parameters before they store them. In other ways of writing than the one
# above, as browsers know no pattern in which case does not matter.
_FORM_PATTERN = (
    rf"^(?!.*://{_USER})(?!.*[?&](?:[Xx]-[Aa][Mm][Zz]-|[Ss]ig=|[Ss]ignature=|"
    r"[^&=]*(?:[Ss]ecret|[Tt]oken|[Pp]assword|[Cc]redential|[Aa]ccess_?-?[Kk]ey)[^&=]*=))"
)
_SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")


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


def without_own_secrets(text: str) -> str:
    """The same also for the credentials in the environment: some servers put them into what they answer."""
    for name in _SECRET_VARIABLES:
        secret = os.environ.get(name, "")
        text = text.replace(secret, "***") if secret else text
    return without_credentials(text)


class NoCredentials:
    """In an annotation: tells pydantic, without importing it here, that forms refuse URLs with credentials."""

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        return handler(schema) | {"pattern": _FORM_PATTERN}


StoreParameter = Annotated[str, NoCredentials()]
