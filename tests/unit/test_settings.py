from __future__ import annotations

import pytest

from automl.domain.settings import Settings
from automl.errors import ConfigError
from automl.storage.open import open_home
from automl.storage.sql.home import SqlHome
from automl.storage.sql.url import parse_url, shown

HIDDEN = "s3cr3t"


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////var/lib/automl/log.db",
        f"postgresql://anna:{HIDDEN}@db.example:5433/automl",
        f"postgresql+psycopg://anna:{HIDDEN}@[::1]/automl?sslmode=require",
        "postgresql:///automl?host=/var/run/postgresql",
    ],
)
def test_a_database_can_keep_the_study_log(url: str) -> None:
    settings = Settings.from_environment({"AUTOML_STUDY_LOG": url}, "/home")

    assert settings.study_log == url
    assert isinstance(open_home(settings), SqlHome)
    assert HIDDEN not in repr(settings)


@pytest.mark.parametrize("environment", [{}, {"AUTOML_STUDY_LOG": ""}])
def test_without_a_database_the_home_keeps_it(environment: dict[str, str]) -> None:
    assert Settings.from_environment(environment, "/home").study_log is None


@pytest.mark.parametrize(
    "url",
    [
        "log.db",
        "sqlite://",
        "sqlite:///relative/log.db",
        "sqlite:///:memory:",
        "sqlite:////log.db?mode=ro",
        "sqlite+aiosqlite:////log.db",
        f"mysql://anna:{HIDDEN}@host/automl",
        f"postgresql+psycopg2://anna:{HIDDEN}@host/automl",
        f"postgresql://anna:{HIDDEN}@host",
        f"postgresql://anna:{HIDDEN}@host:port/automl",
        f"postgresql://anna:at@{HIDDEN}@host/automl",
        f"postgresql://anna@host/automl?password={HIDDEN}",
        f"//anna:{HIDDEN}@host/automl",
    ],
)
def test_other_addresses_are_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigError, match=r"AUTOML_STUDY_LOG .* Hint") as caught:
        open_home(Settings.from_environment({"AUTOML_STUDY_LOG": url}, "/home"))

    assert HIDDEN not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:////a b/log.db", "sqlite:////a b/log.db"),
        (f"postgresql://anna:{HIDDEN}@host:1/automl?sslmode=require", "postgresql://host:1/automl"),
        (f"postgresql+psycopg://anna:{HIDDEN}@[::1]/automl", "postgresql://[::1]/automl"),
        ("postgresql:///automl", "postgresql:///automl"),
    ],
)
def test_an_address_is_shown_without_its_login(url: str, expected: str) -> None:
    assert shown(parse_url(url)) == expected


def test_a_child_process_finds_the_same_home() -> None:
    settings = Settings("/home", study_log="sqlite:////log.db")
    inherited = {"PATH": "/bin", "AUTOML_HOME": "/other", "AUTOML_STUDY_LOG": "sqlite:////other.db"}

    environment = settings.child_environment(inherited)

    assert Settings.from_environment(environment) == settings
    assert environment["PATH"] == "/bin"
    assert Settings.from_environment(Settings("/home").child_environment(inherited)) == Settings(
        "/home"
    )
