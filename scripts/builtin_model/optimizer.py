"""Brook's optimizer: orthogonalized momentum (Muon) for the matrices inside the layers, Adam for embedding and norms."""

import torch


def _orthogonalize(stack):
    """Replaces each matrix of stack [n, rows <= columns, columns] by about the nearest one with equal singular values.

    Five rounds of an odd polynomial whose coefficients push every singular value towards one.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = (stack / (stack.flatten(1).norm(dim=1).view(-1, 1, 1) + 1e-7)).to(torch.bfloat16)
    for _ in range(5):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.float()


class Optimizer:
    """Holds all moments; `state` and `load` make a resumed run equal to an unbroken one."""

    def __init__(self, model, matrix_rate=0.02, other_rate=0.003, momentum=0.95, betas=(0.9, 0.98), weight_decay=0.01):
        self.matrix_rate, self.other_rate = matrix_rate, other_rate
        self.momentum, self.betas, self.weight_decay = momentum, betas, weight_decay
        named = list(model.named_parameters())
        self.matrices = [p for n, p in named if p.ndim == 2 and n != "embed"]
        self.others = [p for n, p in named if p.ndim != 2 or n == "embed"]
        self.velocity = [torch.zeros_like(p) for p in self.matrices]
        self.first = [torch.zeros_like(p) for p in self.others]
        self.second = [torch.zeros_like(p) for p in self.others]
        self.steps = 0
        self.groups = {}
        for index, p in enumerate(self.matrices):
            self.groups.setdefault((min(p.shape), max(p.shape)), []).append(index)

    @torch.no_grad()
    def step(self, factor):
        """Applies the gradients at `factor` times the full rates and clears them."""
        self.steps += 1
        for indexes in self.groups.values():
            updates = []
            for i in indexes:
                grad, velocity = self.matrices[i].grad, self.velocity[i]
                velocity.mul_(self.momentum).add_(grad, alpha=1 - self.momentum)
                update = grad.lerp(velocity, self.momentum)
                updates.append(update if update.shape[0] <= update.shape[1] else update.T)
            stack = _orthogonalize(torch.stack(updates))
            for i, update in zip(indexes, stack):
                p = self.matrices[i]
                update = update if p.shape[0] <= p.shape[1] else update.T
                rate = factor * self.matrix_rate
                p.mul_(1 - rate * self.weight_decay).add_(update, alpha=-rate * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)
        b1, b2 = self.betas
        for p, first, second in zip(self.others, self.first, self.second):
            first.mul_(b1).add_(p.grad, alpha=1 - b1)
            second.mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
            scale = (second / (1 - b2**self.steps)).sqrt_().add_(1e-10)
            p.addcdiv_(first, scale, value=-factor * self.other_rate / (1 - b1**self.steps))
        for p in self.matrices + self.others:
            p.grad = None

    def state(self):
        return {"velocity": self.velocity, "first": self.first, "second": self.second, "steps": self.steps}

    def load(self, state):
        for name in ("velocity", "first", "second"):
            for mine, saved in zip(getattr(self, name), state[name]):
                mine.copy_(saved)
        self.steps = state["steps"]
