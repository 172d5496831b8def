"""One file for each way of learning; `OBJECTIVES` names them: name -> (config class, objective class)."""

from typing import Any

from otic.core.registry import Registry
from otic.objectives.base import Objective
from otic.objectives.caption import Caption, CaptionConfig
from otic.objectives.clap import CLAP, CLAPConfig
from otic.objectives.distill import Distill, DistillConfig
from otic.objectives.eat import EAT, EATConfig
from otic.objectives.jepa import JEPA, JEPAConfig
from otic.objectives.m2d import M2D, M2DConfig
from otic.objectives.mae import MAE, MAEConfig
from otic.objectives.mam_clap import MAMCLAP, MAMCLAPConfig
from otic.objectives.mosaic import Mosaic, MosaicConfig
from otic.objectives.mspm import MSPM, MSPMConfig
from otic.objectives.sslam import SSLAM, SSLAMConfig
from otic.objectives.supervised import Supervised, SupervisedConfig

OBJECTIVES: Registry[tuple[Any, Any]] = Registry("objective")
OBJECTIVES.add((EATConfig, EAT), "eat")
OBJECTIVES.add((JEPAConfig, JEPA), "jepa")
OBJECTIVES.add((MAEConfig, MAE), "mae")
OBJECTIVES.add((MosaicConfig, Mosaic), "mosaic")
OBJECTIVES.add((SSLAMConfig, SSLAM), "sslam")
OBJECTIVES.add((MSPMConfig, MSPM), "mspm")
OBJECTIVES.add((M2DConfig, M2D), "m2d")
OBJECTIVES.add((MAMCLAPConfig, MAMCLAP), "mam_clap")
OBJECTIVES.add((DistillConfig, Distill), "distill")
OBJECTIVES.add((CLAPConfig, CLAP), "clap")
OBJECTIVES.add((CaptionConfig, Caption), "caption")
OBJECTIVES.add((SupervisedConfig, Supervised), "supervised")

__all__ = [
    "CLAP",
    "CLAPConfig",
    "Caption",
    "CaptionConfig",
    "Distill",
    "DistillConfig",
    "EAT",
    "EATConfig",
    "JEPA",
    "JEPAConfig",
    "MAE",
    "MAEConfig",
    "MAMCLAP",
    "MAMCLAPConfig",
    "MSPM",
    "MSPMConfig",
    "M2D",
    "M2DConfig",
    "Mosaic",
    "MosaicConfig",
    "OBJECTIVES",
    "Objective",
    "SSLAM",
    "SSLAMConfig",
    "Supervised",
    "SupervisedConfig",
]
