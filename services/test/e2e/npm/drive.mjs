// Drives a server by the client library android-sms-gateway, and prints as JSON what it saw. It fails at any surprise.
//
//   BASE_URL=http://127.0.0.1:8080/3rdparty/v1 LOGIN=ann PASSWORD=… node drive.mjs
//   … node drive.mjs state ID
//
// With the command state it only asks for the state of one message.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import Client, { HealthStatus, LimitPeriod, ProcessState, WebHookEventType } from "android-sms-gateway";

const base = process.env.BASE_URL, login = process.env.LOGIN, password = process.env.PASSWORD;
assert.ok(base && login && password, "BASE_URL, LOGIN and PASSWORD must be set");

// calls are the answers that came, in order.
const calls = [];

class HTTPError extends Error {
  constructor(status, body) {
    super(`HTTP ${status}: ${JSON.stringify(body)}`);
    this.status = status;
    this.body = body;
  }
}

// http is the client that the library leaves to its user. As later versions of the library do it reads JSON where the
// content type says so, and nothing of a 204.
const call = (method) => async (url, ...rest) => {
  const [body, headers] = method === "GET" || method === "DELETE" ? [undefined, rest[0]] : rest;
  const response = await fetch(url, { method, headers, body: body && JSON.stringify(body), redirect: "error" });
  const type = response.headers.get("content-type") ?? "";
  const read = response.status === 204 ? null : type.includes("application/json") ? await response.json() : await response.text();
  calls.push({ method, path: new URL(url).pathname.replace(new URL(base).pathname, ""), status: response.status, type });
  if (!response.ok) throw new HTTPError(response.status, read);
  return read;
};
const http = { get: call("GET"), post: call("POST"), put: call("PUT"), patch: call("PATCH"), delete: call("DELETE") };

const client = new Client(login, password, http, base);

// The library's own words for what it was given.
const isText = (value, what) => assert.equal(typeof value, "string", what);
const isTime = (value, what) => {
  isText(value, what);
  assert.match(value, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?Z$/, what);
};
const refuses = (status, promise) => assert.rejects(promise, (error) => {
  assert.equal(error.status, status, error.message);
  isText(error.body.message, "the error's message");
  return true;
});
const last = (status) => assert.equal(calls.at(-1).status, status);

function isState(message, id, state, numbers) {
  isText(message.id, "id");
  if (id) assert.equal(message.id, id);
  assert.ok(Object.values(ProcessState).includes(message.state), `state ${message.state}`);
  if (state) assert.equal(message.state, state);
  assert.ok(Array.isArray(message.recipients), "recipients");
  for (const recipient of message.recipients) {
    isText(recipient.phoneNumber, "phoneNumber");
    assert.ok(Object.values(ProcessState).includes(recipient.state), `state ${recipient.state}`);
    if (recipient.error != null) isText(recipient.error, "error");
  }
  if (numbers) assert.deepEqual(message.recipients.map((one) => one.phoneNumber), numbers);
}

async function messages() {
  const own = `npm-${Date.now()}`;
  const first = await client.send({ message: "secret-text-npm-1", phoneNumbers: ["+15550000001"] });
  isState(first, null, ProcessState.Pending, ["+15550000001"]);
  const accepted = calls.at(-1).status;
  const second = await client.send({
    id: own, message: "secret-text-npm-2", phoneNumbers: ["+15550000002", "+15550000003"],
    ttl: 3600, simNumber: 1, withDeliveryReport: false,
  });
  isState(second, own, ProcessState.Pending, ["+15550000002", "+15550000003"]);
  await refuses(409, client.send({ id: own, message: "secret-text-npm-2", phoneNumbers: ["+15550000002", "+15550000003"] }));
  const third = await client.send(
    { id: null, message: "secret-text-npm-3", phoneNumbers: ["15550000004"], ttl: null, simNumber: null, withDeliveryReport: null },
    { skipPhoneValidation: true },
  );
  isState(third, null, ProcessState.Pending, ["15550000004"]);
  for (const sent of [first, second, third]) {
    isState(await client.getState(sent.id), sent.id, ProcessState.Pending, sent.recipients.map((one) => one.phoneNumber));
  }
  await refuses(400, client.send({ message: "secret-text-npm-4", phoneNumbers: [] }));
  await refuses(400, client.send({ message: "", phoneNumbers: ["+15550000001"] }));
  await refuses(400, client.send({ message: "secret-text-npm-4", phoneNumbers: ["+15550000001", "+15550000001"] }));
  await refuses(404, client.getState("no-such-message"));
  return { accepted, first: first.id, second: second.id, third: third.id };
}

async function webhooks() {
  const before = await client.getWebhooks();
  assert.ok(Array.isArray(before));
  const given = { event: WebHookEventType.SmsReceived, url: "https://example.com/hooks/sms" };
  const made = await client.registerWebhook(given);
  last(201);
  isText(made.id, "the webhook's id");
  assert.deepEqual({ ...made }, { id: made.id, deviceId: null, ...given });
  const named = await client.registerWebhook({ id: "npm-hook", deviceId: null, event: WebHookEventType.SmsDelivered, url: given.url });
  assert.equal(named.id, "npm-hook");
  assert.deepEqual((await client.registerWebhook({ ...named, event: WebHookEventType.SmsFailed })).event, "sms:failed");
  assert.deepEqual((await client.getWebhooks()).length, before.length + 2);
  await refuses(400, client.registerWebhook({ event: "sms:eaten", url: given.url }));
  await refuses(400, client.registerWebhook({ event: WebHookEventType.SmsReceived, url: "http://example.com/" }));
  for (const id of [made.id, named.id, "no-such-webhook"]) {
    assert.equal(await client.deleteWebhook(id), null);
    last(204);
  }
  assert.deepEqual(await client.getWebhooks(), before);
  return { registered: 2 };
}

async function devices() {
  const all = await client.getDevices();
  assert.ok(Array.isArray(all));
  for (const one of all) {
    isText(one.id, "the device's id");
    isText(one.name, "the device's name");
    for (const time of ["createdAt", "updatedAt", "lastSeen"]) isTime(one[time], time);
    assert.equal(one.deletedAt ?? null, null);
  }
  assert.equal(await client.deleteDevice("no-such-device"), null);
  last(204);
  const leaves = all.find((one) => one.name === "npm-leaves");
  if (leaves) {
    assert.equal(await client.deleteDevice(leaves.id), null);
    assert.deepEqual((await client.getDevices()).map((one) => one.id), all.map((one) => one.id).filter((id) => id !== leaves.id));
  }
  return all.map((one) => one.name);
}

async function settings() {
  await client.updateSettings({});
  assert.deepEqual(await client.getSettings(), {});
  await client.updateSettings({ messages: { limitPeriod: LimitPeriod.PerHour, limitValue: 5 }, ping: { intervalSeconds: 60 } });
  await client.patchSettings({ messages: { limitValue: 6 }, webhooks: { internetRequired: true } });
  const stands = await client.getSettings();
  assert.deepEqual(stands, {
    messages: { limit_period: "PerHour", limit_value: 6 }, ping: { interval_seconds: 60 }, webhooks: { internet_required: true },
  });
  await refuses(400, client.patchSettings({ messages: { limitValue: "many" } }));
  await refuses(400, client.patchSettings({ encryption: { passphrase: "correct horse" } }));
  assert.deepEqual(await client.getSettings(), stands);
  await client.updateSettings({});
  return stands;
}

async function others() {
  const health = await client.getHealth();
  assert.ok([HealthStatus.Pass, HealthStatus.Warn].includes(health.status), `health ${health.status}`);
  isText(health.version, "the version");
  assert.ok(Number.isInteger(health.releaseId), "the release's id");
  for (const check of Object.values(health.checks)) {
    assert.ok(Object.values(HealthStatus).includes(check.status) && Number.isInteger(check.observedValue), JSON.stringify(check));
    isText(check.description, "the check's description");
    isText(check.observedUnit, "the check's unit");
  }
  await client.exportInbox({ deviceId: "any", since: new Date(0), until: new Date() });
  // What phones keep to themselves.
  await refuses(501, client.getLogs(new Date(0), new Date()));
  const stranger = new Client(login, password + "?", http, base);
  await refuses(401, stranger.getDevices());
  await refuses(401, stranger.send({ message: "secret-text-npm-4", phoneNumbers: ["+15550000001"] }));
  return health.status;
}

const version = JSON.parse(readFileSync(new URL("node_modules/android-sms-gateway/package.json", import.meta.url))).version;
const seen = { version };
if (process.argv[2] === "state") {
  seen.state = await client.getState(process.argv[3]);
  isState(seen.state, process.argv[3]);
} else {
  seen.messages = await messages();
  seen.webhooks = await webhooks();
  seen.devices = await devices();
  seen.settings = await settings();
  seen.health = await others();
}
console.log(JSON.stringify({ ...seen, calls }));
