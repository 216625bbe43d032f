"""What the server's own document cannot say, for the API fuzzer."""

import itertools
import re

import schemathesis

NUMBERS = itertools.count()


@schemathesis.hook
def before_call(context, case, kwargs):
    headers = case.headers or {}
    if tries_without_token(case):
        # The fuzzer's own `--header` has put the token back into the request that is to go without.
        headers.pop("Authorization", None)
    identifier = headers.get("x-request-id")
    if isinstance(identifier, str) and re.fullmatch("[!-~]{1,128}", identifier):
        # A request id belongs to one request: the fuzzer's favourite ones ("0") get a number each. Bad ids stay bad.
        headers["x-request-id"] = f"{identifier[:100]}.{next(NUMBERS)}"


def tries_without_token(case):
    data = getattr(getattr(case.meta, "phase", None), "data", None)
    missing = getattr(data, "scenario", None) == "missing_parameter"
    return missing and str(getattr(data, "parameter", "")).lower() == "authorization"
