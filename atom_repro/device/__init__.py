"""The hardware: compute devices, memory and disk, calibrated limits, machine identity."""
