"""Sessions, locks and transactions by py-consul; the suite imports these."""

import base64
import unittest

import consul


class Sessions(unittest.TestCase):
    def setUp(self):
        self.consul = consul.Consul()

    def test_life_of_a_session(self):
        sessions = self.consul.session
        session = sessions.create("py", ttl=20, behavior="delete", lock_delay=0)
        index, info = sessions.info(session)
        self.assertEqual((info["Name"], info["TTL"], info["Behavior"], info["LockDelay"]), ("py", "20s", "delete", 0))
        self.assertGreater(int(index), 0)
        self.assertEqual(sessions.renew(session)["ID"], session)
        self.assertIn(session, [it["ID"] for it in sessions.list()[1]])
        self.assertIn(session, [it["ID"] for it in sessions.node(info["Node"])[1]])
        self.assertIs(self.consul.kv.put("py/ephemeral", "1", acquire=session), True)
        self.assertIs(sessions.destroy(session), True)
        self.assertIsNone(self.consul.kv.get("py/ephemeral")[1])
        self.assertIsNone(sessions.info(session)[1])
        with self.assertRaises(consul.NotFound):
            sessions.renew(session)

    def test_acquire_and_release(self):
        kv, sessions = self.consul.kv, self.consul.session
        one, two = (sessions.create(checks=[], lock_delay=0) for _ in range(2))
        self.assertIs(kv.put("py/lock", "1", acquire=one), True)
        self.assertIs(kv.put("py/lock", "2", acquire=two), False)
        self.assertIs(kv.put("py/lock", "3", release=two), False)
        self.assertIs(kv.put("py/lock", "4", release=one), True)
        self.assertIs(kv.put("py/lock", "5", acquire=two), True)
        _, held = kv.get("py/lock")
        self.assertEqual((held["Session"], held["LockIndex"], held["Value"]), (two, 2, b"5"))
        for session in (one, two):
            sessions.destroy(session)
        self.assertNotIn("Session", kv.get("py/lock")[1])
        kv.delete("py/lock")


class Transactions(unittest.TestCase):
    def setUp(self):
        self.consul = consul.Consul()

    def test_all_or_none(self):
        value = base64.b64encode(b"1").decode()
        done = self.consul.txn.put(
            [
                {"KV": {"Verb": "set", "Key": "py/txn", "Value": value}},
                {"KV": {"Verb": "get", "Key": "py/txn"}},
            ]
        )
        self.assertIsNone(done["Errors"])
        self.assertEqual([row["KV"]["Value"] for row in done["Results"]], [None, value])
        with self.assertRaises(consul.ConsulException) as refused:
            self.consul.txn.put(
                [
                    {"KV": {"Verb": "delete", "Key": "py/txn"}},
                    {"KV": {"Verb": "get", "Key": "py/txn-none"}},
                ]
            )
        self.assertIn("doesn't exist", str(refused.exception))
        self.assertEqual(self.consul.kv.get("py/txn")[1]["Value"], b"1")
        self.consul.kv.delete("py/txn")
