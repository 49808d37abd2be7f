"""The commands of SLURM that submitit calls, without SLURM: each job is a process of this machine.

Copied to `sbatch`, `srun`, `sacct`, `scontrol` or `scancel`. The folder `FAKE_SLURM` has a file for each job with its
state.
"""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(os.environ["FAKE_SLURM"])
ENDED = ("COMPLETED", "FAILED", "CANCELLED")
OF_TASK = {
    "SLURM_JOB_NAME": "bdclean",
    # Lightning would refuse to run one process with these.
    "SLURM_NTASKS": "2",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NNODES": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}


def state(job: str, new: str | None = None) -> str:
    file = HERE / f"{job}.state"
    if new is not None:
        file.write_text(new)
    return file.read_text()


def sbatch(script: str) -> None:
    array = str(100 + len(list(HERE.glob("*.sh"))))
    text = Path(script).read_text()
    if "--partition=missing" in text:
        sys.exit("sbatch: error: invalid partition specified: missing")
    (HERE / f"{array}.sh").write_text(text)
    size = re.search(r"--array='?0-(\d+)", text)
    for job in [array] if size is None else [f"{array}_{number}" for number in range(int(size[1]) + 1)]:
        state(job, "PENDING")
    # Without the pipe that submitit reads to its end.
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.Popen([sys.executable, __file__, "run", array], start_new_session=True, **quiet)
    print(f"Submitted batch job {array}")


def run(array: str) -> None:
    """Run the jobs of an array after those that it depends on."""
    (HERE / f"{array}.pid").write_text(str(os.getpid()))
    text = (HERE / f"{array}.sh").read_text()
    after = re.search(r"--dependency=afterany:(\d+)", text)
    while after is not None and not all(state(job) in ENDED for job in jobs(after[1])):
        time.sleep(0.05)
    parallel = re.search(r"--array='?0-\d+%(\d+)", text)
    with ThreadPoolExecutor(1 if parallel is None else min(2, int(parallel[1]))) as pool:
        list(pool.map(run_one, jobs(array)))


def run_one(job: str) -> None:
    array, _, number = job.partition("_")
    variables = {"SLURM_JOB_ID": array} | OF_TASK
    if number:
        variables |= {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": number}
    queued = HERE / f"{job}.requeued"
    while True:
        state(job, "RUNNING")
        done = subprocess.run(["bash", str(HERE / f"{array}.sh")], env=os.environ | variables, check=False)
        if not queued.exists():
            break
        queued.unlink()
    state(job, "FAILED" if done.returncode else "COMPLETED")


def jobs(array: str) -> list[str]:
    found = (file.stem for file in HERE.glob("*.state") if file.stem.partition("_")[0] == array)
    return sorted(found, key=lambda job: int(job.partition("_")[2] or 0))


def main(command: str, *words: str) -> None:
    if command == "sbatch":
        sbatch(words[-1])
    elif command == "run":
        run(words[0])
    elif command == "srun":
        place = words.index("--unbuffered") + 1
        while words[place].startswith("--"):
            place += 2
        os.execvp(words[place], words[place:])
    elif command == "sacct":
        print("JobID|State|NodeList")
        for job in [job for array in words[words.index("-j") + 1 :: 2] for job in jobs(array)]:
            print(f"{job}|{state(job)}|here")
    elif command == "scontrol":
        (HERE / f"{words[-1]}.requeued").touch()
    elif command == "scancel":
        for job in jobs(words[-1]):
            state(job, "CANCELLED")
        os.killpg(int((HERE / f"{words[-1]}.pid").read_text()), signal.SIGKILL)


if __name__ == "__main__":
    main(*(sys.argv[1:] if sys.argv[1] == "run" else (Path(sys.argv[0]).name, *sys.argv[1:])))
