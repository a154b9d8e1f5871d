"""Asks an agent as programs do that know nothing of it: through the C library's own resolver.

Runs where /etc/resolv.conf names the agent, with a pod's search path and its five dots.
"""

import socket
import unittest

FEW = ["10.3.0.1", "10.3.0.2", "10.3.0.3"]
MANY = sorted(f"10.4.0.{number}" for number in range(1, 101))


def addresses(name, family):
    found = socket.getaddrinfo(name, 80, family, socket.SOCK_STREAM)
    return sorted(address[0] for *_, address in found)


class Names(unittest.TestCase):
    def test_addresses_of_few(self):
        self.assertEqual(addresses("few.service.consul", socket.AF_INET), FEW)
        self.assertEqual(addresses("few.service.consul", socket.AF_UNSPEC), FEW)

    def test_addresses_of_many_by_tcp(self):
        self.assertEqual(addresses("many.service.consul", socket.AF_INET), MANY)

    def test_addresses_of_the_other_family(self):
        self.assertEqual(addresses("six.service.consul", socket.AF_INET6), ["fd00::6"])

    def test_absolute_names(self):
        self.assertEqual(addresses("few.service.consul.", socket.AF_INET), FEW)

    def test_names_of_addresses(self):
        self.assertEqual(socket.gethostbyaddr("10.9.9.9")[0], "ext.node.dc1.consul")

    def test_names_that_are_not_there(self):
        with self.assertRaises(socket.gaierror) as raised:
            addresses("nobody.service.consul", socket.AF_INET)
        self.assertIn(raised.exception.errno, (socket.EAI_NONAME, socket.EAI_NODATA))


if __name__ == "__main__":
    unittest.main()
