"""What the processor or the accelerator computes by itself."""

import os
from typing import Any

import torch


def has_bf16(device: torch.device) -> bool:
    """Whether bf16 is computed by the hardware; where it is emulated it is very slow."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def devices_there(device: torch.device) -> tuple[int, str]:
    """How many devices of this kind the machine has, and what they are called; a processor's are its cores."""
    return (torch.cuda.device_count(), "GPUs") if device.type == "cuda" else (os.cpu_count() or 1, "processor cores")


def devices(wanted: Any, device: torch.device) -> list[int]:
    """Numbers of the devices that a Lightning Trainer's `devices` stands for: so many from 0 on, those of a list or of
    `0,2`, or auto, which is all GPUs and one process on a processor. Empty if it stands for nothing."""
    if wanted == "auto":
        return list(range(devices_there(device)[0] if device.type == "cuda" else 1))
    if isinstance(wanted, str):
        parts = [part.strip() for part in wanted.split(",")]
        if not all(part.isdecimal() for part in parts):
            return []
        wanted = int(parts[0]) if len(parts) == 1 else [int(part) for part in parts]
    if isinstance(wanted, list | tuple):
        fine = len(set(wanted)) == len(wanted) and all(type(each) is int and each >= 0 for each in wanted)
        return list(wanted) if fine else []
    return list(range(wanted)) if type(wanted) is int else []
