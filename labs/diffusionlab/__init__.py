"""diffusionlab: the kit that the lab notebooks import. Everything in it is provided; the exercises are in the notebooks."""

from importlib import import_module

__version__ = "1.0.0"

_FROM = {"NoiseSchedule": "schedule", "UNet": "unet", "load_pretrained": "pretrained", "check": "check"}
_MODULES = ("analytic", "datasets", "explore", "metrics", "plots", "runtime")
__all__ = [*_FROM, *_MODULES]


def __getattr__(name: str):
    # Imported on first use: the grader reads questions without loading torch, and `import diffusionlab` is quick.
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name in _FROM:
        value = getattr(import_module(f"{__name__}.{_FROM[name]}"), name)
        globals()[name] = value  # `check` is also a module's name: the function has to win
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
