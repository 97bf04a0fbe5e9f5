"""How a signal ends a run: the step is finished, the run saved, and :class:`Stopped` raised."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuroformer.training.loop import Trainer

SIGNALS = ("SIGTERM", "SIGUSR1", "SIGINT")  # what a cluster sends before it takes a node back; Ctrl-C


class Stopped(Exception):
    """A signal asked the run to end; it was saved, and goes on with ``--resume``.

    Attributes
    ----------
    signal : signal.Signals
    """

    def __init__(self, number: int, saved: str):
        self.signal = signal.Signals(number)
        super().__init__(f"{self.signal.name}: {saved}")


class listen:
    """While it lasts, a signal only leaves a note, which the trainer reads after the step; a second Ctrl-C does not wait."""

    def __init__(self, trainer: Trainer):
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
