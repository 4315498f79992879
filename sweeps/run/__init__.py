"""A run under way: cells one after the other, each phase by phase."""
