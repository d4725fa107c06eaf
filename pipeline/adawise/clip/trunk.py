"""The trunk of a pair: the first layers of the image tower, where theta_0 and theta_1 are equal bit for bit.

Activations up to there do not depend on alpha. They are computed once an image, and each alpha costs the rest of the
tower, the tail. The cut is found in the graph that `torch.fx` traces, from the names of the parameters that differ.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker
from typing_extensions import override

from adawise.adapt.names import LEAST_TAIL_SHARE
from adawise.clip.layers import PackedAttention, PatchProduct
from adawise.clip.skeleton import without_tensors

_BATCHES = (2, 3)  # the cut is tried with both: only the number of rows may differ
_TRACING = threading.Lock()  # traces of two threads would undo each other's patches of torch


class NoTrunkError(ValueError):
    """The two models share no trunk; the message is the reason, for a log."""


@dataclass(frozen=True)
class Trunk:
    """An image tower, cut in two: `tail(trunk(images))` equals the tower's result bit for bit.

    Attributes:
        trunk: maps float images `[B, 3, S, S]` to activations `[B, ...]`.
        tail: maps activations to the result of the tower.
        shape: of the activations of one image.
        tail_share: operations of the tail over those of the tower, in (0, 1], to four decimals.
    """

    trunk: fx.GraphModule = field(repr=False)
    tail: fx.GraphModule = field(repr=False)
    shape: torch.Size
    tail_share: float


class _Tracer(fx.Tracer):
    """A tracer that keeps our replacements of torch's modules whole, as it keeps torch's own.

    While it traces, torch's `Module` is patched for the whole process. Modules that other threads run meanwhile, such
    as the tower of the pair that serves, are left alone.
    """

    proxy_buffer_attributes = True  # or what a tower computes from a buffer would be a value of the trace

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    @override
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, PackedAttention | PatchProduct) or super().is_leaf_module(m, module_qualified_name)

    @override
    def create_args_for_root(
        self,
        root_fn: Callable[..., Any],
        is_module: bool,
        concrete_args: dict[str, Any] | tuple[Any, ...] | None = None,
    ) -> tuple[Any, list[Any]]:
        """Let a tower be called as the classifier calls it: optional arguments have their defaults, and no proxies."""
        function, arguments = super().create_args_for_root(root_fn, is_module, concrete_args)
        return function, arguments[:2] if function is root_fn else arguments  # others take keywords or any number

    @override
    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    @override
    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def shared_trunk(
    tower: nn.Module, theta_0: Mapping[str, Tensor], theta_1: Mapping[str, Tensor], image: tuple[int, int, int]
) -> Trunk:
    """Cut the tower of a pair by the parameters whose bits differ; see `cut`."""
    differing = {name for name in theta_0 if not has_equal_bits(theta_0[name], theta_1[name])}
    if len(differing) == len(theta_0):
        raise NoTrunkError("every parameter of the image tower differs")
    return cut(tower, differing, image)


def has_equal_bits(one: Tensor, other: Tensor) -> bool:
    """Return True if two float32 tensors are equal bit for bit; as numbers, zeros of both signs would be equal."""
    return torch.equal(*(tensor.contiguous().view(torch.int32) for tensor in (one, other)))


def cut(tower: nn.Module, differing: Collection[str], image: tuple[int, int, int]) -> Trunk:
    """Cut a tower as late as no parameter before the cut differs.

    The cut lies where one tensor with a row for each image is all that is handed on. Layers between it and the first
    parameter that differs belong to the tail.

    Args:
        tower: the image tower in evaluation mode. It is not changed, and its tensors are not read.
        differing: names of its parameters that are not equal in theta_0 and theta_1.
        image: C, H and W of an image.

    Returns:
        The two parts; their tensors are on the device `meta`.

    Raises:
        NoTrunkError: nothing is shared, or the tower cannot be traced.
    """
    tower = without_tensors(tower)
    try:
        found = _cut(tower, differing, image)
    except Exception as error:  # the tower's own code runs on proxies and without its weights, and may raise anything
        first = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise NoTrunkError(f"the tower {type(tower).__name__} cannot be traced: {first}") from error
    if found is None:
        raise NoTrunkError("theta_0 and theta_1 differ from the first layers on")
    return found


def _cut(tower: nn.Module, differing: Collection[str], image: tuple[int, int, int]) -> Trunk | None:
    """Return the cut of a tower on the device `meta`, or None if nothing is shared. Raises whatever the tower does."""
    parameters = {name for name, _ in tower.named_parameters(remove_duplicate=False)}
    tensors = parameters.union(name for name, _ in tower.named_buffers(remove_duplicate=False))
    with _TRACING:
        graph = _Tracer().trace(tower)
    nodes = list(graph.nodes)
    if made := [str(node.target) for node in nodes if node.op == "get_attr" and node.target not in tensors]:
        raise ValueError(f"it has a tensor that is neither a parameter nor a buffer ({made[0]})")
    if not (places := [*_places(nodes, _constants(nodes), parameters, set(differing))]):
        return None
    # From here on the tower runs on `meta`, for which torch loads its compiler and sympy: more than a second.
    _check_overwriting(tower, graph, image)
    for position, handed_on in places:
        trunk, tail = _parts(tower, nodes, position, handed_on)
        if (shape := _shape(trunk, image)) is not None:
            before, after = _operations(trunk, image), _operations(tail, shape)
            if before > 0 < after:
                return Trunk(trunk, tail, shape, max(LEAST_TAIL_SHARE, round(after / (before + after), 4)))
    return None


class _Overwriting(fx.Interpreter):
    """Runs a graph, and notes the nodes that overwrite a tensor that they are given."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.found: list[fx.Node] = []

    @override
    def run_node(self, n: fx.Node) -> Any:
        given = [value for i in n.all_input_nodes if isinstance(value := self.env.get(i), Tensor)]
        before = [tensor._version for tensor in given]
        result = super().run_node(n)
        if before != [tensor._version for tensor in given]:
            self.found.append(n)
        return result


def _check_overwriting(tower: nn.Module, graph: fx.Graph, image: Sequence[int]) -> None:
    """Raise ValueError if a node overwrites a tensor and its own result is not used: the parts would leave it out."""
    nodes = list(graph.nodes)
    needed = set(_needed(nodes, nodes[-1]))
    if needed.issuperset(nodes):
        return
    run = _Overwriting(fx.GraphModule(tower, graph).eval())
    run.garbage_collect_values = False
    run.run(torch.empty(_BATCHES[0], *image, device="meta"))
    if lost := [node for node in run.found if node not in needed]:
        raise ValueError(f"{lost[0]} overwrites its input")


def _constants(nodes: Sequence[fx.Node]) -> set[fx.Node]:
    """Return the nodes that depend on no image: each part computes those that it needs for itself."""
    found = set[fx.Node]()
    for node in nodes:
        if node.op not in ("placeholder", "output") and found.issuperset(node.all_input_nodes):
            found.add(node)
    return found


def _places(
    nodes: Sequence[fx.Node], constants: Collection[fx.Node], parameters: Collection[str], differing: Collection[str]
) -> Iterator[tuple[int, fx.Node]]:
    """Yield the numbers of nodes behind which one value alone is handed on, and that value; the last place first.

    Places before the first parameter, or behind the first that differs, are left out.
    """
    number = {node: n for n, node in enumerate(nodes)}
    last_use = [max((number[user] for user in node.users), default=0) for node in nodes]
    reads: dict[fx.Node, set[str]] = {}
    for node in nodes:
        through = (reads[i] for i in node.all_input_nodes if i in constants)
        reads[node] = _parameters_of(node, parameters).union(*through)
    varying = [n for n, node in enumerate(nodes) if node not in constants]
    begin = next((n for n in varying if reads[nodes[n]]), len(nodes))
    end = next((n for n in varying if not reads[nodes[n]].isdisjoint(differing)), len(nodes) - 1)
    for position in range(end - 1, begin - 1, -1):
        alive = [n for n in varying if n <= position < last_use[n]]
        if len(alive) == 1:
            yield position, nodes[alive[0]]


def _parameters_of(node: fx.Node, parameters: Collection[str]) -> set[str]:
    """Return the names of the parameters that a node reads itself."""
    if node.op == "get_attr":
        return {str(node.target)} & set(parameters)
    if node.op == "call_module":
        return {name for name in parameters if name.startswith(f"{node.target}.")}
    return set()


def _parts(
    tower: nn.Module, nodes: Sequence[fx.Node], position: int, handed_on: fx.Node
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Return trunk and tail, cut behind `nodes[position]`."""
    trunk, tail = fx.Graph(), fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    for node in _needed(nodes[: position + 1], handed_on):
        copied[node] = trunk.node_copy(node, copied.__getitem__)
    trunk.output(copied[handed_on])
    copied = {handed_on: tail.placeholder("activations")}
    for node in _needed(nodes, nodes[-1], without=handed_on):
        copied[node] = tail.node_copy(node, copied.__getitem__)
    return fx.GraphModule(tower, trunk, "Trunk").eval(), fx.GraphModule(tower, tail, "Tail").eval()


def _needed(nodes: Sequence[fx.Node], result: fx.Node, without: fx.Node | None = None) -> list[fx.Node]:
    """Return the nodes that a result is computed from, itself included, in their order; `without` is given."""
    needed = {result}
    for node in reversed(nodes):
        if node in needed:
            needed.update(i for i in node.all_input_nodes if i is not without)
    return [node for node in nodes if node in needed]


def _shape(trunk: nn.Module, image: Sequence[int]) -> torch.Size | None:
    """Return the shape of one image's activations; None if they are no tensor of floats with a row for each image.

    None, too, if they do not fill memory row after row: a copy of some rows could not lie in memory as they do.
    """
    shapes = []
    for batch in _BATCHES:
        activations = trunk(torch.empty(batch, *image, device="meta"))
        if not isinstance(activations, Tensor) or not activations.is_floating_point() or activations.ndim < 2:
            return None
        if len(activations) != batch or not activations.permute(memory_order(activations)).is_contiguous():
            return None
        shapes.append(activations.shape[1:])
    return shapes[0] if shapes[0] == shapes[1] else None


def memory_order(activations: Tensor) -> list[int]:
    """Return the dimensions `[0, ...]` of activations from the outermost in memory to the innermost.

    Kernels are chosen, and round, by how their input lies in memory, so copies of rows have to lie alike.
    """
    return [0, *sorted(range(1, activations.ndim), key=activations.stride, reverse=True)]


def _operations(part: nn.Module, size: Sequence[int]) -> int:
    """Count the multiplications and additions that a part spends on one input of this size."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()
    with counter:
        part(torch.empty(1, *size, device="meta"))
    return int(counter.get_total_flops())


class _NoModules(ModuleTracker):
    """A tracker that follows no modules: its hooks would be those of all modules that other threads run meanwhile."""

    @override
    def __enter__(self) -> Self:
        return self

    @override
    def __exit__(self, *_: object) -> None:
        pass
