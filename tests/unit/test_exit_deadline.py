"""A process that is stuck in a call still ends, and one that is not is left alone."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from offsets.exit_deadline import exit_within
from tests.support.processes import wait_for

# Its main thread is stuck in a call that no signal interrupts: it locks a mutex that it holds itself.
STUCK = """
import logging, sys, threading, ctypes
logging.basicConfig(stream=sys.stderr)
from offsets.exit_deadline import exit_within, stop_on_signals
stop = threading.Event()
stop_on_signals(stop)
with exit_within({seconds}, asked=stop.is_set, describe=lambda: "in a lock"):
    print("ready", flush=True)
    lock, mutex = ctypes.CDLL(None).pthread_mutex_lock, ctypes.create_string_buffer(64)
    lock(mutex)
    lock(mutex)
"""
CALM = """
import sys, threading
from offsets.exit_deadline import exit_within, stop_on_signals
stop = threading.Event()
stop_on_signals(stop, on_first=lambda: print("first", flush=True))
with exit_within(30, asked=stop.is_set, describe=lambda: ""):
    print("ready", flush=True)
    while not stop.wait(0.05):
        pass
print("ended by itself", flush=True)
"""


def _start(program: str) -> "subprocess.Popen[str]":
    running = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "ready\n"
    return running


def test_a_process_that_is_stuck_in_a_call_ends_within_its_deadline() -> None:
    with _start(STUCK.format(seconds=0.5)) as running:
        began = time.monotonic()
        running.send_signal(signal.SIGTERM)
        _, errors = running.communicate(timeout=20)
    assert running.returncode == 1
    assert 0.4 < time.monotonic() - began < 15
    assert "The process did not stop within 0 s (in a lock). It ends now; nothing is lost." in errors


def test_a_second_signal_ends_a_stuck_process_at_once() -> None:
    with _start(STUCK.format(seconds=3600)) as running:
        running.send_signal(signal.SIGTERM)
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=20)
    assert running.returncode != 0


def test_a_process_that_stops_in_time_is_left_alone() -> None:
    with _start(CALM) as running:
        running.send_signal(signal.SIGTERM)
        output, errors = running.communicate(timeout=20)
    assert (running.returncode, output, errors) == (0, "first\nended by itself\n", "")


@pytest.mark.parametrize("asked", [False, True])
def test_a_block_that_ends_in_time_has_no_deadline(asked: bool) -> None:
    ended: list[str] = []
    with exit_within(60, asked=lambda: asked, describe=lambda: "", end=lambda: ended.append("ended")):
        pass
    wait_for("its thread ends", lambda: not any(t.name == "exit-deadline" for t in threading.enumerate()), 10)
    assert not ended
