import io
import os
import signal
import sys
import threading
import time

import pytest

from med_duallora.flare.local import interruptions


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_polite_signal_interrupts(number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), interruptions.signals_interrupt():
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopping_is_not_interrupted(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    with interruptions.not_interrupted():
        os.kill(os.getpid(), number)
        time.sleep(0.01)
    assert "please wait" in capsys.readouterr().err


def test_a_second_signal_does_not_break_off_what_the_first_one_set_off(capsys: pytest.CaptureFixture[str]) -> None:
    ended = False
    with pytest.raises(KeyboardInterrupt), interruptions.signals_interrupt():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
                os.kill(os.getpid(), number)
                time.sleep(0.01)
            ended = True
    assert ended
    assert capsys.readouterr().err.count("please wait") == 3


def test_a_later_signal_interrupts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one may be lost: Python drops what is raised while it collects garbage."""
    monkeypatch.setattr(interruptions, "REPEATED_S", 0.0)
    n_interrupts = 0
    with interruptions.signals_interrupt():
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
            n_interrupts += 1
    assert n_interrupts == 2


def test_waiting_is_reported_to_nobody_without_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Closed())
    with interruptions.not_interrupted():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)


def test_signals_are_left_alone_outside_the_main_thread() -> None:
    seen: list[bool] = []

    def work() -> None:
        with interruptions.signals_interrupt(), interruptions.not_interrupted():
            seen.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]


@pytest.mark.parametrize("caught", [Exception, BaseException])
def test_an_interruption_is_not_lost_in_code_that_catches_everything(caught: type[BaseException]) -> None:
    """As FLARE's network code does, which then says that the connection failed, or nothing."""
    with pytest.raises(KeyboardInterrupt), interruptions.none_lost():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except BaseException as error:
            if not isinstance(error, caught):
                raise
            raise ConnectionError("it failed") from error
    with interruptions.none_lost():
        pass  # it is told once: a second time would be raised here


def test_what_must_not_be_broken_off_is_not_broken_off_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    with interruptions.not_interrupted(), interruptions.none_lost():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
    assert "please wait" in capsys.readouterr().err


def test_handlers_are_as_they_were() -> None:
    before = [signal.getsignal(number) for number in interruptions.SIGNALS]
    with interruptions.none_lost():
        pass
    assert [signal.getsignal(number) for number in interruptions.SIGNALS] == before
