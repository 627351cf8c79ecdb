"""Routing: which targets may answer a request, and in which order they are tried. Pure: no I/O, and the clock is passed in."""
