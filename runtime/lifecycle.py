"""What there is to say about the life of a child: how it is started again, why it stopped, and what can be raised."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias

import attrs

if TYPE_CHECKING:
    from .actor import Actor
    from .supervisor import Supervisor
    from .task import Task

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    C = TypeVar("C", bound="Actor | Task | Supervisor", covariant=True, default=Any)
else:
    from typing import TypeVar

    C = TypeVar("C", covariant=True)

Restart: TypeAlias = Literal["permanent", "transient", "temporary"]
Strategy: TypeAlias = Literal["one_for_one", "one_for_all", "rest_for_one"]


@attrs.frozen
class StopReason:
    """Why a child ended: it was done, it was told to, or it failed."""

    kind: Literal["normal", "shutdown", "error"]
    error: BaseException | None = None

    def __str__(self) -> str:
        return self.kind if self.error is None else f"{type(self.error).__name__}: {self.error}"


NORMAL = StopReason("normal")
SHUTDOWN = StopReason("shutdown")


@attrs.frozen(kw_only=True)
class Backoff:
    """How a failed child is started again: after growing pauses, and not for ever.

    The n-th pause in a row is drawn between 0 and `first_s * factor**(n-1)`, at most `cap_s` (full jitter; `jitter=0` takes the
    upper end). A run of `healthy_s` forgets all earlier failures. At the failure number `give_up_after` without a healthy run
    in between, the supervisor gives up and fails in its turn.
    """

    first_s: float = 0.1
    factor: float = 2.0
    cap_s: float = 30.0
    jitter: float = 1.0
    healthy_s: float = 60.0
    give_up_after: int = 10

    def pause_s(self, failures: int, chance: float) -> float:
        """The pause before the start that follows so many failures in a row. `chance`: a number from 0 to 1."""
        highest = min(self.cap_s, self.first_s * self.factor ** min(failures - 1, 64))
        return highest * (1 - self.jitter * chance)


@attrs.frozen(kw_only=True)
class ChildSpec(Generic[C]):
    """One child of a supervisor, and how it is looked after.

    `permanent` children are always started again, `transient` ones only after an error, `temporary` ones never.
    """

    name: str
    start: Callable[[], C]
    """Makes a fresh child; called again at every restart."""
    restart: Restart = "permanent"
    shutdown_s: float = 5.0
    """How long it may take to stop before it is cancelled, and then to clean up."""
    significant: bool = False
    """Its end may end the supervisor; see `Supervisor.auto_stop`."""
    backoff: Backoff = Backoff()


class RuntimeProblem(Exception):
    """Root of what the runtime raises."""


class ActorDied(RuntimeProblem):
    """The actor ended before it answered. Its own error, if any, is the cause."""


class AskTimeout(RuntimeProblem):
    """No answer came in time. If the request was still waiting, it will not be handled any more."""


class AskCycle(RuntimeProblem):
    """Actors would wait for each other in a circle."""


class MailboxFull(RuntimeProblem):
    """There is no room for the message, and the caller did not want to wait."""


class NotHandled(RuntimeProblem):
    """The actor has no handler for this type of message."""


class StartFailed(RuntimeProblem):
    """A child could not be started; the cause says why."""


class NameTaken(RuntimeProblem):
    """There is already a child of this name."""


class CleanUpFailed(RuntimeProblem):
    """A clean-up did not end in its time."""


class RestartsExhausted(RuntimeProblem):
    """A child failed too often without a healthy run, so its supervisor gives up."""
