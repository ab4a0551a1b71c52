import itertools
from collections.abc import Callable, Iterator

import pytest
from pyarrow import fs

from dynoscope.remote import replica
from tests.remote.runs import Scalars
from tests.remote.stores import BUCKET, Proxy, s3_server

NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[int]:
    """Port of an S3 server that has one bucket."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with s3_server() as port:
            system = fs.S3FileSystem(
                endpoint_override=f"127.0.0.1:{port}",
                scheme="http",
                allow_bucket_creation=True,
            )
            system.create_dir(BUCKET)
            yield port


@pytest.fixture
def proxy(server: int) -> Iterator[Proxy]:
    """Between us and the server, and well at first."""
    proxy = Proxy(server)
    yield proxy
    proxy.close()


@pytest.fixture(autouse=True)
def quick(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Caches and spools of this test alone; replicas that look whenever asked."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(replica, "INTERVAL", 0.0)
    yield
    while Scalars.made:
        Scalars.made.pop().close()


@pytest.fixture
def s3(proxy: Proxy) -> Callable[[str], str]:
    """Makes URIs that go through the proxy, in a part of the bucket of their own."""
    number = next(NUMBERS)

    def uri(path: str, bucket: str = BUCKET) -> str:
        options = f"endpoint_override=127.0.0.1:{proxy.port}&scheme=http"
        return f"s3://{bucket}/{number}/{path}?{options}"

    return uri
