"""Small hostile files that once took gigabytes or killed the program: each is one line of error, or is read."""

import contextlib
import io
import os
import re
import resource
import runpy
import sys
from pathlib import Path

import pytest

from bdclean.cli.main import main
from tests.conftest import QUIET

MAKER = Path(__file__).parent.parent.parent / "shared/cases/make_hostile.py"
SECONDS = 2
MEMORY = 2**30
MESSAGES = {
    "storage_bomb.pt": "a storage that is given by its size",
    "hex_dash_bomb.pt": "_codecs.encode of anything but latin1",
    "hex_plain.pt": "_codecs.encode of anything but latin1",
    "other_case.pt": "it has no data.pkl",
    "legacy_and_zip.pth": "builtins.bytearray of other than bytes",
    "tuple_key_300k.pt": "a dictionary key with too many values",
    "tuple_key_10k.pt": "a dictionary key with too many values",
    "items_shadowed.pt": "a storage that is given by its size",
    "deep_beside.pt": "nested more than 100 deep",
    "dtype_beside.pt": None,
    "none_option.ckpt": "its attack's poison_rate cannot be None",
    "hugesize.ckpt": "image_size cannot be 4096",
    "hugecrop.ckpt": "crop_padding cannot be 4096",
    "sys_source.ckpt": "--data.source: needed, or --data.unlabeled",
    "tinystd.ckpt": "--model.std [1e-45, 1e-45, 1e-45]: would make inputs of the network larger than 1e+06",
    "hugemean.ckpt": "--model.mean [-1e+308, -1e+308, -1e+308]",
    "negvar.ckpt": "its running_var falls to -1",
}
"""The message about each file; None for a file that is read."""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, tiny_suspect: Path) -> Path:
    if not MAKER.exists():
        pytest.skip("needs ../shared/cases")
    folder = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr(sys, "argv", [str(MAKER), str(folder), str(tiny_suspect)])
        runpy.run_path(str(MAKER))
    return folder


def in_a_child(words: list[str]) -> tuple[int, str, float, int]:
    """Run the command line in a child process: exit status, messages, seconds and bytes of memory."""
    read, write = os.pipe()
    if not (child := os.fork()):
        os.dup2(write, 2)
        os.dup2(write, 1)
        sys.stdout = sys.stderr = open(write, "w", buffering=1)  # noqa: SIM115  # the process ends before it does
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, sum(os.times()[:4])
        code = 3
        try:
            main(words)
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            # CPU time of all processes, which does not depend on other load.
            print(f"\nmemory {grown} seconds {sum(os.times()[:4]) - began}", flush=True)
            os._exit(code)
    os.close(write)
    with open(read) as output:
        text = output.read()
    status = os.waitpid(child, 0)[1]
    used = re.search(r"memory (\d+) seconds ([\d.]+)", text)
    assert used is not None, f"killed: {status} {text}"
    return os.waitstatus_to_exitcode(status), text[: used.start()], float(used[2]), int(used[1]) * 1024


@pytest.mark.usefixtures("tiny_shapes")
@pytest.mark.parametrize("command", ["test", "scan"])
@pytest.mark.parametrize("name", MESSAGES)
def test_hostile_files(name: str, command: str, hostile: Path) -> None:
    words = [command, "--ckpt", str(hostile / name), *QUIET, "--trainer.logger", "false"]
    if not name.endswith(".ckpt"):
        words += ["--model.mean", "none", "--data.unlabeled", "procedural", "--data.num_unlabeled", "16"]
    code, output, seconds, memory = in_a_child(words)
    message = MESSAGES[name]
    if message is None:
        assert "recognised from the weights" in output
    else:
        assert code == 2
        assert [line for line in output.splitlines() if "bdclean: error: --" in line and message in line]
        assert len(output.strip().splitlines()) == 1
        assert seconds < SECONDS
        assert not list(Path.cwd().iterdir())
    assert memory < MEMORY
    assert "Traceback" not in output
