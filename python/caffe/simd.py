"""Loops over vectors of float32, compiled for this machine's processor by LLVM.

A body in Python is run once, to write the instructions: its numbers and vectors are names of values
to come, `+`, `-` and `*` on them write additions and products, `Code.loop` writes a loop.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

try:
    from llvmlite import binding as llvm
    from llvmlite import ir
except ImportError:
    llvm = ir = None

# Values of a vector: 64 bytes, a line of the cache and the widest register there is.
LANES = 16


def available() -> bool:
    """Tell whether functions can be compiled: whether llvmlite is installed."""
    return llvm is not None


def compiled(
    name: str, pointers: Sequence[str], numbers: Sequence[str], body: Callable[..., None]
) -> Callable[..., None]:
    """Compile a function.

    Parameters
    ----------
    name : str
    pointers : sequence of str
        Names of the arguments that are addresses of float32 values, which do not overlap.
    numbers : sequence of str
        Names of the arguments that are whole numbers (64 bits), given after the addresses.
    body : callable
        Called as body(code, **arguments) with a `Code`, a `Pointer` for each pointer and a `Number`
        for each number; writes the instructions.

    Returns
    -------
    callable
        Takes addresses and whole numbers; lets other Python threads run meanwhile.
    """
    kinds = [ir.FloatType().as_pointer()] * len(pointers) + [ir.IntType(64)] * len(numbers)
    module = ir.Module(name)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
    code = Code(ir.IRBuilder(function.append_basic_block()))
    arguments: dict[str, Any] = {}
    for label, value in zip([*pointers, *numbers], function.args):
        if label in pointers:
            value.add_attribute("noalias")
        arguments[label] = (Pointer if label in pointers else Number)(code, value)
    body(code, **arguments)
    code.builder.ret_void()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
    )
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(parsed, passes)
    engine = llvm.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    types = [ctypes.c_void_p] * len(pointers) + [ctypes.c_int64] * len(numbers)
    call = ctypes.CFUNCTYPE(None, *types)(engine.get_function_address(name))
    # The code lives as long as the engine.
    call.engine = engine
    return call


@dataclass(frozen=True)
class Number:
    """A whole number that is known when the function runs."""

    code: Code
    value: Any

    def __add__(self, other: Number | int) -> Number:
        return Number(self.code, self.code.builder.add(self.value, _whole(other)))

    def __mul__(self, other: Number | int) -> Number:
        return Number(self.code, self.code.builder.mul(self.value, _whole(other)))

    def at_most(self, other: Number) -> Number:
        """Return the smaller one."""
        builder = self.code.builder
        less = builder.icmp_signed("<", self.value, other.value)
        return Number(self.code, builder.select(less, self.value, other.value))


@dataclass(frozen=True)
class Vector:
    """`LANES` values of float32."""

    code: Code
    value: Any

    def __add__(self, other: Vector) -> Vector:
        return Vector(self.code, self.code.builder.fadd(self.value, other.value, flags=_FREE))

    def __sub__(self, other: Vector) -> Vector:
        return Vector(self.code, self.code.builder.fsub(self.value, other.value, flags=_FREE))

    def __mul__(self, factor: float) -> Vector:
        factors = ir.Constant(self.value.type, [float(factor)] * LANES)
        return Vector(self.code, self.code.builder.fmul(self.value, factors, flags=_FREE))

    def rectified(self) -> Vector:
        """Return max(value, 0), and NaN where there is NaN."""
        zero = ir.Constant(self.value.type, [0.0] * LANES)
        below = self.code.builder.fcmp_ordered("<", self.value, zero)
        return Vector(self.code, self.code.builder.select(below, zero, self.value))

    def where(self, first: Number, second: Number) -> Vector:
        """Return the values if first >= second, else zeros."""
        builder = self.code.builder
        zero = ir.Constant(self.value.type, [0.0] * LANES)
        reached = builder.icmp_signed(">=", first.value, second.value)
        return Vector(self.code, builder.select(reached, self.value, zero))


# A product and a sum may become one instruction, with one rounding.
_FREE = ("contract", "nsz")


@dataclass(frozen=True)
class Pointer:
    """The address of float32 values."""

    code: Code
    value: Any

    def _at(self, place: Number) -> Any:
        builder = self.code.builder
        kind = ir.VectorType(ir.FloatType(), LANES).as_pointer()
        return builder.bitcast(builder.gep(self.value, [place.value]), kind)

    def load(self, place: Number) -> Vector:
        """Read the `LANES` values from number `place` on."""
        return Vector(self.code, self.code.builder.load(self._at(place), align=4))

    def store(self, place: Number, vector: Vector) -> None:
        """Write `LANES` values from number `place` on."""
        self.code.builder.store(vector.value, self._at(place), align=4)

    def gather(self, place: Number, stride: Number) -> Vector:
        """Read `LANES` values, each `stride` after the one before."""
        builder = self.code.builder
        found = ir.Constant(ir.VectorType(ir.FloatType(), LANES), ir.Undefined)
        for lane in range(LANES):
            value = builder.load(builder.gep(self.value, [(place + stride * lane).value]))
            found = builder.insert_element(found, value, ir.IntType(32)(lane))
        return Vector(self.code, found)

    def scatter(self, place: Number, stride: Number, vector: Vector) -> None:
        """Write `LANES` values, each `stride` after the one before."""
        builder = self.code.builder
        for lane in range(LANES):
            value = builder.extract_element(vector.value, ir.IntType(32)(lane))
            builder.store(value, builder.gep(self.value, [(place + stride * lane).value]))


@dataclass(frozen=True)
class Code:
    """The instructions of a function, as far as they are written."""

    builder: Any

    @contextmanager
    def loop(self, count: Number, step: int = 1) -> Iterator[Number]:
        """Write a loop over the numbers 0, step, ... below `count`; the block is its body."""
        builder = self.builder
        before = builder.block
        head, body, end = (builder.append_basic_block() for _ in range(3))
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(ir.IntType(64))
        index.add_incoming(_whole(0), before)
        builder.cbranch(builder.icmp_signed("<", index, count.value), body, end)
        builder.position_at_end(body)
        yield Number(self, index)
        index.add_incoming(builder.add(index, _whole(step)), builder.block)
        builder.branch(head)
        builder.position_at_end(end)


def _whole(number: Number | int) -> Any:
    return number.value if isinstance(number, Number) else ir.IntType(64)(number)
