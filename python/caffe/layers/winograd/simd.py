"""Loops over vectors of float32, compiled for this machine's processor by LLVM.

A body in Python is run once, to write the instructions: its numbers and vectors are names of values
to come, `+`, `-` and `*` on them write additions and products, `Code.loop` writes a loop.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

try:
    from llvmlite import binding as llvm
    from llvmlite import ir
except ImportError:
    llvm = ir = None

# Values of a vector: 64 bytes, a line of the cache and the widest register there is. Narrower
# registers hold a part of one each.
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
        cpu=llvm.get_host_cpu_name(), features=_features().flatten(), opt=3
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
    call.address = engine.get_function_address(name)
    return call


def _features() -> dict[str, bool]:
    """Return what the processor can do, in LLVM's names; no more than PyTorch makes use of."""
    features = llvm.get_host_cpu_features()
    if torch.backends.cpu.get_cpu_capability() == "AVX2":
        for name in features:
            if name.startswith(("avx512", "avx10", "evex512")):
                features[name] = False
    return features


@functools.cache
def vectors_held() -> int:
    """Return how many vectors of sums stay in registers, beside what is added to them."""
    features = _features()
    # Of 32 registers, or of 16, two of which a vector takes with AVX, four without.
    return 12 if features.get("avx512f") else 6 if features.get("avx") else 3


@dataclass(frozen=True)
class Number:
    """A whole number that is known when the function runs."""

    code: Code
    value: Any

    def __add__(self, other: Number | int) -> Number:
        return Number(self.code, self.code.builder.add(self.value, _whole(other)))

    def __mul__(self, other: Number | int) -> Number:
        return Number(self.code, self.code.builder.mul(self.value, _whole(other)))

    def __sub__(self, other: Number | int) -> Number:
        return Number(self.code, self.code.builder.sub(self.value, _whole(other)))

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

    def __mul__(self, factor: float | Vector) -> Vector:
        if isinstance(factor, Vector):
            factors = factor.value
        else:
            factors = ir.Constant(self.value.type, [float(factor)] * LANES)
        return Vector(self.code, self.code.builder.fmul(self.value, factors, flags=_FREE))

    def rectified(self) -> Vector:
        """Return max(value, 0), and NaN where there is NaN."""
        zero = ir.Constant(self.value.type, None)
        below = self.code.builder.fcmp_ordered("<", self.value, zero)
        return Vector(self.code, self.code.builder.select(below, zero, self.value))

    def where(self, first: Number, second: Number) -> Vector:
        """Return the values if first >= second, else zeros."""
        builder = self.code.builder
        zero = ir.Constant(self.value.type, None)
        reached = builder.icmp_signed(">=", first.value, second.value)
        return Vector(self.code, builder.select(reached, self.value, zero))


# A product and a sum may become one instruction, with one rounding.
_FREE = ("contract", "nsz")


@dataclass(frozen=True)
class Pointer:
    """The address of float32 values."""

    code: Code
    value: Any

    def at(self, place: Number) -> Pointer:
        """Return the address of the values from number `place` on."""
        return Pointer(self.code, self.code.builder.gep(self.value, [place.value]))

    def _at(self, place: Number) -> Any:
        kind = _vector().as_pointer()
        return self.code.builder.bitcast(self.at(place).value, kind)

    def load(self, place: Number) -> Vector:
        """Read a vector from number `place` on."""
        return Vector(self.code, self.code.builder.load(self._at(place), align=4))

    def store(self, place: Number, vector: Vector) -> None:
        """Write a vector from number `place` on."""
        self.code.builder.store(vector.value, self._at(place), align=4)

    def repeated(self, place: Number) -> Vector:
        """Read value number `place` into all lanes."""
        builder, kind = self.code.builder, _vector()
        value = builder.load(self.at(place).value)
        first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.IntType(32)(0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
        return Vector(self.code, builder.shuffle_vector(first, first, lanes))

    def gather(self, place: Number, stride: Number) -> Vector:
        """Read a vector, each value `stride` after the one before."""
        builder = self.code.builder
        found = ir.Constant(_vector(), ir.Undefined)
        for lane in range(LANES):
            value = builder.load(builder.gep(self.value, [(place + stride * lane).value]))
            found = builder.insert_element(found, value, ir.IntType(32)(lane))
        return Vector(self.code, found)

    def scatter(self, place: Number, stride: Number, vector: Vector) -> None:
        """Write a vector, each value `stride` after the one before."""
        builder = self.code.builder
        for lane in range(LANES):
            value = builder.extract_element(vector.value, ir.IntType(32)(lane))
            builder.store(value, builder.gep(self.value, [(place + stride * lane).value]))


@dataclass(frozen=True)
class Code:
    """The instructions of a function, as far as they are written."""

    builder: Any

    def whole(self, value: int) -> Number:
        """Return a whole number that is known already."""
        return Number(self, _whole(value))

    def zeros(self) -> Vector:
        """Return a vector of zeros."""
        return Vector(self, ir.Constant(_vector(), None))

    @contextmanager
    def loop(self, count: Number, step: Number | int = 1) -> Iterator[Number]:
        """Write a loop over the numbers 0, step, ... below `count`; the block is its body."""
        with self._loop(count, step, []) as (index, _, _):
            yield index

    def summed(
        self,
        count: Number,
        step: int,
        vectors: Sequence[Vector],
        body: Callable[[Number, list[Vector]], list[Vector]],
    ) -> list[Vector]:
        """Write a loop as `loop` does that changes vectors, and return them as they are after it.

        The body takes the number and the vectors, and returns what they become.
        """
        with self._loop(count, step, vectors) as (index, before, after):
            after.extend(body(index, before))
        return before

    @contextmanager
    def _loop(
        self, count: Number, step: Number | int, vectors: Sequence[Vector]
    ) -> Iterator[tuple[Number, list[Vector], list[Vector]]]:
        builder = self.builder
        entry = builder.block
        head, body, end = (builder.append_basic_block() for _ in range(3))
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(ir.IntType(64))
        index.add_incoming(_whole(0), entry)
        carried = [builder.phi(vector.value.type) for vector in vectors]
        for phi, vector in zip(carried, vectors):
            phi.add_incoming(vector.value, entry)
        builder.cbranch(builder.icmp_signed("<", index, count.value), body, end)
        builder.position_at_end(body)
        after: list[Vector] = []
        yield Number(self, index), [Vector(self, phi) for phi in carried], after
        index.add_incoming(builder.add(index, _whole(step)), builder.block)
        for phi, vector in zip(carried, after):
            phi.add_incoming(vector.value, builder.block)
        builder.branch(head)
        builder.position_at_end(end)

    def call(self, address: Number, *arguments: Pointer | Number | int) -> None:
        """Write a call of a compiled function, whose `address` is known when this one runs."""
        values = [
            argument.value if isinstance(argument, Pointer) else _whole(argument)
            for argument in arguments
        ]
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        self.builder.call(self.builder.inttoptr(address.value, kind.as_pointer()), values)


def _vector() -> Any:
    return ir.VectorType(ir.FloatType(), LANES)


def _whole(number: Number | int) -> Any:
    return number.value if isinstance(number, Number) else ir.IntType(64)(number)
