"""Settings of the unit tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# The same examples on every machine, and no verdict that depends on how busy it is.
settings.register_profile(
    "repository",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repository")
