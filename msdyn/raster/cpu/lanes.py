"""Sixteen float32 numbers as one Numba value: the vector type the CPU kernels are written in.

What moves such values to and from memory is in `lanes_memory`.

A row of a tile is one such value, so a kernel says what happens to a row and LLVM maps it to one
AVX-512 register, two of AVX or four of SSE or NEON. Left to find the vectors by itself it puts
tests for overlapping arrays around every row, which are only six rows long after culling.

The operators `+ - * / > >= < <= &` take two such values, or one and a number, which is rounded to
float32. Products and sums may be contracted to fused multiply-adds; nothing else is reordered, and
NaN and infinity keep their meaning, so that lanes masked out may hold anything.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
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
    "largest",
    "log2",
    "select",
    "sqrt",
    "total",
]

WIDTH = 16

# Without numba's own annotation, by which the typing context would be an argument of the caller.
intrinsic_function: Any = intrinsic

FLOAT = ir.FloatType()
VECTOR = ir.VectorType(FLOAT, WIDTH)
_INTEGERS = ir.VectorType(ir.IntType(32), WIDTH)
BITS = ir.VectorType(ir.IntType(1), WIDTH)

# 2^f for |f| <= 1/2, highest power first: the polynomial of degree 5, one at f = 0, with the least
# greatest relative error (9.1e-8 before rounding), found by iterated weighted least squares.
_EXP2 = (0.00132647151, 0.00967151277, 0.0555073377, 0.240222421, 0.693146978, 1.0)
# Adding 1.5 * 2^23 rounds a float32 to the nearest integer, which is then its low bits.
_ROUND = 12582912.0


class _LanesType(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"float32x{WIDTH}")


class _MaskType(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"boolx{WIDTH}")


LANES, _mask = _LanesType(), _MaskType()


@register_model(_LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, frontend_type: Any) -> None:
        super().__init__(manager, frontend_type, VECTOR)


@register_model(_MaskType)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, frontend_type: Any) -> None:
        super().__init__(manager, frontend_type, BITS)


def constant(value: float) -> ir.Constant:
    return ir.Constant(VECTOR, [value] * WIDTH)


def _as_vector(context: Any, builder: Any, kind: types.Type, value: Any) -> Any:
    """Return the lanes of a value, a number being copied to all."""
    if kind == LANES:
        return value
    return splat(builder, VECTOR, context.cast(builder, value, kind, types.float32))


def splat(builder: Any, kind: ir.VectorType, value: Any) -> Any:
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.IntType(32)(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_INTEGERS, [0] * WIDTH))


def _define_operator(symbol: Callable[..., Any], result: types.Type, emit: Callable[..., Any]):
    """Give Python's operator `symbol` a meaning for `Lanes`: `emit(builder, left, right)`."""

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


def _arithmetic(instruction: str) -> Callable[..., Any]:
    def emit(builder, left, right):
        return getattr(builder, instruction)(left, right, flags=("contract",))

    return emit


def _comparison(sign: str) -> Callable[..., Any]:
    return lambda builder, left, right: builder.fcmp_ordered(sign, left, right)


_define_operator(operator.add, LANES, _arithmetic("fadd"))
_define_operator(operator.sub, LANES, _arithmetic("fsub"))
_define_operator(operator.mul, LANES, _arithmetic("fmul"))
_define_operator(operator.truediv, LANES, _arithmetic("fdiv"))
_define_operator(operator.gt, _mask, _comparison(">"))
_define_operator(operator.ge, _mask, _comparison(">="))
_define_operator(operator.lt, _mask, _comparison("<"))
_define_operator(operator.le, _mask, _comparison("<="))


@type_callable(operator.and_)
def _type_and(context):
    return lambda left, right: _mask if left == right == _mask else None


@lower_builtin(operator.and_, _MaskType, _MaskType)
def _lower_and(context, builder, signature, masks):
    return builder.and_(*masks)


@intrinsic_function
def iota(typing_context):
    """Return the lanes 0, 1, ... 15."""
    lanes = ir.Constant(VECTOR, [float(i) for i in range(WIDTH)])
    return LANES(), lambda context, builder, signature, values: lanes


@intrinsic_function
def select(typing_context, mask, yes, no):
    """Return `yes` where the mask is set and `no` elsewhere; either may be a number."""

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
    """Return 2^x within 2e-7 of it for |x| < 126; outside, any number."""

    def generate(context, builder, signature, values):
        shifted = builder.fadd(values[0], constant(_ROUND))
        fraction = builder.fsub(values[0], builder.fsub(shifted, constant(_ROUND)))
        power = constant(_EXP2[0])
        for coefficient in _EXP2[1:]:
            power = builder.fmul(power, fraction, flags=("contract",))
            power = builder.fadd(power, constant(coefficient), flags=("contract",))
        # The integer goes to the bits of the exponent, 23 up; its own high bits fall out.
        exponent_bits = builder.shl(
            builder.bitcast(shifted, _INTEGERS), ir.Constant(_INTEGERS, [23] * WIDTH)
        )
        return builder.bitcast(
            builder.add(builder.bitcast(power, _INTEGERS), exponent_bits), VECTOR
        )

    return LANES(LANES), generate


@intrinsic_function
def _split(typing_context, lanes):
    """Return e and m of x = 2^e m with m in [1, 2), for x positive and normal."""

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
    """Return log2(x) for positive x, within 6e-7 where x is in [1e-3, 1]."""
    exponent, mantissa = _split(lanes)
    # log2 m = 2 / ln 2 artanh s with s = (m - 1) / (m + 1), |s| < 0.172: five terms are enough.
    high = mantissa > 1.4142135
    exponent = select(high, exponent + 1, exponent)
    mantissa = select(high, mantissa * 0.5, mantissa)
    s = (mantissa - 1) / (mantissa + 1)
    z = s * s
    series = 1 + z * (1 / 3 + z * (1 / 5 + z * (1 / 7 + z * (1 / 9))))
    return exponent + s * series * 2.8853900817779268


def _function(name: str) -> Callable[..., Any]:
    def generate(context, builder, signature, values):
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(VECTOR, [VECTOR]), f"llvm.{name}.v{WIDTH}f32"
        )
        return builder.call(function, values)

    return generate


@intrinsic_function
def sqrt(typing_context, lanes):
    """Return the square root, NaN below zero."""
    return LANES(LANES), _function("sqrt")


@intrinsic_function
def ceil(typing_context, lanes):
    """Return the least integer that is not smaller."""
    return LANES(LANES), _function("ceil")


def _reduction(name: str, start: tuple[Any, ...], flag: str) -> Callable[..., Any]:
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
def total(typing_context, lanes):
    """Return the sum of the lanes, added pairwise."""
    return types.float32(LANES), _reduction("fadd", (ir.Constant(FLOAT, -0.0),), "reassoc")


@intrinsic_function
def largest(typing_context, lanes):
    """Return the largest lane; none may be NaN."""
    return types.float32(LANES), _reduction("fmax", (), "nnan")
