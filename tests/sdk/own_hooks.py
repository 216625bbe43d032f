"""What the server's own document cannot say, for the API fuzzer."""

import itertools
import re

import schemathesis

NUMBERS = itertools.count()


@schemathesis.hook
def before_call(context, case, kwargs):
    """A request id belongs to one request: the fuzzer's favourite ones ("0") get a number each. Bad ids stay bad."""
    headers = case.headers or {}
    identifier = headers.get("x-request-id")
    if isinstance(identifier, str) and re.fullmatch("[!-~]{1,128}", identifier):
        headers["x-request-id"] = f"{identifier[:100]}.{next(NUMBERS)}"
