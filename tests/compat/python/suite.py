"""Drives an agent with py-consul, as any Python program written for Consul would.

The agent's address comes from CONSUL_HTTP_ADDR, which the client reads by itself.
"""

import threading
import time
import unittest

import consul
import consul.exceptions
from consul import Check
from locks import Sessions, Transactions  # noqa: F401 the tests in there are run from here

# An agent brings its services to the catalog by itself, this soon at the latest.
SYNC_LIMIT = 15


class Case(unittest.TestCase):
    def setUp(self):
        self.consul = consul.Consul()

    def eventually(self, look, satisfied):
        """Asks with blocking queries until the answer satisfies; returns it."""
        end = time.monotonic() + SYNC_LIMIT
        index = None
        while True:
            index, data = look(index)
            if satisfied(data):
                return data
            self.assertLess(time.monotonic(), end, f"the last answer was {data}")


class KV(Case):
    def test_put_get_delete(self):
        kv = self.consul.kv
        index, value = kv.get("py/absent")
        self.assertIsNone(value)
        self.assertGreater(int(index), 0)
        self.assertIs(kv.put("py/a", b"\x00\xff", flags=7), True)
        _, value = kv.get("py/a")
        self.assertEqual((value["Value"], value["Flags"], value["Key"]), (b"\x00\xff", 7, "py/a"))
        self.assertIs(kv.put("py/none", None), True)
        _, value = kv.get("py/none")
        self.assertIsNone(value["Value"])
        self.assertIs(kv.delete("py/a"), True)
        self.assertIsNone(kv.get("py/a")[1])

    def test_check_and_set(self):
        kv = self.consul.kv
        self.assertIs(kv.put("py/cas", "1", cas=0), True)
        self.assertIs(kv.put("py/cas", "2", cas=0), False)
        _, value = kv.get("py/cas")
        self.assertIs(kv.put("py/cas", "3", cas=value["ModifyIndex"]), True)
        self.assertIs(kv.put("py/cas", "4", cas=value["ModifyIndex"]), False)
        self.assertIs(kv.delete("py/cas", cas=value["ModifyIndex"]), False)
        _, value = kv.get("py/cas", consistency="consistent")
        self.assertEqual(value["Value"], b"3")
        self.assertIs(kv.delete("py/cas", cas=value["ModifyIndex"]), True)

    def test_trees(self):
        kv = self.consul.kv
        for key in ("py/tree/a", "py/tree/b/c", "py/tree/b/d"):
            kv.put(key, key)
        _, rows = kv.get("py/tree/", recurse=True)
        self.assertEqual([row["Key"] for row in rows], ["py/tree/a", "py/tree/b/c", "py/tree/b/d"])
        self.assertEqual(rows[0]["Value"], b"py/tree/a")
        _, keys = kv.get("py/tree/", keys=True, separator="/")
        self.assertEqual(keys, ["py/tree/a", "py/tree/b/"])
        self.assertIs(kv.delete("py/tree", recurse=True), True)
        self.assertIsNone(kv.get("py/tree", keys=True)[1])

    def test_blocking_query(self):
        kv = self.consul.kv
        kv.put("py/watched", "1")
        index, _ = kv.get("py/watched")
        begin = time.monotonic()
        same, _ = kv.get("py/watched", index=index, wait="200ms")
        self.assertGreaterEqual(time.monotonic() - begin, 0.2)
        self.assertEqual(same, index)
        seen = []
        watcher = threading.Thread(
            target=lambda: seen.append(consul.Consul().kv.get("py/watched", index=index, wait=f"{SYNC_LIMIT}s"))
        )
        watcher.start()
        kv.put("py/watched", "2")
        watcher.join()
        later, value = seen[0]
        self.assertEqual(value["Value"], b"2")
        self.assertGreater(int(later), int(index))

    def test_what_is_refused(self):
        with self.assertRaises(consul.ConsulException):
            self.consul.kv.get("py/a", dc="nowhere")
        with self.assertRaises(consul.exceptions.BadRequest):
            self.consul.kv.get("")


class Catalog(Case):
    def test_register_and_deregister(self):
        catalog, health = self.consul.catalog, self.consul.health
        service = {"Service": "py-db", "ID": "db1", "Tags": ["primary"], "Port": 5432}
        check = {"Node": "py-ext", "CheckID": "service:db1", "Name": "db", "Status": "passing", "ServiceID": "db1"}
        self.assertIs(catalog.register("py-ext", "192.0.2.70", service=service, check=check), True)
        _, nodes = catalog.nodes()
        self.assertIn("py-ext", [node["Node"] for node in nodes])
        _, services = catalog.services()
        self.assertEqual(services["py-db"], ["primary"])
        _, rows = catalog.service("py-db", tag="primary")
        self.assertEqual([(row["Node"], row["ServicePort"], row["Datacenter"]) for row in rows], [("py-ext", 5432, "dc1")])
        _, node = catalog.node("py-ext")
        self.assertEqual(node["Services"]["db1"]["Tags"], ["primary"])
        _, entries = health.service("py-db", passing=True)
        self.assertEqual([entry["Service"]["ID"] for entry in entries], ["db1"])
        _, checks = health.checks("py-db")
        self.assertEqual([check["CheckID"] for check in checks], ["service:db1"])
        _, checks = health.node("py-ext")
        self.assertEqual(len(checks), 1)
        self.assertIs(catalog.deregister("py-ext", check_id="service:db1"), True)
        self.assertEqual(health.node("py-ext")[1], [])
        self.assertIs(catalog.deregister("py-ext", service_id="db1"), True)
        self.assertEqual(catalog.service("py-db")[1], [])
        self.assertIs(catalog.deregister("py-ext"), True)
        self.assertIsNone(catalog.node("py-ext")[1])

    def test_the_cluster(self):
        self.assertEqual(self.consul.catalog.datacenters(), ["dc1"])
        leader, peers = self.consul.status.leader(), self.consul.status.peers()
        self.assertIn(leader, peers)
        _, rows = self.consul.catalog.service("consul")
        self.assertEqual(len(rows), len(peers))
        _, checks = self.consul.health.state("any")
        alive = [it for it in checks if it["CheckID"] == "serfHealth" and it["Status"] == "passing"]
        self.assertGreaterEqual(len(alive), len(peers))


class Agent(Case):
    def test_itself(self):
        own = self.consul.agent.self()
        self.assertEqual(own["Config"]["Datacenter"], "dc1")
        members = {member["Name"]: member for member in self.consul.agent.members()}
        self.assertEqual(members[own["Config"]["NodeName"]]["Status"], 1)

    def test_service_with_ttl_check(self):
        agent, health = self.consul.agent, self.consul.health
        done = agent.service.register(
            "py-web", service_id="py-web-1", address="192.0.2.80", port=8080, tags=["blue"], check=Check.ttl("1m"),
            meta={"team": "a"}, weights={"Passing": 3, "Warning": 1},
        )
        self.assertIs(done, True)
        held = agent.services()["py-web-1"]
        self.assertEqual((held["Service"], held["Port"], held["Meta"]), ("py-web", 8080, {"team": "a"}))
        self.assertEqual(agent.checks()["service:py-web-1"]["Status"], "critical")
        for report, status in (
            (agent.check.ttl_pass, "passing"), (agent.check.ttl_warn, "warning"), (agent.check.ttl_fail, "critical"),
        ):
            self.assertIs(report("service:py-web-1", notes=f"now {status}"), True)
            checks = self.eventually(
                lambda index: health.checks("py-web", index=index, wait="1s"),
                lambda checks, status=status: [check["Status"] for check in checks] == [status],
            )
            self.assertEqual(checks[0]["Output"], f"now {status}")
            _, entries = health.service("py-web", tag="blue", passing=True)
            self.assertEqual(len(entries), int(status == "passing"))
        self.assertIs(agent.service.deregister("py-web-1"), True)
        self.eventually(
            lambda index: self.consul.catalog.service("py-web", index=index, wait="1s"), lambda rows: rows == []
        )

    def test_check_of_the_node(self):
        agent = self.consul.agent
        self.assertIs(agent.check.register("py memory", check=Check.ttl("10m"), check_id="py-memory", notes="of it"), True)
        self.assertEqual(agent.checks()["py-memory"]["Name"], "py memory")
        self.assertIs(agent.check.ttl_pass("py-memory"), True)
        self.assertEqual(agent.checks()["py-memory"]["Status"], "passing")
        self.assertIs(agent.check.deregister("py-memory"), True)
        self.assertNotIn("py-memory", agent.checks())

    def test_what_is_refused(self):
        with self.assertRaises(consul.exceptions.BadRequest):
            self.consul.agent.service.register("")
        with self.assertRaises(consul.exceptions.BadRequest):
            self.consul.agent.service.register("py-x", check={"ttl": "1m", "http": "http://192.0.2.1/", "interval": "1m"})
        self.assertNotIn("py-x", self.consul.agent.services())


class Connect(Case):
    def test_roots_and_leaf(self):
        roots = self.consul.connect.ca.roots()
        self.assertIn("BEGIN CERTIFICATE", roots["Roots"][0]["RootCert"])
        self.assertEqual(self.consul.agent.connect.ca.roots()["ActiveRootID"], roots["ActiveRootID"])
        leaf = self.consul.agent.connect.ca.leaf("py-leaf")
        self.assertEqual(leaf["ServiceURI"], f"spiffe://{roots['TrustDomain']}/ns/default/dc/dc1/svc/py-leaf")
        self.assertIn("PRIVATE KEY", leaf["PrivateKeyPEM"])

    def test_intentions(self):
        intentions = self.consul.connect.intentions
        self.assertIs(intentions.upsert("py-a", "py-b", action="allow", description="friends"), True)
        self.assertIs(intentions.upsert("*", "py-b", action="deny"), True)
        self.assertEqual(intentions.read("py-a", "py-b")["Description"], "friends")
        self.assertEqual(len(intentions.list()), 2)
        matched = intentions.match("destination", "py-b")["py-b"]
        self.assertEqual([it["SourceName"] for it in matched], ["py-a", "*"])
        self.assertIs(intentions.check("py-a", "py-b"), True)
        self.assertIs(intentions.check("py-z", "py-b"), False)
        self.assertIs(intentions.delete("py-a", "py-b"), True)
        self.assertIs(intentions.check("py-a", "py-b"), False)
        self.assertIs(intentions.delete("*", "py-b"), True)
        self.assertIsNone(intentions.read("py-a", "py-b"))

    def test_service_intentions(self):
        config = self.consul.config
        sources = [{"Name": "py-a", "Action": "allow"}, {"Name": "*", "Action": "deny"}]
        self.assertIs(config.set("service-intentions", "py-config", {"Sources": sources}), True)
        entry = config.get("service-intentions", "py-config")
        self.assertEqual([(it["Name"], it["Action"]) for it in entry["Sources"]], [("py-a", "allow"), ("*", "deny")])
        self.assertEqual(len(config.list("service-intentions")), 1)
        self.assertIs(config.set("service-intentions", "py-config", {"Sources": sources[:1]}, cas=1), False)
        self.assertIs(config.delete("service-intentions", "py-config"), True)
        self.assertIsNone(config.get("service-intentions", "py-config"))


if __name__ == "__main__":
    unittest.main()
