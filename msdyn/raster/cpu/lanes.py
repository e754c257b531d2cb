"""The SIMD vector type of the CPU kernels: 16 float32 lanes as one Numba value, called `Lanes`.

`lanes_memory` has the loads and stores; `docs/cpu_rasterizer.md` shows how to add an operation.

A row of 16 pixels of a tile is one `Lanes` value. A kernel operates on whole rows and LLVM maps the
value to one AVX-512 register, two of AVX or four of SSE or NEON. LLVM's automatic vectorization is
slower here: it guards the loop over every row by run-time checks for overlapping arrays, and after
culling a Gaussian covers only about six rows of a tile.

The operators `+ - * /` return lanes and `> >= < <=` return a mask, a boolean per lane; masks are
combined by `&`. An operand may be a scalar: it is rounded to float32 and copied to all lanes.
Comparisons with NaN are false. Products and sums may be contracted to fused multiply-adds, nothing
else is reordered, and NaN and infinity follow IEEE 754. A lane that a later `select` discards may
therefore hold any value, NaN included.

Reference: LLVM's language reference for the instructions, intrinsics and fast-math flags.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.base import BaseContext
from numba.extending import (
    intrinsic,
    lower_builtin,
    models,
    register_model,
    type_callable,
)

from msdyn.jit import kernel

__all__ = [
    "WIDTH",
    "ceil",
    "exp2",
    "iota",
    "log2",
    "reduce_max",
    "reduce_sum",
    "select",
    "sqrt",
]

# Lanes per value.
WIDTH = 16

# `Any` hides Numba's annotation, by which callers would have to pass the typing context.
intrinsic_function: Any = intrinsic

FLOAT = ir.FloatType()
VECTOR = ir.VectorType(FLOAT, WIDTH)
_INTEGERS = ir.VectorType(ir.IntType(32), WIDTH)
BITS = ir.VectorType(ir.IntType(1), WIDTH)

# Coefficients of 2^f for |f| <= 1/2, highest power first: the minimax polynomial of degree 5 with
# value 1 at f = 0, found by iteratively reweighted least squares. Its relative error is at most
# 9.1e-8 before rounding.
_EXP2_COEFFICIENTS = (0.00132647151, 0.00967151277, 0.0555073377, 0.240222421, 0.693146978, 1.0)
# Adding 1.5 * 2^23 rounds a float32 to the nearest integer and leaves it in the low mantissa bits.
_ROUNDING_SHIFT = 12582912.0

# Emits the instruction that combines two vectors.
_Emit = Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value]


class _LanesType(types.Type):
    """Numba's type of `WIDTH` float32 lanes."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{WIDTH}")


class _MaskType(types.Type):
    """Numba's type of `WIDTH` booleans, the result of comparing lanes."""

    def __init__(self) -> None:
        super().__init__(name=f"boolx{WIDTH}")


LANES, _MASK = _LanesType(), _MaskType()


@register_model(_LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, frontend_type: Any) -> None:
        super().__init__(manager, frontend_type, VECTOR)


@register_model(_MaskType)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, frontend_type: Any) -> None:
        super().__init__(manager, frontend_type, BITS)


def constant(value: float) -> ir.Constant:
    """Return the LLVM constant with the same value in all lanes."""
    return ir.Constant(VECTOR, [value] * WIDTH)


def _as_vector(
    context: BaseContext, builder: ir.IRBuilder, kind: types.Type, value: ir.Value
) -> ir.Value:
    """Return an operand of Numba type `kind` as an LLVM vector, a scalar copied to all lanes."""
    if kind == LANES:
        return value
    return splat(builder, VECTOR, context.cast(builder, value, kind, types.float32))


def splat(builder: ir.IRBuilder, kind: ir.VectorType, value: ir.Value) -> ir.Value:
    """Return a vector of LLVM type `kind` with a scalar copied to all its elements."""
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.IntType(32)(0))
    lanes = ir.VectorType(ir.IntType(32), kind.count)
    return builder.shuffle_vector(first, undefined, ir.Constant(lanes, [0] * kind.count))


def _define_operator(symbol: Callable[..., Any], result: types.Type, emit: _Emit) -> None:
    """Define Python's operator `symbol` for lanes and lanes, or lanes and a scalar.

    Args:
        symbol: a function of the module `operator`.
        result: the Numba type of the result, lanes or mask.
        emit: generates the LLVM instruction for two vectors.
    """

    # Typed and lowered directly: an `overload` would compile a function for each pair of types.
    @type_callable(symbol)
    def type_operator(context):
        def typer(left, right):
            kinds = (_LanesType, types.Float, types.Integer)
            pair = isinstance(left, kinds) and isinstance(right, kinds)
            return result if pair and LANES in (left, right) else None

        return typer

    def generate(context, builder, signature, arguments):
        vectors = [
            _as_vector(context, builder, kind, value)
            for kind, value in zip(signature.args, arguments, strict=True)
        ]
        return emit(builder, *vectors)

    for kinds in ((_LanesType, _LanesType), (_LanesType, types.Number), (types.Number, _LanesType)):
        lower_builtin(symbol, *kinds)(generate)


def _arithmetic(instruction: str) -> _Emit:
    def emit(builder: ir.IRBuilder, left: ir.Value, right: ir.Value) -> ir.Value:
        return getattr(builder, instruction)(left, right, flags=("contract",))

    return emit


def _comparison(sign: str) -> _Emit:
    return lambda builder, left, right: builder.fcmp_ordered(sign, left, right)


_define_operator(operator.add, LANES, _arithmetic("fadd"))
_define_operator(operator.sub, LANES, _arithmetic("fsub"))
_define_operator(operator.mul, LANES, _arithmetic("fmul"))
_define_operator(operator.truediv, LANES, _arithmetic("fdiv"))
_define_operator(operator.gt, _MASK, _comparison(">"))
_define_operator(operator.ge, _MASK, _comparison(">="))
_define_operator(operator.lt, _MASK, _comparison("<"))
_define_operator(operator.le, _MASK, _comparison("<="))


@type_callable(operator.and_)
def _type_and(context):
    return lambda left, right: _MASK if left == right == _MASK else None


@lower_builtin(operator.and_, _MaskType, _MaskType)
def _lower_and(context, builder, signature, masks):
    return builder.and_(*masks)


@intrinsic_function
def iota(typing_context):
    """Return the lanes 0, 1, ..., 15."""
    lanes = ir.Constant(VECTOR, [float(i) for i in range(WIDTH)])
    return LANES(), lambda context, builder, signature, values: lanes


@intrinsic_function
def select(typing_context, mask, yes, no):
    """Return `yes` where the mask is true and `no` elsewhere; each is lanes or a scalar."""

    def generate(context, builder, signature, values):
        kinds = signature.args
        return builder.select(
            values[0],
            _as_vector(context, builder, kinds[1], values[1]),
            _as_vector(context, builder, kinds[2], values[2]),
        )

    return LANES(mask, yes, no), generate


@intrinsic_function
def exp2(typing_context, exponent):
    """Return 2^x with a relative error below 2e-7 for |x| < 126, an arbitrary value otherwise."""

    def generate(context, builder, signature, values):
        shifted = builder.fadd(values[0], constant(_ROUNDING_SHIFT))
        fraction = builder.fsub(values[0], builder.fsub(shifted, constant(_ROUNDING_SHIFT)))
        power = constant(_EXP2_COEFFICIENTS[0])
        for coefficient in _EXP2_COEFFICIENTS[1:]:
            power = builder.fmul(power, fraction, flags=("contract",))
            power = builder.fadd(power, constant(coefficient), flags=("contract",))
        # Add the integer part to the exponent field, which starts at bit 23.
        exponent_bits = builder.shl(
            builder.bitcast(shifted, _INTEGERS), ir.Constant(_INTEGERS, [23] * WIDTH)
        )
        return builder.bitcast(
            builder.add(builder.bitcast(power, _INTEGERS), exponent_bits), VECTOR
        )

    return LANES(LANES), generate


@intrinsic_function
def _split_exponent(typing_context, lanes):
    """Return lanes (e, m) with x = 2^e m and m in [1, 2), for positive normal x."""

    def generate(context, builder, signature, values):
        bits = builder.bitcast(values[0], _INTEGERS)
        exponent = builder.sub(
            builder.lshr(bits, ir.Constant(_INTEGERS, [23] * WIDTH)),
            ir.Constant(_INTEGERS, [127] * WIDTH),
        )
        fraction = builder.and_(bits, ir.Constant(_INTEGERS, [0x7FFFFF] * WIDTH))
        one = ir.Constant(_INTEGERS, [0x3F800000] * WIDTH)
        pair = (
            builder.sitofp(exponent, VECTOR),
            builder.bitcast(builder.or_(fraction, one), VECTOR),
        )
        return context.make_tuple(builder, signature.return_type, pair)

    return types.UniTuple(LANES, 2)(LANES), generate


@kernel()
def log2(lanes):
    """Return log2(x) for positive normal x; the absolute error is below 6e-7 in [1e-3, 1]."""
    exponent, mantissa = _split_exponent(lanes)
    # log2 m = 2 / ln 2 * artanh s with s = (m - 1) / (m + 1), and |s| < 0.172: five terms suffice.
    high = mantissa > 1.4142135
    exponent = select(high, exponent + 1, exponent)
    mantissa = select(high, mantissa * 0.5, mantissa)
    s = (mantissa - 1) / (mantissa + 1)
    z = s * s
    series = 1 + z * (1 / 3 + z * (1 / 5 + z * (1 / 7 + z * (1 / 9))))
    return exponent + s * series * 2.8853900817779268


def _unary_intrinsic(name: str) -> Callable[..., Any]:
    """Return the code generator of LLVM's intrinsic `llvm.<name>`, lanes to lanes."""

    def generate(context, builder, signature, values):
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(VECTOR, [VECTOR]), f"llvm.{name}.v{WIDTH}f32"
        )
        return builder.call(function, values)

    return generate


@intrinsic_function
def sqrt(typing_context, lanes):
    """Return the square root of each lane, NaN for negative lanes."""
    return LANES(LANES), _unary_intrinsic("sqrt")


@intrinsic_function
def ceil(typing_context, lanes):
    """Return each lane rounded up to an integer."""
    return LANES(LANES), _unary_intrinsic("ceil")


def _reduction(name: str, start: tuple[ir.Constant, ...], flag: str) -> Callable[..., Any]:
    """Return the code generator of `llvm.vector.reduce.<name>`, lanes to a float32.

    Args:
        name: of the reduction.
        start: the initial value, for reductions that take one.
        flag: the fast-math flag of the call.
    """

    def generate(context, builder, signature, values):
        arguments = [FLOAT] * len(start) + [VECTOR]
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(FLOAT, arguments),
            f"llvm.vector.reduce.{name}.v{WIDTH}f32",
        )
        return builder.call(function, [*start, *values], fastmath=(flag,))

    return generate


@intrinsic_function
def reduce_sum(typing_context, lanes):
    """Return the sum of the lanes as a scalar; `reassoc` lets LLVM add them pairwise."""
    return types.float32(LANES), _reduction("fadd", (ir.Constant(FLOAT, -0.0),), "reassoc")


@intrinsic_function
def reduce_max(typing_context, lanes):
    """Return the maximum of the lanes as a scalar; no lane may be NaN."""
    return types.float32(LANES), _reduction("fmax", (), "nnan")
