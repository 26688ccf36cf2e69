"""The configuration of the Confluence source, and its advanced rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

import attrs

from ...protocol.configuration import less_than, setting
from ..source import JSON, AdvancedRulesProblem

CLOUD: Final = "confluence_cloud"
SERVER: Final = "confluence_server"
DATA_CENTER: Final = "confluence_data_center"
BASIC: Final = "basic"
TOKEN: Final = "personal_access_token"  # noqa: S105 - the name of a method
_BY_PASSWORD: Final = {"data_source": DATA_CENTER, "data_center_auth_method": BASIC}


@attrs.frozen
class ConfluenceConfig:
    """Which Confluence, which of its spaces, and as whom."""

    data_source: str = setting(
        "Confluence on",
        default=SERVER,
        options={CLOUD: "Confluence Cloud", SERVER: "Confluence Server", DATA_CENTER: "Confluence Data Center"},
        order=1,
    )
    username: str = setting("User name", depends_on={"data_source": SERVER}, order=2)
    password: str = setting("Password", sensitive=True, depends_on={"data_source": SERVER}, order=3)
    data_center_auth_method: str = setting(
        "Way to sign in to the data center",
        default=BASIC,
        options={BASIC: "Basic authentication", TOKEN: "Personal access token"},
        depends_on={"data_source": DATA_CENTER},
        order=4,
    )
    data_center_username: str = setting("User name in the data center", depends_on=_BY_PASSWORD, order=5)
    data_center_password: str = setting("Password in the data center", sensitive=True, depends_on=_BY_PASSWORD, order=6)
    data_center_personal_access_token: str = setting(
        "Personal access token",
        sensitive=True,
        depends_on={"data_source": DATA_CENTER, "data_center_auth_method": TOKEN},
        order=7,
    )
    account_email: str = setting(
        "E-mail address of the account",
        depends_on={"data_source": CLOUD},
        order=8,
        tooltip="The account that the API token belongs to.",
    )
    api_token: str = setting("API token", sensitive=True, depends_on={"data_source": CLOUD}, order=9)
    confluence_url: str = setting(
        "Address of the site",
        order=10,
        tooltip="Such as https://example.atlassian.net, without /wiki; on a server with its context path, if it has one.",
    )
    spaces: list[str] = setting(
        "Spaces",
        display="textarea",
        order=11,
        tooltip="Keys such as DOC, separated by commas; * for all. Advanced rules replace them.",
    )
    index_labels: bool = setting("Labels of pages and blog posts", default=False, order=12)
    ssl_enabled: bool = setting("Own certificate authority", default=False, order=13)
    ssl_ca: str = setting("Certificate of the authority", depends_on={"ssl_enabled": True}, order=14)
    retry_count: int = setting("Retries per request", default_value=3, required=False, advanced=True, order=15)
    concurrent_downloads: int = setting(
        "Downloads at once", default_value=50, required=False, advanced=True, validations=[less_than(51)], order=16
    )
    use_document_level_security: bool = setting("Document-level security", default=False, order=17)
    use_text_extraction_service: bool = setting(
        "Extract text without the pipeline", default=False, advanced=True, order=18
    )
    index_comments: bool = setting(
        "Comments on pages and blog posts",
        default=False,
        required=False,
        order=19,
        tooltip="Each comment becomes a document of its own.",
    )
    verify_certificates: bool = setting(
        "Check certificates",
        default=True,
        required=False,
        advanced=True,
        order=20,
        tooltip="Turn off only if you accept that nobody checks whom you talk to.",
    )

    @property
    def is_cloud(self) -> bool:
        return self.data_source == CLOUD

    @property
    def is_data_center(self) -> bool:
        return self.data_source == DATA_CENTER

    @property
    def takes_all(self) -> bool:
        return self.spaces == ["*"]

    @property
    def site_url(self) -> str:
        """The address of the site, where Jira's interface is on Cloud, too."""
        url = self.confluence_url.strip().rstrip("/")
        return url.removesuffix("/wiki") if self.is_cloud else url

    @property
    def base_url(self) -> str:
        """What all addresses of Confluence itself are relative to."""
        return f"{self.site_url}/wiki" if self.is_cloud else self.site_url

    def complaints(self) -> Iterator[tuple[str, str]]:
        """Say what is wrong with values that go together."""
        if "*" in self.spaces and not self.takes_all:
            yield "spaces", "holds * beside keys; write * alone for all spaces, or keys only"
        parts = urlsplit(self.confluence_url.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            yield "confluence_url", "must be an address such as https://example.atlassian.net"
        elif parts.username or parts.password:
            yield "confluence_url", "must not hold a user name or password; there are settings for them"


def rule_problems(rules: JSON) -> Iterator[AdvancedRulesProblem]:
    """Say what is wrong with the form of advanced rules."""
    if rules in (None, {}, []):
        return
    if not isinstance(rules, list):
        yield AdvancedRulesProblem("Advanced rules are a list of objects with the key query.")
        return
    for number, rule in enumerate(rules, start=1):
        if not isinstance(rule, dict) or set(rule) != {"query"}:
            yield AdvancedRulesProblem(f"Rule {number} must be an object with the key query, and no other.")
        elif not isinstance(rule["query"], str) or not rule["query"].strip():
            yield AdvancedRulesProblem(f"The query of rule {number} must be CQL as text, and not empty.")


def quoted(text: str) -> str:
    """Write a value into CQL."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
