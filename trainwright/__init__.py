"""What every room stands on: words (`spec`), bytes that survive (`store`), tokens (`tokens`). Imports no torch."""

__version__ = "0.1.0"
