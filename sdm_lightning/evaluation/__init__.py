"""Evaluation: one evaluator, the record of every score, folders of results, frozen mask sets."""

from sdm_lightning.evaluation.cache import RealFeatureCache
from sdm_lightning.evaluation.evaluator import Evaluation, Evaluator
from sdm_lightning.evaluation.record import append_record, make_record

__all__ = [
    "Evaluation",
    "Evaluator",
    "RealFeatureCache",
    "append_record",
    "make_record",
]
