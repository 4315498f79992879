"""Print the grammar of a `chaos:` value."""

from chaos.faults import grammar

print(grammar(), end="")
