"""How providers are paid: what they cost, what of it is left, and whether anything is."""
