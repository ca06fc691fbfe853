"""Architectures for people: in a line, as a table, and compared with the parent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from automl.morphism.nodes import JOINS, RECTIFIERS, Node, Op

if TYPE_CHECKING:
    from automl.morphism.architecture import Architecture

_SILENT = frozenset({Op.INPUT, Op.BATCH_NORM, Op.DROPOUT}) | RECTIFIERS
_POOLS = frozenset({Op.MAX_POOL, Op.AVG_POOL})


def layer_text(node: Node) -> str:
    """Return a layer in a word: `conv3x3-64/2`, `depthwise5x5-32`, `pool/2`, `dense-10`."""
    if node.op is Op.CONV:
        kernel, groups = node.integer("kernel"), node.integer("groups")
        name = "conv"
        if groups > 1:
            name = "depthwise" if groups == node.integer("channels") else f"conv{groups}g"
        stride = f"/{node.integer('stride')}" if node.integer("stride") > 1 else ""
        return f"{name}{kernel}x{kernel}-{node.integer('channels')}{stride}"
    if node.op in _POOLS:
        return f"pool/{node.integer('stride')}"
    if node.op is Op.DENSE:
        return f"dense-{node.integer('units')}"
    if node.op is Op.DROPOUT:
        return f"dropout-{node.attributes['rate']:g}"
    return str(node.op)


def one_line(architecture: Architecture) -> str:
    """Return the layers that shape the network, its parameters and multiply-adds."""
    layers = [layer_text(node) for node in _shaping(architecture)]
    size = f"{architecture.parameters:,} parameters, {architecture.macs / 1e6:.1f} M multiply-adds"
    return f"{architecture.input_size} px: {' '.join(layers)}; {size}"


def table(architecture: Architecture) -> str:
    """Return a line per node: what it is and reads, its output, parameters and multiply-adds."""
    rows = [("node", "layer", "reads", "output", "parameters", "multiply-adds")]
    for index, (node, facts) in enumerate(zip(architecture.nodes, architecture.facts, strict=True)):
        rows.append(
            (
                str(index),
                layer_text(node),
                " ".join(map(str, node.inputs)),
                " x ".join(map(str, facts.shape)),
                f"{facts.parameters:,}" if facts.parameters else "",
                f"{facts.macs:,}" if facts.macs else "",
            )
        )
    total = (f"{architecture.parameters:,}", f"{architecture.macs:,}")
    rows.append(("", "all", "", f"{architecture.activation_bytes:,} bytes", *total))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(_aligned(row, widths) for row in rows)


def difference(parent: Architecture, child: Architecture) -> str:
    """Return what a child has more (+), less (-) and otherwise (~) than its parent.

    The layers that shape the network are matched in canonical order by what they are, widths aside.
    The first line compares the sizes.
    """
    old_nodes, new_nodes = _shaping(parent), _shaping(child)
    lines = [
        f"{_change('parameters', parent.parameters, child.parameters)}, "
        f"{_change('multiply-adds', parent.macs, child.macs)}, "
        f"{_change('activation bytes', parent.activation_bytes, child.activation_bytes)}, "
        f"depth {parent.depth} -> {child.depth}"
    ]
    matcher = SequenceMatcher(
        a=[_kind(node) for node in old_nodes],
        b=[_kind(node) for node in new_nodes],
        autojunk=False,
    )
    for tag, start, end, new_start, new_end in matcher.get_opcodes():
        before = [_changed_text(node) for node in old_nodes[start:end]]
        after = [_changed_text(node) for node in new_nodes[new_start:new_end]]
        if tag == "equal":
            pairs = zip(before, after, strict=True)
            lines += [f"~ {old} -> {new}" for old, new in pairs if old != new]
        else:
            lines += [f"- {text}" for text in before] + [f"+ {text}" for text in after]
    return "\n".join(lines)


def _shaping(architecture: Architecture) -> list[Node]:
    return [node for node in architecture.nodes if node.op not in _SILENT]


def _kind(node: Node) -> str:
    """Return what a layer is, its width aside."""
    settings = [node.attributes.get(name) for name in ("kernel", "stride", "rate")]
    return f"{node.op} {settings} {node.attributes.get('groups', 1) != 1}"


def _changed_text(node: Node) -> str:
    return f"{node.op} of {len(node.inputs)}" if node.op in JOINS else layer_text(node)


def _change(name: str, before: int, after: int) -> str:
    percent = 100 * (after - before) / before
    return f"{name} {before:,} -> {after:,} ({percent:+.0f} %)"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    def cells() -> Iterator[str]:
        for column, (text, width) in enumerate(zip(row, widths, strict=True)):
            yield text.rjust(width) if column in {0, 4, 5} else text.ljust(width)

    return "  ".join(cells()).rstrip()
