"""What happens in one world: each event with its time, and the actions that it led to."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from parallel._actions import Action, Deliver, Submit
from tests.simulation.performing import Performer

#: The events of a scheduler.
EVENTS = (
    "on_input",
    "on_input_failed",
    "on_outcome",
    "on_refused",
    "on_unclear",
    "on_started",
    "on_lost",
    "on_broken",
    "on_time",
    "on_look",
    "on_given_up",
    "on_consumed",
    "on_close",
)

#: Of longer lists only the length is told.
_SHORT = 3


def trace(world: Performer, say: Callable[[str], None]) -> None:
    """Tell of everything that happens to the scheduler of a world."""
    settings, scheduler = world.settings, world.scheduler
    say(", ".join(f"{name}={getattr(settings, name)!r}" for name in settings.__slots__))
    for name in EVENTS:
        setattr(scheduler, name, _told(name, getattr(scheduler, name), world, say))


def _told(
    name: str, event: Callable[..., list[Action]], world: Performer, say: Callable[[str], None]
) -> Callable[..., list[Action]]:
    @functools.wraps(event)
    def told(*arguments: Any, **options: Any) -> list[Action]:
        given = [_brief(argument) for argument in arguments]
        given += [f"{option}={value!r}" for option, value in options.items()]
        line = f"{world.now:.6f} {name}({', '.join(given)})"
        try:
            actions = event(*arguments, **options)
        except BaseException as error:
            say(f"{line} raises {error!r}")
            raise
        say(" ".join([line, *(f"\n    {_describe(action)}" for action in actions)]))
        return actions

    return told


def _brief(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6f}"
    return f"[{len(value)}]" if isinstance(value, list) and len(value) > _SHORT else repr(value)


def _describe(action: Action) -> str:
    if isinstance(action, Submit):
        return f"submit {action.batch!r}"
    if isinstance(action, Deliver):
        return f"deliver {action.start}..{action.start + len(action.values) - 1}"
    return repr(action)
