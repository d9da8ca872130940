"""All ops, one file per family; importing this package declares them."""
