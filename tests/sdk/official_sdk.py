"""The official Python SDK, unmodified, against a server at RUNLOOP_BASE_URL with the token RUNLOOP_API_KEY."""

import asyncio

import runloop_api_client
from runloop_api_client import AsyncRunloop, Runloop


def refused(error, call, *arguments, **options):
    """The call raises this error of the SDK, which has the server's message."""
    try:
        call(*arguments, **options)
    except error as raised:
        assert raised.body["message"], raised.body
    else:
        raise AssertionError(f"{error.__name__} expected")


def one_secret(client):
    """Every operation on one secret, by name."""
    created = client.secrets.create(name="PYTHON", value="first")
    assert (created.name, created.create_time_ms) == ("PYTHON", created.update_time_ms)
    assert client.secrets.retrieve("PYTHON") == created
    updated = client.secrets.update("PYTHON", value="second")
    assert (updated.id, updated.update_time_ms >= created.update_time_ms) == (created.id, True)
    assert [secret.name for secret in client.secrets.list().secrets] == ["PYTHON"]
    assert client.secrets.delete("PYTHON").id == created.id
    refused(runloop_api_client.NotFoundError, client.secrets.retrieve, "PYTHON")


def one_secret_by_id(client):
    """Every operation on one secret, by id."""
    created = client.secrets.create(name="BY_ID", value="first")
    assert client.secrets.retrieve_by_id(created.id) == created
    assert client.secrets.update_by_id(created.id, value="second").id == created.id
    assert client.secrets.delete_by_id(created.id).id == created.id
    refused(runloop_api_client.NotFoundError, client.secrets.retrieve_by_id, created.id)


def errors(client):
    """Refusals arrive as the SDK's own errors, without retries that would hide them."""
    client.secrets.create(name="TAKEN", value="1")
    refused(runloop_api_client.BadRequestError, client.secrets.create, name="TAKEN", value="2")
    refused(runloop_api_client.BadRequestError, client.secrets.create, name="bad name", value="1")
    refused(runloop_api_client.BadRequestError, client.secrets.list, limit=0)
    stranger = client.with_options(bearer_token="not a token")
    refused(runloop_api_client.AuthenticationError, stranger.secrets.list)
    client.secrets.delete("TAKEN")


def devboxes(client):
    """A devbox with a binding is registered, found and shut down."""
    client.secrets.create(name="DATABASE_PASSWORD", value="s3cret")
    bindings = {"DB_PASS": "DATABASE_PASSWORD"}
    devbox = client.devboxes.create(name="box", secrets=bindings, metadata={"team": "ci"})
    assert (devbox.name, devbox.status, devbox.metadata) == ("box", "running", {"team": "ci"})
    assert devbox.model_extra["join_token"].startswith(devbox.id)
    assert client.devboxes.retrieve(devbox.id).name == "box"
    assert devbox.id in [listed.id for listed in client.devboxes.list()]
    assert client.devboxes.shutdown(devbox.id).status == "shutdown"
    client.secrets.delete("DATABASE_PASSWORD")


def thirty_in_a_row(client):
    """Thirty creations on one client, whatever becomes of its connections."""
    for number in range(30):
        client.secrets.create(name=f"ROW_{number:02}", value=str(number))


async def twenty_at_once():
    """Twenty creations at a time on one client."""
    async with AsyncRunloop() as client:
        creations = [client.secrets.create(name=f"AT_ONCE_{number:02}", value="v") for number in range(20)]
        await asyncio.gather(*creations)


def main():
    client = Runloop()
    one_secret(client)
    one_secret_by_id(client)
    errors(client)
    devboxes(client)
    thirty_in_a_row(client)
    asyncio.run(twenty_at_once())
    everything = client.secrets.list(limit=5000)
    assert (len(everything.secrets), everything.has_more, everything.total_count) == (50, False, 50)
    print("done")


main()
