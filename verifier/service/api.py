"""openapi.json: the description of the Verifier's service, and what is held against it on both sides."""

from __future__ import annotations

from typing import Any

import jsonschema_rs

from ...formats.settings import schema_of


def openapi() -> dict[str, Any]:
    """The service's description."""
    return schema_of(__package__, "openapi.json")


def validator(name: str) -> jsonschema_rs.Draft202012Validator:
    """Of the schema of this name in it."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": openapi()["components"]}
    return jsonschema_rs.Draft202012Validator(schema, offline=True)
