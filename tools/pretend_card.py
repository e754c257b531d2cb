"""A GPU that is not there: tensors on a pretend card, and a record of what makes the host wait.

    with Card() as card:
        result = work(torch.zeros(3, device=card.device))
    assert not card.waits, card.report()

A tensor on the card has its values in the memory of the CPU and claims to be on the device `meta`,
so that autograd, optimisers and modules treat it as one of another device than the CPU, and its
`is_cuda` is True. Every operation with such a tensor is examined before it is computed on the CPU:

- a value or a whole tensor that goes to the host (`.item()`, `bool()`, `.cpu()`, `.tolist()`)
- a copy from the host that is not from pinned memory and asynchronous; that of Python's numbers in
  `torch.tensor(..., device=...)` is one
- a result whose size depends on values (`nonzero`, a mask as an index, `unique`,
  `repeat_interleave` of tensors without `output_size`): its size goes to the host
- tensors of the card and of the CPU in one operation; indices are copied, the others raise
- `torch.cuda.synchronize` and `torch.cuda.empty_cache`

What is found has the place in this repository that caused it, in a backward pass with the name of
the node. Kernels are counted: operations that compute something; views are none.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from msdyn.geometry.rotations import constants

__all__ = ["CARD", "Card", "MixedDevicesError", "OnCard", "Wait"]

ROOT = Path(__file__).resolve().parents[1]
CARD = torch.device("meta")
_GENERATOR, _AUTOCAST = torch.Generator, torch.autocast

# Operations whose results have a size that the host must wait for.
_SIZES = {
    "nonzero",
    "masked_select",
    "_unique",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "bincount",
}
# Operations that copy a value to the host, or whose solver waits.
_READS = {
    "_local_scalar_dense",
    "allclose",
    "equal",
    "is_nonzero",
    "multinomial",
    "_linalg_check_errors",
    "_linalg_eigh",
    "_linalg_svd",
}
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
_CROSSING = {"_to_copy", "copy_", "copy", "_pin_memory", "is_pinned"}
_OWN = ("pretend_card.py", "pretend_gsplat.py")
# Operations without a kernel that are no views by their schema.
_NO_KERNEL = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "detach",
    "_unsafe_view",
}


class MixedDevicesError(RuntimeError):
    """Tensors of the card and of the CPU in one operation."""


@dataclass(frozen=True)
class Wait:
    """Something for which the host waits.

    Attributes:
        kind: what it is.
        operation: name of the operation, and of the node of a backward pass.
        place: file and line of this repository, `msdyn/fit/losses.py:12`.
    """

    kind: str
    operation: str
    place: str

    def __str__(self) -> str:
        return f"{self.place}: {self.kind} ({self.operation})"


class OnCard(torch.Tensor):
    """A tensor on the pretend card, with its values in `values`."""

    values: torch.Tensor

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> OnCard:
        made = torch.Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=CARD,
        )
        made.values = values
        return made

    is_cuda = True  # pyright: ignore[reportAssignmentType]
    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return f"OnCard({self.values})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def new_tensor(self, data: Any, **options: Any) -> torch.Tensor:
        return torch.tensor(data, **{"dtype": self.dtype, "device": CARD, **options})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if Card.active is None:
            raise RuntimeError("a tensor on the pretend card is used without it")
        return Card.active.execute(func, args, kwargs or {})


def _of_numbers(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Wrap a function that makes tensors of Python's numbers, which torch copies to a device."""

    def made(data: Any, **options: Any) -> torch.Tensor:
        device = options.get("device")
        if device is None or torch.device(device) != CARD or isinstance(data, torch.Tensor):
            return make(data, **options)
        assert Card.active is not None
        Card.active.note("a copy from the host, not pinned and asynchronous", make.__name__)
        return OnCard(make(data, **{**options, "device": "cpu"}))

    return made


class _Generator(torch.Generator):
    """Random numbers of the card; those of the CPU with the same seed."""

    device = CARD  # pyright: ignore[reportAssignmentType]


class _AnyGenerator(torch.Generator):
    """In place of the class, not a function: torch has annotations `Generator | None`."""

    def __new__(cls, device: Any = "cpu") -> Any:
        return _Generator() if torch.device(device) == CARD else _GENERATOR(device)


def _autocast(device: str, *arguments: Any, **options: Any) -> Any:
    return _AUTOCAST("cpu" if device == CARD.type else device, *arguments, **options)


class Card(TorchDispatchMode):
    """The card, as a context; records what happens inside.

    Attributes:
        waits: what the host waits for, in order.
        kernels: number of kernels by operation.
    """

    active: Card | None = None
    device = CARD

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[Wait] = []
        self.kernels: Counter[str] = Counter()
        self._stack = ExitStack()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler, in seconds

    def __enter__(self) -> Card:
        adam, optimizer = (import_module(f"torch.optim.{name}") for name in ("adam", "optimizer"))
        Card.active = self
        supported = ["cpu", "cuda", CARD.type]
        for owner, name, replacement in (
            (torch, "tensor", _of_numbers(torch.tensor)),
            (torch, "as_tensor", _of_numbers(torch.as_tensor)),
            (torch, "asarray", _of_numbers(torch.asarray)),
            (torch, "Generator", _AnyGenerator),
            (torch, "autocast", _autocast),
            (torch.cuda, "synchronize", self._noting("synchronize")),
            (torch.cuda, "empty_cache", self._noting("empty_cache")),
            (adam, "_device_dtype_check_for_fused", lambda p, **_: None),
            (optimizer, "_get_fused_kernels_supported_devices", lambda: supported),
        ):
            self._stack.enter_context(mock.patch.object(owner, name, replacement))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._stack.close()
        Card.active = None
        constants.cache_clear()  # some are on the card

    def put(self, values: torch.Tensor) -> OnCard:
        """Return values as a tensor on the card."""
        return OnCard(values)

    def clear(self) -> None:
        """Forget what happened so far."""
        self.waits.clear()
        self.kernels.clear()

    def report(self) -> str:
        """Return what the host waits for: a line per place, with how often."""
        return "\n".join(
            f"{count:4d} x {wait}" for wait, count in Counter(self.waits).most_common()
        )

    def by_place(self) -> Counter[str]:
        """Return how often the host waits, by file of this repository."""
        return Counter(wait.place.partition(":")[0] for wait in self.waits)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.execute(func, args, kwargs or {})

    def execute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Examine an operation and compute it."""
        tensors = [v for v in tree_leaves((args, kwargs)) if isinstance(v, torch.Tensor)]
        own = [v for v in tensors if isinstance(v, OnCard)]
        target = kwargs.get("device")
        target = None if target is None else torch.device(target)
        name = func.overloadpacket.__name__
        if name == "_pin_memory":
            pinned = args[0].clone()
            pinned.is_pretended_pinned = True
            return pinned
        if name == "is_pinned":
            return hasattr(args[0], "is_pretended_pinned")
        if not own and target != CARD:
            return func(*args, **kwargs)
        if any(v.device == CARD and not isinstance(v, OnCard) for v in tensors):
            self.note("a copy from the host, not pinned and asynchronous", f"{name} of numbers")
            raise MixedDevicesError(f"{_place()}: {name} of a list of numbers")
        self._examine(func, name, args, kwargs, tensors, target)
        if target is not None:
            kwargs = {**kwargs, "device": _of_values(target)}
        found = func(*tree_map(_unwrapped, args), **tree_map(_unwrapped, kwargs))
        on_card = target != torch.device("cpu") and (name != "copy_" or isinstance(args[0], OnCard))
        if on_card and name not in _NO_KERNEL and not _is_view(func):
            sizes = [v.numel() for v in tree_leaves(found) if isinstance(v, torch.Tensor)]
            if not sizes or any(sizes):
                self.kernels[name] += 1
        return _returned(func, args, kwargs, found) if on_card else found

    @contextmanager
    def kernel(self, name: str, *arguments: Any) -> Iterator[list[Any]]:
        """Give the values of a compiled function's arguments, all of which must be on the card.

        Raises:
            MixedDevicesError: a tensor is not.
        """
        for value in arguments:
            if isinstance(value, torch.Tensor) and not isinstance(value, OnCard):
                raise MixedDevicesError(f"{_place()}: {name} is given a tensor of the CPU")
        self.kernels[name] += 1
        with torch._C._DisableTorchDispatch():
            yield [_unwrapped(value) for value in arguments]

    def note(self, kind: str, operation: str) -> None:
        """Record that the host waits."""
        node = torch._C._current_autograd_node()
        behind = "" if node is None else f" of {node.name()}"
        self.waits.append(Wait(kind, operation + behind, _place()))

    def _noting(self, name: str) -> Callable[..., None]:
        return lambda *_: self.note("synchronisation", f"torch.cuda.{name}")

    def _examine(
        self,
        func: Any,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        tensors: list[torch.Tensor],
        target: torch.device | None,
    ) -> None:
        if name in _READS:
            self.note("a value goes to the host", name)
        elif name in _SIZES:
            self.note("the size of the result goes to the host", name)
        elif name == "repeat_interleave" and kwargs.get("output_size") is None:
            self.note("the size of the result goes to the host", "repeat_interleave")
        if name in ("_to_copy", "copy_", "copy"):
            self._examine_copy(name, args, kwargs, target)
            return
        if name in _INDEXING:
            self._examine_indices(name, args)
            return
        host = [v for v in tensors if not isinstance(v, OnCard)]
        # The kernels of single numbers take them as arguments, except where tensors are joined.
        mixed = [v for v in host if v.dim() or name in ("cat", "stack")]
        if mixed and len(host) < len(tensors):
            self.note("tensors of the card and of the CPU", name)
            raise MixedDevicesError(f"{_place()}: {name} of tensors of the card and of the CPU")

    def _examine_copy(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        target: torch.device | None,
    ) -> None:
        source = args[0] if name == "_to_copy" else args[1]
        to_card = isinstance(args[0], OnCard) if name != "_to_copy" else target == CARD
        to_host = target == torch.device("cpu") if name == "_to_copy" else not to_card
        from_card = isinstance(source, OnCard)
        if from_card and to_host:
            self.note("a copy to the host", name)
        if not from_card and to_card:
            late = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
            if not (late and hasattr(source, "is_pretended_pinned")):
                self.note("a copy from the host, not pinned and asynchronous", name)

    def _examine_indices(self, name: str, args: tuple[Any, ...]) -> None:
        for index in args[1]:
            if index is None:
                continue
            if index.dtype in (torch.bool, torch.uint8):
                self.note("a mask as an index", name)
            elif not isinstance(index, OnCard):
                self.note("a copy from the host, not pinned and asynchronous", f"{name}: an index")
        others = [args[0], *(args[2:3] if name != "index" else ())]
        if any(
            isinstance(v, torch.Tensor) and v.dim() and not isinstance(v, OnCard) for v in others
        ):
            self.note("tensors of the card and of the CPU", name)
            raise MixedDevicesError(f"{_place()}: {name} of tensors of the card and of the CPU")


def _of_values(device: Any) -> torch.device:
    """Return the device on which the values are."""
    return torch.device("cpu") if torch.device(device) == CARD else torch.device(device)


def _unwrapped(value: Any) -> Any:
    return value.values if isinstance(value, OnCard) else value


def _wrapped(value: Any) -> Any:
    return OnCard(value) if isinstance(value, torch.Tensor) else value


def _is_view(func: Any) -> bool:
    return any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)


def _returned(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], found: Any) -> Any:
    """Return results on the card: of operations in place their own arguments."""
    returns = func._schema.returns
    written = [r.alias_info is not None and r.alias_info.is_write for r in returns]
    if not any(written):
        return tree_map(_wrapped, found)
    given = [
        args[i] if i < len(args) else kwargs.get(argument.name)
        for i, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    return given[0] if len(returns) == 1 else tuple(given)


def _place() -> str:
    """Return the innermost line of this repository, or of what is tested, that is not here."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        inside = path.is_relative_to(ROOT) and "site-packages" not in path.parts
        if inside and path.name not in _OWN:
            return f"{path.relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"
