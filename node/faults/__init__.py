"""A server that misbehaves on purpose: rules that refuse, delay, cut, corrupt or lose, in front of the node or a real server."""

from .forwarding import ForwardingApp
from .plan import (
    Corrupt,
    CutBody,
    Delay,
    Drip,
    Effect,
    FailItems,
    InvalidPlan,
    LoseResponse,
    Match,
    Refuse,
    Rule,
    ServerFaultPlan,
    StaleRead,
    Status,
    read_plan,
)
from .server import FaultyApp

__all__ = [
    "Corrupt",
    "CutBody",
    "Delay",
    "Drip",
    "Effect",
    "FailItems",
    "FaultyApp",
    "ForwardingApp",
    "InvalidPlan",
    "LoseResponse",
    "Match",
    "Refuse",
    "Rule",
    "ServerFaultPlan",
    "StaleRead",
    "Status",
    "read_plan",
]
