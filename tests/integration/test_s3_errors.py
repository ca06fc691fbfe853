"""What a store on S3 says when it is refused: by the real server where it can, else by a proxy."""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from automl.errors import ConfigError, StorageAccessError, StorageError
from automl.storage.probe import probe_conditional_writes
from automl.storage.s3.objects import S3ObjectStore
from automl.storage.s3.retries import S3Limits
from benchmarks.servers import (
    ACCESS_KEY,
    READER_ACCESS_KEY,
    READER_SECRET_KEY,
    SECRET_KEY,
    SeaweedServer,
)
from tests.faulty_proxy import FaultyProxy, refusal

HASTY = S3Limits(total_s=1.0, connect_s=1.0, read_s=1.0, longest_pause_s=0.2)
WRONG_SECRET, UNKNOWN_KEY = "a-wrong-secret-value", "AKUNKNOWNKEYID"
SECRETS = {SECRET_KEY, READER_SECRET_KEY, WRONG_SECRET, ACCESS_KEY, READER_ACCESS_KEY, UNKNOWN_KEY}
CALLS: dict[str, Callable[[S3ObjectStore], object]] = {
    "get": lambda store: store.get("key"),
    "put": lambda store: store.put("key", b"data"),
    "put_if_absent": lambda store: store.put_if_absent("key", b"data"),
    "put_if_match": lambda store: store.put_if_match("key", b"data", '"etag"'),
    "list": lambda store: list(store.list("")),
    "now": lambda store: store.now(),
}
Call = Callable[[S3ObjectStore], object]


def opened(uri: str) -> S3ObjectStore:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    return S3ObjectStore(bucket, prefix, HASTY)


def access_error(store: S3ObjectStore, call: Call) -> str:
    with pytest.raises(StorageAccessError) as caught:
        call(store)
    text = str(caught.value)
    assert not caught.value.retryable
    assert [secret for secret in SECRETS if secret in text] == []
    return text


def access_errors(uri: str) -> list[str]:
    """Return what every call says."""
    store = opened(uri)
    return [access_error(store, call) for call in CALLS.values()]


class TestCredentials:
    def test_a_wrong_secret_is_named(
        self, s3_store_uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", WRONG_SECRET)

        for text in access_errors(s3_store_uri):
            assert "SignatureDoesNotMatch" in text
            assert "correct AWS_SECRET_ACCESS_KEY" in text

    def test_an_unknown_access_key_is_named(
        self, s3_store_uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", UNKNOWN_KEY)

        for text in access_errors(s3_store_uri):
            assert "does not know the access key" in text
            assert "correct AWS_ACCESS_KEY_ID or AWS_PROFILE" in text

    @pytest.mark.parametrize("code", ["ExpiredToken", "TokenRefreshRequired"])
    def test_expired_credentials_are_named(
        self, s3_store_uri: str, faulty_s3: FaultyProxy, code: str
    ) -> None:
        faulty_s3.plan(refusal(400, code), times=100)

        for text in access_errors(s3_store_uri):
            assert f"({code}): the session's credentials have expired" in text
            assert "renew them" in text

    def test_a_wrong_session_token_is_named(
        self, s3_store_uri: str, faulty_s3: FaultyProxy
    ) -> None:
        faulty_s3.plan(refusal(400, "InvalidToken"))

        assert "unset AWS_SESSION_TOKEN" in access_error(opened(s3_store_uri), CALLS["get"])

    def test_a_clock_that_is_wrong_is_named(
        self, s3_store_uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        late = (dt.datetime.now(dt.UTC) - dt.timedelta(hours=2)).replace(tzinfo=None)
        monkeypatch.setattr("botocore.auth.get_current_datetime", lambda **_: late)

        for text in access_errors(s3_store_uri):
            assert "clock and the server's are too far apart" in text
            assert "synchronise the clock" in text


class TestRights:
    @pytest.fixture
    def reader(
        self, s3_server: SeaweedServer, s3_store_uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> S3ObjectStore:
        """A store that may only be read."""
        opened(s3_store_uri).put("known", b"data")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER_ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER_SECRET_KEY)
        return opened(s3_store_uri)

    def test_read_only_credentials_read(self, reader: S3ObjectStore, tmp_path: Path) -> None:
        reader.download("known", tmp_path / "file")

        assert reader.get("known").data == (tmp_path / "file").read_bytes() == b"data"
        assert [entry.key for entry in reader.list("")] == ["known"]

    @pytest.mark.parametrize("name", ["put", "put_if_absent", "put_if_match"])
    def test_a_refused_write_names_the_right_that_is_missing(
        self, reader: S3ObjectStore, name: str
    ) -> None:
        text = access_error(reader, CALLS[name])

        assert "refused PutObject (AccessDenied): these credentials may not do that" in text
        assert "grant them s3:PutObject; a home needs" in text
        assert "s3:DeleteObject" in text

    def test_the_probe_names_the_right_that_is_missing(self, reader: S3ObjectStore) -> None:
        assert "grant them s3:PutObject;" in access_error(reader, probe_conditional_writes)

    def test_a_refused_deletion_names_the_right_that_is_missing(
        self, reader: S3ObjectStore
    ) -> None:
        text = access_error(reader, lambda store: store.delete("known"))

        assert "grant them s3:DeleteObject;" in text

    @pytest.mark.parametrize("size_bytes", [4, 20 * 2**20])
    def test_a_refused_upload_names_the_right_that_is_missing(
        self, reader: S3ObjectStore, tmp_path: Path, size_bytes: int
    ) -> None:
        (tmp_path / "file").write_bytes(bytes(size_bytes))

        text = access_error(reader, lambda store: store.upload(tmp_path / "file", "key"))

        assert "grant them s3:PutObject;" in text


class TestPlaces:
    @pytest.mark.usefixtures("s3_store_uri")
    @pytest.mark.parametrize("name", ["get", "list", "now"])
    def test_a_missing_bucket_is_named(self, name: str) -> None:
        text = access_error(S3ObjectStore("no-such-bucket-here", limits=HASTY), CALLS[name])

        assert "Bucket no-such-bucket-here at http://127.0.0.1" in text
        assert "there is no such bucket" in text
        assert "create the bucket" in text

    def test_a_missing_bucket_is_no_lost_race(
        self, s3_store_uri: str, faulty_s3: FaultyProxy
    ) -> None:
        faulty_s3.plan(refusal(404, "NoSuchBucket"))

        assert "no such bucket" in access_error(opened(s3_store_uri), CALLS["put_if_match"])

    @pytest.mark.usefixtures("s3_store_uri")
    @pytest.mark.parametrize("name", CALLS)
    def test_a_name_that_no_bucket_can_have_is_refused(self, name: str) -> None:
        text = access_error(S3ObjectStore("no bucket", limits=HASTY), CALLS[name])

        assert "correct AUTOML_HOME" in text

    @pytest.mark.parametrize(
        ("status", "code"),
        [
            (301, "PermanentRedirect"),
            (400, "AuthorizationHeaderMalformed"),
            (400, "IllegalLocationConstraintException"),
        ],
    )
    def test_a_wrong_region_is_named(
        self, s3_store_uri: str, faulty_s3: FaultyProxy, status: int, code: str
    ) -> None:
        faulty_s3.plan(refusal(status, code, "<Region>eu-west-1</Region>"), times=100)

        for text in access_errors(s3_store_uri):
            assert "the bucket is in another region: eu-west-1" in text
            assert "set AWS_DEFAULT_REGION" in text

    def test_a_server_that_redirects_is_named(
        self, s3_store_uri: str, faulty_s3: FaultyProxy
    ) -> None:
        faulty_s3.plan(refusal(301, "MovedPermanently"), times=100)

        for text in access_errors(s3_store_uri):
            assert "the server redirects to another address" in text
            assert "correct AWS_ENDPOINT_URL (https?)" in text

    def test_a_server_without_conditional_writes_is_named(
        self, s3_store_uri: str, faulty_s3: FaultyProxy
    ) -> None:
        faulty_s3.plan(refusal(501, "NotImplemented"))

        text = access_error(opened(s3_store_uri), CALLS["put_if_absent"])

        assert "use a server with conditional writes" in text

    def test_an_unknown_refusal_is_told_with_its_code(
        self, s3_store_uri: str, faulty_s3: FaultyProxy
    ) -> None:
        faulty_s3.plan(refusal(400, "SomethingNew"))

        text = access_error(opened(s3_store_uri), CALLS["get"])

        assert "refused GetObject (SomethingNew)" in text

    def test_an_answer_that_is_no_s3_may_be_tried_again(
        self, s3_store_uri: str, faulty_s3: FaultyProxy
    ) -> None:
        faulty_s3.plan(refusal(418, "Teapot"))

        with pytest.raises(StorageError, match=r"\(Teapot\)") as caught:
            opened(s3_store_uri).get("key")
        assert caught.value.retryable

    @pytest.mark.parametrize("prefix", ["a//b", "../other", "a/./b", "x" * 1025])
    def test_a_prefix_that_is_no_path_is_refused(self, prefix: str) -> None:
        with pytest.raises(ConfigError):
            S3ObjectStore("bucket", prefix)

    def test_a_key_counts_with_its_prefix(self) -> None:
        with pytest.raises(ConfigError, match="1024 bytes"):
            S3ObjectStore("bucket", "x" * 1000).get("y" * 24)


class SelfSigned:
    """A TLS server whose certificate nobody vouches for.

    Args:
        folder: where its certificate and key are written.
    """

    def __init__(self, folder: Path) -> None:
        self.certificate = folder / "certificate.pem"
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        now = dt.datetime.now(dt.UTC)
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .sign(key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self.certificate.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)

    @property
    def endpoint(self) -> str:
        return f"https://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> SelfSigned:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed by `__exit__`
                return
            with connection:
                try:
                    self._context.wrap_socket(connection, server_side=True).close()
                except OSError:  # the client does not trust us, as it should
                    continue


class TestTLS:
    @pytest.fixture
    def self_signed(self, tmp_path: Path) -> Iterator[SelfSigned]:
        with SelfSigned(tmp_path) as server:
            yield server

    def test_an_unknown_authority_is_named(
        self,
        s3_store_uri: str,
        self_signed: SelfSigned,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", self_signed.endpoint)

        for text in access_errors(s3_store_uri):
            assert re.search(r"TLS failed \(certificate verify failed: self.signed", text)
            assert "set AWS_CA_BUNDLE" in text

    def test_https_to_a_server_that_speaks_http_is_named(
        self,
        s3_server: SeaweedServer,
        s3_store_uri: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint.replace("http:", "https:"))

        for text in access_errors(s3_store_uri):
            assert "TLS failed" in text
            assert "correct AWS_ENDPOINT_URL (http or https?)" in text

    def test_a_handshake_that_is_cut_may_be_tried_again(
        self, s3_store_uri: str, faulty_s3: FaultyProxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        faulty_s3.switch_off()
        monkeypatch.setenv("AWS_ENDPOINT_URL", faulty_s3.endpoint.replace("http:", "https:"))

        with pytest.raises(StorageError, match=r"GetObject of key failed \d+ times") as caught:
            opened(s3_store_uri).get("key")
        assert caught.value.retryable

    def test_an_authority_that_is_given_is_trusted(
        self, s3_store_uri: str, self_signed: SelfSigned, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", self_signed.endpoint)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(self_signed.certificate))

        with pytest.raises(StorageError, match="cannot be reached") as caught:
            opened(s3_store_uri).get("key")  # TLS is fine, then the server closes
        assert caught.value.retryable
