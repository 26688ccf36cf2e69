"""What the sources over tables share beside the naming of rows: which tables are read, and what is said when there are none."""

from __future__ import annotations

import abc
from collections.abc import AsyncGenerator, Sequence
from typing import Any, TypeVar

from .errors import ConfigurationError
from .relational import named_tables, read_rules, rule_problems, wants_all_tables
from .source import JSON, AdvancedRulesProblem, Partition, Source

ConfigT = TypeVar("ConfigT", bound=Any)


class RelationalSource(Source[ConfigT]):
    """Each table, or each advanced rule, is a partition. The configuration has `tables`."""

    @property
    @abc.abstractmethod
    def namespace(self) -> str:
        """The schema or database that the tables are in."""

    @property
    @abc.abstractmethod
    def place(self) -> str:
        """The namespace and the user, as a refusal calls them: `The schema 'x' has no table that 'y' may see`."""

    @abc.abstractmethod
    async def tables(self) -> dict[str, str]:
        """The tables that may be seen, each with its kind; `VIEW` is one that has no key. Raises `SourceError`."""

    async def validate(self) -> None:
        """Make sure that the namespace has the tables that are named."""
        present = await self.seen_tables()
        if not wants_all_tables(self.config.tables):
            missing = [name for name in named_tables(self.config.tables) if name not in present]
            if missing:
                raise ConfigurationError(
                    f"{self.place.partition(' has ')[0]} has no tables {', '.join(missing)}, or they may not be seen. Names "
                    "stand without the schema, spelt as the server lists them."
                )

    async def seen_tables(self) -> dict[str, str]:
        """As `tables`. Raises `ConfigurationError` if there are none.

        Rights that were withdrawn look like tables that are gone, and a sync of nothing would empty the index.
        """
        present = await self.tables()
        if not present:
            raise ConfigurationError(f"{self.place}.")
        return present

    async def validate_rules(self, rules: JSON) -> Sequence[AdvancedRulesProblem]:
        problems = rule_problems(rules, existing=_named_in(rules))
        if problems or not rules:
            return problems
        return rule_problems(rules, existing=await self.tables())

    async def partitions(self, rules: JSON = None) -> AsyncGenerator[Partition, None]:
        if rules:
            for rule in read_rules(rules):
                yield rule.partition
            return
        for name in await self.wanted_tables():
            yield Partition(f"{self.namespace}.{name}", {"table": name}, title=name)

    async def wanted_tables(self) -> list[str]:
        """The tables to be read: those that are named, or all but views, of whose rows no document was ever made."""
        if not wants_all_tables(self.config.tables):
            return named_tables(self.config.tables)
        return [name for name, kind in (await self.seen_tables()).items() if kind != "VIEW"]


def keyless(missing: Sequence[str]) -> str:
    """Say why the rows of a rule have no ids."""
    if missing:
        return f"The rows of the rule have no columns {', '.join(missing)}, which make up their ids. Select them."
    return "The tables of the rule have no primary key. Name the columns that make up an id in id_columns."


def _named_in(rules: JSON) -> list[str]:
    listed = rules if isinstance(rules, list) else []
    tables = [rule.get("tables") for rule in listed if isinstance(rule, dict)]
    return [str(name) for one in tables if isinstance(one, list) for name in one]
