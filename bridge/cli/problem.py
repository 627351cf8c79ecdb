"""What a user can put right."""


class Problem(Exception):  # noqa: N818 (it is the user's, and no error of the program)
    """A mistake or a circumstance that the user is told of in one line, without a traceback.

    Attributes:
        exit_code: The command's exit code.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
