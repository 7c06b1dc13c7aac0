"""JSON schemas: one for each thing that they can say, and those that cannot be kept to."""

from __future__ import annotations

from typing import Any

__all__ = ["KEPT", "REFUSED"]


def _object(**properties: Any) -> dict[str, Any]:
    """An object of just these properties, all of them required."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_INT, _STR = {"type": "integer"}, {"type": "string"}
_LINE = {"type": "string", "maxLength": 12}
_DRAFT_7 = "http://json-schema.org/draft-07/schema#"

KEPT: dict[str, dict[str, Any] | bool] = {
    # The models that lm-format-enforcer's tests are about.
    "enforcer-numbers": _object(num=_INT, dec={"type": "number"}, message=_LINE),
    "enforcer-strings": _object(list_of_strings={"type": "array", "items": _LINE}),
    "enforcer-inner": {
        "$defs": {"Inner": _object(list_of_ints={"type": "array", "items": _INT})},
        **_object(
            inner={"type": "object", "additionalProperties": {"$ref": "#/$defs/Inner"}},
            models={"type": "array", "items": {"$ref": "#/$defs/Inner"}},
        ),
    },
    "enforcer-int-enum": _object(enum={"enum": [1, 2, 3, 4]}),
    "enforcer-str-enum": {
        "type": "object",
        "additionalProperties": {"enum": ["One", "Two", "Three", "Four"]},
    },
    "enforcer-optional": {
        "type": "object",
        "properties": {"a": _INT, "b": {"anyOf": [_STR, {"type": "null"}]}},
        "required": ["b"],
    },
    "enforcer-union": _object(value={"anyOf": [_INT, _LINE, {"type": "array", "items": _INT}]}),
    "enforcer-phone": _object(phone={"type": "string", "pattern": "^\\d{3}-\\d{4}$"}),
    "enforcer-lengths": _object(name={"type": "string", "minLength": 3, "maxLength": 5}),
    "enforcer-escapes": _object(text={"const": 'say "a\\b"\n'}),
    "enforcer-all-of": {
        "allOf": [
            {"type": "object", "properties": {"a": _INT}, "required": ["a"]},
            {"type": "object", "properties": {"b": _STR}, "required": ["b"]},
        ]
    },
    "enforcer-tuple": {
        "type": "array",
        "prefixItems": [_INT, _LINE],
        "items": False,
        "minItems": 2,
    },
    # What llguidance's tests of the JSON schema test suite go through.
    "anything": True,
    "empty": {},
    "null": {"type": "null"},
    "boolean": {"type": "boolean"},
    "integer": _INT,
    "number": {"type": "number"},
    "string": _STR,
    "array": {"type": "array"},
    "object": {"type": "object"},
    "types": {"type": ["integer", "null", "array"]},
    "minimum": {"type": "integer", "minimum": 1000},
    "maximum": {"type": "integer", "maximum": -7},
    "range": {"type": "integer", "minimum": 13, "maximum": 117},
    "exclusive": {"type": "integer", "exclusiveMinimum": 9, "exclusiveMaximum": 12},
    "real-range": {"type": "number", "minimum": 0.25, "maximum": 0.75},
    "real-exclusive": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "multiple": {"type": "integer", "multipleOf": 7},
    "multiple-range": {"type": "integer", "multipleOf": 25, "minimum": 100, "maximum": 200},
    "min-length": {"type": "string", "minLength": 9},
    "max-length": {"type": "string", "maxLength": 2},
    "exact-length": {"type": "string", "minLength": 4, "maxLength": 4},
    "no-length": {"type": "string", "maxLength": 0},
    "pattern": {"type": "string", "pattern": "^[A-Z][a-z]+$"},
    "pattern-inside": {"type": "string", "pattern": "ab"},
    "pattern-words": {"type": "string", "pattern": "^\\w+\\s\\w+$"},
    "pattern-loop": {"type": "string", "pattern": "^(ab|cd)*ef{2,3}$"},
    "pattern-class": {"type": "string", "pattern": "^[\\d.]{3}$"},
    "pattern-both": {"allOf": [{"type": "string", "pattern": "a"}, {"pattern": "b$"}]},
    **{
        f"format-{name}": {"type": "string", "format": name}
        for name in ("date", "time", "date-time", "duration", "ipv4", "ipv6", "uuid", "email")
    },
    "format-hostname": {"type": "string", "format": "hostname"},
    "items": {"type": "array", "items": {"type": "boolean"}},
    "min-items": {"type": "array", "items": _INT, "minItems": 3},
    "max-items": {"type": "array", "items": _INT, "maxItems": 2},
    "no-items": {"type": "array", "maxItems": 0},
    "prefix-items": {"type": "array", "prefixItems": [_INT, {"type": "null"}]},
    "items-of-draft-7": {"$schema": _DRAFT_7, "type": "array", "items": [_INT, _LINE]},
    "additional-items": {
        "$schema": _DRAFT_7,
        "type": "array",
        "items": [_INT],
        "additionalItems": {"type": "boolean"},
    },
    "nested-arrays": {
        "type": "array",
        "items": {"type": "array", "items": _INT, "minItems": 1},
        "minItems": 2,
    },
    "properties": {"type": "object", "properties": {"a": _INT, "b": _STR}},
    "required-only": {"type": "object", "required": ["x", "y"]},
    "closed": {"type": "object", "properties": {"a": _INT}, "additionalProperties": False},
    "map": {"type": "object", "additionalProperties": _INT},
    "map-of-one": {"type": "object", "additionalProperties": _INT, "minProperties": 1},
    "map-of-few": {"type": "object", "additionalProperties": _INT, "maxProperties": 2},
    "required-many": {**_object(a=_INT, b=_INT, c=_INT), "minProperties": 3},
    "pattern-properties": {
        "type": "object",
        "patternProperties": {"^n\\d$": _INT, "^s": _STR},
        "additionalProperties": False,
    },
    "mixed-properties": {
        "type": "object",
        "properties": {"a": _INT},
        "additionalProperties": {"type": "string"},
    },
    "names-of-keywords": _object(
        pattern={"type": "boolean"}, enum={"type": "null"}, minProperties=_INT, properties=_INT
    ),
    "names-that-escape": _object(**{'a"b': _INT, "c\\d": _INT, "é": _INT, "tab\t": _INT}),
    "const": {"const": {"a": [1, 2.5, None, True], "b": {"c": "d"}}},
    "const-like-a-schema": {"const": {"pattern": "\\d", "minProperties": 9}},
    "enum": {"enum": ["a", "ab", 1, 12, 1.5, None, [1], {"k": "v"}]},
    "enum-of-type": {"type": "string", "enum": ["a", 1, "b"]},
    "unicode": {"enum": ["żółw", "水", "😀"]},
    "any-of": {"anyOf": [{"type": "string", "minLength": 40}, {"type": "null"}]},
    "any-of-objects": {"anyOf": [_object(a=_INT), _object(b=_STR), _object(c={"type": "null"})]},
    "one-of": {"oneOf": [{"type": "integer"}, {"type": "string"}]},
    "all-of": {"allOf": [{"type": "integer", "minimum": 5}, {"maximum": 9}]},
    "reference": {"$defs": {"n": _INT}, "type": "array", "items": {"$ref": "#/$defs/n"}},
    "definitions": {
        "$schema": _DRAFT_7,
        "definitions": {"n": {"type": "boolean"}},
        **_object(a={"$ref": "#/definitions/n"}),
    },
    "recursive": {
        "type": "object",
        "properties": {"v": _INT, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["v", "next"],
        "additionalProperties": False,
    },
    "tree": {
        "$defs": {
            "tree": _object(leaf=_INT, kids={"type": "array", "items": {"$ref": "#/$defs/tree"}})
        },
        "$ref": "#/$defs/tree",
    },
    "annotated": {
        "title": "T",
        "description": "D",
        "default": 1,
        "examples": [1],
        "type": "integer",
    },
    "unknown-words": {"foo": {"minProperties": {}}, "type": "boolean"},
}
"""Schemas that are kept to, by what they are about."""

REFUSED: dict[str, tuple[dict[str, Any] | bool, str]] = {
    "false": (False, "schema is false"),
    "not": ({"not": {"type": "string"}}, "Unimplemented keys"),
    "if": ({"if": {"type": "integer"}, "then": {"minimum": 3}}, "Unimplemented keys"),
    "contains": ({"type": "array", "contains": _INT}, "Unimplemented keys"),
    "unique": ({"type": "array", "uniqueItems": True}, "Unimplemented keys"),
    "names": ({"type": "object", "propertyNames": {"maxLength": 3}}, "Unimplemented keys"),
    "dependent": ({"dependentRequired": {"a": ["b"]}}, "Unimplemented keys"),
    "unevaluated": ({"unevaluatedProperties": False}, "Unimplemented keys"),
    "dynamic": ({"$dynamicRef": "#a"}, "Unimplemented keys"),
    "overlapping-one-of": ({"oneOf": [_INT, {"type": "number"}]}, "oneOf constraints are not"),
    "look-around": ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
    "back-reference": ({"type": "string", "pattern": "(a)\\1"}, "backreferences"),
    "format": ({"type": "string", "format": "color"}, "Unknown format"),
    "type": ({"type": "text"}, "Invalid type"),
    "remote": ({"$ref": "http://example.com/schema"}, "does not fetch"),
    "local-file": ({"$ref": "file:///etc/passwd"}, "does not fetch"),
    "missing": ({"$ref": "#/$defs/nowhere"}, "nowhere"),
    "itself": ({"$ref": "#"}, "none of its texts"),
    "endless": (_object(a={"$ref": "#"}), "comes to an end within reach"),
    "free-names": ({"type": "object", "minProperties": 3}, "keys that the schema does not require"),
    "free-names-behind-a-reference": (
        {"$ref": "#/foo", "foo": {"type": "object", "minProperties": 2}},
        "keys that the schema does not require",
    ),
    "some-names": (
        {
            "properties": {"a": _INT, "b": _INT},
            "minProperties": 1,
            "type": "object",
            "maxProperties": 1,
        },
        "only supported when all keys",
    ),
    "x-guidance": ({"x-guidance": {"lenient": True}, "not": {}}, "x-guidance is ours"),
    "draft-3": ({"$schema": "http://json-schema.org/draft-03/schema#"}, "must be one of"),
    "control": ({"enum": ["a\u0001b"]}, "control character"),
    "delete": (_object(**{"\u007f": _INT}), "control character"),
    "contradiction": ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum"),
    "long": ({"type": "string", "minLength": 5000}, "takes at least 5\\d\\d\\d tokens"),
    "huge": ({"type": "string", "minLength": 10**9}, "comes to an end within reach"),
    "many": ({"type": "array", "items": _INT, "minItems": 10**9}, "comes to an end within reach"),
    "number": ({"type": "integer", "minimum": 10**400}, "number out of range"),
}
"""Schemas that are refused, each with a part of the reason."""
