"""Linear layers of inference on CPUs: bias and GELU within the product, weights cast and laid out once.

`F.linear` writes the bias first and then adds to it, GELU is one more pass, and autocast casts every weight anew in
each call. oneDNN does it in one go, and gives a row the same bits in any company. Its operators are those that torch's
own compiler calls; they are not public, so `FUSED` asks for them, and whatever they cannot do goes the plain way.

Axes: d channels in, e channels out.
"""

from __future__ import annotations

from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Gelu = Literal["none", "tanh"]  # exact, or by a tanh: `F.gelu`'s `approximate`
FUSED = all(hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight"))
_laid: WeakKeyDictionary[nn.Linear, tuple[Any, Tensor, Tensor | None]] = WeakKeyDictionary()


def linear(layer: nn.Linear, x: Float[Tensor, "*b d"], gelu: Gelu | None = None) -> Float[Tensor, "*b e"]:
    """gelu(x W' + b), or without GELU."""
    dtype = inference_dtype(layer.weight)
    if dtype is None or not x.numel():
        y = layer(x)
        return y if gelu is None else F.gelu(y, approximate=gelu)
    weight, bias = _lay(layer, dtype)
    how: tuple[Any, ...] = ("none", [], "") if gelu is None else ("gelu", [], gelu)
    if x.numel() > x.shape[-1]:
        return torch.ops.mkldnn._linear_pointwise(x.to(dtype), weight, bias, *how)
    rows = x.to(dtype).reshape(1, -1).expand(2, -1).contiguous()  # since for one row the sums are in another order
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, *how)[0].view(*x.shape[:-1], -1)


def inference_dtype(weight: Tensor) -> torch.dtype | None:
    """In which precision oneDNN multiplies by this weight; None: the plain way.

    That is the way of gradients, compilers and exporters, of other devices, and of weights that may change unseen.
    """
    if not FUSED or torch.is_grad_enabled() or weight.device.type != "cpu" or weight.is_inference():
        return None
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or not torch.backends.mkldnn.is_available():
        return None
    if weight.dtype == torch.float32 and torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
    else:
        dtype = weight.dtype
    if dtype == torch.bfloat16:
        return dtype if torch.ops.mkldnn._is_mkldnn_bf16_supported() else None
    return dtype if dtype == torch.float32 else None


def _lay(layer: nn.Linear, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Weight and bias as oneDNN likes them, kept (as a second copy) as long as both stay as they are."""
    weight, bias = layer.weight, layer.bias
    some = weight.detach().flatten()[:: max(1, weight.numel() // 16)].tolist()  # fused optimizers count no version
    key = dtype, *some, *((p.data_ptr(), p._version) for p in (weight, bias) if p is not None)
    found = _laid.get(layer)
    if found is None or found[0] != key:
        laid = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(dtype))
        found = _laid[layer] = key, laid, None if bias is None else bias.detach().to(dtype)
    return found[1], found[2]
