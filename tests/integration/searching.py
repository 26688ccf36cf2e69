"""Searches as somebody: with the query of their own identity document, filled with its own parameters, as a role would do it."""

from __future__ import annotations

import json

from callboard.protocol.store import NotFound, Store


async def seen_by(store: Store, index: str, people: str, identity_id: str) -> set[str]:
    """The ids of what somebody finds who searches for everything."""
    await store.client.indices.refresh(index=f"{index},{people}")
    try:
        identity = (await store.client.get(index=people, id=identity_id))["_source"]
    except NotFound:
        return set()
    template = identity["query"]["template"]
    filled = template["source"].replace(
        "{{#toJson}}access_control{{/toJson}}", json.dumps(template["params"]["access_control"])
    )
    answer = await store.client.search(index=index, query=json.loads(filled), size=1000)
    return {hit["_id"] for hit in answer["hits"]["hits"]}
