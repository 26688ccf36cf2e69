"""The journal: typed events of the whole service, kept in an index of their own and told as the story of a job."""

from .entry import KINDS as KINDS
from .entry import Entry as Entry
from .entry import Happening as Happening
from .entry import read_entry as read_entry
from .keeping import JOURNAL_INDEX as JOURNAL_INDEX
from .keeping import JournalTask as JournalTask
from .keeping import Queue as Queue
from .keeping import follow_journal as follow_journal
from .keeping import forget_old as forget_old
from .keeping import journal_pages as journal_pages
from .keeping import read_journal as read_journal
from .keeping import write_entries as write_entries
from .story import Line as Line
from .story import Narrator as Narrator
from .story import story as story
from .story import told as told
from .telling import Teller as Teller
from .telling import shown as shown
from .telling import tell as tell
from .telling import telling as telling

__all__ = [
    "JOURNAL_INDEX", "KINDS", "Entry", "Happening", "JournalTask", "Line", "Narrator", "Queue", "Teller", "follow_journal", "forget_old", "journal_pages",
    "read_entry", "read_journal", "shown", "story", "tell", "telling", "told", "write_entries",
]  # fmt: skip
