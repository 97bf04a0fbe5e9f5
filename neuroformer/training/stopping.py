"""What ends training early: scores that gain too little, or a signal.

At a signal the step is finished, the run is saved, and :class:`Stopped` is raised.
"""

from __future__ import annotations

import signal
import threading
from typing import Any, Protocol

LEAST_GAIN = 0.01  # of a validation score, for which training goes on
SIGNALS = ("SIGTERM", "SIGUSR1", "SIGINT")  # what a cluster sends before it takes a node back; Ctrl-C


class Stopped(Exception):
    """A signal asked the run to stop; it was saved, and continues with ``--resume``.

    Attributes
    ----------
    signal : signal.Signals
    """

    def __init__(self, number: int, saved: str):
        self.signal = signal.Signals(number)
        super().__init__(f"{self.signal.name}: {saved}")


class Stoppable(Protocol):
    """Reads ``signal`` after each step; ``bar`` shows what it does."""

    signal: int | None
    bar: Any


class listen:
    """Inside this context, a signal is only noted, and the trainer reads the note after each step; a second Ctrl-C
    stops at once.
    """

    def __init__(self, trainer: Stoppable):
        self.trainer = trainer
        self.old: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for name in SIGNALS:
                if hasattr(signal, name):  # Windows lacks SIGUSR1
                    number = getattr(signal, name)
                    self.old[number] = signal.signal(number, self._note)

    def _note(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT and self.trainer.signal == number:
            raise KeyboardInterrupt
        self.trainer.signal = number
        self.trainer.bar.set_description("saving, then stopping")

    def __exit__(self, *error: object) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)


def gains_enough(score: float, marked: float) -> bool:
    """Whether a score is so much better than when training was last seen to gain that it should go on for it: by 1 %.

    Smaller gains add up until they are. Without a score before (NaN), any is enough.
    """
    return not score < marked + LEAST_GAIN * abs(marked)
