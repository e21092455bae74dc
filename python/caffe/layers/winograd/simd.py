"""Loops over vectors of float32, compiled for this machine's processor by LLVM.

A body in Python is run once, to write the instructions: an `Int` or a `Vector` names a value to
come, `+`, `-` and `*` write additions and products, `Builder.loop` writes a loop.
"""

from __future__ import annotations

import ctypes
import functools
import inspect
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
# A product and a sum may become one instruction, with one rounding.
_FLAGS = ("contract", "nsz")


def available() -> bool:
    """Tell whether functions can be compiled: whether llvmlite is installed."""
    return llvm is not None


def compiled(body: Callable[..., None], *sizes: str) -> Callable[..., None]:
    """Compile a function.

    Parameters
    ----------
    body : callable
        Called as body(builder, **arguments); writes the instructions. Its arguments are annotated:
        `Pointer` for the address of float32 values, which do not overlap those of others; `Int` for
        a whole number (64 bits). Addresses come first.
    *sizes : str
        Names of more whole numbers, for a body that takes `**sizes`.

    Returns
    -------
    callable
        Takes addresses and whole numbers; lets other Python threads run meanwhile. `address` is
        where its code begins.
    """
    kinds = {
        name: kind
        for name, kind in inspect.get_annotations(body, eval_str=True).items()
        if kind in (Pointer, Int) and name != "sizes"
    } | dict.fromkeys(sizes, Int)
    llvm_types = {Pointer: ir.FloatType().as_pointer(), Int: ir.IntType(64)}
    c_types = {Pointer: ctypes.c_void_p, Int: ctypes.c_int64}
    module = ir.Module("winograd")
    signature = ir.FunctionType(ir.VoidType(), [llvm_types[kind] for kind in kinds.values()])
    function = ir.Function(module, signature, "compiled")
    builder = Builder(ir.IRBuilder(function.append_basic_block()))
    arguments = {}
    for (name, kind), value in zip(kinds.items(), function.args):
        if kind is Pointer:
            value.add_attribute("noalias")
        arguments[name] = kind(builder, value)
    body(builder, **arguments)
    builder.llvm.ret_void()
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
    address = engine.get_function_address("compiled")
    call = ctypes.CFUNCTYPE(None, *(c_types[kind] for kind in kinds.values()))(address)
    # The code lives as long as the engine.
    call.engine, call.address = engine, address
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
def accumulators() -> int:
    """Return how many vectors of sums stay in registers, beside what is added to them."""
    features = _features()
    # Of 32 registers, or of 16, two of which a vector takes with AVX, four without.
    return 12 if features.get("avx512f") else 6 if features.get("avx") else 3


@dataclass(frozen=True)
class Int:
    """A whole number that is known when the function runs."""

    builder: Builder
    value: Any

    def __add__(self, other: Int | int) -> Int:
        return Int(self.builder, self.builder.llvm.add(self.value, _int(other)))

    def __mul__(self, other: Int | int) -> Int:
        return Int(self.builder, self.builder.llvm.mul(self.value, _int(other)))

    def __floordiv__(self, other: int) -> Int:
        return Int(self.builder, self.builder.llvm.udiv(self.value, _int(other)))

    def __sub__(self, other: Int | int) -> Int:
        return Int(self.builder, self.builder.llvm.sub(self.value, _int(other)))

    def __ge__(self, other: Int | int) -> Any:
        return self.builder.llvm.icmp_signed(">=", self.value, _int(other))

    def pointer(self) -> Pointer:
        """Return it as the address of float32 values."""
        value = self.builder.llvm.inttoptr(self.value, ir.FloatType().as_pointer())
        return Pointer(self.builder, value)

    def minimum(self, other: Int | int) -> Int:
        """Return the smaller one."""
        builder, other = self.builder.llvm, _int(other)
        less = builder.icmp_signed("<", self.value, other)
        return Int(self.builder, builder.select(less, self.value, other))

    def where(self, condition: Any) -> Int:
        """Return the number if a comparison of two others holds, else 0."""
        return Int(self.builder, self.builder.llvm.select(condition, self.value, _int(0)))


@dataclass(frozen=True)
class Vector:
    """`LANES` values of float32."""

    builder: Builder
    value: Any

    def __add__(self, other: Vector) -> Vector:
        return Vector(self.builder, self.builder.llvm.fadd(self.value, other.value, flags=_FLAGS))

    def __sub__(self, other: Vector) -> Vector:
        return Vector(self.builder, self.builder.llvm.fsub(self.value, other.value, flags=_FLAGS))

    def __mul__(self, factor: float | Vector) -> Vector:
        if isinstance(factor, Vector):
            factors = factor.value
        else:
            factors = ir.Constant(self.value.type, [float(factor)] * LANES)
        return Vector(self.builder, self.builder.llvm.fmul(self.value, factors, flags=_FLAGS))

    def relu(self) -> Vector:
        """Return max(value, 0), and NaN where there is NaN."""
        zero = ir.Constant(self.value.type, None)
        below = self.builder.llvm.fcmp_ordered("<", self.value, zero)
        return Vector(self.builder, self.builder.llvm.select(below, zero, self.value))

    def where(self, condition: Any) -> Vector:
        """Return the values where a comparison of two `Int` holds, else zeros."""
        zero = ir.Constant(self.value.type, None)
        return Vector(self.builder, self.builder.llvm.select(condition, self.value, zero))


@dataclass(frozen=True)
class Pointer:
    """The address of float32 values."""

    builder: Builder
    value: Any

    def at(self, index: Int | int) -> Pointer:
        """Return the address of value `index`."""
        return Pointer(self.builder, self.builder.llvm.gep(self.value, [_int(index)]))

    def _vector_at(self, index: Int | int) -> Any:
        """Return the address of the vector that begins with value `index`."""
        return self.builder.llvm.bitcast(self.at(index).value, _vector_type().as_pointer())

    def load(self, index: Int | int) -> Vector:
        """Read a vector from value `index` on."""
        return Vector(self.builder, self.builder.llvm.load(self._vector_at(index), align=4))

    def store(self, index: Int | int, vector: Vector) -> None:
        """Write a vector from value `index` on."""
        self.builder.llvm.store(vector.value, self._vector_at(index), align=4)

    def stream(self, index: Int | int, vector: Vector) -> None:
        """Write a whole line from value `index` on that no cache needs to hold."""
        builder = self.builder.llvm
        stored = builder.store(vector.value, self._vector_at(index), align=4 * LANES)
        stored.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))

    def fetch(self, index: Int | int) -> None:
        """Have the line of value `index`, which may lie anywhere, on its way to the caches."""
        builder, number = self.builder.llvm, ir.IntType(32)
        where = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [where, number, number, number])
        name = "llvm.prefetch.p0i8"
        prefetch = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        # To read data, for the second cache: the first one is full of what is multiplied.
        what = number(0), number(2), number(1)
        builder.call(prefetch, [builder.bitcast(self.at(index).value, where), *what])

    def broadcast(self, index: Int | int) -> Vector:
        """Read value `index` into all lanes."""
        builder, kind = self.builder.llvm, _vector_type()
        value = builder.load(self.at(index).value)
        first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.IntType(32)(0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
        return Vector(self.builder, builder.shuffle_vector(first, first, lanes))

    def load_strided(self, index: Int, stride: Int) -> Vector:
        """Read a vector, each value `stride` after the one before."""
        builder = self.builder.llvm
        found = ir.Constant(_vector_type(), ir.Undefined)
        for lane in range(LANES):
            value = builder.load(self.at(index + stride * lane).value)
            found = builder.insert_element(found, value, ir.IntType(32)(lane))
        return Vector(self.builder, found)

    def store_strided(self, index: Int, stride: Int, vector: Vector) -> None:
        """Write a vector, each value `stride` after the one before."""
        builder = self.builder.llvm
        for lane in range(LANES):
            value = builder.extract_element(vector.value, ir.IntType(32)(lane))
            builder.store(value, self.at(index + stride * lane).value)


@dataclass(frozen=True)
class Builder:
    """Writes the instructions of a function."""

    llvm: Any

    def zeros(self) -> Vector:
        """Return a vector of zeros."""
        return Vector(self, ir.Constant(_vector_type(), None))

    @contextmanager
    def loop(self, count: Int, step: Int | int = 1) -> Iterator[Int]:
        """Write a loop over the numbers 0, step, ... below `count`; the block is its body."""
        with self._loop(count, step, []) as (index, _, _):
            yield index

    def accumulate(
        self,
        count: Int,
        step: int,
        vectors: Sequence[Vector],
        body: Callable[[Int, list[Vector]], list[Vector]],
    ) -> list[Vector]:
        """Write a loop as `loop` does that changes vectors, and return them as they are after it.

        The body takes the number and the vectors, and returns what they become.
        """
        with self._loop(count, step, vectors) as (index, before, after):
            after.extend(body(index, before))
        return before

    @contextmanager
    def _loop(
        self, count: Int, step: Int | int, vectors: Sequence[Vector]
    ) -> Iterator[tuple[Int, list[Vector], list[Vector]]]:
        """Write a loop; give its body the number, the vectors and a list for what they become."""
        builder = self.llvm
        entry = builder.block
        head, body, end = (builder.append_basic_block() for _ in range(3))
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(ir.IntType(64))
        index.add_incoming(_int(0), entry)
        carried = [builder.phi(vector.value.type) for vector in vectors]
        for phi, vector in zip(carried, vectors):
            phi.add_incoming(vector.value, entry)
        builder.cbranch(builder.icmp_signed("<", index, count.value), body, end)
        builder.position_at_end(body)
        after: list[Vector] = []
        yield Int(self, index), [Vector(self, phi) for phi in carried], after
        index.add_incoming(builder.add(index, _int(step)), builder.block)
        for phi, vector in zip(carried, after):
            phi.add_incoming(vector.value, builder.block)
        builder.branch(head)
        builder.position_at_end(end)

    def fence(self) -> None:
        """Have other threads see all that was streamed."""
        self.llvm.fence("seq_cst")

    def call(self, address: Int, *arguments: Pointer | Int | int) -> None:
        """Write a call of a compiled function, whose `address` is known when this one runs."""
        values = [
            argument.value if isinstance(argument, Pointer) else _int(argument)
            for argument in arguments
        ]
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        self.llvm.call(self.llvm.inttoptr(address.value, kind.as_pointer()), values)


def _vector_type() -> Any:
    """Return LLVM's type of a vector."""
    return ir.VectorType(ir.FloatType(), LANES)


def _int(number: Int | int) -> Any:
    """Return LLVM's value of a whole number, known already or not."""
    return number.value if isinstance(number, Int) else ir.IntType(64)(number)
