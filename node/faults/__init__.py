"""A server that misbehaves on purpose: rules that refuse, delay, cut, corrupt or lose, in front of the node or a real server."""

from ...runtime.faults import InvalidPlan
from .forwarding import ForwardingApp
from .plan import (
    Corrupt,
    CutBody,
    Delay,
    Drip,
    Effect,
    FailItems,
    LoseResponse,
    Match,
    Refuse,
    Restart,
    Rule,
    ServerFaultPlan,
    StaleRead,
    Status,
    read_plan,
)
from .sections import FaultPlans, read_plans
from .server import ConnectionCut, ConnectionRefused, FaultyApp
from .standing import FaultyServer, open_faulty_server, open_faulty_way
from .transport import FaultyTransport

__all__ = [
    "ConnectionCut",
    "ConnectionRefused",
    "Corrupt",
    "CutBody",
    "Delay",
    "Drip",
    "Effect",
    "FailItems",
    "FaultPlans",
    "FaultyApp",
    "FaultyServer",
    "FaultyTransport",
    "ForwardingApp",
    "InvalidPlan",
    "LoseResponse",
    "Match",
    "Refuse",
    "Restart",
    "Rule",
    "ServerFaultPlan",
    "StaleRead",
    "Status",
    "open_faulty_server",
    "open_faulty_way",
    "read_plan",
    "read_plans",
]
