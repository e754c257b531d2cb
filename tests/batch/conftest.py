"""A server of S3 on the loopback, for the tests of batches."""

import logging
import os
from itertools import count

import pytest

_numbers = count()


@pytest.fixture(scope="session")
def s3_server():
    moto = pytest.importorskip("moto.server", reason="no moto here: no server of S3")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    given = {
        "FSSPEC_S3_ENDPOINT_URL": f"http://{host}:{port}",
        "FSSPEC_S3_KEY": "testing",
        "FSSPEC_S3_SECRET": "testing",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    import fsspec.config

    fsspec.config.set_conf_env(fsspec.config.conf)
    yield given["FSSPEC_S3_ENDPOINT_URL"]
    server.stop()
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture
def s3(s3_server):
    """Return the URL of a new bucket, for this process and its children."""
    s3fs = pytest.importorskip("s3fs")
    name = f"bucket-{next(_numbers)}"
    s3fs.S3FileSystem().mkdir(name)
    return f"s3://{name}"
