"""SDM, the spatial diffusion model for large-hole image inpainting.

The names that most users need can be imported from here; they are loaded when they are first used
(``__init__.pyi`` lists them). Conventions throughout the package:

* images are float32 ``(B, 3, H, W)`` in [-1, 1];
* masks are float32 ``(B, 1, H, W)``, **1 = known, 0 = hole**;
* ``images_seen`` (over all processes) is the unit of training progress.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
