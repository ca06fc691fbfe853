"""Plugin that Airflow loads at start; it must stay cheap, for every task process imports it."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

POOLS_PREFIX = "/automl-pools"


class AutoMLPlugin(AirflowPlugin):
    """Registers the AutoML parts of the API server."""

    name = "automl"

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The applications that the API server mounts, imported only there."""
        from automl_airflow.pools import make_app

        return [{"app": make_app(), "url_prefix": POOLS_PREFIX, "name": "AutoML pools"}]
