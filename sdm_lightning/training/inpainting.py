"""The half of the LightningModule that does not train: inpainting, and what a checkpoint holds."""

import warnings
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn

from sdm_lightning.diffusion import SpatialDiffusion
from sdm_lightning.seeding import stable_seed
from sdm_lightning.training.checkpointing import fitting_weights, require_finite
from sdm_lightning.training.styles import draw_styles, styled_network


class InpaintingModule(pl.LightningModule):
    """Validates, tests and predicts with the averaged generator.

    Attributes:
        generator_ema: The averaged generator.
        diffusion: The loop; its ``num_iterations`` is that of training.
        test_iterations: T of validation, test and prediction (Table 2).
        seed: Seed of latent codes and noise, together with each image's key.
        training_seed: Seed that a loaded checkpoint was trained with, if recorded.
        images_seen: Training images so far, over all processes.
        images_before: Training images that the weights a run started from had seen.
        loaded_parameters: ``"raw"`` where a file of weights that are not averaged was loaded.
    """

    generator_ema: nn.Module
    diffusion: SpatialDiffusion
    test_iterations: int
    seed: int
    training_seed: int | None
    images_seen: int
    images_before: int
    loaded_parameters: str = "ema"

    def _keep_hyperparameters(self) -> None:
        """Save the arguments of ``__init__``, which calls this, for loggers and checkpoints."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Attribute '.*")
            self.save_hyperparameters()
        if isinstance(self.hparams.get("generator"), nn.Module):
            # Built in Python, and not from the class paths of a config file: networks and settings
            # are left out, which loggers would write as YAML, and checkpoints pickle.
            plain = (bool, int, float, str, tuple, type(None))
            live = [name for name, value in self.hparams.items() if not isinstance(value, plain)]
            for name in live:
                del self.hparams[name]  # Lightning 2.6.0 keeps what was saved before
            self.save_hyperparameters(ignore=live)

    @property
    def _ddp_params_and_buffers_to_ignore(self) -> list[str]:
        """All buffers: DDP would overwrite ADA's sums, and send frozen networks in each step."""
        return [name for name, _ in self.named_buffers()]

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Inpaint a batch with the averaged generator; callbacks measure and draw it.

        An image's result depends on the module's seed and its own key alone.

        Returns:
            ``image``, ``completed`` and ``mean`` ``(B, 3, H, W)``, about [-1, 1] (predictions are
            not clamped), ``mask`` and ``uncertainty`` ``(B, 1, H, W)`` (mean and uncertainty of
            iteration 1), ``key``, and all ``steps``.
        """
        image, mask, keys = batch["image"], batch["mask"], batch["key"]
        generators = [torch.Generator().manual_seed(stable_seed(self.seed, key)) for key in keys]
        styles = draw_styles(self.generator_ema, len(keys), generator=generators)
        network = styled_network(self.generator_ema, styles)
        with torch.no_grad():
            steps = list(
                self.diffusion.iterate(
                    network, image, mask, num_iterations=self.test_iterations, generator=generators
                )
            )
        return {
            "completed": steps[-1].completed,
            "image": image,
            "mask": mask,
            "key": keys,
            "uncertainty": steps[0].uncertainty,
            "mean": steps[0].mean,
            "steps": steps,
        }

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Inpaint a batch as ``validation_step`` does."""
        return self.validation_step(batch, batch_idx)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Inpaint a batch; the steps are left out, since predictions are kept or sent elsewhere."""
        output = self.validation_step(batch, batch_idx)
        del output["steps"]
        return output

    def on_validation_epoch_end(self) -> None:
        """Log the images seen beside the scores, as the axis to draw them over."""
        self.log("images_seen", float(self.images_seen))

    def on_test_epoch_end(self) -> None:
        """Log the images seen, as ``on_validation_epoch_end`` does."""
        self.on_validation_epoch_end()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the images seen.

        Raises:
            DivergedError: See ``require_finite``; it is raised on every process.
        """
        require_finite(checkpoint["state_dict"])
        checkpoint["images_seen"] = self.images_seen
        checkpoint["images_before"] = self.images_before

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the images seen, not the time; refuse weights of another network.

        Raises:
            InputError: See ``fitting_weights``.
        """
        self.images_seen = checkpoint["images_seen"]
        self.images_before = checkpoint.get("images_before", 0)
        self.loaded_parameters = checkpoint.get("parameters", "ema")
        self.training_seed = checkpoint.get("hyper_parameters", {}).get("seed")
        trainer = self._trainer
        checkpoint["state_dict"] = fitting_weights(
            checkpoint["state_dict"],
            self.state_dict(),
            training=trainer is None or trainer.state.fn == "fit",
            path=str(trainer.ckpt_path or "") if trainer is not None else "",
        )
        # trainer.max_time is that of one call; with Lightning's count a run that once reached it
        # would never go on.
        checkpoint.get("callbacks", {}).pop("Timer", None)
