package compat

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// resolver is Go's own, which asks the agent at DNS_ADDRESS instead of those that /etc/resolv.conf names.
func resolver(t *testing.T) *net.Resolver {
	t.Helper()
	address := os.Getenv("DNS_ADDRESS")
	if address == "" {
		t.Fatal("DNS_ADDRESS is not set")
	}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}
}

func asking(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func numbered(format string, count int) []string {
	var all []string
	for number := 1; number <= count; number++ {
		all = append(all, fmt.Sprintf(format, number))
	}
	slices.Sort(all)
	return all
}

func same(t *testing.T, what string, got []string, err error, want []string) {
	t.Helper()
	must(t, err)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func TestResolverFindsAddressesOfFewAndOfMany(t *testing.T) {
	for service, want := range map[string][]string{
		"few.service.consul.":  numbered("10.3.0.%d", 3),
		"many.service.consul.": numbered("10.4.0.%d", 100),
		"six.service.consul.":  {"fd00::6"},
	} {
		got, err := resolver(t).LookupHost(asking(t), service)
		same(t, service, got, err, want)
	}
}

func TestResolverFindsLocationsOfFewAndOfMany(t *testing.T) {
	for service, count := range map[string]int{"few": 3, "many": 100} {
		name, found, err := resolver(t).LookupSRV(asking(t), service, "tcp", "service.consul.")
		must(t, err)
		equal(t, "name", name, "_"+service+"._tcp.service.consul.")
		equal(t, "locations of "+service, len(found), count)
		for _, location := range found {
			equal(t, "port", location.Port, 80)
			if !strings.HasSuffix(location.Target, ".addr.dc1.consul.") {
				t.Fatalf("target %s", location.Target)
			}
		}
	}
}

func TestResolverFindsTextAndNamesOfAddresses(t *testing.T) {
	text, err := resolver(t).LookupTXT(asking(t), "ext.node.consul.")
	same(t, "text", text, err, []string{"rack=r1"})
	names, err := resolver(t).LookupAddr(asking(t), "10.9.9.9")
	same(t, "names", names, err, []string{"ext.node.dc1.consul."})
}

func TestResolverIsToldWhatIsNotThere(t *testing.T) {
	_, err := resolver(t).LookupHost(asking(t), "nobody.service.consul.")
	var problem *net.DNSError
	if !asDNSError(err, &problem) || !problem.IsNotFound {
		t.Fatalf("got %v", err)
	}
}

func asDNSError(err error, problem **net.DNSError) bool {
	found, ok := err.(*net.DNSError)
	*problem = found
	return ok
}
