"""A build of mamba_ssm whose compiled scan is plain PyTorch."""

from __future__ import annotations

from pathlib import Path

EXTENSION = '''
"""In the place of a compiled scan: fwd(u, delta, A, B, C, D, z, delta_bias, delta_softplus{more})."""
import torch
def fwd(u, delta, A, B, C, D, z, delta_bias, delta_softplus{more}):
    assert z is None and delta_softplus is True
    assert (A.dtype, D.dtype, delta_bias.dtype) == (torch.float32,) * 3
    assert u.is_contiguous() and delta.is_contiguous() and B.is_contiguous() and C.is_contiguous()
    batch, channels, length = u.shape
    repeats = channels // B.shape[1]
    B, C = (t.repeat_interleave(repeats, dim=1) for t in (B, C))
    delta = torch.nn.functional.softplus(delta + delta_bias[:, None])
    h, ys = u.new_zeros(batch, channels, A.shape[1]), []
    for t in range(length):
        step = delta[:, :, t, None]
        h = torch.exp(step * A) * h + step * B[..., t] * u[:, :, t, None]
        ys.append((h * C[..., t]).sum(-1) + D * u[:, :, t])
    return torch.stack(ys, dim=-1), torch.stack((h, h), dim=-1).flatten(2)[:, :, None]
'''

INTERFACE = """
import torch
from einops import rearrange, repeat
from mamba_ssm.utils.torch import custom_fwd
import selective_scan_cuda

class SelectiveScanFn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False,
                return_last_state=False):
        out, x, *rest = selective_scan_cuda.fwd(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
        return out if not return_last_state else (out, x[:, :, -1, 1::2])

def selective_scan_fn(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False,
                      return_last_state=False):
    return SelectiveScanFn.apply(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state)
"""


def write_mamba(folder: Path, more: str = "") -> Path:
    """A folder as a build leaves it: the package, and the extension beside it."""
    for name in ("ops", "utils"):
        (folder / "mamba_ssm" / name).mkdir(parents=True)
        (folder / "mamba_ssm" / name / "__init__.py").write_text("")
    (folder / "mamba_ssm" / "__init__.py").write_text("raise ImportError('transformers has no such decoder')")
    (folder / "mamba_ssm" / "utils" / "torch.py").write_text("custom_fwd = lambda f: f\n")
    call = "selective_scan_cuda.fwd(u, delta, A, B, C, D, z, delta_bias, delta_softplus"
    interface = INTERFACE.replace(call, f"{call}{', None' if more else ''}")
    (folder / "mamba_ssm" / "ops" / "selective_scan_interface.py").write_text(interface)
    (folder / "selective_scan_cuda.py").write_text(EXTENSION.replace("{more}", more))
    return folder
