"""Examples of every command, as people type them. They stand in each command's help and in the reference page."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": ("callboard demo", "callboard demo ~/notes --query storm"),
    "node": ("callboard node", "callboard node --port 9200 --data ~/callboard-data"),
    "sync": (
        "callboard sync dir --set directory=$HOME/notes --index notes",
        "callboard sync dir --set directory=/srv/docs --index docs --dry-run",
        "callboard sync dir --set directory=/srv/docs --index docs --embedded ~/callboard-data",
        "callboard sync postgresql --set host=db --set-file password=/run/secrets/db --index sales --to https://search:9200",
    ),
    "search": ('callboard search notes "thunder sheet"', "callboard search notes storm --format json"),
    "extract": ("callboard extract letter.pdf",),
    "diff": ("callboard diff search-old search-new", "callboard diff notes notes --right-profile staging"),
    "connector create": (
        "callboard connector create",
        "callboard connector create --service-type dir --index-name notes --name Notes --set directory=/srv/notes",
        "callboard connector create --service-type postgresql --index-name sales --from-file sales.json --update-config",
    ),
    "connector list": ("callboard connector list", "callboard connector list --format json"),
    "connector show": ("callboard connector show 7f3a",),
    "connector edit": ("callboard connector edit 7f3a --set directory=/srv/other --name Letters",),
    "connector schedule": (
        'callboard connector schedule 7f3a "0 0 2 * * ?"',
        'callboard connector schedule 7f3a "0 */15 * * * ?" -t incremental',
    ),
    "connector enable": ("callboard connector enable 7f3a",),
    "connector disable": ("callboard connector disable 7f3a -t incremental",),
    "connector check": ("callboard connector check 7f3a",),
    "connector delete": (
        "callboard connector delete 7f3a",
        "callboard connector delete 7f3a --with-index --purge --yes",
    ),
    "connector export": (
        "callboard connector export > deployment.yml",
        "callboard connector export 7f3a --format json",
    ),
    "connector apply": (
        "callboard connector apply -f deployment.yml --dry-run",
        "callboard connector apply -f deployment.yml --prune --yes",
    ),
    "connector import": ("callboard connector import deployment.yml",),
    "job start": ("callboard job start -i 7f3a -t full", "callboard job start -i 7f3a -t incremental -o json"),
    "job list": ("callboard job list", "callboard job list 7f3a --format json"),
    "job view": ("callboard job view 91c2", "callboard job view 91c2 -o json"),
    "job follow": ("callboard job follow 91c2",),
    "job cancel": ("callboard job cancel 91c2 --yes",),
    "job confirm-deletes": ("callboard job confirm-deletes 91c2",),
    "dead-letters list": ("callboard dead-letters list",),
    "dead-letters replay": ("callboard dead-letters replay --help",),
    "source list": ("callboard source list",),
    "source describe": ("callboard source describe postgresql",),
    "source new": ("callboard source new tide_tables",),
    "source check": (
        "callboard source check dir --set directory=$HOME/notes",
        "callboard source check tide_tables:TideTables --set station=dover --conformance",
    ),
    "rules test": ('callboard rules test 7f3a --rule "exclude path ends_with .tmp"',),
    "service": ("callboard service -c config.yml", "callboard service --action list"),
    "config check": ("callboard config check -c config.yml --strict",),
    "config show": ("callboard config show -c config.yml --format json",),
    "login": (
        "callboard login --host https://search.example.org:9200 --user ines",
        "callboard login --method apikey --api-key-file key.txt --profile staging",
    ),
    "index list": ("callboard index list",),
    "index clean": ("callboard index clean notes",),
    "index delete": ("callboard index delete notes --yes",),
    "doctor": ("callboard doctor",),
    "completion": ('eval "$(callboard completion bash)"',),
}


def examples_of(command_path: str) -> tuple[str, ...]:
    """The examples of a command, by its name as it is typed (`callboard job list`)."""
    return EXAMPLES.get(command_path.removeprefix("callboard").strip(), ())
