"""What the seed's document leaves out, for the API fuzzer: each addition with its reason.

The seed promises the paths, fields and statuses; it is silent on what the server decides beyond that (ARCHITECTURE.md).
The server's own /openapi.json says all of this itself and is fuzzed without these additions.
"""

import schemathesis

SECRETS = "/v1/secrets"
SECRET = "/v1/secrets/{name}"
DELETE = "/v1/secrets/{name}/delete"

STATUSES = [
    (SECRETS, "get", "400", "a limit that is no positive integer is refused, not guessed at"),
    (SECRET, "get", "401", "authentication is needed everywhere; the seed lists it on every other operation"),
    (DELETE, "post", "400", "a body that is no empty object is refused"),
]
BODIES = [(SECRETS, "post"), (SECRET, "post"), (DELETE, "post")]
BODY_STATUSES = [("413", "a body over 1 MiB"), ("415", "a body that is not declared as JSON")]

# "Must be a valid environment variable name", says the seed's description; its schema takes any string.
NAME = {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$", "maxLength": 255}
# No NUL, and short enough for one environment variable (Linux MAX_ARG_STRLEN) under the shortest name.
VALUE = {"pattern": "^[^\\u0000]*$", "maxLength": 131_069}


@schemathesis.hook
def before_load_schema(context, raw_schema):
    paths = raw_schema["paths"]
    for path, method, status, reason in STATUSES:
        paths[path][method]["responses"][status] = {"description": reason}
    for path, method in BODIES:
        # A body is needed wherever it has required fields; the seed says `required: false` everywhere.
        paths[path][method]["requestBody"]["required"] = path != DELETE
        for status, reason in BODY_STATUSES:
            paths[path][method]["responses"][status] = {"description": reason}
    for schema in ("SecretCreateParameters", "SecretUpdateParameters"):
        properties = raw_schema["components"]["schemas"][schema]["properties"]
        properties["value"].update(VALUE)
        if "name" in properties:
            properties["name"].update(NAME)
    for parameter in paths[SECRETS]["get"]["parameters"]:
        # More than 5000 is served as 5000, however much more it is.
        parameter["schema"] = {"type": "integer", "minimum": 1}
