"""SDM, the spatial diffusion model for large-hole image inpainting.

Conventions, the same in every room of the package:

* images are float32 ``(B, 3, H, W)`` in [-1, 1];
* masks are float32 ``(B, 1, H, W)``, **1 = known, 0 = hole**;
* ``images_seen`` (over all processes) is the one clock of a training run.
"""

__version__ = "0.1.0"
