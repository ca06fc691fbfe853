"""Supervised processes of steps: how they end, against real children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from automl.machine.process import StepResult, run_step


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

    def test_no_code_of_the_supervisor_runs_in_its_child(self) -> None:
        code = (
            "import os, time; os.register_at_fork(after_in_child=lambda: time.sleep(3600)); "
            "from automl.machine.process import run_step; print(run_step('step', {}, env="
            "dict(os.environ), timeout_s=None, on_line=str, stop=lambda: False, "
            "module='tiny_step').failure)"
        )
        command = [sys.executable, "-c", code]

        done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60)

        assert done.stdout == "None\n"  # it did not wait for ever, as for a lock

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
