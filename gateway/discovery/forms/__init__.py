"""How providers list their models, a file a wire form. Pure: bytes in, models out."""
