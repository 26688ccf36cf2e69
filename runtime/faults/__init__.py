"""Faults inside a system of actors, by seeded rules: `open_system(faults=FaultPlan(...))`."""

from .conditions import Conditions, InvalidPlan, Turns
from .injector import Injected, Injector
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
from .reading import only, read_rules, read_seed

__all__ = [
    "Cancel",
    "Conditions",
    "Crash",
    "Delay",
    "Drop",
    "Exhaust",
    "FailWorker",
    "FaultPlan",
    "Fill",
    "Injected",
    "InjectedFault",
    "Injector",
    "InvalidPlan",
    "JumpClock",
    "Match",
    "Reorder",
    "Rule",
    "Stall",
    "Turns",
    "only",
    "read_rules",
    "read_runtime_plan",
    "read_seed",
]
