"""NNCF's quantizer on one model, for ``bench/rescue.py``, in a process and environment of its own.

``python bench/peer_nncf.py MODEL.onnx SAMPLES.npz OUT.onnx [mixed|transformer]``; SAMPLES holds
arrays called ``INDEX|INPUT``. Prints the CPU seconds of the quantization.
"""

import sys
import time

import nncf
import numpy as np
import onnx


def main(model_path: str, samples_path: str, out_path: str, preset: str = "mixed") -> None:
    """Quantize with defaults, or with the preset for transformers and smooth quantization."""
    stored = np.load(samples_path)
    samples: dict[str, dict[str, np.ndarray]] = {}
    for key in stored.files:
        index, name = key.split("|", 1)
        samples.setdefault(index, {})[name] = stored[key]
    model = onnx.load(model_path)
    options = {"preset": nncf.QuantizationPreset.MIXED}
    if preset == "transformer":
        smooth = nncf.AdvancedSmoothQuantParameters(convolution=0.5, matmul=0.5)
        options |= {
            "model_type": nncf.ModelType.TRANSFORMER,
            "advanced_parameters": nncf.AdvancedQuantizationParameters(smooth_quant_alphas=smooth),
        }
    started = time.process_time()
    quantized = nncf.quantize(
        model, nncf.Dataset(list(samples.values())), subset_size=len(samples), **options
    )
    onnx.save(quantized, out_path)
    print(f"SECONDS {time.process_time() - started:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
