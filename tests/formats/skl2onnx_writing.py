"""What the tests of other converters' ONNX files share: an estimator of four variables as skl2onnx writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def written(estimator: Any, path: Path, **options: Any) -> Path:
    """The file; `options` are those of skl2onnx, as zipmap."""
    import skl2onnx

    settings = {id(estimator): options} if options else None
    example = np.zeros((1, 4), np.float32)
    proto = skl2onnx.to_onnx(estimator, example, options=settings, target_opset={"": 17, "ai.onnx.ml": 3})
    path.write_bytes(proto.SerializeToString())
    return path
