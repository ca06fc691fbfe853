"""`python -m tests.worker_child STEP`: a step in a process that is ready before its run is opened.

`TEST_LEASE_TTL_S` says how long the leases of trials live, in seconds.
"""

from __future__ import annotations

import os
import sys
import time

import automl.runs.worker  # noqa: F401 - heavy: the run's time is not to be spent on it
from automl.domain.settings import Settings
from automl.steps.__main__ import main
from automl.storage.home import Home
from automl.storage.leases import TTL_S, Leases
from automl.storage.objects import ObjectStore
from automl.storage.open import open_home
from automl.storage.study_log import StudyLog

READY = "ready"


class BriefHome:
    """A home whose trials are free again soon after their worker has gone quiet.

    Args:
        inner: keeps everything.
        ttl_s: how long the lease of a trial lives without being renewed.
    """

    def __init__(self, inner: Home, ttl_s: float) -> None:
        self._inner, self._ttl_s = inner, ttl_s

    @property
    def store(self) -> ObjectStore:
        return self._inner.store

    def study_log(self, study: str) -> StudyLog:
        return self._inner.study_log(study)

    def leases(self, study: str, ttl_s: float = TTL_S) -> Leases:
        return self._inner.leases(study, self._ttl_s if ttl_s == TTL_S else ttl_s)

    def study_names(self) -> list[str]:
        return self._inner.study_names()


if __name__ == "__main__":
    home = BriefHome(
        open_home(Settings.from_environment()), float(os.environ.get("TEST_LEASE_TTL_S", TTL_S))
    )
    sys.stderr.write(f"{READY}\n")
    while not home.study_names():
        time.sleep(0.05)
    sys.exit(main(sys.argv[1:], home))
