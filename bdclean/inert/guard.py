"""The last line of defence: a file is first read in a child process, which may be killed by it.

The child has only the standard library, and limits of memory and time. It is started, not forked, so it works with
threads, in notebooks and on Windows.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bdclean.inert.child import CPU_SECONDS, MEMORY
from bdclean.inert.nodes import RefusedError

WALL_SECONDS = 120
"""Maximum seconds for reading a file: the disk may be slow, and the machine busy."""
PACKAGES = Path(__file__).resolve().parents[2]
"""The folder from which the program is imported."""
CHILD = "import sys; sys.path.insert(0, sys.argv[1]); from bdclean.inert.child import read; read()"


@contextmanager
def enduring(file: BinaryIO, code: str = CHILD, seconds: float = WALL_SECONDS) -> Iterator[None]:
    """Read a file in a child process during the context, in about 60 ms, to find out whether that succeeds.

    An ordinary refusal counts as success: reading the file again in this process gives the reason.

    Args:
        file: The open file.
        code: Python code of the child process, which reads the file from its standard input.
        seconds: Time limit of the child process.

    Raises:
        RefusedError: At the end, if the process crashed or exceeded its limits of memory or time.
        OSError: If no process can be started.
    """
    if not sys.executable:
        # Python is embedded in another program.
        yield
        return
    # This process's settings of the allocator would change the memory needs.
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    command = [sys.executable, "-I", "-S", "-c", code, str(PACKAGES)]
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, env=environment, stdin=file, stdout=pipe, stderr=null) as process:
        try:
            yield
            # The child writes nothing, but the end of the pipe is noticed at once; `wait` with a timeout would poll.
            process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise RefusedError(f"it takes longer than {seconds} s to read") from error
        finally:
            process.kill()
    if ended := process.returncode:
        how = f"signal {-ended}" if ended < 0 else f"exit code {ended}"
        raise RefusedError(
            f"reading it takes more than {MEMORY >> 20} MiB or {CPU_SECONDS} s, or kills the reader ({how})"
        )
