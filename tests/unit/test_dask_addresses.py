"""Addresses of Dask schedulers, and what protects what goes there."""

from __future__ import annotations

import pytest

from automl.data.cluster import is_unprotected, remote_client
from automl.errors import ConfigError


@pytest.mark.parametrize(
    "address",
    ["tcp://127.0.0.1:8786", "tcp://[::1]:8786", "tcp://localhost:8786", "127.0.0.1:8786",
     "tls://dask.example.com:8786", "tls://10.0.0.1:8786", "inproc://10.0.0.1/1/1"],
)  # fmt: skip
def test_what_stays_here_or_is_encrypted_is_protected(address: str) -> None:
    assert not is_unprotected(address)


@pytest.mark.parametrize(
    "address",
    ["tcp://dask-scheduler:8786", "tcp://10.0.0.1:8786", "ws://10.0.0.1:8786", "10.0.0.1:8786",
     "tcp://localhost.example.com:8786", "dask-scheduler:8786"],
)  # fmt: skip
def test_what_leaves_this_machine_as_it_is_is_not(address: str) -> None:
    assert is_unprotected(address)


def test_tls_without_a_certificate_is_refused_with_what_to_set() -> None:
    with (
        pytest.raises(ConfigError, match=r"no certificate is set.*TLS__CA_FILE"),
        remote_client("tls://127.0.0.1:9"),
    ):
        pass
