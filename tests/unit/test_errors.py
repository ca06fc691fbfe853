"""Tests of `automl.errors`."""

from __future__ import annotations

import inspect
import pickle

import pytest

from automl import errors
from automl.errors import AutoMLError, ConfigError, Problem, StorageError

ERROR_TYPES = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, AutoMLError)
]
NOT_RETRYABLE_STORAGE_ERRORS = {
    errors.StorageAccessError,
    errors.NotFoundError,
    errors.NewerSchemaError,
    errors.DamagedDataError,
}


def test_the_text_of_an_error_is_its_message_and_hint() -> None:
    error = ConfigError("search.workers is 0 in study cifar10.", "set it to 1 or more")

    assert str(error) == "search.workers is 0 in study cifar10. Hint: set it to 1 or more"


def test_an_error_without_a_hint_is_its_message() -> None:
    assert str(ConfigError("No study.")) == "No study."


def test_problems_are_listed_below_the_message() -> None:
    error = ConfigError("Two problems.", "", [Problem("name", "is wrong"), Problem("", "is odd")])

    assert str(error).splitlines() == ["Two problems.", "  - name: is wrong", "  - is odd"]


@pytest.mark.parametrize("error_type", ERROR_TYPES)
def test_an_error_crosses_a_process_border_whole(error_type: type[AutoMLError]) -> None:
    error = error_type("what", "do", [Problem("path", "why")])

    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes

    assert type(copy) is error_type
    assert (copy.message, copy.hint, copy.problems) == ("what", "do", (Problem("path", "why"),))


@pytest.mark.parametrize("error_type", ERROR_TYPES)
def test_the_docstring_draws_every_error(error_type: type[AutoMLError]) -> None:
    assert errors.__doc__ is not None
    assert error_type.__name__ in errors.__doc__


@pytest.mark.parametrize("error_type", ERROR_TYPES)
def test_the_exit_code_says_who_can_help(error_type: type[AutoMLError]) -> None:
    if issubclass(error_type, StorageError | errors.DeviceError):
        expected = 4
    elif issubclass(error_type, errors.ConfigError | errors.DataError):
        expected = 2
    else:
        expected = 3

    assert error_type.exit_code == expected


@pytest.mark.parametrize("error_type", ERROR_TYPES)
def test_only_trouble_that_may_pass_is_retryable(error_type: type[AutoMLError]) -> None:
    may_pass = issubclass(error_type, StorageError | errors.DeviceError)

    assert error_type.retryable == (may_pass and error_type not in NOT_RETRYABLE_STORAGE_ERRORS)
