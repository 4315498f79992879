"""The process around the core: disk, network, clients, and injected faults."""
