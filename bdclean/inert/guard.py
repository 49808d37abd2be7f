"""The last line of defence: a file is read first in a process that may die of it.

That process has nothing but the standard library, an end to its memory and one to its time. It is started anew, not
forked: threads, notebooks and Windows are no matter to it.
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
"""Its disk may be slow, and its machine busy."""
PACKAGES = Path(__file__).resolve().parents[2]
"""Where the program itself is imported from."""
CHILD = "import sys; sys.path.insert(0, sys.argv[1]); from bdclean.inert.child import read; read()"


@contextmanager
def enduring(file: BinaryIO, code: str = CHILD, seconds: float = WALL_SECONDS) -> Iterator[None]:
    """Read a file in another process meanwhile, which takes some 60 ms, and learn only whether that ends well.

    A file that is refused in the ordinary way ends well: reading it again here gives the reason.

    Args:
        file: The file, open.
        code: What the process runs, in Python.
        seconds: How long it may take.

    Raises:
        RefusedError: At the end, if the process died, of its file, its memory or its time.
        OSError: If no process can be started.
    """
    if not sys.executable:
        # Python is part of another program, which it cannot start.
        yield
        return
    # With the settings of the allocator that this process may have, memory has other bounds.
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    command = [sys.executable, "-I", "-S", "-c", code, str(PACKAGES)]
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, env=environment, stdin=file, stdout=pipe, stderr=nowhere) as process:
        try:
            yield
            # Nothing is said: the end of the pipe is noticed at once, where a wait with a limit asks now and then.
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
