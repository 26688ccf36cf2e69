#!/usr/bin/env bash
# Sets the password of Kibana's own user, and makes a role and a user for Callboard. Can be run again at any time.
# ELASTICSEARCH is the URL, SECRETS the folder of the passwords.
set -euo pipefail
role=${ROLE:-/callboard-role.json}

elastic=$(< "$SECRETS/elastic_password")
elastic=${elastic//\\/\\\\}
elastic=${elastic//\"/\\\"}

# ask METHOD PATH: sends standard input. The password goes through a file descriptor, so that no list of processes shows it.
ask() {
  curl --silent --show-error --fail-with-body --retry 5 --retry-connrefused --output /dev/stderr \
    --config <(printf 'user = "elastic:%s"\n' "$elastic") \
    --request "$1" --header 'Content-Type: application/json' --data-binary @- "$ELASTICSEARCH$2"
  echo >&2
}

printf '{"password": "%s"}' "$(< "$SECRETS/kibana_password")" | ask POST /_security/user/kibana_system/_password
ask PUT /_security/role/callboard < "$role"
printf '{"password": "%s", "roles": ["callboard"]}' "$(< "$SECRETS/callboard_password")" | ask PUT /_security/user/callboard
