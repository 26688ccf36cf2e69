"""The configuration of the GitHub source, and its advanced rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from ...protocol.configuration import regex, setting
from ..source import JSON, AdvancedRulesProblem
from ..tls import pem

CLOUD_URL: Final = "https://api.github.com"
_FILTERS: Final = ("issue", "pr", "branch", "path")


@attrs.frozen
class GitHubConfig:
    """Which repositories, and as whom."""

    data_source: str = setting(
        "GitHub on",
        default="github_server",
        options={"github_cloud": "GitHub Cloud", "github_server": "GitHub Server"},
        order=1,
    )
    host: str = setting(
        "Address of the server",
        depends_on={"data_source": "github_server"},
        validations=[regex("^https://.*")],
        order=2,
        tooltip="Such as https://github.example.com",
    )
    auth_method: str = setting(
        "Way to sign in",
        default="personal_access_token",
        options={"personal_access_token": "Personal access token", "github_app": "GitHub App"},
        order=3,
    )
    token: str = setting("Token", sensitive=True, depends_on={"auth_method": "personal_access_token"}, order=4)
    repo_type: str = setting(
        "Repositories of",
        default="other",
        options={"organization": "Organization", "other": "Other"},
        order=5,
        tooltip="Document-level security needs an organization.",
    )
    org_name: str = setting(
        "Organization",
        depends_on={"auth_method": "personal_access_token", "repo_type": "organization"},
        order=6,
        tooltip="As in its address on GitHub.",
    )
    app_id: int = setting("Id of the App", depends_on={"auth_method": "github_app"}, display="numeric", order=7)
    private_key: str = setting(
        "Private key of the App",
        display="textarea",
        sensitive=True,
        depends_on={"auth_method": "github_app"},
        order=8,
        tooltip="The text of its .pem file.",
    )
    repositories: list[str] = setting(
        "Repositories",
        display="textarea",
        order=9,
        tooltip="Names such as site or acme/site, separated by commas; * for all. Advanced rules replace them.",
    )
    ssl_enabled: bool = setting("Own certificate authority", default=False, order=10)
    ssl_ca: str = setting("Certificate of the authority", depends_on={"ssl_enabled": True}, order=11)
    retry_count: int = setting("Retries per request", default=3, required=False, advanced=True, order=12)
    use_text_extraction_service: bool = setting(
        "Extract text without the pipeline", default=False, advanced=True, order=13
    )
    use_document_level_security: bool = setting(
        "Document-level security", default=False, depends_on={"repo_type": "organization"}, order=14
    )
    verify_certificates: bool = setting(
        "Check certificates",
        default=True,
        required=False,
        advanced=True,
        order=15,
        tooltip="Turn off only if you accept that nobody checks whom you talk to.",
    )

    @property
    def is_app(self) -> bool:
        return self.auth_method == "github_app"

    @property
    def is_organization(self) -> bool:
        return self.repo_type == "organization"

    @property
    def takes_all(self) -> bool:
        return "*" in self.repositories

    @property
    def rest_url(self) -> str:
        return CLOUD_URL if self.data_source == "github_cloud" else f"{self.host.rstrip('/')}/api/v3"

    @property
    def graphql_url(self) -> str:
        return f"{CLOUD_URL}/graphql" if self.data_source == "github_cloud" else f"{self.host.rstrip('/')}/api/graphql"

    def complaints(self) -> Iterator[tuple[str, str]]:
        """Say what is wrong with values that go together."""
        for name in () if self.takes_all else self.repositories:
            if name.count("/") > 1 or not all(name.split("/")):
                yield "repositories", f"holds {name!r}; a repository is written as name or owner/name"
            elif self.is_app and "/" not in name:
                yield "repositories", f"holds {name!r}; with a GitHub App, write owner/name"
        if self.is_app and not pem(self.private_key):
            yield "private_key", "is no PEM key; paste the whole .pem file of the GitHub App"


def rule_problems(rules: JSON) -> Iterator[AdvancedRulesProblem]:
    """Say what is wrong with the form of advanced rules."""
    if rules in (None, {}, []):
        return
    if not isinstance(rules, list):
        yield AdvancedRulesProblem("Advanced rules are a list of objects with the keys repository and filter.")
        return
    for number, rule in enumerate(rules, start=1):
        if not isinstance(rule, dict) or set(rule) != {"repository", "filter"}:
            yield AdvancedRulesProblem(
                f"Rule {number} must be an object with the keys repository and filter, no others."
            )
            continue
        if not isinstance(rule["repository"], str) or not rule["repository"].strip():
            yield AdvancedRulesProblem(f"Rule {number} must name a repository.")
        wanted = rule["filter"]
        if not isinstance(wanted, dict) or not wanted:
            yield AdvancedRulesProblem(
                f"The filter of rule {number} must be an object with one of {', '.join(_FILTERS)}."
            )
            continue
        for key, value in wanted.items():
            if key not in _FILTERS:
                yield AdvancedRulesProblem(
                    f"The filter of rule {number} has {key!r}; it may have {', '.join(_FILTERS)}."
                )
            elif not isinstance(value, str) or not value:
                yield AdvancedRulesProblem(f"{key!r} in the filter of rule {number} must be text, and not empty.")


def filters_by_repository(rules: JSON) -> Mapping[str, list[dict[str, Any]]]:
    """Gather the filters of all rules by the repository they are about, in the order of the rules."""
    gathered: dict[str, list[dict[str, Any]]] = {}
    for rule in rules:
        gathered.setdefault(rule["repository"].strip(), []).append(rule["filter"])
    return gathered


def search_text(name_with_owner: str, kind: str, text: str) -> str | None:
    """Make the search of one rule; None if the rule asks for issues among pull requests or the reverse."""
    words = text.split()
    qualifier, other = ("is:pr", "is:issue") if kind == "pr" else ("is:issue", "is:pr")
    if other in words:
        return None
    return " ".join([f"repo:{name_with_owner}", *([] if qualifier in words else [qualifier]), text.strip()])
