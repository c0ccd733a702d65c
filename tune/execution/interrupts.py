"""Ctrl-C, SIGTERM and SIGHUP as a request: finish the step, save, print how to go on. A second one ends at once.

Tune's own handler makes a run return as if nothing had happened; it is switched off (`tune.execution.session`), and
Tune is asked to stop by the signal it always listens to.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_SAVE_SECONDS = 40.0  # seconds; saving takes three, Ray's own wait for a lost server sixty
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Whether somebody asked this process to stop, and with which exit status it should leave.

    Args:
        last_words: Called before a second signal ends the run; must be quick.
        own_process: The process is there for the run alone, and the second signal ends it; else the run.
    """

    def __init__(self, last_words: Callable[[], None], *, own_process: bool = True) -> None:
        self.exit_code: int | None = None
        self.tuning = False
        self._last_words = last_words
        self._own_process = own_process
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # by `nohup`
        self._numbers = tuple(number for number in _STOPPING if not (ignored and number == signal.SIGHUP))

    def listen(self) -> None:
        """Handle the signals from now on. Once more after Ray has started: it puts a handler of its own in place."""
        for number in self._numbers:
            signal.signal(number, self._handle)
        # Until Tune listens, its stop signal would end the process.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    def check(self) -> None:
        """Leave now if a stop was asked for."""
        if self.exit_code is not None:
            raise Interrupted(self.exit_code)

    def _handle(self, number: int, _: FrameType | None) -> None:
        code = 128 + number
        if self.exit_code is not None:
            self._last_words()
            _say("stopped at once\n")
            if not self._own_process:
                raise Interrupted(self.exit_code)
            os._exit(code)
        self.exit_code = code
        if not self.tuning:
            raise Interrupted(code)
        # Tune is asked to stop at the end of its step (tune.execution.progress), when it is certain to listen.
        _say("\nstopping: saving the run (once more to stop at once)\n")
        timer = threading.Timer(_SAVE_SECONDS, self._give_up)
        timer.daemon = True
        timer.start()

    def _give_up(self) -> None:
        # A signal to the whole process group ends Ray's own processes as well, and Tune then waits for them for ever.
        if self.tuning:
            self._last_words()
            _say("Ray does not answer; the run is as it was last saved and can be resumed\n")
            if self._own_process:
                os._exit(self.exit_code or 1)
            _thread.interrupt_main()


class Interrupted(BaseException):
    """The run was stopped from outside; not an error, and not to be caught as one."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"interrupted, exit status {exit_code}")
        self.exit_code = exit_code


@contextlib.contextmanager
def catching(last_words: Callable[[], None], *, own_process: bool = True) -> Iterator[Interrupts]:
    """Handle SIGINT, SIGTERM and SIGHUP within the block; the arguments are those of `Interrupts`."""
    interrupts = Interrupts(last_words, own_process=own_process)
    before = {number: signal.getsignal(number) for number in (*_STOPPING, signal.SIGUSR1)}
    interrupts.listen()
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            if handler is not None:  # one of a program around Python, which Python cannot set again
                signal.signal(number, handler)


def _say(text: str) -> None:
    """Write to standard error from a signal handler, which may have interrupted a print; a notebook's has no file."""
    try:
        descriptor = sys.stderr.fileno()
    except (OSError, ValueError):
        sys.stderr.write(text)
        return
    with contextlib.suppress(OSError):  # the terminal may have gone
        os.write(descriptor, text.encode())
