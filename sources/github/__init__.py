"""Repositories, issues, pull requests and text files of GitHub, on github.com or an Enterprise Server.

Listings are read over GraphQL, files over REST. Each repository is a partition and goes on from its last page. A listing that
fails raises: no repository ever looks empty. Documents of repositories that are not public are for those collaborators who are
members of the organization; where these cannot be read, they are for nobody.
"""

from .settings import GitHubConfig
from .source import GitHub

__all__ = ["GitHub", "GitHubConfig"]
