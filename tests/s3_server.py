"""An S3 server for tests: moto's, over HTTP."""

import contextlib
import logging
import os
import uuid
from collections.abc import Iterator

from data_contracts.files.locations import location


@contextlib.contextmanager
def serving_s3() -> Iterator[str]:
    """Start a server that ends with the block; yield its address."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def s3_environment(address: str) -> dict[str, str]:
    """Return the environment variables that select the server."""
    return {
        "AWS_ENDPOINT_URL_S3": address,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        # Ignore the settings of this machine.
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def use_s3(address: str) -> None:
    """Let this process use the server at an address. Connections to other servers are closed."""
    from data_contracts.files.s3_client import RetryingS3FileSystem

    os.environ.update(s3_environment(address))
    RetryingS3FileSystem.clear_instance_cache()


def new_bucket() -> str:
    """Create a bucket on the server that the environment names; return its URL."""
    place = location(f"s3://bucket-{uuid.uuid4().hex[:12]}")
    place.fs.mkdir(place.path.rstrip("/"))
    return str(place).rstrip("/")
