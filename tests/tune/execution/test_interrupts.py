"""The signals that ask a run to stop."""

from __future__ import annotations

import os
import signal

import pytest

from tune.execution.interrupts import Interrupted, catching


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_a_run_that_does_not_train(number: signal.Signals) -> None:
    found = signal.signal(number, signal.default_int_handler)  # whatever nohup or a shell has left
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as stop, catching(lambda: None):
        os.kill(os.getpid(), number)
    assert stop.value.exit_code == 128 + number
    assert signal.getsignal(number) is before
    signal.signal(number, found)


def test_what_nohup_began_goes_on_when_the_terminal_is_closed() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with catching(lambda: None) as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert interrupts.exit_code is None
