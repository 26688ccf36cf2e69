"""The tables. Each index has its own, named by its number, so that dropping an index is dropping tables.

`docs_N`   one row per document version that somebody may still see; live ones have no `died`
`terms_N`  (document, field, value): exact values of keywords, numbers, dates, flags, found by value or by document
`texts_N_K` full-text tables with a fixed number of columns, each column the text of one analysed field
"""

from __future__ import annotations

VERSION = 1
TEXT_COLUMNS = 24
"""Columns per full-text table. FTS5 tables cannot grow columns, so further text fields get further tables."""

ALWAYS = (
    "CREATE TABLE IF NOT EXISTS catalog(kind TEXT, name TEXT, body BLOB NOT NULL, PRIMARY KEY(kind, name)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS counters(number INTEGER PRIMARY KEY, seq_no INTEGER NOT NULL, clock INTEGER NOT NULL)",
)

# Words are letters, marks, digits and `_`, as the standard analyser has it; the private-use sign parts values of one field.
_TOKENIZER = "unicode61 remove_diacritics 0 categories 'L* M* N* Co' tokenchars '_'"


def index_tables(number: int) -> list[str]:
    """Return the statements that make the tables of an index without text fields."""
    return [
        # The source comes last, so that large ones do not lie in the way of what is read more often.
        f"CREATE TABLE docs_{number}(doc INTEGER PRIMARY KEY, id TEXT, seq_no INTEGER, version INTEGER, died INTEGER, source BLOB)",
        f"CREATE INDEX ids_{number} ON docs_{number}(id, died)",
        f"CREATE TABLE terms_{number}(doc INTEGER, field INTEGER, value, PRIMARY KEY(doc, field, value)) WITHOUT ROWID",
        f"CREATE INDEX values_{number} ON terms_{number}(field, value, doc)",
    ]


def text_table(number: int, table: int) -> str:
    """Return the statement that makes one full-text table."""
    columns = ", ".join(f"c{column}" for column in range(TEXT_COLUMNS))
    tokenizer = _TOKENIZER.replace("'", "''")
    return f"CREATE VIRTUAL TABLE texts_{number}_{table} USING fts5({columns}, tokenize = '{tokenizer}')"


def text_tables_for(slots: int) -> int:
    """Return how many full-text tables so many text fields need."""
    return -(-slots // TEXT_COLUMNS)


def drop_tables(number: int, text_tables: int) -> list[str]:
    """Return the statements that drop an index."""
    return [
        *(f"DROP TABLE texts_{number}_{table}" for table in range(text_tables)),
        f"DROP TABLE terms_{number}",
        f"DROP TABLE docs_{number}",
    ]
