"""A certificate for all parts of one Dask cluster: only processes that can read its file can use the cluster."""

import argparse
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from distributed import Security

_CERTIFICATE = "dask-tls.pem"
_ENVIRONMENT = "dask-tls.env"


def write_certificate(folder: Path) -> Path:
    """Write a key with its certificate, valid for a year, and the settings that use it, readable by the owner only.

    Returns:
        The file of settings: ``NAME=VALUE`` lines for shells, systemd and container engines.

    Raises:
        FileExistsError: the folder contains a certificate.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    security = Security.temporary()
    _write(folder / _CERTIFICATE, f"{security.tls_scheduler_key}{security.tls_scheduler_cert}")
    settings = tls_settings(folder)
    _write(folder / _ENVIRONMENT, "".join(f"{name}={shlex.quote(value)}\n" for name, value in settings.items()))
    return folder / _ENVIRONMENT


def tls_settings(folder: Path) -> Mapping[str, str]:
    """Return the environment variables with which scheduler, workers and commands require the folder's certificate."""
    certificate = str(folder.absolute() / _CERTIFICATE)
    tls = "DASK_DISTRIBUTED__COMM__TLS__"
    return {
        "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True",
        f"{tls}CA_FILE": certificate,
        **{
            f"{tls}{role}__{part}": certificate
            for role in ("SCHEDULER", "WORKER", "CLIENT")
            for part in ("CERT", "KEY")
        },
    }


def _write(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def main() -> None:
    """Write a certificate to a folder, and print the file of settings."""
    arguments = argparse.ArgumentParser(
        prog="python -m infra.certificates",
        description="Write a certificate for a Dask cluster to FOLDER, and the settings that use it to "
        f"FOLDER/{_ENVIRONMENT}.",
    )
    arguments.add_argument("folder", type=Path, help="an absolute path that is the same on all machines of the cluster")
    folder = arguments.parse_args().folder
    try:
        print(write_certificate(folder))
    except OSError as error:
        sys.exit(f"{arguments.prog}: cannot write a certificate: {error}")


if __name__ == "__main__":
    main()
