"""Classes of an engine's operators: linear, attention, LayerNorm, other.

Names decide first, where a graph's operators have names that say what they are for (``block3/ln_1``); then types.
Pure copies (transposing, gathering, splitting, joining) are always "other", whatever they are for, so that engines
that need more of them show it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from winspect.engines.timing import OperatorTime
from winspect.speed.flops import ATTENTION, CLASSES, LAYER_NORM, LINEAR, OTHER

_COPIES = re.compile(
    r"(transpose|reorder|reshape|gather|concat|split|variadicsplit|slice|stridedslice|convert|cast|identity|squeeze|"
    r"unsqueeze|expand|broadcast)",
    re.IGNORECASE,
)

# Parts of a name's path. OpenVINO numbers the names it makes up: ScaledDotProductAttention_73. Its MatMul multiplies
# two inputs, which attention alone does; products with weights are FullyConnected there. In a traced graph a whole
# attention is named after the transposition behind it, and its softmax is among what was merged.
_PARTS = (
    (ATTENTION, re.compile(r"attention|(ScaledDotProductAttention|MatMul)_\d+|Softmax(_\d+)?")),
    (LINEAR, re.compile(r"in_proj|out_proj|c_fc|c_proj|proj|conv1")),
    (LAYER_NORM, re.compile(r"ln_\w+")),
)

# OpenVINO calls merged element-wise operators a Subgraph, and a whole attention, too.
_ELEMENTWISE = ("Subgraph", "Eltwise", "Add", "Mul", "Multiply", "MulAdd")

# Within types: aten::native_layer_norm, MVN, FusedMatMul, mkldnn_convolution. Attention where an engine has not fused
# it is batches of small products and a softmax; there are no others in the tower.
_KINDS = (
    (ATTENTION, re.compile(r"attention|softmax|bmm", re.IGNORECASE)),
    (LAYER_NORM, re.compile(r"layer_?norm|^mvn$", re.IGNORECASE)),
    (LINEAR, re.compile(r"fullyconnected|matmul|gemm|conv(?!ert)|(^|::|_)(addmm|mm|linear)(_|$)", re.IGNORECASE)),
)


def operator_class(operator: OperatorTime) -> str:
    """Linear, attention, layer_norm or other; other too for what is not known.

    What an engine has merged into an operator counts with it, such as GELU into the product before it. A sum that
    stands by itself is other, even where it is named after the product before it.

    >>> operator_class(OperatorTime("block3/ln_1/scaled", "Multiply", 1e-3))
    'layer_norm'
    >>> operator_class(OperatorTime("aten::gelu", "aten::gelu", 1e-3))
    'other'
    """
    if _COPIES.fullmatch(operator.kind):
        return OTHER
    for name in (operator.name, *operator.fused):
        for part in reversed(name.split("/")):  # block3/attention/out_proj is an out_proj
            for kind, pattern in _PARTS:
                if pattern.fullmatch(part):
                    return OTHER if kind == LINEAR and operator.kind in _ELEMENTWISE else kind
    return next((kind for kind, pattern in _KINDS if pattern.search(operator.kind)), OTHER)


def class_seconds(operators: Iterable[OperatorTime]) -> dict[str, float]:
    """Seconds of every class, in the order of :data:`winspect.speed.flops.CLASSES`."""
    seconds = dict.fromkeys(CLASSES, 0.0)
    for operator in operators:
        seconds[operator_class(operator)] += operator.seconds
    return seconds
