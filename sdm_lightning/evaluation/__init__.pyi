from .cache import RealFeatureCache as RealFeatureCache
from .evaluator import Evaluation as Evaluation
from .evaluator import Evaluator as Evaluator
from .record import append_record as append_record
from .record import make_record as make_record
