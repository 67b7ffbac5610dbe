"""Modules that have moved: their old names still work in configs, checkpoints and code.

Config files, checkpoints and weights files name classes by their import path. A path of an older
version is looked up here when nothing else has that name.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "sdm_lightning.cli_configs": "sdm_lightning.cli.configs",
    "sdm_lightning.cli_errors": "sdm_lightning.cli.errors",
    "sdm_lightning.cli_loggers": "sdm_lightning.cli.loggers",
    "sdm_lightning.cli_run": "sdm_lightning.cli.run_directory",
    "sdm_lightning.cli_trainer": "sdm_lightning.cli.trainer",
    "sdm_lightning.data.building": "sdm_lightning.data.shards.building",
    "sdm_lightning.data.dead_leaves": "sdm_lightning.demo.dead_leaves",
    "sdm_lightning.data.index": "sdm_lightning.data.shards.index",
    "sdm_lightning.data.indexing": "sdm_lightning.data.shards.indexing",
    "sdm_lightning.data.mask_families": "sdm_lightning.data.masks.families",
    "sdm_lightning.data.mask_sources": "sdm_lightning.data.masks.sources",
    "sdm_lightning.data.packing": "sdm_lightning.data.shards.packing",
    "sdm_lightning.data.photo_crops": "sdm_lightning.demo.photo_crops",
    "sdm_lightning.data.photos": "sdm_lightning.demo.photos",
    "sdm_lightning.data.remote": "sdm_lightning.data.shards.remote",
    "sdm_lightning.demo_masks": "sdm_lightning.demo.masks",
    "sdm_lightning.figures": "sdm_lightning.cli.figures",
    "sdm_lightning.losses.resnet50s": "sdm_lightning.features.resnet50s",
    "sdm_lightning.mask_convention": "sdm_lightning.data.masks.convention",
    "sdm_lightning.metrics.features": "sdm_lightning.features.extractors",
    "sdm_lightning.metrics.weights": "sdm_lightning.features.weights",
    "sdm_lightning.reports.charts": "sdm_lightning.demo.charts",
    "sdm_lightning.reports.demo": "sdm_lightning.demo.report",
    "sdm_lightning.reports.demo_run": "sdm_lightning.demo.report_data",
    "sdm_lightning.reports.panels": "sdm_lightning.demo.panels",
}
"""Old module -> new module."""


def install() -> None:
    """Let Python's import system find modules by their old names."""
    if not any(isinstance(finder, _MovedFinder) for finder in sys.meta_path):
        sys.meta_path.append(_MovedFinder())


class _MovedFinder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, _Redirect()) if fullname in MOVED else None


class _Redirect(Loader):
    def exec_module(self, module: ModuleType) -> None:
        # The import system returns this entry: the module itself, not a copy.
        sys.modules[module.__name__] = importlib.import_module(MOVED[module.__name__])
