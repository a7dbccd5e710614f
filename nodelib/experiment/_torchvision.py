"""Import torchvision beside a CPU build of torch.

The torchvision wheel on PyPI is built for CUDA. Beside a CPU build of torch its operators are not
registered, and its import stops at `torchvision::nms`. Declaring the two operators that the import
asks for is enough for the datasets, which use neither.
"""

import types

import torch

_declared: torch.library.Library | None = None  # keeps the declarations alive


def import_torchvision() -> types.ModuleType:
    """Return the torchvision module, declaring its missing operators where that is needed."""
    global _declared
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        _declared = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            _declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    import torchvision.datasets  # noqa: F401  (a plain `import torchvision` does not promise it)

    return torchvision
