"""Lab 6, fewer steps without retraining: the reference solution."""

from .control import solve_hybrid, stop_when_settled
from .dpm import solve_dpm1, solve_dpmpp_2m
from .euler import measured_order, solve_ddim
from .heun import solve_heun
from .spacing import adaptive_levels, create_timesteps, library_timesteps
from .unipc import solve_unipc, unipc_step, unipc_weights

__all__ = ["solve_ddim", "measured_order", "solve_heun", "solve_dpm1", "solve_dpmpp_2m", "unipc_weights", "unipc_step",
           "solve_unipc",
           "create_timesteps", "adaptive_levels", "stop_when_settled", "solve_hybrid", "library_timesteps"]
