from .data.datamodule import InpaintingDataModule as InpaintingDataModule
from .data.masks.presets import free_form_mask as free_form_mask
from .data.shards.packing import pack_shards as pack_shards
from .diffusion import CosineSchedule as CosineSchedule
from .diffusion import CubicSchedule as CubicSchedule
from .diffusion import SpatialDiffusion as SpatialDiffusion
from .diffusion import SquareRootSchedule as SquareRootSchedule
from .diffusion import UniformSchedule as UniformSchedule
from .errors import InputError as InputError
from .evaluation.evaluator import Evaluator as Evaluator
from .inference.inpainter import Inpainter as Inpainter
from .models import Discriminator as Discriminator
from .models import Generator as Generator
from .training.module import SDMModule as SDMModule

__version__: str
