"""Ctrl-C at any instant, and forks while other threads write."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backends.sqlite._scripts import ROOT, SOAK, run_script
from tsmemory import open_store

INTERRUPTS = """
import faulthandler, random, signal, sqlite3, sys
from tsmemory import Message, open_store

path, rounds = sys.argv[1], int(sys.argv[2])
rng = random.Random(1)
store = open_store(f"sqlite:///{path}?durability=normal&timeout=20")
chat = store.conversation("s")
chat.append(Message.user("first", message_id="first"))
other = sqlite3.connect(path, isolation_level=None, timeout=0.5)
acknowledged = ["first"]
faulthandler.dump_traceback_later(200, exit=True)  # where it hangs, if it does

def handler(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, handler)

def work(number):
    step = 0
    while True:
        name = f"{number}.{step}"
        chat.append(Message.user("x", message_id=name))
        acknowledged.append(name)
        chat.window(5)
        if step % 3 == 2:
            chat.update_message(name, content="y")
            store.conversation("t").append(Message.user("z"))
            store.conversation("t").delete()
        step += 1

interrupted = 0
for number in range(rounds):
    waits = number % 10 == 9
    if waits:
        other.execute("BEGIN IMMEDIATE")
    try:
        try:
            # Again after 1 s: Python swallows what is raised in a destructor.
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.00002, 0.0015), 1)
            work(number)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupted += 1
    if waits:
        other.execute("ROLLBACK")
    other.execute("BEGIN IMMEDIATE")  # raises where an interrupted operation holds the lock
    other.execute("ROLLBACK")
chat.append(Message.user("last", message_id="last"))
stored = [m.message_id for m in chat.iter_messages()]
assert set(acknowledged) <= set(stored), set(acknowledged) - set(stored)
assert len(stored) == len(set(stored)) == chat.count()
assert store.verify() == []
store.close()
print(interrupted)
"""


def test_interrupts_at_random_instants(tmp_path: Path) -> None:
    rounds = 1000 if SOAK else 300
    assert int(run_script(INTERRUPTS, tmp_path / "chat.db", rounds)) == rounds


FORKS = """
import os, sys, threading
from tsmemory import Message, open_store

path, forks = sys.argv[1], int(sys.argv[2])
store = open_store(f"sqlite:///{path}?durability=normal&timeout=20")
chat = store.conversation("s")
chat.append(Message.user("parent"))
stop, written = threading.Event(), []

def write():
    while not stop.is_set():
        chat.append(Message.user("w"))
        written.append(1)

threads = [threading.Thread(target=write) for _ in range(2)]
for thread in threads:
    thread.start()
failed = 0
for number in range(forks):
    child = os.fork()
    if child == 0:
        try:
            chat.append(Message.user(f"child {number}", message_id=f"child {number}"))
            os._exit(0 if chat.get_message(f"child {number}") else 2)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
    failed += os.waitpid(child, 0)[1] != 0
stop.set()
for thread in threads:
    thread.join()
children = {f"child {number}" for number in range(forks)}
assert failed == 0
assert children <= {m.message_id for m in chat.iter_messages()}
assert chat.count() == 1 + forks + len(written)
assert store.verify() == []
store.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_children_forked_while_threads_write(tmp_path: Path) -> None:
    run_script(FORKS, tmp_path / "chat.db", 200 if SOAK else 40)


FORK_ASYNC = """
import asyncio, os, sys
from tsmemory import Message, open_store

store = open_store(f"sqlite:///{sys.argv[1]}?durability=normal")

async def use(name):
    await store.conversation("s").aappend(Message.user(name))
    return len(await store.conversation("s").awindow(10))

assert asyncio.run(use("parent")) == 1
child = os.fork()
if child == 0:
    os._exit(0 if asyncio.run(use("child")) == 2 else 1)
assert os.waitpid(child, 0)[1] == 0
assert asyncio.run(use("parent again")) == 3
store.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_child_uses_asyncio_after_its_parent_did(tmp_path: Path) -> None:
    run_script(FORK_ASYNC, tmp_path / "chat.db")


GROUP = """
import asyncio, sys
from tsmemory import Message, open_store

async def write(store, name):
    chat = store.conversation(name.split(".")[1])
    for i in range(100_000):
        await chat.aappend(Message.user("x", message_id=f"{name}.{i}"))
        print(f"{name}.{i}", flush=True)

async def main():
    async with open_store(f"sqlite:///{sys.argv[1]}") as store:
        await asyncio.gather(*(write(store, f"{sys.argv[2]}.{i % 5}.{i}") for i in range(20)))

asyncio.run(main())
"""


def test_kills_in_a_group_commit(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    rng = random.Random(5)
    acknowledged: set[str] = set()
    for number in range(50 if SOAK else 6):
        process = subprocess.Popen(
            [sys.executable, "-c", GROUP, str(path), str(number)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        lines = [process.stdout.readline() for _ in range(rng.randrange(1, 100))]
        process.kill()
        lines += process.communicate()[0].splitlines(keepends=True)
        acknowledged |= {line.strip() for line in lines if line.endswith("\n")}
        with open_store(f"sqlite:///{path}") as store:
            stored = [message.message_id for _, message in store.iter_messages()]
            assert acknowledged <= set(stored)
            assert len(stored) == len(set(stored)) == store.stats().messages
            assert store.verify() == []
    assert len(acknowledged) > 100
