from .presets import MASK_PRESETS as MASK_PRESETS
from .presets import free_form_mask as free_form_mask
from .sources import mask_seed as mask_seed
