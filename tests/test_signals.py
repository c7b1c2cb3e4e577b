"""A job that is asked to end does so in good order, once."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from capfilt.signals import end_process, exit_on_sigterm, stop_on_interrupt


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_sigterm_ends_with_the_code_that_a_shell_reports_and_a_second_one_does_not_cut_the_end_short():
    before, ends = signal.getsignal(signal.SIGTERM), []

    def job() -> None:
        with exit_on_sigterm():
            try:
                terminate()
            finally:
                terminate()
                ends.append("in good order")

    with pytest.raises(SystemExit) as ending:
        job()

    assert ending.value.code == 143
    assert ends == ["in good order"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_exit_that_ray_puts_in_place_of_the_one_asked_for_keeps_the_code():
    """Its waits do: they turn what a handler raises into a status, and that into an exit with code 1."""

    def wait() -> None:
        try:
            terminate()
        except SystemExit:
            sys.exit(1)

    with pytest.raises(SystemExit) as ending, exit_on_sigterm(), exit_on_sigterm():
        wait()
    assert ending.value.code == 143

    with pytest.raises(SystemExit) as ending, exit_on_sigterm():
        sys.exit(1)
    assert ending.value.code == 1  # nobody asked


def test_a_second_signal_cuts_nothing_short_also_where_one_session_is_inside_another():
    """As where a cluster ends a job that `capfilt stop --now` ends by its run folder, too."""
    ended = []

    def end() -> None:
        signal.raise_signal(signal.SIGHUP)
        terminate()
        end_process()
        ended.append(True)

    def job() -> None:
        with exit_on_sigterm():
            try:
                with exit_on_sigterm(), exit_on_sigterm():
                    terminate()
            finally:
                end()

    with pytest.raises(SystemExit) as ending:
        job()
    assert ended
    assert ending.value.code == 143
    with pytest.raises(SystemExit), exit_on_sigterm():
        terminate()


def test_another_thread_can_end_the_main_one_which_waits():
    start = time.monotonic()

    def wait() -> None:
        threading.Timer(0.2, end_process).start()  # from when SIGTERM has its handler
        time.sleep(30)

    with exit_on_sigterm(), pytest.raises(SystemExit):
        wait()

    assert time.monotonic() - start < 10


def test_a_program_that_did_not_ask_for_it_is_not_ended():
    end_process()


def test_the_first_ctrl_c_asks_and_the_second_interrupts(in_front, capfd):
    asked = []
    with stop_on_interrupt(lambda: asked.append(1)):
        interrupt()
        assert asked == [1]
        with pytest.raises(KeyboardInterrupt):
            interrupt()

    assert "press Ctrl-C again to end at once" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


CODE = """
import signal, time
from capfilt.signals import exit_on_sigterm
{first}
with exit_on_sigterm():
    try:
        print("ready", flush=True)
        time.sleep({seconds})
    finally:
        print("in good order", flush=True)
print("on", flush=True)
"""


AT_A_TERMINAL = "signal.signal(signal.SIGHUP, signal.SIG_DFL)"  # also where the tests themselves run under nohup


def send(number: int, first: str = AT_A_TERMINAL, seconds: float = 60) -> tuple[int, str]:
    """Return the exit code of a program that gets a signal while it is at work, and what it says then."""
    code = CODE.format(first=first, seconds=seconds)
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    program.send_signal(number)
    said = program.stdout.read()
    return program.wait(timeout=60), said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_program_that_is_asked_to_end_does_so_in_good_order(number):
    assert send(number) == (128 + number, "in good order\n")


def test_a_program_under_nohup_outlives_its_terminal():
    ignored = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"

    assert send(signal.SIGHUP, ignored, seconds=0.5) == (0, "in good order\non\n")
