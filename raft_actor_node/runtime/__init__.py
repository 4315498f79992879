"""The real process around the core: disk, network, clients, and the faults asked of them."""
