"""Lab 5, sampling from diffusion models: the reference solution."""

from .analyzer import TrainedModelAnalyzer
from .ddim import DDIMSampler
from .ddpm import DDPMSampler
from .forward import ForwardProcessImpl
from .measure import benchmark_samplers, sample_diversity
from .optimizer import SamplingOptimizer
from .stochasticity import StochasticityController

__all__ = ["TrainedModelAnalyzer", "ForwardProcessImpl", "DDPMSampler", "DDIMSampler", "StochasticityController",
           "SamplingOptimizer", "benchmark_samplers", "sample_diversity"]
