// Drives an agent with Node's Consul client, as programs written for Consul do.
//
// The agent's address is in CONSUL_HTTP_ADDR.

"use strict";

const assert = require("node:assert/strict");
const test = require("node:test");
const Consul = require("consul");

const [host, port] = process.env.CONSUL_HTTP_ADDR.split(":");
const consul = new Consul({ host, port });

// An agent brings its services to the catalog by itself, this soon at the latest.
const SYNC_LIMIT_MILLIS = 15_000;

let names = 0;
const unused = (word) => `node-${word}-${process.pid}-${(names += 1)}`;

/** Asks with blocking queries until `look` is satisfied with an answer. */
async function eventually(what, ask, look) {
  const end = Date.now() + SYNC_LIMIT_MILLIS;
  let index = "0";
  for (;;) {
    const [answer, response] = await ask({ index, wait: "1s" });
    if (look(answer)) return answer;
    assert.ok(Date.now() < end, `${what}: not within ${SYNC_LIMIT_MILLIS} ms`);
    index = response.headers["x-consul-index"];
    assert.ok(Number(index) > 0, `${what}: an answer without an index`);
  }
}

/** As the client gives it, together with the response behind it. */
const withResponse = (of, verb, options) => async (more) => {
  let response;
  consul._ext("onResponse", (request, next) => {
    response = request.res;
    next();
  });
  try {
    return [await of[verb]({ ...options, ...more }), response];
  } finally {
    consul._exts.onResponse = [];
  }
};

async function register(service) {
  await consul.agent.service.register(service);
  return async () => consul.agent.service.deregister(service.id ?? service.name);
}

test("the agent tells who it is, its members and the leader", async () => {
  const self = await consul.agent.self();
  assert.equal(self.Config.Datacenter, "dc1");
  const members = await consul.agent.members();
  assert.ok(members.some((member) => member.Name === self.Config.NodeName && member.Status === 1));
  assert.match(await consul.status.leader(), /:8300$/);
  assert.ok((await consul.status.peers()).length > 0);
  assert.deepEqual(await consul.catalog.datacenters(), ["dc1"]);
});

test("a service is registered, found, put into maintenance and deregistered", async () => {
  const name = unused("web");
  const end = await register({
    name, id: `${name}-1`, address: "10.7.0.1", port: 80, tags: ["v1", "primary"], meta: { version: "1.2" },
  });
  const listed = (await consul.agent.service.list())[`${name}-1`];
  assert.deepEqual([listed.Service, listed.Tags, listed.Port], [name, ["v1", "primary"], 80]);
  const find = withResponse(consul.health, "service", { service: name });
  const rows = await eventually("the instance", find, (rows) => rows.length === 1);
  assert.deepEqual([rows[0].Service.Address, rows[0].Service.Meta.version], ["10.7.0.1", "1.2"]);
  assert.equal((await consul.catalog.service.nodes(name)).length, 1);
  assert.deepEqual((await consul.catalog.service.list())[name].sort(), ["primary", "v1"]);
  await consul.agent.service.maintenance({ id: `${name}-1`, enable: true, reason: "moving" });
  const passing = withResponse(consul.health, "service", { service: name, passing: true });
  await eventually("none that passes", passing, (rows) => rows.length === 0);
  await consul.agent.service.maintenance({ id: `${name}-1`, enable: false });
  await eventually("one that passes", passing, (rows) => rows.length === 1);
  await end();
  await eventually("no instance", find, (rows) => rows.length === 0);
});

test("a TTL check passes, warns and fails, with what it says", async () => {
  const name = unused("ttl");
  const end = await register({ name, check: { ttl: "10m", status: "passing" } });
  const id = `service:${name}`;
  const find = withResponse(consul.health, "checks", { service: name });
  await eventually("passing", find, (checks) => checks[0]?.Status === "passing");
  for (const [verb, status] of [["warn", "warning"], ["fail", "critical"], ["pass", "passing"]]) {
    await consul.agent.check[verb]({ id, note: `now ${status}` });
    const held = (await consul.agent.check.list())[id];
    assert.deepEqual([held.Status, held.Output], [status, `now ${status}`]);
    await eventually(status, find, (checks) => checks[0]?.Status === status);
    const state = await consul.health.state(status);
    assert.ok(state.some((check) => check.CheckID === id));
  }
  await end();
});

test("checks of the agent's own come and go", async () => {
  const name = unused("check");
  await consul.agent.check.register({ name, id: name, ttl: "10m", notes: "by Node" });
  const held = (await consul.agent.check.list())[name];
  assert.deepEqual([held.Status, held.Notes], ["critical", "by Node"]);
  await consul.agent.check.deregister(name);
  assert.equal((await consul.agent.check.list())[name], undefined);
  await assert.rejects(consul.agent.check.pass(name), (error) => error.response.statusCode === 404);
});

test("the node's maintenance comes and goes", async () => {
  const isThere = async () => Object.hasOwn(await consul.agent.check.list(), "_node_maintenance");
  await consul.agent.maintenance({ enable: true, reason: "by Node" });
  assert.ok(await isThere());
  await consul.agent.maintenance(false);
  assert.ok(!(await isThere()));
});

test("a watch tells of instances as they come and go", async () => {
  const name = unused("watched");
  const seen = [];
  const watch = consul.watch({
    method: consul.health.service, options: { service: name, wait: "2s" }, backoffFactor: 100,
  });
  const until = (count) => new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`not ${count}: ${seen}`)), SYNC_LIMIT_MILLIS);
    const look = (rows) => {
      seen.push(rows.length);
      if (rows.length !== count) return;
      clearTimeout(timer);
      watch.removeListener("change", look);
      resolve();
    };
    watch.on("change", look);
  });
  try {
    await until(0);
    const came = until(2);
    const ends = [];
    for (const number of [1, 2]) {
      ends.push(await register({ name, id: `${name}-${number}`, port: number }));
    }
    await came;
    const gone = until(0);
    for (const end of ends) await end();
    await gone;
  } finally {
    watch.end();
  }
});

test("keys are set, listed, compared and deleted", async () => {
  const prefix = unused("keys");
  assert.equal(await consul.kv.get(`${prefix}/a`), undefined);
  assert.equal(await consul.kv.set(`${prefix}/a`, "one"), true);
  assert.equal(await consul.kv.set(`${prefix}/b`, "two"), true);
  const one = await consul.kv.get(`${prefix}/a`);
  assert.deepEqual([one.Value, one.Flags], ["one", 0]);
  assert.deepEqual(await consul.kv.keys(`${prefix}/`), [`${prefix}/a`, `${prefix}/b`]);
  // This client gives a false answer as undefined.
  assert.ok(!(await consul.kv.set({ key: `${prefix}/a`, value: "three", cas: "0" })));
  assert.equal(await consul.kv.set({ key: `${prefix}/a`, value: "three", cas: `${one.ModifyIndex}` }), true);
  assert.equal(await consul.kv.del({ key: `${prefix}/`, recurse: true }), true);
  assert.equal(await consul.kv.get(`${prefix}/b`), undefined);
});

test("a session holds a lock until it is destroyed", async () => {
  const key = unused("lock");
  const [one, two] = [await consul.session.create({ ttl: "60s" }), await consul.session.create({ ttl: "60s" })];
  assert.equal(await consul.kv.set({ key, value: "1", acquire: one.ID }), true);
  assert.ok(!(await consul.kv.set({ key, value: "2", acquire: two.ID })));
  assert.equal((await consul.session.renew(one.ID))[0].ID, one.ID);
  assert.equal(await consul.kv.set({ key, value: "1", release: one.ID }), true);
  assert.equal(await consul.kv.set({ key, value: "2", acquire: two.ID }), true);
  for (const session of [one, two]) await consul.session.destroy(session.ID);
  assert.equal((await consul.kv.get(key)).Session, undefined);
});

test("a prepared query finds its service", async () => {
  const name = unused("queried");
  const end = await register({ name, port: 81 });
  await eventually("it", withResponse(consul.health, "service", { service: name }), (rows) => rows.length === 1);
  const query = await consul.query.create({ name: `${name}-query`, service: { service: name } });
  const found = await consul.query.execute(`${name}-query`);
  assert.deepEqual([found.Service, found.Nodes.length], [name, 1]);
  assert.equal((await consul.query.get(query.ID)).Name, `${name}-query`);
  await consul.query.destroy(query.ID);
  await end();
});

test("an event is fired and listed", async () => {
  const name = unused("event");
  const fired = await consul.event.fire({ name, payload: "by Node" });
  assert.equal(fired.Name, name);
  const end = Date.now() + SYNC_LIMIT_MILLIS;
  let heard = [];
  while (heard.length === 0) {
    assert.ok(Date.now() < end, "the event was not heard of");
    heard = await consul.event.list(name);
  }
  assert.equal(heard[0].Payload, "by Node");
});

test("what is wrong is told as the client expects it", async () => {
  const status = (code) => (error) => error.response.statusCode === code;
  await assert.rejects(consul.agent.service.deregister("nobody"), status(404));
  await assert.rejects(consul.agent.service.register({ name: "x", check: { ttl: "soon" } }), status(400));
  await assert.rejects(consul.query.execute("nobody"), status(404));
});
