"""The machine at hand: engine and device, memory, cores, signals."""
