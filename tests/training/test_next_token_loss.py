"""The loss in parts is the loss, and so are its gradients."""

import pytest
import torch
from torch.nn import functional as F

from training import next_token_loss as module
from training.next_token_loss import next_token_loss


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_agrees_with_cross_entropy_of_all_logits_at_once(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS", rows)
    hidden = torch.randn(33, 12, requires_grad=True)
    head = torch.randn(50, 12, requires_grad=True)
    targets = torch.randint(50, (33,))
    loss = next_token_loss(hidden, head, targets)
    (3.0 * loss).backward()
    other_hidden, other_head = (t.detach().double().requires_grad_() for t in (hidden, head))
    expected = F.cross_entropy(F.linear(other_hidden, other_head), targets)
    (3.0 * expected).backward()
    torch.testing.assert_close(loss.double(), expected, atol=1e-6, rtol=1e-6)
    for mine, other in ((hidden.grad, other_hidden.grad), (head.grad, other_head.grad)):
        assert mine is not None
        torch.testing.assert_close(mine.double(), other, atol=1e-6, rtol=1e-5)
