"""What the processor or the accelerator computes by itself."""

import torch


def has_bf16(device: torch.device) -> bool:
    """Whether bf16 is computed by the hardware; where it is emulated it is very slow."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
