from __future__ import annotations

from pathlib import Path

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


def test_a_file_can_hold_the_address_of_the_study_log(tmp_path: Path) -> None:
    file = tmp_path / "study-log"
    file.write_text("  sqlite:////var/lib/log.db\n\n")
    settings = Settings.from_environment({"AUTOML_STUDY_LOG_FILE": str(file)}, "/home")

    assert settings.study_log == "sqlite:////var/lib/log.db"
    child = settings.child_environment({"AUTOML_STUDY_LOG_FILE": str(file)})
    expected = {"AUTOML_STUDY_LOG": "sqlite:////var/lib/log.db", "AUTOML_HOME": "/home"}
    assert expected.items() <= child.items()
    assert "AUTOML_STUDY_LOG_FILE" not in child


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff" + HIDDEN.encode(), "not the name of a text file"),
    ],
)
def test_a_file_without_an_address_is_refused_without_being_shown(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "study-log"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(ConfigError, match=message) as caught:
        Settings.from_environment({"AUTOML_STUDY_LOG_FILE": str(file)}, "/home")
    assert HIDDEN not in str(caught.value)
    assert caught.value.__cause__ is None


def test_one_variable_only_may_name_the_study_log() -> None:
    given = {"AUTOML_STUDY_LOG": "sqlite:////a", "AUTOML_STUDY_LOG_FILE": "/b"}

    with pytest.raises(ConfigError, match="AUTOML_STUDY_LOG and AUTOML_STUDY_LOG_FILE are set"):
        Settings.from_environment(given, "/home")


def test_a_connection_of_airflow_is_no_study_log_elsewhere() -> None:
    with pytest.raises(ConfigError, match="AUTOML_STUDY_LOG_CONN_ID names a connection of Airflow"):
        Settings.from_environment({"AUTOML_STUDY_LOG_CONN_ID": "log"}, "/home")
