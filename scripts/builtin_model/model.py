"""Brook's network: the Llama architecture (RMSNorm, rotary positions, grouped KV heads, SwiGLU, tied embeddings) in PyTorch."""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Shape:
    """Every size of the network; all of them multiples of 32, for engines that quantize in blocks of 32."""

    vocab_size: int = 2048
    dim: int = 256
    layers: int = 6
    heads: int = 8
    kv_heads: int = 2
    ffn: int = 512
    context: int = 1024
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5

    @property
    def head_dim(self):
        return self.dim // self.heads

    def as_dict(self):
        return asdict(self)


class _RmsNorm(torch.autograd.Function):
    """y = x * rsqrt(mean(x^2) + eps) * w with a backward of few passes; x [..., dim] float, y in `dtype`."""

    @staticmethod
    def forward(ctx, x, weight, eps, dtype):
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True).add_(eps))
        unit = x * scale
        ctx.save_for_backward(unit, scale, weight)
        return (unit * weight).to(dtype)

    @staticmethod
    def backward(ctx, grad):
        unit, scale, weight = ctx.saved_tensors
        grad = grad.float()
        dim = grad.shape[-1]
        grad_weight = (grad * unit).reshape(-1, dim).sum(0)
        grad = grad * weight
        along = (grad * unit).mean(-1, keepdim=True)
        return grad.addcmul_(unit, along, value=-1).mul_(scale), grad_weight, None, None


class _SwiGlu(torch.autograd.Function):
    """silu(gate) * up from joined [..., 2 * ffn]; by hand, because the library's silu is slow in bfloat16."""

    @staticmethod
    def forward(ctx, joined):
        gate, up = joined.chunk(2, -1)
        gate, up = gate.contiguous(), up.contiguous()
        squash = torch.sigmoid(gate)
        ctx.save_for_backward(gate, up, squash)
        return (gate * squash).mul_(up)

    @staticmethod
    def backward(ctx, grad):
        gate, up, squash = ctx.saved_tensors
        active = gate * squash
        slope = (squash - active * squash).add_(active)
        return torch.cat((slope.mul_(up).mul_(grad), active.mul_(grad)), -1)


def rotary_tables(shape, device=None):
    """cos and sin, [context, head_dim / 2]."""
    half = shape.head_dim // 2
    rates = shape.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.outer(torch.arange(shape.context, dtype=torch.float64), rates)
    return angles.cos().float(), angles.sin().float()


def rotate(x, cos, sin):
    """Turns the halves of each head; x [batch, time, heads, head_dim], cos and sin [batch, time, 1, head_dim / 2]."""
    half = x.shape[-1] // 2
    low, high = x[..., :half], x[..., half:]
    return torch.cat((low * cos - high * sin, high * cos + low * sin), -1)


class Brook(torch.nn.Module):
    """Weights carry the names of the Hugging Face layout without its prefix; [out, in] as there."""

    def __init__(self, shape, seed=1):
        super().__init__()
        self.shape = shape
        self.multiply = F.linear  # (x, weight) -> x weight^T; evaluation puts a rounding one in its place
        s, kv_dim = shape, shape.kv_heads * shape.head_dim
        generator = torch.Generator().manual_seed(seed)
        depth = 0.1 * (2 * s.layers) ** -0.5  # the stream starts as the embedding, so that tokens can be told apart and copied

        def matrix(rows, columns, scale=1.0):
            return torch.nn.Parameter(torch.randn(rows, columns, generator=generator) * (scale * columns**-0.5))

        self.embed = torch.nn.Parameter(torch.randn(s.vocab_size, s.dim, generator=generator) * 0.1)
        self.norm = torch.nn.Parameter(torch.full((s.dim,), 0.25))
        self.layers = torch.nn.ModuleList()
        for _ in range(s.layers):
            layer = torch.nn.Module()
            layer.attn_norm = torch.nn.Parameter(torch.ones(s.dim))
            layer.mlp_norm = torch.nn.Parameter(torch.ones(s.dim))
            layer.q, layer.k, layer.v = matrix(s.dim, s.dim), matrix(kv_dim, s.dim), matrix(kv_dim, s.dim)
            layer.o = matrix(s.dim, s.dim, depth)
            layer.gate, layer.up = matrix(s.ffn, s.dim), matrix(s.ffn, s.dim)
            layer.down = matrix(s.dim, s.ffn, depth)
            self.layers.append(layer)
        cos, sin = rotary_tables(s)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def hidden(self, ids, positions, bias, dtype=torch.float32, cache=None):
        """Final hidden states [batch, time, dim].

        ids and positions [batch, time]; bias [batch, 1, time, keys] is added to the scores (0 or a large negative).
        With a cache (a list that this call fills and extends) the keys of earlier calls stand before the new ones.
        """
        s = self.shape
        batch, time = ids.shape
        groups = s.heads // s.kv_heads
        cos, sin = self.cos[positions].unsqueeze(2).to(dtype), self.sin[positions].unsqueeze(2).to(dtype)
        wide_bias = bias.to(dtype).repeat(1, 1, groups, 1)
        x = F.embedding(ids, self.embed)
        for index, layer in enumerate(self.layers):
            h = _RmsNorm.apply(x, layer.attn_norm, s.norm_eps, dtype)
            qkv = self.multiply(h, torch.cat((layer.q, layer.k, layer.v)).to(dtype)).view(batch, time, -1, s.head_dim)
            qk = rotate(qkv[:, :, : s.heads + s.kv_heads], cos, sin)
            q = qk[:, :, : s.heads].reshape(batch, time, s.kv_heads, groups, s.head_dim)
            q = q.permute(0, 2, 3, 1, 4).reshape(batch, s.kv_heads, groups * time, s.head_dim)
            k = qk[:, :, s.heads :].permute(0, 2, 3, 1)
            v = qkv[:, :, s.heads + s.kv_heads :].transpose(1, 2)
            if cache is not None:
                if index < len(cache):
                    k, v = torch.cat((cache[index][0], k), 3), torch.cat((cache[index][1], v), 2)
                    cache[index] = (k, v)
                else:
                    cache.append((k, v))
            scores = torch.matmul(q * s.head_dim**-0.5, k) + wide_bias
            mixed = torch.matmul(torch.softmax(scores, -1), v)
            mixed = mixed.view(batch, s.kv_heads, groups, time, s.head_dim).permute(0, 3, 1, 2, 4).reshape(batch, time, s.dim)
            x = x + self.multiply(mixed, layer.o.to(dtype))
            h = _RmsNorm.apply(x, layer.mlp_norm, s.norm_eps, dtype)
            joined = self.multiply(h, torch.cat((layer.gate, layer.up)).to(dtype))
            x = x + self.multiply(_SwiGlu.apply(joined), layer.down.to(dtype))
        return _RmsNorm.apply(x, self.norm, s.norm_eps, dtype)

    def logits(self, hidden):
        """[..., dim] -> [..., vocab_size], in float."""
        return self.multiply(hidden, self.embed.to(hidden.dtype)).float()

    def parameters_count(self):
        return sum(p.numel() for p in self.parameters())
