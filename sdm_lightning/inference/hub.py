"""Weights on the Hugging Face Hub, or in a local folder of its layout.

A repository holds ``model.safetensors`` (the weights with their configuration inside),
``config.json`` (the same configuration, for people and for the hub's pages) and ``README.md`` (the
model card). Only the first is read: no pickle is ever fetched, and only classes of this package are
built from its configuration.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdm_lightning.errors import InputError

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
CARD_NAME = "README.md"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def split_revision(name: str) -> tuple[str, str | None] | None:
    """Split ``user/repo`` or ``user/repo@revision``; None for what cannot name a repository.

    >>> split_revision("user/repo@v1.0")
    ('user/repo', 'v1.0')
    """
    repository, at, revision = name.partition("@")
    if not _REPOSITORY.fullmatch(repository) or (at and not revision):
        return None
    return repository, revision or None


def download_weights(name: str, revision: str | None) -> Path:
    """Fetch the weights of a repository into the hub's cache, or find them there.

    The cache, the token and whether the hub is asked at all are the hub's own settings:
    ``HF_HOME``, ``HF_TOKEN`` (or ``hf auth login``) and ``HF_HUB_OFFLINE``.

    Args:
        name: ``user/repo``.
        revision: Branch, tag or commit; the default branch if None. A commit is what pins weights.

    Raises:
        InputError: In one line, if there is no such repository, revision or file, or no connection
            and nothing in the cache.
    """
    from huggingface_hub import hf_hub_download

    with one_line_errors(name, revision):
        return Path(
            hf_hub_download(name, WEIGHTS_NAME, revision=revision, library_name="sdm-lightning")
        )


def require_repository(name: str) -> None:
    """Refuse what is no ``user/repo``.

    Raises:
        InputError: If it is not, or names a revision.
    """
    if split_revision(name) is None or "@" in name:
        raise InputError(f"{name}: not the name of a repository; write user/repo")


@contextmanager
def one_line_errors(name: str, revision: str | None) -> Iterator[None]:
    """Turn what the hub and its client raise into one line."""
    from huggingface_hub import errors

    at = f" at revision {revision!r}" if revision else ""
    try:
        yield
    except errors.GatedRepoError as error:
        text = "asks for its terms to be accepted on its page, and for a token: hf auth login"
        raise InputError(f"{name}: this repository {text}") from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"{name}: no such file or folder here, and no such repository on the hub, or a private "
            "one (hf auth login, or HF_TOKEN)"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(
            f"{name}: has no revision {revision!r}; give a branch, tag or commit of it"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise InputError(
            f"{name}: no such file or folder here; as a repository of the hub it is not in the "
            f"cache{at}, and the hub is offline (HF_HUB_OFFLINE) or cannot be reached"
        ) from error
    except errors.EntryNotFoundError as error:
        raise InputError(
            f"{name}: this repository has no {WEIGHTS_NAME}{at}; it was not made by push_to_hub"
        ) from error
    except Exception as error:
        # The client lets through what its HTTP library raises, another one in every release.
        lines = str(error).strip().splitlines() or [""]
        raise InputError(
            f"{name}: the hub answered {type(error).__name__}: {lines[0][:200]}"
        ) from error
