"""Keys of samples from paths of images, and the pairing of images with masks."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from sdm_lightning.errors import InputError

_MAX_KEY_LENGTH = 120  # leaves room for suffixes within the 255 bytes of a file name


def key_for_path(name: str) -> str:
    """Turn a path inside a source into a WebDataset key that is also a safe file name.

    WebDataset takes everything after the first dot of a base name for the extension, so dots
    become underscores, as all but letters, their marks, digits and hyphens do; folders are joined
    with two underscores. A name has one key whether its accents are composed or, as on macOS,
    separate.

    >>> key_for_path("a/abbey/img.v1.jpg")
    'a__abbey__img_v1'
    """
    path = PurePosixPath(unicodedata.normalize("NFC", name))
    parts = [part for part in (*path.parts[:-1], path.stem) if part not in ("/", ".", "..")]
    key = "__".join(re.sub(r"[^\w-]", _replaced, part) for part in parts)
    # WebDataset drops members that begin with two underscores as its own metadata.
    key = key.lstrip("_") or "image"
    if len(key.encode()) > _MAX_KEY_LENGTH:
        whole = _stem(name).encode("utf-8", "surrogatepass")  # a.jpg and its mask a.png are a pair
        digest = hashlib.blake2b(whole, digest_size=4).hexdigest()
        key = key.encode()[: _MAX_KEY_LENGTH - 9].decode("utf-8", "ignore") + "-" + digest
    return key


def _replaced(found: re.Match[str]) -> str:
    # The vowels of many scripts are marks, which \w leaves out.
    return found[0] if unicodedata.category(found[0]).startswith("M") else "_"


def unique_keys(names: Iterable[str]) -> dict[str, str]:
    """Assign every path a unique key; keys that would collide get a hash of the path.

    Two keys that differ only in upper and lower case collide as well, since they would be one
    file on many systems. The result does not depend on the order of the names.
    """
    names = sorted(names)
    plain = {name: key_for_path(name) for name in names}
    count = Counter(key.casefold() for key in plain.values())
    taken = {key.casefold() for key in plain.values() if count[key.casefold()] == 1}
    keys = {}
    for name in names:
        key, length = plain[name], 4
        if count[key.casefold()] > 1:
            while True:
                raw = name.encode("utf-8", "surrogatepass")
                digest = hashlib.blake2b(raw, digest_size=length).hexdigest()
                if f"{key}-{digest}".casefold() not in taken:
                    break
                length += 1
            key = f"{key}-{digest}"
            taken.add(key.casefold())
        keys[name] = key
    return keys


def _stem(name: str) -> str:
    name = unicodedata.normalize("NFC", name)
    return PurePosixPath(name).with_suffix("").as_posix()


def _base(name: str) -> str:
    return PurePosixPath(_stem(name)).name


def pair_masks(images: Sequence[str], masks: Sequence[str], place: str) -> dict[str, str]:
    """Find the mask of every image: the same path without extension, else the same file name.

    The file name alone counts only where it is the name of one image and of one mask.

    Args:
        images: Paths of the images inside their source.
        masks: Paths of the masks inside theirs.
        place: Where the masks are, for the message.

    Returns:
        The path of the mask for the path of every image.

    Raises:
        InputError: If an image has no mask, or two masks have one path without extension.
    """
    by_path: dict[str, str] = {}
    for name in masks:
        if _stem(name) in by_path:
            raise InputError(
                f"{place}: {by_path[_stem(name)]} and {name} are two masks of one name; keep one"
            )
        by_path[_stem(name)] = name
    by_name: dict[str, list[str]] = {}
    for name in masks:
        by_name.setdefault(_base(name), []).append(name)
    count = Counter(map(_base, images))
    pairs, missing = {}, []
    for name in images:
        base = _base(name)
        candidates = by_name.get(base, [])
        mask = by_path.get(_stem(name))
        if mask is None and len(candidates) == 1 and count[base] == 1:
            mask = candidates[0]
        if mask is None:
            missing.append(name)
        else:
            pairs[name] = mask
    if missing:
        more = f" and {len(missing) - 1} more images" if len(missing) > 1 else ""
        raise InputError(
            f"{place}: no mask for {missing[0]}{more}; masks are paired by file name, "
            "for instance a/b.jpg with a/b.png or b.png"
        )
    return pairs
