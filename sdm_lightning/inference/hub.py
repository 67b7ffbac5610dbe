"""Weights on the Hugging Face Hub, or in a local folder of its layout.

A repository holds ``model.safetensors`` (the weights with their configuration inside),
``config.json`` (the same configuration, for people and for the hub's pages) and ``README.md`` (the
model card). Only the first is read: no pickle is ever fetched, and only classes of this package are
built from its configuration.
"""

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sdm_lightning.errors import InputError
from sdm_lightning.files import write_atomically

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


def download_weights(
    repository: str,
    *,
    revision: str | None = None,
    filename: str = WEIGHTS_NAME,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Path:
    """Fetch one safetensors file of a repository into the hub's cache, or find it there.

    Args:
        repository: ``user/repo``, with or without ``@revision``.
        revision: Branch, tag or commit; the default branch if None. A commit is what pins weights.
        filename: Which file.
        cache_dir: Instead of the hub's own cache (``HF_HOME``).
        token: For private repositories; by default the one that ``hf auth login`` stored.
        force_download: Fetch it again even if it is in the cache.
        local_files_only: Do not ask the hub; ``HF_HUB_OFFLINE=1`` says the same for everything.

    Raises:
        InputError: In one line, if there is no such repository, revision or file, or no connection
            and nothing in the cache.
    """
    from huggingface_hub import hf_hub_download

    found = split_revision(repository)
    if found is None:
        raise InputError(f"{repository}: not the name of a repository; write user/repo")
    name, pinned = found
    if revision is not None and pinned is not None and revision != pinned:
        raise InputError(f"{repository}: and revision {revision!r}: give one revision")
    revision = revision or pinned
    with _one_line_errors(name, revision, filename):
        return Path(
            hf_hub_download(
                name,
                filename,
                revision=revision,
                library_name="sdm-lightning",
                cache_dir=cache_dir,
                token=token,
                force_download=force_download,
                local_files_only=local_files_only,
            )
        )


def write_folder(
    folder: str | Path,
    save: Callable[[Path], None],
    config: dict[str, Any],
    card: Callable[[Path], str],
    pictures: dict[str, bytes],
) -> Path:
    """Write a folder of the hub's layout.

    Args:
        folder: Made if missing; files of these names are replaced, others stay.
        save: Writes the weights to the path that it is called with.
        config: Content of ``config.json``.
        card: Makes the content of ``README.md`` from the path of the written weights.
        pictures: Further files by name, which the card shows.
    """
    target = Path(folder)
    if target.is_file():
        raise InputError(f"{target}: is a file; give a folder")
    target.mkdir(parents=True, exist_ok=True)
    save(target / WEIGHTS_NAME)
    write_atomically(target / CONFIG_NAME, json.dumps(config, indent=2, sort_keys=True) + "\n")
    for name, content in pictures.items():
        write_atomically(target / name, content)
    write_atomically(target / CARD_NAME, card(target / WEIGHTS_NAME))
    return target


def upload_folder(
    folder: Path,
    repository: str,
    *,
    commit_message: str = "Upload weights",
    private: bool | None = None,
    token: str | None = None,
    branch: str | None = None,
    create_pr: bool = False,
) -> str:
    """Make the repository if it is not there, and commit the folder to it.

    Args:
        folder: As :func:`write_folder` leaves it.
        repository: ``user/repo``.
        commit_message: Of the commit.
        private: Whether a repository that is made is private; the account's default if None.
        token: With write access; by default the one that ``hf auth login`` stored.
        branch: Made if missing; the default branch if None.
        create_pr: Open a pull request instead of committing.

    Returns:
        The address of the commit.

    Raises:
        InputError: In one line, if the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    if split_revision(repository) is None or "@" in repository:
        raise InputError(f"{repository}: not the name of a repository; write user/repo")
    with _one_line_errors(repository, branch, None):
        api = HfApi(token=token, library_name="sdm-lightning")
        name = api.create_repo(repository, private=private, exist_ok=True).repo_id
        if branch is not None:
            api.create_branch(name, branch=branch, exist_ok=True)
        done = api.upload_folder(
            repo_id=name,
            folder_path=str(folder),
            commit_message=commit_message,
            revision=branch,
            create_pr=create_pr,
        )
    return str(done.pr_url if create_pr and done.pr_url else done.commit_url)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@contextmanager
def _one_line_errors(name: str, revision: str | None, filename: str | None) -> Iterator[None]:
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
            "one (hf auth login, or token=...)"
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
            f"{name}: this repository has no {filename}{at}; it was not made by push_to_hub"
        ) from error
    except Exception as error:
        # The client lets through what its HTTP library raises, another one in every release.
        lines = str(error).strip().splitlines() or [""]
        raise InputError(
            f"{name}: the hub answered {type(error).__name__}: {lines[0][:200]}"
        ) from error
