"""Grids of runs: read W&B sweep files, run them here or on SLURM, skip what is done."""

from sdm_lightning.sweeps.grid import Cell, Sweep, read_sweep

__all__ = ["Cell", "Sweep", "read_sweep"]
