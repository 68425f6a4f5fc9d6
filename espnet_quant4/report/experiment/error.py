"""What the user can put right, as one exception."""


class ReportError(ValueError):
    """A report that cannot be made; names what is missing and the next step."""
