"""The pretend card sees what makes the host wait for a GPU, and names the place."""

import inspect

import numpy as np
import pytest
import torch
from pretend_card import CARD, Card, MixedDevicesError, OnCard

VALUES = torch.arange(12.0).reshape(4, 3)
FROM_HOST = "a copy from the host"


class Asked(torch.autograd.Function):
    """Its backward pass asks for a value."""

    @staticmethod
    def forward(ctx, values):
        return 2 * values

    @staticmethod
    def backward(ctx, *gradient):
        return gradient[0] * gradient[0].sum().item()


def assign_by_mask(x):
    x[x > 5] = 0.0


def copy_into_the_host(x):
    torch.zeros(4, 3).copy_(x)


def repeated(x):
    return x.repeat_interleave(torch.ones(4, dtype=torch.long, device=CARD), 0)


FAULTS = {
    "item": (lambda x: x.sum().item(), "a value goes to the host"),
    "bool": (lambda x: bool((x > 0).any()), "a value goes to the host"),
    "float": (lambda x: float(x.sum()), "a value goes to the host"),
    "if": (lambda x: 1 if x.sum() > 0 else 0, "a value goes to the host"),
    "equal": (lambda x: torch.equal(x, x), "a value goes to the host"),
    "cpu": (lambda x: x.cpu(), "a copy to the host"),
    "tolist": (lambda x: x.tolist(), "a copy to the host"),
    "numpy": (lambda x: x.cpu().numpy(), "a copy to the host"),
    "copy_": (copy_into_the_host, "a copy to the host"),
    "nonzero": (lambda x: x.nonzero(), "the size of the result"),
    "where": (lambda x: torch.where(x > 0), "the size of the result"),
    "mask": (lambda x: x[x > 5], "a mask as an index"),
    "index_put_": (assign_by_mask, "a mask as an index"),
    "masked_select": (lambda x: x.masked_select(x > 5), "the size of the result"),
    "unique": (lambda x: x.unique(), "the size of the result"),
    "repeat_interleave": (repeated, "the size of the result"),
    "tensor": (lambda x: torch.tensor([1.0, 2.0], device=x.device), FROM_HOST),
    "as_tensor": (lambda x: torch.as_tensor([1.0, 2.0], device=x.device), FROM_HOST),
    "new_tensor": (lambda x: x.new_tensor([1.0, 2.0, 3.0]), FROM_HOST),
    "numpy to the card": (lambda x: torch.from_numpy(np.ones(3)).to(x.device), FROM_HOST),
    "not pinned": (lambda x: torch.ones(3).to(x.device, non_blocking=True), FROM_HOST),
    "not asynchronous": (lambda x: torch.ones(3).pin_memory().to(x.device), FROM_HOST),
    "index of the host": (lambda x: x[torch.tensor([1, 2])], FROM_HOST),
    "array as an index": (lambda x: x[np.array([1, 2])], FROM_HOST),
    "synchronize": (lambda x: torch.cuda.synchronize(), "synchronisation"),
    "backward": (lambda x: Asked.apply(x.requires_grad_()).sum().backward(), "a value goes"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_wait_is_seen_with_its_place(name):
    fault, kind = FAULTS[name]
    with Card() as card:
        on_card = card.put(VALUES.clone())
        card.clear()
        fault(on_card)
    assert len(card.waits) == 1, card.report()
    wait = card.waits[0]
    first = inspect.getsourcelines(fault)[1]
    places = [f"tests/tools/{__name__}.py:{first + line}" for line in range(3)]
    assert wait.kind.startswith(kind)
    if name == "backward":  # its place is where it was asked for, and the node is named
        assert wait.operation.endswith("of AskedBackward")
        assert wait.place.startswith(f"tests/tools/{__name__}.py:")
    else:
        assert wait.place in places
    assert wait.place in card.report()


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x * torch.ones(4, 3),
        lambda x: torch.cat([x, torch.ones(1, 3)]),
        lambda x: torch.searchsorted(x[:, 0].contiguous(), torch.ones(2)),
        lambda x: x.add_(torch.ones(3)),
        torch.nn.Linear(3, 2),
        lambda x: x[[1, 2]],
    ],
)
def test_mixed_devices_raise_with_the_place(mix):
    with Card() as card, pytest.raises(MixedDevicesError, match=rf"{__name__}.py:\d+: "):
        mix(card.put(VALUES.clone()))


def test_what_does_not_wait_is_not_reported():
    """Values, gradients and the optimiser are those of the CPU."""

    def work(x, index):
        weight = torch.nn.Parameter(torch.full((3,), 0.5, device=x.device))
        optimiser = torch.optim.Adam([weight], lr=0.1, fused=True)
        rows = (x * weight).index_select(0, index)[1:]
        loss = torch.where(rows > 1, rows, 2.0).square().mean() + weight[2] * torch.tensor(3.0)
        loss.backward()
        optimiser.step()
        repeated = x.repeat_interleave(index, 0, output_size=6)
        repeated[1:3] = 1.0
        return weight.detach(), weight.grad, repeated

    index = torch.tensor([2, 0, 1, 3])
    expected = work(VALUES, index)
    with Card() as card:
        late = index.pin_memory().to(CARD, non_blocking=True)
        found = work(card.put(VALUES.clone()), late)
        assert not card.waits, card.report()
        assert all(isinstance(value, OnCard) and value.is_cuda for value in found)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a.values, b)


def test_kernels_are_counted_and_views_are_not():
    with Card() as card:
        x = card.put(VALUES.clone())
        (x[1:, None].transpose(0, 1) * 2).unflatten(-1, (3, 1)).detach().sum()
        assert card.kernels == {"mul": 1, "sum": 1}
