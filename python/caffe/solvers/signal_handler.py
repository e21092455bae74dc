"""What may be asked of a solver while it trains, and the signals that ask it."""

from __future__ import annotations

import enum
import signal


class SolverAction(enum.Enum):
    """What somebody may ask of a solver while it trains."""

    NONE = "none"
    STOP = "stop"
    SNAPSHOT = "snapshot"


class SignalHandler:
    """Keeps what signals ask, until the solver asks for it; they lose the effect they had."""

    def __init__(self, effects: dict[signal.Signals, SolverAction]) -> None:
        self._effects = effects
        self._seen: set[int] = set()
        for number in effects:
            signal.signal(number, lambda seen, frame: self._seen.add(seen))

    def __call__(self) -> SolverAction:
        """Return what the next signal that has come asks for; SIGINT comes first."""
        for number, action in self._effects.items():
            if number in self._seen:
                self._seen.discard(number)
                if action is not SolverAction.NONE:
                    return action
        return SolverAction.NONE
