"""What may be asked of a solver while it trains, and signals that ask it."""

from __future__ import annotations

import enum
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from caffe.solvers.solver import Solver


class Action(enum.Enum):
    """What somebody may ask of a solver while it trains."""

    NONE = "none"
    STOP = "stop"
    SNAPSHOT = "snapshot"


class SignalActions:
    """Keeps what SIGINT and SIGHUP ask, until the solver asks for it.

    Parameters
    ----------
    effects : dict of signal to Action
        What each signal asks for; all of them lose the effect they had.
    """

    def __init__(self, effects: dict[signal.Signals, Action]) -> None:
        self._effects = effects
        self._seen: set[int] = set()
        for number in effects:
            signal.signal(number, lambda seen, frame: self._seen.add(seen))

    def __call__(self) -> Action:
        """Return what the next signal that has come asks for; SIGINT comes first."""
        for number, action in self._effects.items():
            if number in self._seen:
                self._seen.discard(number)
                if action is not Action.NONE:
                    return action
        return Action.NONE


def answer_signals(solver: Solver, sigint: Action, sighup: Action) -> None:
    """Have a solver do what SIGINT and SIGHUP are to effect, after the iteration that is running.

    Parameters
    ----------
    solver : Solver
    sigint, sighup : Action
    """
    solver.set_action_function(SignalActions({signal.SIGINT: sigint, signal.SIGHUP: sighup}))
