"""Faults by seeded rules: inside a system of actors (`open_system(faults=FaultPlan(...))`), and on the wire (`open_fault_proxy`).

The rules for the wire have names of their own: `network.Rule`, `network.Cut`, ...
"""

from . import network as network
from .conditions import Conditions, InvalidPlan, Turns
from .injector import Injected, Injector
from .network import NetworkFaultPlan, read_network_plan
from .plan import (
    Cancel,
    Crash,
    Delay,
    Drop,
    Exhaust,
    FailWorker,
    FaultPlan,
    Fill,
    InjectedFault,
    JumpClock,
    Match,
    Reorder,
    Rule,
    Stall,
    read_runtime_plan,
)
from .proxy import FaultProxy, InjectedOnWire, open_fault_proxy
from .reading import meant, nearest, only, read_rules, read_seed

__all__ = [
    "Cancel",
    "Conditions",
    "Crash",
    "Delay",
    "Drop",
    "Exhaust",
    "FailWorker",
    "FaultPlan",
    "FaultProxy",
    "Fill",
    "Injected",
    "InjectedFault",
    "InjectedOnWire",
    "Injector",
    "InvalidPlan",
    "JumpClock",
    "Match",
    "NetworkFaultPlan",
    "Reorder",
    "Rule",
    "Stall",
    "Turns",
    "meant",
    "nearest",
    "network",
    "only",
    "open_fault_proxy",
    "read_network_plan",
    "read_rules",
    "read_runtime_plan",
    "read_seed",
]
