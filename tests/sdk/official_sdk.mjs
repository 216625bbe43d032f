// The official TypeScript SDK, unmodified, against a server at RUNLOOP_BASE_URL with the token RUNLOOP_API_KEY.

import assert from "node:assert/strict";

import { Runloop } from "@runloop/api-client";

/** The call is rejected with this status and the server's message. */
async function refused(status, call) {
  await assert.rejects(call, (error) => error.status === status && Boolean(error.message));
}

/** Every operation on one secret. */
async function oneSecret(client) {
  const created = await client.secrets.create({ name: "NODE", value: "first" });
  assert.equal(created.name, "NODE");
  assert.deepEqual(await client.secrets.retrieve("NODE"), created);
  const updated = await client.secrets.update("NODE", { value: "second" });
  assert.equal(updated.id, created.id);
  const { secrets } = await client.secrets.list();
  assert.deepEqual(secrets.map((secret) => secret.name), ["NODE"]);
  assert.equal((await client.secrets.delete("NODE", {})).id, created.id);
  await refused(404, () => client.secrets.retrieve("NODE"));
}

/** Refusals arrive as the SDK's own errors. */
async function errors(client) {
  await client.secrets.create({ name: "TAKEN", value: "1" });
  await refused(400, () => client.secrets.create({ name: "TAKEN", value: "2" }));
  await refused(400, () => client.secrets.list({ limit: 0 }));
  const stranger = new Runloop({ bearerToken: "not a token" });
  await refused(401, () => stranger.secrets.list());
  await client.secrets.delete("TAKEN", {});
}

/** A devbox with a binding is registered, found and shut down. */
async function devboxes(client) {
  await client.secrets.create({ name: "DATABASE_PASSWORD", value: "s3cret" });
  const secrets = { DB_PASS: "DATABASE_PASSWORD" };
  const devbox = await client.devboxes.create({ name: "box", secrets, metadata: { team: "ci" } });
  assert.equal(devbox.status, "running");
  assert.ok(devbox.join_token.startsWith(devbox.id));
  assert.equal((await client.devboxes.retrieve(devbox.id)).name, "box");
  assert.equal((await client.devboxes.shutdown(devbox.id)).status, "shutdown");
  await client.secrets.delete("DATABASE_PASSWORD", {});
}

/** Thirty creations one after the other, then twenty at once: the server may end connections, never lose a request. */
async function many(client) {
  const create = (name) => client.secrets.create({ name, value: "v" });
  for (let number = 0; number < 30; number++) {
    await create(`ROW_${number}`);
  }
  await Promise.all(Array.from({ length: 20 }, (_, number) => create(`AT_ONCE_${number}`)));
}

const client = new Runloop();
await oneSecret(client);
await errors(client);
await devboxes(client);
await many(client);
const everything = await client.secrets.list({ limit: 5000 });
assert.deepEqual([everything.secrets.length, everything.has_more, everything.total_count], [50, false, 50]);
console.log("done");
process.exit(0);
