"""Writes the parts of forms: https://html.spec.whatwg.org/multipage/form-control-infrastructure.html. Pure."""


def field_part(boundary: str, name: str, value: str) -> bytes:
    """Returns a field of a form, with the line break at its end."""
    return _head(boundary, f'name="{_quoted(name)}"') + value.encode() + b"\r\n"


def file_part(boundary: str, name: str, filename: str, content_type: str) -> bytes:
    """Returns what stands before the content of a file; after it a line break must follow."""
    return _head(boundary, f'name="{_quoted(name)}"; filename="{_quoted(filename)}"', content_type)


def end(boundary: str) -> bytes:
    """Returns what ends a form."""
    return f"--{boundary}--\r\n".encode()


def _head(boundary: str, disposition: str, content_type: str = "") -> bytes:
    kind = f"Content-Type: {content_type}\r\n" if content_type else ""
    return f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n{kind}\r\n".encode()


def _quoted(text: str) -> str:
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
