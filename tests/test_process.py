"""Memory of the training process."""

import ctypes
import platform
import subprocess
import sys

import pytest

from bdclean.engine import process


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_training_steps_reuse_memory() -> None:
    code = (
        "import resource, torch\n"
        "from bdclean.engine.process import keep_memory\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "def step():\n"
        "    torch.zeros(4_000_000); before = faults()\n"
        "    for _ in range(10): torch.zeros(4_000_000)\n"
        "    return faults() - before\n"
        "first = step(); keep_memory(); print(first, step())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    # In pages; by default there are about 20,000.
    assert before > 5000
    assert after < 1000


@pytest.mark.parametrize("kept", ["platform", "variable", "musl"])
def test_other_allocators_and_settings_are_kept(kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[int, int]] = []
    library = type("Library", (), {} if kept == "musl" else {"mallopt": lambda self, *given: called.append(given)})
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library())
    monkeypatch.setattr(sys, "platform", "darwin" if kept == "platform" else "linux")
    monkeypatch.delenv(process.TUNABLES, raising=False)
    if kept == "variable":
        monkeypatch.setenv(process.TUNABLES, "glibc.malloc.top_pad=0")
    process.keep_memory()
    assert not called
