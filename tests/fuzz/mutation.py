"""Damage to bytes, and to the values of documents that stay well-formed."""

from __future__ import annotations

import copy
import io
import json
import random
import struct
from collections.abc import Iterator
from typing import Any

import torch

from tests.fuzz.valid_input import saved

_TOKENS = (
    b"\x00", b"\xff", b"\x7f\xff\xff\xff", b"\xff" * 8, b"-1", b"1e999", b"99999999999999999999",
    b"null", b"[]", b"{}", b"NaN", b"../", b"/etc/passwd", b"\n", b"!!python/name:os.system ",
    b"*a", b"&a ", b"os.system", b"size=-512", b"77777777777", b"[" * 50, b"\xed\xa0\x80",
)  # fmt: skip


def mutate(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Damage bytes in one to six places: flips, cuts, copies, numbers, tokens, splices."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(len(out) + 1)
        kind = rng.randrange(8)
        if kind == 0 and place < len(out):
            out[place] ^= 1 << rng.randrange(8)
        elif kind == 1 and place < len(out):
            out[place] = rng.randrange(256)
        elif kind == 2:
            del out[place : place + rng.randrange(1, 64)]
        elif kind == 3:
            out[place:place] = out[place : place + rng.randrange(1, 64)]
        elif kind == 4:
            size = rng.choice((1, 2, 4, 8))
            number = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**62, 2**64 - 1)) % 256**size
            out[place : place + size] = number.to_bytes(size, rng.choice(("big", "little")))
        elif kind == 5:
            token = rng.choice(_TOKENS)
            out[place : place + rng.choice((0, len(token)))] = token
        elif kind == 6:
            start = rng.randrange(len(other) + 1)
            out[place:place] = other[start : start + rng.randrange(1, 256)]
        else:
            del out[place:]
    return bytes(out)


_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 3, 1.5, 1 << 53, 1 << 64, 1e308, float("inf"), float("nan"), "", "x", "../x",
    "/etc/passwd", "b.tar", "a\x00b", "\ud800", "0" * 300, [], {}, [[]], [1, 2], "os.system",
    {"class_path": "os.system", "init_args": {"command": "true"}}, "sdm_lightning.models.Generator",
    "sdm_lightning.diffusion.CubicSchedule", "sdm_lightning.cli.main.main",
)  # fmt: skip


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every value inside of a document, as its container and its key or position there."""
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], dict | list):
            yield from _places(node[key])


def restructure(text: str, rng: random.Random) -> str:
    """Drop, copy, rename or replace one to three values of a JSON document, which stays one."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return text
    for _ in range(rng.randint(1, 3)):
        places = list(_places(document)) if isinstance(document, dict | list) else []
        if not places:
            break
        container, key = rng.choice(places)
        kind = rng.randrange(5)
        if kind == 0:
            del container[key]
        elif kind == 1:
            other, name = rng.choice(places)
            container[key] = copy.deepcopy(other[name])
        elif kind == 2 and isinstance(container, dict):
            container[str(rng.choice(places)[1])] = container.pop(key)
        else:
            container[key] = rng.choice(_VALUES)
    return json.dumps(document)


def _restructured(name: str, data: bytes, rng: random.Random) -> bytes:
    """Change the values of the JSON that a target's input is or holds."""
    try:
        if name == "weights":
            end = 8 + int.from_bytes(data[:8], "little")
            header = data[8:end].decode()
            if rng.random() < 0.6:
                tree = json.loads(header)
                facts = tree["__metadata__"]
                facts["sdm_lightning"] = restructure(facts["sdm_lightning"], rng)
                header = json.dumps(tree)
            else:
                header = restructure(header, rng)
            return struct.pack("<Q", len(header)) + header.encode() + data[end:]
        if name == "checkpoint":
            content = torch.load(io.BytesIO(data), weights_only=True)
            state = content.pop("state_dict")
            content = json.loads(restructure(json.dumps(content), rng))
            if rng.random() < 0.3:
                state[rng.choice((*state, 1, "generator_ema.x"))] = rng.choice(_VALUES)
            if isinstance(content, dict):
                content.setdefault("state_dict", state)
                if rng.random() < 0.3:
                    places = list(_places(content))
                    container, key = rng.choice(places)
                    container[key] = torch.zeros(rng.randrange(4))
            return saved(content)
        lines = data.decode().splitlines() if name == "results" else [data.decode()]
        return "\n".join(restructure(line, rng) for line in lines).encode()
    except (ValueError, KeyError, TypeError, RecursionError):  # damaged before
        return data


def damaged(name: str, corpus: list[bytes], rng: random.Random) -> bytes:
    """Make one damaged input for a target from those that it accepted."""
    data = rng.choice(corpus)
    if name in ("index", "results", "config", "weights", "checkpoint") and rng.random() < 0.5:
        data = _restructured(name, data, rng)
        if rng.random() < 0.8:
            return data
    data = mutate(data, rng, rng.choice(corpus))
    return repaired(name, data) if rng.random() < 0.7 else data


def repaired(name: str, data: bytes) -> bytes:
    """Put right the checksums and lengths that would else stop nearly every mutation at once."""
    if name == "tar" and len(data) >= 512:
        out = bytearray(data)
        for start in range(0, len(out) - 511, 512):
            block = out[start : start + 512]
            if block[257:262] == b"ustar":
                total = sum(block[:148]) + 8 * 32 + sum(block[156:])
                out[start + 148 : start + 156] = b"%06o\x00 " % (total & 0o777777)
        return bytes(out)
    if name == "weights" and (end := data.rfind(b"]}}")) > 8:  # of the header
        end += 3
        end += len(data[end:]) - len(data[end:].lstrip(b" "))  # the header's padding
        return struct.pack("<Q", end - 8) + data[8:]
    return data
