"""The operator and its supervised process, against real children."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from automl.machine.process import StepResult, run_step

airflow_home = Path(os.environ.setdefault("AIRFLOW_HOME", "/tmp/automl-test-airflow"))  # noqa: S108
pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")

CHILD = """
import json, os, signal, sys, time

step, payload = sys.argv[1], json.load(sys.stdin)
calls = os.environ.get("CALLS_FILE")
if calls:
    with open(calls, "a") as file:
        file.write(step + "\\n")

def answer(document, code=0):
    os.write(int(os.environ["AUTOML_RESULT_FD"]), json.dumps(document).encode())
    sys.exit(code)

plan = os.environ.get("AUTOML_TEST_PLAN", "echo") if step != "give_back" else "give_back"
if plan == "echo":
    print("first line"); print("second line", file=sys.stderr)
    answer({"result": {"payload": payload, "env": sorted(os.environ), "argv": sys.argv,
        "study_log": os.environ.get("AUTOML_STUDY_LOG")}})
if plan == "slice":
    answer({"result": {"state": "slice_ended", "label": "trials 0, 3"}})
if plan == "ended":
    answer({"result": {"state": "search_ended", "label": "trials 0, 3"}})
if plan in ("refused", "busy"):
    answer({"error": {"type": "ConfigError" if plan == "refused" else "StudyBusyError",
        "message": "It is wrong.", "hint": "do better", "retryable": plan == "busy",
        "problems": [{"path": "a.b", "message": "one"}, {"path": "c", "message": "two"}]}}, 2)
if plan == "give_back":
    answer({"result": [4]})
if plan == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if plan == "crash":
    raise ValueError("a bug")
if plan == "checkpoint":
    signal.signal(signal.SIGTERM, lambda *_: answer({"result": "checkpointed"}))
if plan == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if plan == "labels":
    fd = int(os.environ["AUTOML_RESULT_FD"])
    os.write(fd, b'{"label": "trial 3 \\u00b7 best 0.5"}\\n{"label": "tri')
    time.sleep(0.5)
    os.write(fd, b'al 4"}\\n')
    answer({"result": "done"})
if plan == "endless line":
    for _ in range(2000):
        os.write(1, b"x" * 65536)
    answer({"result": "done"})
if plan == "binary":
    os.write(1, b"\\x00\\x1b[31mred\\xff\\xfe\\r\\n" + b"10%\\r20%\\r30%\\n" + bytes(range(256)))
    answer({"result": "done"})
if plan == "logs":
    import logging
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    logging.info("begins"); logging.warning("look\\nhere"); logging.info("goes on")
    raise ValueError("a bug")
if plan == "chatty":
    for number in range(20000):
        print("line", number)
    answer({"result": "done"})
if plan == "grandchild":
    if os.fork() == 0:
        time.sleep(30); os._exit(0)
    answer({"result": "left a grandchild"})
print(f"pid {os.getpid()}", flush=True)
time.sleep(60)
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "tiny_step.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "tiny_step"


def run(plan: str, timeout_s: float | None = 20, **more: Any) -> tuple[StepResult, list[str]]:
    lines: list[str] = []
    result = run_step(
        "step",
        {"run": "r"},
        env={**os.environ, "AUTOML_TEST_PLAN": plan},
        timeout_s=timeout_s,
        on_line=more.get("on_line", lines.append),
        stop=more.get("stop", lambda: False),
        on_label=more.get("on_label", lambda _: None),
        module="tiny_step",
    )
    return result, lines


@pytest.mark.usefixtures("child")
class TestProcess:
    def test_result_and_lines_come_back(self) -> None:
        result, lines = run("echo")

        assert result.result["payload"] == {"run": "r"}
        assert sorted(lines) == ["first line", "second line"]
        assert (result.failure, result.signal, result.timed_out) == (None, None, False)

    def test_an_error_comes_back_with_all_its_problems(self) -> None:
        failure = run("refused")[0].failure

        assert failure is not None
        assert type(failure.to_error()).__name__ == "ConfigError"
        assert "a.b: one" in str(failure)
        assert "c: two" in str(failure)

    def test_a_crash_is_a_failure_of_its_own(self) -> None:
        result, lines = run("crash")

        assert result.failure is not None
        assert result.failure.type == "StepCrashed"
        assert "ValueError: a bug" in lines

    def test_death_by_signal_is_told_apart(self) -> None:
        result, _ = run("die")

        assert (result.signal, result.failure, result.result) == (signal.SIGKILL, None, None)

    @pytest.mark.parametrize(("plan", "result"), [("deaf", None), ("checkpoint", "checkpointed")])
    def test_the_time_limit_is_exact(self, plan: str, result: str | None) -> None:
        outcome, _ = run(plan, timeout_s=3)

        assert outcome.timed_out
        assert outcome.result == result
        assert outcome.seconds < 3.5
        assert (outcome.failure is None) == (plan == "checkpoint")

    def test_a_stop_lets_the_child_checkpoint(self) -> None:
        asked = threading.Event()
        outcome, _ = run("checkpoint", on_line=lambda line: asked.set(), stop=asked.is_set)

        assert (outcome.stopped, outcome.result) == (True, "checkpointed")

    def test_labels_come_while_the_child_works_and_leave_its_result_alone(self) -> None:
        labels: list[str] = []
        outcome, _ = run("labels", on_label=labels.append)

        assert labels == ["trial 3 · best 0.5", "trial 4"]
        assert outcome.result == "done"

    def test_a_line_without_an_end_comes_in_pieces_and_never_grows_memory(self) -> None:
        import resource

        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        longest = total = 0

        def measure(line: str) -> None:
            nonlocal longest, total
            longest, total = max(longest, len(line)), total + len(line)

        outcome, _ = run("endless line", timeout_s=60, on_line=measure)

        assert outcome.result == "done"
        assert (longest, total) == (8192, 2000 * 65536)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 32 * 1024

    def test_binary_output_becomes_printable_lines(self) -> None:
        outcome, lines = run("binary")

        assert outcome.result == "done"
        assert lines[0] == "\\x00\\x1b[31mred\ufffd\ufffd"
        assert lines[1] == "30%"
        assert all(line.isprintable() or "\t" in line for line in lines), lines

    def test_a_grandchild_that_keeps_the_pipe_does_not_hold_the_step_up(self) -> None:
        outcome, _ = run("grandchild")

        assert outcome.result == "left a grandchild"
        assert outcome.seconds < 10

    def test_an_exception_in_the_supervisor_ends_the_child(self) -> None:
        pids: list[int] = []

        def refuse(line: str) -> None:
            pids.append(int(line.split()[1]))
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run("sleep", on_line=refuse)
        assert not Path(f"/proc/{pids[0]}").exists()

    def test_the_child_dies_with_its_supervisor(self) -> None:
        code = (
            "import os; from automl.machine.process import run_step; run_step('step', {}, "
            "env={**os.environ, 'AUTOML_TEST_PLAN': 'deaf'}, timeout_s=None, "
            "on_line=lambda line: print(line, flush=True), stop=lambda: False, module='tiny_step')"
        )
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as supervisor:
            assert supervisor.stdout is not None
            pid = int(supervisor.stdout.readline().split()[1])
            supervisor.kill()
        deadline_s = time.monotonic() + 5
        while _lives(pid) and time.monotonic() < deadline_s:
            time.sleep(0.05)
        assert not _lives(pid)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


PARAMS = {
    "name": "leaves", "task": "image_classification", "source": "/data/leaves.csv",
    "time_limit": "1m", "workers": 2, "objective": "auto",
    "images": None, "label": None, "image_size": "auto", "split": "stratified",
    "validation_fraction": 0.2, "test_fraction": 0.2, "max_bad_fraction": 0.05, "max_trials": None,
    "seed": 0, "slice": "30s", "retrain": True, "final_time_limit": "1m", "min_improvement": 0.0,
    "continue_version": None,
}  # fmt: skip


def context(**more: Any) -> Any:
    run = SimpleNamespace(dag_id="automl_search", run_id="manual__2026+01", conf={})
    return {"params": {**PARAMS, **more}, "dag_run": run}


@pytest.fixture
def operator(child: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from automl_airflow.operator import StepOperator

    monkeypatch.setenv("AUTOML_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "sqlite:////secret")

    def make(step: str, plan: str = "echo", **more: Any) -> Any:
        monkeypatch.setenv("AUTOML_TEST_PLAN", plan)
        return StepOperator(task_id=step, step=step, module=child, **more)

    return make


def test_nothing_that_a_user_wrote_is_a_template() -> None:
    from automl_airflow.operator import StepOperator

    assert set(StepOperator.template_fields) <= {
        "worker",
        "prepared",
        "checked",
    }  # outputs of tasks


def test_the_child_gets_the_payload_and_no_secret_of_airflow(operator: Any) -> None:
    result = operator("prepare").execute(context())

    payload = result["payload"]
    assert payload["run"] == "automl_search.manual__2026_01"
    assert payload["origin"] == "airflow:automl_search"
    assert payload["spec"]["data"]["source"] == "/data/leaves.csv"
    assert payload["study_file"] is None
    assert not [name for name in result["env"] if name.startswith("AIRFLOW")]


@pytest.mark.parametrize("version", [None, 3])
def test_the_form_can_name_a_version_to_continue(operator: Any, version: int | None) -> None:
    result = operator("prepare").execute(context(continue_version=version))

    assert result["payload"]["spec"]["final_fit"]["from"] == version


def test_the_address_of_the_study_log_travels_in_the_environment_alone(
    operator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOML_STUDY_LOG", "postgresql://anna:hidden@db/automl")
    result = operator("prepare").execute(context())

    assert result["study_log"] == "postgresql://anna:hidden@db/automl"
    assert "hidden" not in str(result["argv"]) + str(result["payload"])


def written(text: str) -> list[tuple[str, str]]:
    """Return level and words of the lines of a task's log."""
    found = (
        re.match(r"\S+ \[(\w+) *\] (.*?) +\[airflow\.task", line) for line in text.splitlines()
    )
    return [(each[1], each[2]) for each in found if each]


def test_lines_of_the_child_keep_their_level(
    operator: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from airflow.sdk.exceptions import AirflowException

    with pytest.raises(AirflowException):
        operator("prepare", "logs").execute(context())

    lines = written(capsys.readouterr().out)
    begin = lines.index(("info", "begins"))
    assert lines[begin + 1 : begin + 5] == [
        ("warning", "look"), ("warning", "here"), ("info", "goes on"),
        ("error", "Traceback (most recent call last):"),
    ]  # fmt: skip
    assert lines[-1] == ("error", "ValueError: a bug")


def test_lines_beyond_the_cap_are_counted_and_the_last_ones_kept(
    operator: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    operator("prepare", "chatty").execute(context())

    lines = written(capsys.readouterr().out)
    shown = [text for _, text in lines if text.startswith("line ")]
    assert shown == [f"line {n}" for n in [*range(5000), *range(19800, 20000)]]
    assert ("warning", "14800 lines are left out here") in lines


def test_the_end_of_a_slice_gives_the_pool_slot_back_for_five_seconds(operator: Any) -> None:
    from airflow.sdk import timezone
    from airflow.sdk.exceptions import AirflowRescheduleException

    given = context()
    with pytest.raises(AirflowRescheduleException) as caught:
        operator("run_worker", "slice", worker=1).execute(given)

    ahead_s = (caught.value.reschedule_date - timezone.utcnow()).total_seconds()
    assert 3 < ahead_s <= 5
    assert given["trial_label"] == "waits for a slot · trials 0, 3"


def test_the_end_of_the_search_is_a_success_with_a_label(operator: Any) -> None:
    given = context()

    assert operator("run_worker", "ended", worker=0).execute(given)["state"] == "search_ended"
    assert given["trial_label"] == "trials 0, 3"


def test_an_error_that_stays_is_not_retried_and_lists_all_problems(operator: Any) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match=r"(?s)a\.b: one.*c: two"):
        operator("prepare", "refused").execute(context())


@pytest.mark.parametrize("plan", ["busy", "crash", "die"])
def test_an_error_that_may_pass_is_retried(operator: Any, plan: str) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    with pytest.raises(AirflowException) as caught:
        operator("prepare", plan).execute(context())
    assert not isinstance(caught.value, AirflowFailException)


@pytest.mark.parametrize(
    ("plan", "message"), [("die", "killed by signal 9"), ("crash", "exit code 1 and no result")]
)
def test_a_dead_workers_trial_is_given_back(
    plan: str, message: str, operator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowException

    calls = tmp_path / "tiny_calls"
    monkeypatch.setenv("AUTOML_CALLS", str(calls))
    (tmp_path / "tiny_step.py").write_text(CHILD.replace("CALLS_FILE", "AUTOML_CALLS"))

    with pytest.raises(AirflowException, match=message):
        operator("run_worker", plan, worker=0).execute(context())
    assert calls.read_text().split() == ["run_worker", "give_back"]


def test_a_relative_home_is_refused(operator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    task = operator("prepare")
    monkeypatch.setenv("AUTOML_HOME", "automl-home")
    with pytest.raises(AirflowFailException, match="AUTOML_HOME is 'automl-home'"):
        task.execute(context())


def test_check_refuses_unknown_keys_and_owned_names(operator: Any, tmp_path: Path) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    given = context()
    given["dag_run"].conf = {"max_trails": 3}
    with pytest.raises(AirflowFailException, match="max_trails: unknown"):
        operator("check").execute(given)

    (tmp_path / "leaves.yaml").write_text(
        "name: leaves\ntask: image_classification\ndata: {source: x.csv}\n"
    )
    with pytest.raises(AirflowFailException, match=r"owned by .*leaves\.yaml.*automl_leaves"):
        operator("check", studies=str(tmp_path)).execute(context())


def test_check_lists_the_problems_of_a_broken_file(operator: Any) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    task = operator("check", study_file="/x.yaml", problems=["data.sorce: unknown key", "more"])
    with pytest.raises(AirflowFailException, match=r"(?s)data\.sorce: unknown key.*more"):
        task.execute(context())


def test_relative_paths_of_a_study_file_start_at_its_folder(tmp_path: Path) -> None:
    from automl.errors import ConfigError
    from automl.steps.study_file import load_study_file

    path = tmp_path / "s.yaml"
    path.write_text("name: s\ntask: image_classification\ndata: {source: d/x.csv}\n")
    assert load_study_file(path).data.source == str(tmp_path / "d/x.csv")

    path.write_text("name: s\nname: t\n")
    with pytest.raises(ConfigError, match="'name' is written twice"):
        load_study_file(path)


@pytest.mark.parametrize(
    ("plan", "try_number", "closes"),
    [
        ("refused", 1, True),  # no retry helps
        ("busy", 3, True),
        ("crash", 3, True),
        ("die", 3, True),
        ("busy", 2, False),
        ("die", 1, False),
    ],
)
def test_a_step_that_fails_for_good_closes_the_run(
    operator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    plan: str, try_number: int, closes: bool,  # noqa: FBT001
) -> None:  # fmt: skip
    from airflow.sdk.exceptions import AirflowException

    calls = tmp_path / "tiny_calls"
    monkeypatch.setenv("AUTOML_CALLS", str(calls))
    (tmp_path / "tiny_step.py").write_text(CHILD.replace("CALLS_FILE", "AUTOML_CALLS"))
    given = {**context(), "ti": SimpleNamespace(try_number=try_number, max_tries=2)}

    with pytest.raises(AirflowException):
        operator("export", plan).execute(given)
    assert calls.read_text().split() == ["export", "fail_run"][: 1 + closes]


def test_a_run_that_cannot_be_closed_does_not_hide_the_cause(
    operator: Any, caplog: pytest.LogCaptureFixture
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    given = {**context(), "ti": SimpleNamespace(try_number=1, max_tries=2)}
    with pytest.raises(AirflowFailException, match="It is wrong"):
        operator("final_fit", "refused").execute(given)


def test_what_prepare_returned_goes_to_open_run(operator: Any) -> None:
    prepared = {"snapshot": "abc", "counts": {}, "classes": 3}

    payload = operator("open_run", prepared=prepared).execute(context())["payload"]
    assert payload["snapshot"] == "abc"
