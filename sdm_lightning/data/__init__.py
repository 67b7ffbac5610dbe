"""Data: shards in, batches ``{"image", "mask", "key"}`` out.

Names are loaded when they are used (``__init__.pyi`` lists them), so that packing shards does not
import Lightning.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
