// Asks an agent with Node's own resolver (c-ares). The agent's DNS address is in DNS_ADDRESS.

"use strict";

const assert = require("node:assert/strict");
const test = require("node:test");
const { Resolver } = require("node:dns").promises;

const resolver = new Resolver({ timeout: 10_000, tries: 2 });
resolver.setServers([process.env.DNS_ADDRESS]);

const few = ["10.3.0.1", "10.3.0.2", "10.3.0.3"];
const many = Array.from({ length: 100 }, (_, at) => `10.4.0.${at + 1}`).sort();

test("addresses of few and of many", async () => {
  assert.deepEqual((await resolver.resolve4("few.service.consul")).sort(), few);
  // More than one packet tells: asked again over TCP.
  assert.deepEqual((await resolver.resolve4("many.service.consul")).sort(), many);
  assert.deepEqual(await resolver.resolve6("six.service.consul"), ["fd00::6"]);
});

test("locations of few and of many", async () => {
  const locations = await resolver.resolveSrv("_few._tcp.service.consul");
  assert.deepEqual(locations.map(({ port, priority }) => [port, priority]), [[80, 1], [80, 1], [80, 1]]);
  assert.deepEqual(locations.map(({ name }) => name).sort(), few.map((address) => `${hex(address)}.addr.dc1.consul`));
  const all = await resolver.resolveSrv("many.service.consul");
  assert.deepEqual(all.map(({ name }) => name).sort(), many.map((address) => `${hex(address)}.addr.dc1.consul`).sort());
  assert.deepEqual(await resolver.resolve4(locations[0].name), [few.find((it) => locations[0].name.startsWith(hex(it)))]);
});

test("text and the name of an address", async () => {
  assert.deepEqual(await resolver.resolveTxt("ext.node.consul"), [["rack=r1"]]);
  assert.deepEqual(await resolver.reverse("10.9.9.9"), ["ext.node.dc1.consul"]);
});

test("what is not there has its code", async () => {
  await assert.rejects(resolver.resolve4("nobody.service.consul"), { code: "ENOTFOUND" });
  await assert.rejects(resolver.resolve6("few.service.consul"), { code: "ENODATA" });
});

function hex(address) {
  return address.split(".").map((part) => Number(part).toString(16).padStart(2, "0")).join("");
}
