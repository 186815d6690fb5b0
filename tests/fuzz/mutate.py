"""Damage with a sense for the formats: bits, lengths, extreme integers, and JSON values of the wrong kind."""

import contextlib
import json
from random import Random
from typing import Any

from tests.fuzz.target import pack, unpack

_EXTREMES = [
    0,
    1,
    2,
    3,
    255,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**60,
    2**61,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
]
_JSON_VALUES = [
    "null", "true", "[]", "{}", '""', "0", "1", "-1", "3", "1.0", "1e5", "1e999", "-0", "NaN", "Infinity", "-Infinity",
    "65535", "65536", "2147483647", "2147483648", "9223372036854775807", "18446744073709551616", "9" * 400, "9" * 5000,
    '"\\ud800"', '"\\u0000"', '"x/y"', '"../x.tokenizer"', '"/etc"', '".."', '"."', '"link"', '"x.tokenizer"', '"[CLS]"',
    "[0,0]", "[-1]", "[[1]]", "[1e999]", '{"a":1}', '{"a":NaN}', "[" * 900 + "]" * 900, "[" * 100_000,
    '{"a":' * 900 + "1" + "}" * 900,
]  # fmt: skip
_TEXTS = [
    "",
    ".",
    "..",
    "link",
    "../x.tokenizer",
    "/etc",
    "x/y",
    "\ud800",
    "a\nb",
    "x.tokenizer",
    "[CLS]",
    "uint16",
    "int32",
]
_PLACEHOLDER = "\u0001here"


def mutate(random: Random, seed: bytes, num_parts: int) -> bytes:
    """One of the files of an input, damaged once to four times."""
    parts = unpack(seed, num_parts)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        number = random.randrange(num_parts)
        part = parts[number]
        changed = None
        if part[:1] == b"{" and random.random() < 0.7:
            with contextlib.suppress(ValueError, RecursionError):  # no JSON any more, or nested too deeply
                changed = _mutate_json(random, part)
        parts[number] = _mutate_bytes(random, part) if changed is None else changed
    return pack(parts)


def _mutate_bytes(random: Random, data: bytes) -> bytes:
    content = bytearray(data)
    at = random.randrange(len(content) + 1)
    kind = random.randrange(7)
    if kind == 0 and at < len(content):
        content[at] ^= 1 << random.randrange(8)
    elif kind == 1:
        del content[at:]
    elif kind == 2:
        del content[at : at + random.choice((1, 2, 4, 8, 20))]
    elif kind == 3:  # splice: a stretch of itself elsewhere
        start = random.randrange(len(content) + 1)
        content[at:at] = content[start : start + random.choice((1, 2, 4, 8, 40))]
    elif kind == 4:
        content[at:at] = random.getrandbits(64).to_bytes(8, "little")[: random.choice((1, 2, 4, 8))]
    else:  # a number in place, at the offsets of fields more often than not
        width = random.choice((1, 2, 4, 8))
        if random.random() < 0.7:
            at = random.choice((0, 9, 17, 18, 26)) if random.random() < 0.4 else 34 + 4 * random.randrange(40)
        before = int.from_bytes(content[at : at + width], "little")
        near = before + random.choice((-4, -2, -1, 1, 2, 4))
        value = random.choice((random.choice(_EXTREMES), random.randrange(64), near, near))
        content[at : at + width] = (value % 256**width).to_bytes(width, "little")
    return bytes(content)


def _mutate_json(random: Random, data: bytes) -> bytes | None:
    """One value of the document replaced, removed, renamed or repeated; the text of another kind of value put in."""
    document = json.loads(data)
    places: list[tuple[Any, Any]] = []
    _collect(document, places)
    if not places:
        return None
    holder, key = places[random.randrange(len(places))]
    kind = random.randrange(9)
    if kind == 8 and isinstance(holder, list):
        holder.insert(key, random.choice((-1, 0, 5, 119, 120, 2**31, 2**63, "a", None)))
    elif kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[random.choice(("", "version", "size", "a", "content"))] = holder.pop(key)
    elif kind == 2:
        other, other_key = places[random.randrange(len(places))]
        other[other_key] = json.loads(json.dumps(holder[key]))
    elif kind == 3 and isinstance(holder, dict):
        text = json.dumps(holder[key])
        holder[key] = _PLACEHOLDER
        return json.dumps(document).replace(json.dumps(_PLACEHOLDER), f"{text}, {json.dumps(key)}: {text}").encode()
    else:
        value = random.choice(_JSON_VALUES) if random.random() < 0.6 else str(random.randrange(-2, 300))
        if isinstance(holder[key], str) and random.random() < 0.5:
            value = json.dumps(random.choice(_TEXTS))
        holder[key] = _PLACEHOLDER
        return json.dumps(document).replace(json.dumps(_PLACEHOLDER), value).encode()
    return json.dumps(document).encode()


def _collect(value: Any, places: list[tuple[Any, Any]]) -> None:
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            places.append((value, key))
            _collect(value[key], places)
