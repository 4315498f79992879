"""Load on a cluster: generators, what they record, and the arrays that result."""
