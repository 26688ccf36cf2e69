"""The GraphQL queries. Each asks for a page of the wanted size, and for where the next one begins."""

from __future__ import annotations

from typing import Final

_PAGE: Final = "pageInfo{hasNextPage endCursor}"

REPOSITORY_FIELDS: Final = (
    "id updatedAt name nameWithOwner url description visibility primaryLanguage{name} defaultBranchRef{name} isFork "
    "stargazerCount watchers{totalCount} forkCount createdAt isArchived"
)
_COMMENTS: Final = "nodes{author{login} body}"
_LABELS: Final = "nodes{name description}"
_ASSIGNEES: Final = "nodes{login}"
_REVIEW_COMMENTS: Final = "nodes{body}"
_REVIEWS: Final = f"nodes{{id author{{login}} body state comments(first:50){{{_REVIEW_COMMENTS} {_PAGE}}}}}"
_REQUESTS: Final = "nodes{requestedReviewer{... on User{login} ... on Mannequin{login} ... on Bot{login}}}"

_ISSUE: Final = (
    "id number url createdAt closedAt updatedAt title body author{login} "
    f"labels(first:50){{{_LABELS} {_PAGE}}} assignees(first:50){{{_ASSIGNEES} {_PAGE}}} "
    f"comments(first:50){{{_COMMENTS} {_PAGE}}}"
)
# GraphQL refuses two fields of one name and different types, as `state` is where a search holds issues and pull requests.
ISSUE: Final = f"__typename {_ISSUE} issueState:state"
PULL_REQUEST: Final = (
    f"__typename {_ISSUE} mergedAt pullState:state reviews(first:25){{{_REVIEWS} {_PAGE}}} "
    f"reviewRequests(first:50){{{_REQUESTS} {_PAGE}}}"
)

VIEWER: Final = "query{viewer{login}}"
REPOSITORY: Final = f"query($owner:String!,$name:String!){{repository(owner:$owner,name:$name){{{REPOSITORY_FIELDS}}}}}"
USER_REPOSITORIES: Final = (
    "query($login:String!,$size:Int!,$after:String){user(login:$login){"
    f"repositories(first:$size,after:$after){{nodes{{nameWithOwner}} {_PAGE}}}}}}}"
)
ORGANIZATION_REPOSITORIES: Final = USER_REPOSITORIES.replace("{user(", "{organization(")
MEMBERS: Final = (
    "query($login:String!,$size:Int!,$after:String){organization(login:$login){"
    f"membersWithRole(first:$size,after:$after){{nodes{{id login name email updatedAt}} {_PAGE}}}}}}}"
)
COLLABORATORS: Final = (
    "query($owner:String!,$name:String!,$size:Int!,$after:String){repository(owner:$owner,name:$name){"
    f"collaborators(first:$size,after:$after){{nodes{{id login email}} {_PAGE}}}}}}}"
)
PULL_REQUESTS: Final = (
    "query($owner:String!,$name:String!,$size:Int!,$after:String){repository(owner:$owner,name:$name){"
    f"pullRequests(first:$size,after:$after){{nodes{{{PULL_REQUEST}}} {_PAGE}}}}}}}"
)
ISSUES: Final = (
    "query($owner:String!,$name:String!,$size:Int!,$after:String){repository(owner:$owner,name:$name){"
    f"issues(first:$size,after:$after){{nodes{{{ISSUE}}} {_PAGE}}}}}}}"
)
SEARCH: Final = (
    "query($text:String!,$size:Int!,$after:String){search(query:$text,type:ISSUE,first:$size,after:$after){"
    f"issueCount nodes{{... on Issue{{{ISSUE}}} ... on PullRequest{{{PULL_REQUEST}}}}} {_PAGE}}}}}"
)

_REST_OF: Final = {
    "labels": _LABELS,
    "assignees": _ASSIGNEES,
    "comments": _COMMENTS,
    "reviews": _REVIEWS,
    "reviewRequests": _REQUESTS,
}


def rest_of(typename: str, connection: str) -> str:
    """The query for the rest of a list inside an issue, a pull request or a review."""
    wanted = _REVIEW_COMMENTS if typename == "PullRequestReview" else _REST_OF[connection]
    return (
        f"query($id:ID!,$size:Int!,$after:String){{node(id:$id){{... on {typename}{{"
        f"{connection}(first:$size,after:$after){{{wanted} {_PAGE}}}}}}}}}"
    )


def repositories_exist(count: int) -> str:
    """The query that looks up so many repositories at once, with the variables `owner0`, `name0` and so on."""
    variables = ",".join(f"$owner{at}:String!,$name{at}:String!" for at in range(count))
    asked = " ".join(f"repo{at}:repository(owner:$owner{at},name:$name{at}){{nameWithOwner}}" for at in range(count))
    return f"query({variables}){{{asked}}}"


def last_commits(count: int) -> str:
    """The query for the last commit of so many paths on one branch, with the variables `path0` and so on."""
    variables = ",".join(f"$path{at}:String!" for at in range(count))
    asked = " ".join(f"file{at}:history(first:1,path:$path{at}){{nodes{{committedDate}}}}" for at in range(count))
    return (
        f"query($owner:String!,$name:String!,$branch:String!,{variables}){{repository(owner:$owner,name:$name){{"
        f"object(expression:$branch){{... on Commit{{{asked}}}}}}}}}"
    )
