"""The command ``sdm push``: weights with their model card, to a folder or to the hub."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdm_lightning.errors import InputError
from sdm_lightning.files import sha256_of_file, write_atomically
from sdm_lightning.inference.certainty import with_calibration
from sdm_lightning.inference.hub import (
    CARD_NAME,
    CONFIG_NAME,
    WEIGHTS_NAME,
    one_line_errors,
    require_repository,
)
from sdm_lightning.inference.model_card import Scores, example_picture, model_card, read_scores
from sdm_lightning.inference.pictures import PictureLike
from sdm_lightning.inference.weights import FORMAT, Parameters, save_weights

if TYPE_CHECKING:
    from sdm_lightning.inference.inpainter import Inpainter


def save_pretrained(
    inpainter: "Inpainter",
    folder: str | Path,
    *,
    repository: str | None = None,
    licence: str | None = None,
    data: str | None = None,
    half: bool = False,
    results: str | Path | None = None,
    example: PictureLike | None = None,
    example_mask: PictureLike | None = None,
    overwrite: bool = False,
) -> Path:
    """Write ``model.safetensors``, ``config.json``, a model card and its picture into a folder.

    Args:
        inpainter: With weights that know their configuration, as ``from_pretrained`` loads them.
        folder: Made if missing.
        repository: ``user/repo`` as the card names it; the folder's name if None.
        licence: Licence of the weights, instead of the one they carry.
        data: What they were trained on, instead of what they carry.
        half: Store floating-point tensors as float16.
        results: A ``results.jsonl`` whose last line holds the scores of their checkpoint.
        example: Photo for the card's picture; None takes one that scikit-image carries.
        example_mask: Its mask, white = known; None takes a square in the middle.
        overwrite: Replace a model card that is there, and may have been edited.

    Returns:
        The folder.

    Raises:
        InputError: If the weights do not know their configuration, or a file cannot be used.
    """
    if inpainter.info is None:
        raise InputError("this Inpainter was built in Python: its weights have no configuration")
    info = with_calibration(inpainter.info)
    info = replace(info, licence=licence or info.licence, data=data or info.data)
    scores = Scores() if results is None else read_scores(results, info)
    target = Path(folder)
    if target.is_file():
        raise InputError(f"{target}: is a file; give a folder")
    if (target / CARD_NAME).exists() and not overwrite:
        raise InputError(f"{target / CARD_NAME}: exists already; --overwrite true replaces it")
    picture = example_picture(inpainter, example, example_mask)
    path = target / WEIGHTS_NAME
    save_weights(path, info, inpainter.generator.state_dict(), half=half)
    config: dict[str, Any] = {
        "format": FORMAT,
        "library_name": "sdm-lightning",
        "generator": info.generator,
        "diffusion": info.diffusion,
        "resolution": info.resolution,
        "images_seen": info.images_seen,
        "parameters": info.parameters,
        "licence": info.licence,
        "data": info.data,
    }
    write_atomically(target / CONFIG_NAME, json.dumps(config, indent=2, sort_keys=True) + "\n")
    write_atomically(target / "example.png", picture)  # as model_card.md names it
    card = model_card(
        repository or target.resolve().name,
        replace(info, path=path, sha256=sha256_of_file(path)),
        sum(parameter.numel() for parameter in inpainter.generator.parameters()),
        inpainter.diffusion.num_iterations,
        scores,
    )
    write_atomically(target / CARD_NAME, card)
    return target


def push_to_hub(
    inpainter: "Inpainter", repository: str, *, private: bool | None = None, **options: Any
) -> str:
    """Upload weights and model card; see ``save_pretrained`` for the other options.

    The token is the one that ``hf auth login`` stored, or ``HF_TOKEN``.

    Args:
        inpainter: As for ``save_pretrained``.
        repository: ``user/repo``, made if it is not there.
        private: Whether a repository that is made is private; the account's default if None.
        options: Other options of ``save_pretrained``.

    Returns:
        The address of the commit.

    Raises:
        InputError: In one line, if the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    require_repository(repository)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(inpainter, folder, repository=repository, **options)
        with one_line_errors(repository, None):
            api = HfApi(library_name="sdm-lightning")
            name = api.create_repo(repository, private=private, exist_ok=True).repo_id
            done = api.upload_folder(
                repo_id=name, folder_path=folder, commit_message="Upload weights"
            )
    return str(done.commit_url)


def push_weights(
    weights: str,
    repository: str,
    folder: str | None = None,
    licence: str | None = None,
    data: str | None = None,
    results: str | None = None,
    example: str | None = None,
    example_mask: str | None = None,
    half: bool = False,
    parameters: Parameters = "ema",
    private: bool | None = None,
    overwrite: bool = False,
) -> None:
    """Publish weights with a model card on the Hugging Face Hub, or write them to a folder.

    The token is the one that 'hf auth login' stored, or HF_TOKEN. Others then load the weights with
    --weights USER/REPO or Inpainter.from_pretrained("USER/REPO"). An upload writes its own model
    card; a folder whose card was edited is uploaded with 'hf upload USER/REPO FOLDER', which can
    also name a branch or open a pull request.

    Args:
        weights: Name of packaged weights, .safetensors file, .ckpt of sdm fit, or runs/NAME.
        repository: USER/REPO.
        folder: Write everything to this folder for inspection instead of uploading it.
        licence: Licence of the weights, such as apache-2.0.
        data: What they were trained on.
        results: A results.jsonl for the card; its last line must be of sdm test or validate on the
            checkpoint that is pushed, or that the weights were exported from.
        example: Photo for the card's picture.
        example_mask: Its mask: white is kept, black is filled.
        half: Store the weights as float16.
        parameters: Weights of a .ckpt: the moving average (ema) or the raw ones.
        private: Whether a repository that is made is private.
        overwrite: Replace the model card in --folder.

    Raises:
        InputError: If the weights or a file cannot be used, or the hub refuses or is out of reach.
    """
    from sdm_lightning.inference.inpainter import Inpainter

    require_repository(repository)
    inpainter = Inpainter.from_pretrained(weights, parameters=parameters)
    options: dict[str, Any] = {
        "licence": licence, "data": data, "results": results, "half": half,
        "example": example, "example_mask": example_mask,
    }  # fmt: skip
    if folder is not None:
        target = save_pretrained(
            inpainter, folder, repository=repository, overwrite=overwrite, **options
        )
        for path in sorted(target.iterdir()):
            print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
        return
    print(push_to_hub(inpainter, repository, private=private, **options))
