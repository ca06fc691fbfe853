"""Published versions: parity, report, registry, promotion."""
