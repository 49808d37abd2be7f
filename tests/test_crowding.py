"""Other processes on the cores of this machine."""

from __future__ import annotations

import pytest

from bdclean import crowding
from bdclean.crowding import Times, crowded, free_cores, watched
from bdclean.tasks.announcing import announce


def test_cores_that_other_processes_leave_free() -> None:
    before = Times(cores=2, total=1000, idle=500, own=100.0)
    # In 100 ticks of each core: 40 idle, 60 of this process, and 100 of others.
    assert free_cores(before, Times(2, 1200, 540, 160.0)) == pytest.approx(1.0)
    # The clock of the cores did not advance.
    assert free_cores(before, Times(2, 1000, 500, 100.0)) == 2.0


def test_a_notice_needs_fewer_free_cores_than_threads() -> None:
    assert crowded(1.6, 2, 2) is None
    assert crowded(0.1, 2, 1) is None
    assert crowded(30.0, 64, 8) is None
    found = crowded(0.8, 2, 2)
    assert found is not None
    assert found.startswith("Other processes leave 0.8 of 2 cores free: 2 threads")
    assert found.endswith("OMP_NUM_THREADS=1.")


def test_threads_are_those_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert crowding.thread_count() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert crowding.thread_count() >= 1


def test_the_notice_follows_the_first_line(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    announce("Training")
    assert caplog.messages == ["Training"]
    times = iter([Times(4, 0, 0, 0.0), Times(4, 400, 100, 20.0)])
    monkeypatch.setattr(Times, "read", lambda: next(times))
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    with watched():
        pass
    announce("Training")
    assert caplog.messages[1:] == ["Training", crowded(1.2, 4, 4)]
    crowding._notice.set(None)


def test_the_times_of_this_machine() -> None:
    if (found := Times.read()) is None:
        pytest.skip("this operating system gives no times of its cores")
    assert found.cores >= 1
    assert 0 <= found.idle <= found.total
