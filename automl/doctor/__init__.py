"""Doctor: what is wrong with settings, store, studies and surroundings, and each remedy.

An examination writes nothing but a probe, which it removes again. Audits and inspections of data
write what people ask for: a table, and the report beside a snapshot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from automl.doctor.findings import Finding, failure, fine
from automl.doctor.store import examine_log, examine_store
from automl.doctor.studies import examine_studies
from automl.doctor.surroundings import examine_surroundings
from automl.domain.settings import Settings
from automl.domain.specification import StudySpec
from automl.errors import AutoMLError
from automl.storage.open import open_home

_PATIENCE_S = 10.0  # nobody waits for a diagnosis as long as a run waits for its store


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that was found.

    Attributes:
        findings: in the order in which things were looked at.
    """

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """True if nothing needs doing."""
        return all(finding.ok for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """Exit code of the command: the least of all troubles, 0 without any."""
        return min((finding.exit_code for finding in self.findings if not finding.ok), default=0)

    def to_json(self) -> dict[str, Any]:
        """Return the document of `automl doctor --json`."""
        checks = [asdict(finding) for finding in self.findings]
        for check in checks:
            del check["exit_code"]
        return {"schema": 1, "ok": self.ok, "exit_code": self.exit_code, "checks": checks}


def examine(home: str | None, read_study: Callable[[Path], StudySpec]) -> Diagnosis:
    """Return what was found.

    Args:
        home: overrides `AUTOML_HOME`.
        read_study: reads a study file; raises ConfigError for what is wrong with it.
    """
    return Diagnosis((*_examine_home(home), *examine_surroundings(read_study)))


def _examine_home(uri: str | None) -> list[Finding]:
    try:
        settings = Settings.from_environment(home=uri)
        home = open_home(settings, _PATIENCE_S)
    except AutoMLError as error:
        return [failure("settings", error)]
    findings = [fine("settings", f"everything is kept in {home.store.uri}")]
    if settings.study_log is not None:
        findings += examine_log(settings.study_log, home.store.uri, _PATIENCE_S)
    findings += examine_store(home.store, _PATIENCE_S)
    if all(finding.ok for finding in findings):  # else their logs would only fail alike
        findings += examine_studies(home)
    return findings
