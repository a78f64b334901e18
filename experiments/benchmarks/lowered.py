"""Memory, FLOPs and collectives of one device, from a lowered program that is not run."""

import dataclasses
import math
import re
import time
from typing import Any

import jax
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo

from jaxclr.errors import UserError

COLLECTIVES = (
    "all_gather",
    "all_reduce",
    "all_to_all",
    "collective_broadcast",
    "collective_permute",
    "reduce_scatter",
)


@dataclasses.dataclass(frozen=True)
class Need:
    """Memory that a program needs on one chip, in bytes.

    None: not reported by the compiler, which refused the program.
    """

    fits: bool
    hbm: int | None
    limit: int | None
    arguments: int | None = None
    outputs: int | None = None
    aliased: int | None = None
    temporaries: int | None = None
    code: int | None = None
    flops: float | None = None
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Calls of one collective by one chip, and the bytes that they carry."""

    calls: int = 0
    bytes: int = 0


@dataclasses.dataclass
class Tally:
    """FLOPs and collectives of a lowered program on one chip, loops counted as they run."""

    collectives: dict[str, Traffic]
    matmul_flops: int = 0
    unknown_loops: int = 0  # whose trips could not be read: counted once


def need_of(lowered: jax.stages.Lowered) -> Need:
    """Memory of a program as the compiler reports it, also if the HBM does not suffice."""
    return compiled_need(lowered)[0]


def compiled_need(lowered: jax.stages.Lowered) -> tuple[Need, str]:
    """The same with the text of the compiled program, which is empty if it was refused."""
    started = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        used, limit = refusal(str(error))
        return Need(False, used, limit, seconds=round(time.perf_counter() - started, 1)), ""
    seconds = round(time.perf_counter() - started, 1)
    memory = compiled.memory_analysis()
    parts = {
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes,
        "aliased": memory.alias_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "code": memory.generated_code_size_in_bytes,
    }
    hbm = sum(parts.values()) - 2 * parts["aliased"]
    need = Need(
        True, hbm, None, **parts, flops=compiled.cost_analysis().get("flops"), seconds=seconds
    )
    return need, compiled.as_text()


def shares(step: Need, loss: Need, loss_flops: int) -> dict[str, Any]:
    """The loss's shares of the step's HBM and FLOPs, None where the step was refused.

    The compiler counts bodies of loops once, in the loss and in the step: the difference is added
    to the step's FLOPs.
    """
    if step.flops is None or loss.flops is None:
        return {"flops": None, "hbm_share": None, "flops_share": None}
    flops = step.flops - loss.flops + max(loss_flops, loss.flops)
    return {
        "flops": flops,
        "hbm_share": loss.hbm / step.hbm,
        "flops_share": max(loss_flops, loss.flops) / flops,
    }


def refusal(message: str) -> tuple[int | None, int | None]:
    """Bytes of HBM that a refused program needs, and the limit, if the message has them.

    Raises:
      UserError: the compiler refused it for another reason.
    """
    if "RESOURCE_EXHAUSTED" not in message:
        raise UserError(f"The TPU's compiler refused the program: {message.strip()[:500]}")
    amount = r"([\d.]+[KMGT]?)"
    for pattern in (
        rf"Used {amount} of {amount} hbm",
        rf"HLO temporaries \({amount}\) exceeds available HBM \({amount}\)",
    ):
        if found := re.search(pattern, message):
            used, limit = map(_parsed, found.groups())
            return used, limit
    return None, None


def _parsed(amount: str) -> int:
    scale = {unit: 1024**power for power, unit in enumerate("KMGT", start=1)}
    number = float(amount.rstrip("KMGT"))
    return round(number * scale.get(amount[-1], 1))


def tally(lowered: jax.stages.Lowered) -> Tally:
    """Counts a lowered program's collectives and the FLOPs of its matrix products, of one chip.

    Collectives over groups of g chips are of the kind "all_gather/g".
    """
    module = lowered.compiler_ir("stablehlo")
    functions = {
        operation.name.value: operation
        for operation in module.body.operations
        if operation.operation.name == "func.func"
    }
    counted = Tally({})

    def visit(operation: ir.Operation, times: int) -> None:
        kind = operation.name.removeprefix("stablehlo.")
        if kind in COLLECTIVES:
            kind += _grouped(operation)
            before = counted.collectives.get(kind, Traffic())
            carried = max(_bytes(operation.operands), _bytes(operation.results))
            counted.collectives[kind] = Traffic(
                before.calls + times, before.bytes + times * carried
            )
        elif kind == "dot_general":
            counted.matmul_flops += times * _product_flops(operation)
        elif kind == "func.call":
            callee = ir.FlatSymbolRefAttr(operation.attributes["callee"]).value
            visit(functions[callee].operation, times)
        elif kind == "while":
            trips = _trips(operation)
            counted.unknown_loops += trips is None
            times *= trips or 1
        for region in operation.regions:
            for block in region.blocks:
                for inner in block.operations:
                    visit(inner.operation, times)

    visit(functions["main"].operation, 1)
    return counted


def _grouped(operation: ir.Operation) -> str:
    """The suffix of a collective's kind: empty if it is over all chips."""
    if "replica_groups" not in operation.attributes:
        return ""
    count, group = ir.DenseElementsAttr(operation.attributes["replica_groups"]).type.shape
    return "" if count == 1 else f"/{group}"


def _bytes(values: Any) -> int:
    types = [ir.RankedTensorType(value.type) for value in values]
    return sum(math.prod(kind.shape) * max(1, _bits(kind) // 8) for kind in types)


def _bits(kind: ir.RankedTensorType) -> int:
    return int(re.sub(r"\D*(\d+).*", r"\1", str(kind.element_type)))


def _product_flops(operation: ir.Operation) -> int:
    rows = ir.RankedTensorType(operation.operands[0].type)
    out = ir.RankedTensorType(operation.results[0].type)
    numbers = stablehlo.DotDimensionNumbers(operation.attributes["dot_dimension_numbers"])
    contracted = math.prod(rows.shape[axis] for axis in numbers.lhs_contracting_dimensions)
    return 2 * math.prod(out.shape) * contracted


def _trips(loop: ir.Operation) -> int | None:
    """How often a loop that counts from 0 to a constant runs; None for any other."""
    condition = loop.regions[0].blocks[0]
    for operation in condition.operations:
        if operation.operation.name == "stablehlo.compare":
            bound = operation.operation.operands[1].owner
            if getattr(bound, "name", None) == "stablehlo.constant":
                return int(ir.DenseElementsAttr(bound.attributes["value"]).get_splat_value().value)
    return None
