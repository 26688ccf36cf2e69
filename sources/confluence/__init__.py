"""Spaces, pages, blog posts, comments and attachments of Confluence, in the cloud, on a server or in a data center.

Each space is a partition and goes on from its last page. A listing that fails, or that shifted while it was read, never looks
complete. With document-level security, a document is for those who may see its space and whom neither the page nor any of its
ancestors shuts out; what Confluence does not tell counts as nobody.
"""

from .settings import ConfluenceConfig
from .source import Confluence

__all__ = ["Confluence", "ConfluenceConfig"]
