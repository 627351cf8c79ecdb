import os
import socket
import sys
from asyncio import create_subprocess_exec, subprocess

import pytest

from bench import proc

NO_PROCESS = 2**22 + 1


def test_the_process_that_listens_on_a_port_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert proc.listener(server.getsockname()[1]) == os.getpid()


def test_a_port_that_is_only_connected_to_has_no_listener() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
    with client:
        assert proc.listener(client.getsockname()[1]) is None


async def test_the_memory_of_a_process_holds_that_of_its_children() -> None:
    waiting = [sys.executable, "-c", "print(flush=True); input()"]
    child = await create_subprocess_exec(*waiting, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    await child.stdout.readline()
    try:
        assert child.pid in proc.family(os.getpid())
        assert proc.memory(os.getpid()).rss > proc.memory(child.pid).rss > 0
    finally:
        await child.communicate(b"\n")
    assert child.pid not in proc.family(os.getpid())


def test_a_process_that_is_gone_is_an_error_and_not_free_of_cost() -> None:
    with pytest.raises(ProcessLookupError, match=str(NO_PROCESS)):
        proc.cpu_seconds(NO_PROCESS)
    with pytest.raises(ProcessLookupError, match=str(NO_PROCESS)):
        proc.memory(NO_PROCESS)
