"""Pools of processes: none outlives a command that was killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.nodes import wait_for

from sightline.errors import RunError
from sightline.io.progress import open_process_pool

PROGRAM = """
import os, time
from sightline.io.progress import open_process_pool

def begin(folder):
    open(f"{folder}/{os.getpid()}", "w").close()

if __name__ == "__main__":
    import sys
    with open_process_pool(2, "fork", begin, (sys.argv[1],)) as pool:
        jobs = [pool.submit(time.sleep, 600) for _ in range(2)]
        time.sleep(600)
"""


def is_alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_processes_of_a_killed_command_end_with_it(tmp_path):
    command = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], env=dict(os.environ))
    try:
        wait_for(lambda: len(list(tmp_path.iterdir())) == 2, what="two processes have begun")
        workers = [int(path.name) for path in tmp_path.iterdir()]
        assert all(map(is_alive, workers))
    finally:
        command.kill()
        command.wait()
    wait_for(lambda: not any(map(is_alive, workers)), what="both have ended")


def test_a_process_that_the_system_ended_is_told():
    with pytest.raises(RunError, match="ended from outside"), open_process_pool(1, "fork") as pool:
        pool.submit(os._exit, 1).result()
