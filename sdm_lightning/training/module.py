"""The LightningModule: one GAN step over the unrolled spatial diffusion.

Per batch: the T-iteration loop with the generator's losses summed over iterations (Eq. 10), one
generator step; the discriminator on all T outputs, reusing them, one discriminator step; every
``r1_interval`` batches a gradient-penalty step; then the running averages.
"""

from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from sdm_lightning.diffusion import SpatialDiffusion
from sdm_lightning.features.frozen import UsesFrozenNetwork
from sdm_lightning.features.reuse import reused_maps
from sdm_lightning.losses import (
    Encoded,
    LossTerm,
    PerceptualLoss,
    discriminator_fake_loss,
    discriminator_real_loss,
    r1_penalty,
)
from sdm_lightning.seeding import stable_seed
from sdm_lightning.training import checks
from sdm_lightning.training.augment import AdaptiveAugment
from sdm_lightning.training.averaging import AverageSettings, averaged_copy, update_average
from sdm_lightning.training.distributed import (
    all_reduce,
    gradient_sync,
    let_networks_take_turns,
    reduce_trained_network_only,
)
from sdm_lightning.training.health import StepHealth, largest_gradient
from sdm_lightning.training.inpainting import InpaintingModule
from sdm_lightning.training.objectives import (
    generator_objective,
    mean_deviation,
    micro_batches,
    supervised_image,
    weighted_sum,
)
from sdm_lightning.training.replay import stopped_by_divergence
from sdm_lightning.training.settings import AdamSettings, LossSettings
from sdm_lightning.training.styles import draw_styles, styled_network


class SDMModule(InpaintingModule):
    """Trains, validates, tests and predicts with SDM.

    Args:
        generator: ``sdm_lightning.models.Generator``, or a network with its interface.
        discriminator: Maps image and mask to ``(B, N)`` logits; N = 1 for ``Discriminator``.
        perceptual: Eq. 9; None only with ``losses.perceptual: 0``.
        diffusion: The training loop; its ``num_iterations`` is Table 1's "Iter.".
        test_iterations: T in validation, test and prediction (Table 2).
        losses: Weights and reductions of Eq. 10, and R1.
        optimizer_g: Generator's Adam.
        optimizer_d: Discriminator's Adam.
        average: Moving average of the generator, used for everything but training.
        augment: Adaptive discriminator augmentation; None = off.
        style_mixing_probability: Chance that the styles change at a random layer, per part of a
            batch that one process takes at once; 0 = off.
        decoupled: Decoupled probabilistic modeling; False is Table 1 D.
        gradient_clip: Largest gradient norm of either network; None = no clipping. The step of
            the R1 penalty is not clipped.
        seed: Seed of latents, noise and augmentation.
        compile_generator: ``torch.compile`` for the generator, in place.
        random_iterations: Minimum and maximum T in training; T is drawn for each batch. None:
            always ``diffusion.num_iterations``, as in the paper.
        max_skipped_batches: Batches in a row that are skipped because a loss or gradient is NaN or
            infinite, before training stops; 0 stops at the first.
        terms: Further terms of Eq. 10 with weights of their own.

    Raises:
        InputError: If a part is missing or a number is out of range; see ``training.checks``.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        perceptual: PerceptualLoss | None = None,
        diffusion: SpatialDiffusion | None = None,
        test_iterations: int = 4,
        losses: LossSettings = LossSettings(),
        optimizer_g: AdamSettings = AdamSettings(),
        optimizer_d: AdamSettings = AdamSettings(),
        average: AverageSettings = AverageSettings(),
        augment: AdaptiveAugment | None = None,
        style_mixing_probability: float = 0.5,
        decoupled: bool = True,
        gradient_clip: float | None = None,
        seed: int = 0,
        compile_generator: bool = False,
        random_iterations: tuple[int, int] | None = None,
        max_skipped_batches: int = 20,
        terms: list[LossTerm] | None = None,
    ) -> None:
        super().__init__()
        self._keep_hyperparameters()
        self.automatic_optimization = False
        self.generator = generator
        self.discriminator = discriminator
        self.perceptual = perceptual
        self.augment = augment
        self.generator_ema = averaged_copy(generator)
        self.diffusion = diffusion if diffusion is not None else SpatialDiffusion(num_iterations=2)
        self.test_iterations = test_iterations
        self.losses = losses
        self.terms: Any = nn.ModuleList(terms or [])
        self.optimizer_g = optimizer_g
        self.optimizer_d = optimizer_d
        self.average = average
        self.style_mixing_probability = style_mixing_probability
        self.decoupled = decoupled
        self.gradient_clip = gradient_clip
        self.seed = seed
        self.random_iterations = random_iterations
        self.health = StepHealth(max_skipped_batches)
        checks.refuse_unfit_settings(self)
        self.training_seed: int | None = seed  # of a loaded checkpoint, if it says so
        self.num_micro_batches = 1  # equal parts of a batch, whose gradients are accumulated
        self.images_seen = self.images_before = 0
        # Sum of sign(D(real)) and number of logits since ADA's last update.
        self.real_signs: Tensor
        self.register_buffer("real_signs", torch.zeros(2))
        if compile_generator:
            self.generator.compile()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return two Adam optimizers: the generator's and the discriminator's."""
        generator, discriminator = self._adam_options()
        return [
            torch.optim.Adam(self.generator.parameters(), **generator),
            torch.optim.Adam(self.discriminator.parameters(), **discriminator),
        ]

    def _adam_options(self) -> list[dict[str, Any]]:
        # Fused, so that a flag on the device can leave a step out; see training.health.
        interval = self.losses.r1_interval if self.losses.r1_gamma else None  # extra steps
        corrected = self.optimizer_g.corrected(None), self.optimizer_d.corrected(interval)
        return [{**options, "fused": True} for options in corrected]

    def on_train_start(self) -> None:
        """Take learning rates from the config, not from the checkpoint that a run resumes."""
        reduce_trained_network_only(self.trainer)
        optimizers = self.optimizers(use_pl_optimizer=False)
        for optimizer, options in zip(optimizers, self._adam_options(), strict=True):  # type: ignore[arg-type]
            for group in optimizer.param_groups:
                group.update(options)

    def setup(self, stage: str) -> None:
        """Refuse what would train wrongly.

        Raises:
            InputError: See ``refuse_unfit_trainer`` and ``refuse_unfit_parts``.
        """
        checks.refuse_unfit_trainer(self.trainer, stage == "fit")
        let_networks_take_turns(self.trainer)
        data = getattr(self.trainer, "datamodule", None)
        self.num_micro_batches = getattr(data, "num_parts", self.num_micro_batches)
        if stage != "fit":
            return
        if self.perceptual is not None and self.losses.perceptual:
            self.perceptual.prepare()  # so that missing weights are reported before training
        for part in self._pretrained_parts() if self.losses.adversarial else ():
            part.prepare()
        checks.refuse_unfit_parts(self)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Refuse the first batch of an epoch if it is unfit; see ``checks.refuse_unfit_batch``."""
        if batch_idx == 0:
            checks.refuse_unfit_batch(batch)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Train on one batch: generator, discriminator, penalty, averages."""
        # All randomness of a step follows from (seed, images seen, rank): nothing but these needs
        # to be saved for a resumed run to continue as if never stopped.
        torch.manual_seed(self.step_seed(self.images_seen))
        chunks = micro_batches(batch["image"], batch["mask"], self.num_micro_batches)
        self.health.begin(self.images_seen, batch["key"])
        with reused_maps(active=len(chunks) == 1 and bool(self._pretrained_parts())):
            self._optimize(chunks)
        self._after_steps(batch["image"].shape[0] * self.trainer.world_size)
        self._read_health(batch, batch_idx)

    def _optimize(self, chunks: list[tuple[Tensor, Tensor]]) -> None:
        """Step the generator, then the discriminator, then its penalty where it is due."""
        optimizer_g = self.optimizers()[0]  # type: ignore[index]
        # Stepping the bare optimizer keeps trainer.global_step equal to batches.
        optimizer_d = self.optimizers(use_pl_optimizer=False)[1]  # type: ignore[index]
        with self.toggled_optimizer(optimizer_g):
            optimizer_g.zero_grad()
            fakes = self._generator_phase(chunks)
            self._guard(optimizer_g, self.generator, "generator", self.gradient_clip)
            optimizer_g.step()
        if self.losses.adversarial:
            with self.toggled_optimizer(optimizer_d):
                optimizer_d.zero_grad()
                self._discriminator_phase(chunks, fakes)
                self._guard(optimizer_d, self.discriminator, "discriminator", self.gradient_clip)
                optimizer_d.step()
                if self.penalty_due():
                    optimizer_d.zero_grad()
                    self._penalty_phase(chunks)
                    self._guard(optimizer_d, self.discriminator, "penalty")
                    optimizer_d.step()

    def _generator_phase(self, chunks: list[tuple[Tensor, Tensor]]) -> list[list[Tensor]]:
        """Back-propagate Eq. 10; return the T outputs of each chunk for the discriminator."""
        total = self.num_iterations(self.images_seen)
        fakes: list[list[Tensor]] = []
        logged: list[dict[str, Tensor]] = []
        mapped: list[Tensor] = []
        for chunk, (image, mask) in enumerate(chunks):
            last_chunk = chunk == len(chunks) - 1
            styles = draw_styles(self.generator, image.shape[0], self.style_mixing_probability)
            features = self._target_features(image)
            outputs: list[Tensor] = []
            losses: list[Tensor] = []
            network = styled_network(self.generator, styles)
            for step in self.diffusion.iterate(network, image, mask, num_iterations=total):
                supervised = supervised_image(
                    step, image, mask, self.decoupled, self.losses.mean_region
                )
                logits = self._logits(supervised, mask) if self.losses.adversarial else None
                terms = generator_objective(
                    step, supervised, logits, image, mask, features, self.perceptual, self.losses,
                    self.decoupled, self.terms,
                )  # fmt: skip
                losses.append(weighted_sum(terms, self.losses, self.terms) / len(chunks))
                outputs.append(supervised.detach())
                logged.append({name: term.detach() for name, term in terms.items()})
                logged[-1]["deviation"] = mean_deviation(step, mask)
                if self.diffusion.detach:
                    # One backward pass per iteration: the memory is that of one.
                    self._backward(losses.pop(), sync=last_chunk and step.state.step == total)
            if losses:
                self._backward(torch.stack(losses).sum(), sync=last_chunk)
            mapped.append(styles.mean(self.generator))
            fakes.append(outputs)
        self._update_mapping_average(torch.stack(mapped).mean(dim=0))
        self._log_terms({n: torch.stack([row[n] for row in logged]).mean() for n in logged[0]})
        return fakes

    def step_seed(self, images_seen: int) -> int:
        """Return what a batch's randomness is drawn from on this process."""
        return stable_seed(self.seed, images_seen, self.global_rank)

    def num_iterations(self, images_seen: int) -> int:
        """Return T of a batch, the same on all processes."""
        if self.random_iterations is None:
            return self.diffusion.num_iterations
        least, most = self.random_iterations
        return least + stable_seed(self.seed, images_seen) % (most - least + 1)

    def penalty_due(self) -> bool:
        """Return whether the batch whose generator step was just taken has a penalty step."""
        return bool(self.losses.r1_gamma) and self.global_step % self.losses.r1_interval == 0

    def _discriminator_phase(
        self, chunks: list[tuple[Tensor, Tensor]], fakes: list[list[Tensor]]
    ) -> None:
        """Back-propagate Eq. 8, the fake term averaged over the T outputs."""
        logged: list[Tensor] = []
        reals: list[Tensor] = []
        completions: list[Tensor] = []
        for chunk, ((image, mask), outputs) in enumerate(zip(chunks, fakes, strict=True)):
            real_logits = self._logits(image, mask)
            reals.append(real_logits.detach().mean())
            loss = discriminator_real_loss(real_logits) / len(chunks)
            self._backward(loss, sync=False)
            logged.append(loss.detach())
            if self.augment is not None:
                signs = real_logits.detach().float().sign().nan_to_num()
                self.real_signs += torch.stack([signs.sum(), torch.ones_like(signs).sum()])
            for iteration, output in enumerate(outputs, start=1):
                logits = self._logits(output, mask)
                completions.append(logits.detach().mean())
                loss = discriminator_fake_loss(logits) / (len(outputs) * len(chunks))
                last = iteration == len(outputs) and chunk == len(chunks) - 1
                self._backward(loss, sync=last)
                logged.append(loss.detach())
        total = torch.stack(logged).sum()
        self.log("train/discriminator", total, prog_bar=True)
        self.health.look("discriminator", total)
        self.health.look_at_logits(torch.stack(reals).mean(), torch.stack(completions).mean())

    def _penalty_phase(self, chunks: list[tuple[Tensor, Tensor]]) -> None:
        """Back-propagate R1 on real images, weighted by the interval that it stands for."""
        weight = self.losses.r1_gamma / 2 * self.losses.r1_interval
        logged: list[Tensor] = []
        for chunk, (image, mask) in enumerate(chunks):
            image = image.detach().requires_grad_(True)
            penalty = r1_penalty(self._logits(image, mask), image)
            self._backward(weight * penalty / len(chunks), sync=chunk == len(chunks) - 1)
            logged.append(penalty.detach())
        mean = torch.stack(logged).mean()
        self.log("train/r1", mean)
        self.health.look("r1", mean)

    def _backward(self, loss: Tensor, sync: bool) -> None:
        """Back-propagate; ``sync`` reduces the gradients gathered so far over all processes."""
        with gradient_sync(self.trainer, sync):
            self.manual_backward(loss)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Read what the device found since the last look; keep the counters of all processes."""
        self.health.read()
        super().on_save_checkpoint(checkpoint)
        if self.augment is not None:
            signs = all_reduce(self.trainer, self.real_signs, "sum")
            checkpoint["state_dict"]["real_signs"] = signs
        checkpoint["health"] = self.health.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the counters of skipped batches; the signs of all on the first process alone."""
        super().on_load_checkpoint(checkpoint)
        if self.global_rank:
            checkpoint["state_dict"]["real_signs"] = torch.zeros(2)
        self.health.load_state_dict(checkpoint.get("health", {}))

    def _after_steps(self, batch_images: int) -> None:
        """Update counter, averages and augmentation; here, so that every checkpoint holds them."""
        self.images_seen += batch_images
        decay = self.average.decay(self.images_seen, batch_images)
        update_average(self.generator_ema, self.generator, decay)
        if self.augment is not None and (self.global_step % self.augment.interval) == 0:
            signs = all_reduce(self.trainer, self.real_signs, "sum")
            self.augment.update(
                signs[0] / signs[1].clamp_min(1), batch_images * self.augment.interval
            )
            self.real_signs.zero_()
        if self.augment is not None:
            self.log("train/ada_probability", self.augment.probability)
        self.log("images_seen", float(self.images_seen), prog_bar=True)

    def _pretrained_parts(self) -> list[UsesFrozenNetwork]:
        """Return the parts of the discriminator that look at a pretrained network's maps."""
        return [p for p in self.discriminator.modules() if isinstance(p, UsesFrozenNetwork)]

    def _logits(self, image: Tensor, mask: Tensor) -> Tensor:
        if self.augment is not None:
            image, mask = self.augment(image, mask)
        logits: Tensor = self.discriminator(image, mask)
        return logits

    def _target_features(self, image: Tensor) -> Encoded | None:
        """Encode the target for Eq. 9, once for all iterations."""
        if self.perceptual is None or not self.losses.perceptual:
            return None
        with torch.no_grad():
            return self.perceptual.encode(image)

    def _guard(
        self,
        optimizer: torch.optim.Optimizer | LightningOptimizer,
        module: nn.Module,
        name: str,
        clip: float | None = None,
    ) -> None:
        """Clip the gradient; where anything was not finite, make the next step do nothing."""
        if clip is None:
            found = largest_gradient(module)
        else:
            found = nn.utils.clip_grad_norm_(module.parameters(), clip)
            self.log(f"train/gradient_norm_{name[0]}", found)
        self.health.look(f"gradient of the {name}", found)
        self.health.guard(optimizer, self.trainer)

    def _read_health(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Report skipped batches, and stop after too many in a row.

        Raises:
            DivergedError: On every process alike.
        """
        if not self.health.due(batch_idx, self.trainer):
            return
        self.health.read()
        if self.health.skipped:
            self.log("train/skipped_batches", float(self.health.skipped))
        if self.health.diverged:
            raise stopped_by_divergence(self, batch)

    def _update_mapping_average(self, batch_mean: Tensor) -> None:
        mapping: Any = self.generator.mapping
        mean = all_reduce(self.trainer, batch_mean, "mean")
        mapping.update_average(torch.where(mean.isfinite(), mean, mapping.average))

    def _log_terms(self, terms: dict[str, Tensor]) -> None:
        for name, value in terms.items():
            if name == "perceptual" and self.perceptual is not None:
                # A stand-in for the paper's network is named wherever its number appears.
                name = f"perceptual[{self.perceptual.name}]"
            self.log(f"train/{name}", value, prog_bar=name != "deviation")
            if name != "deviation":
                self.health.look(name, value)
