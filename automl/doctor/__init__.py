"""What `automl doctor` finds: settings, store, studies and surroundings, each with a remedy.

It writes nothing but a probe, which it removes again.
"""

from __future__ import annotations

from typing import Any

from automl.doctor.findings import Finding, failure, fine
from automl.doctor.store import examine_log, examine_store
from automl.doctor.studies import examine_studies
from automl.doctor.surroundings import examine_surroundings
from automl.errors import AutoMLError
from automl.runs.settings import Settings

_PATIENCE_S = 10.0  # nobody waits for a diagnosis as long as a run waits for its store


def examine(home: str | None) -> dict[str, Any]:
    """Return what was found; `ok` is false where something needs doing.

    Args:
        home: overrides `AUTOML_HOME`.
    """
    findings = [*_examine_home(home), *examine_surroundings()]
    bad = [finding for finding in findings if not finding.ok]
    return {
        "schema": 1,
        "ok": not bad,
        "exit_code": min((finding.exit_code for finding in bad), default=0),
        "checks": [
            {"check": f.check, "ok": f.ok, "found": f.found, "remedy": f.remedy} for f in findings
        ],
    }


def _examine_home(uri: str | None) -> list[Finding]:
    try:
        settings = Settings.from_environment(home=uri)
        home = settings.open_home(_PATIENCE_S)
    except AutoMLError as error:
        return [failure("settings", error)]
    findings = [fine("settings", f"everything is kept in {home.store.uri}")]
    if settings.study_log is not None:
        findings += examine_log(settings.study_log, home.store.uri, _PATIENCE_S)
    findings += examine_store(home.store, _PATIENCE_S)
    if all(finding.ok for finding in findings):  # else their logs would only fail alike
        findings += examine_studies(home)
    return findings
