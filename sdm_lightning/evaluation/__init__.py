"""Evaluation: one evaluator, the record of every score, folders of results, frozen mask sets.

Names are loaded when they are used (``__init__.pyi`` lists them), so that ``sdm masks`` does not
import torchmetrics.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
