package compat

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

func set(t *testing.T, entry api.ConfigEntry) {
	t.Helper()
	done, _, err := client(t).ConfigEntries().Set(entry, nil)
	must(t, err)
	equal(t, "set", done, true)
	t.Cleanup(func() { _, _ = client(t).ConfigEntries().Delete(entry.GetKind(), entry.GetName(), nil) })
}

func TestConfigEntryOfEveryKindComesBackAsItWasSet(t *testing.T) {
	entries := client(t).ConfigEntries()
	set(t, &api.ProxyConfigEntry{Kind: api.ProxyDefaults, Name: api.ProxyConfigGlobal,
		Config: map[string]interface{}{"protocol": "http"}, MeshGateway: api.MeshGatewayConfig{Mode: api.MeshGatewayModeLocal}})
	set(t, &api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "cfg-web", Protocol: "http",
		Meta:           map[string]string{"team": "a"},
		UpstreamConfig: &api.UpstreamConfiguration{Overrides: []*api.UpstreamConfig{{Name: "cfg-db", ConnectTimeoutMs: 7}}}})
	set(t, &api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "cfg-web", DefaultSubset: "v1",
		ConnectTimeout: 15 * time.Second,
		Subsets:        map[string]api.ServiceResolverSubset{"v1": {Filter: "Service.Meta.v == 1"}, "v2": {OnlyPassing: true}}})
	set(t, &api.ServiceSplitterConfigEntry{Kind: api.ServiceSplitter, Name: "cfg-web",
		Splits: []api.ServiceSplit{{Weight: 99.5, ServiceSubset: "v1"}, {Weight: 0.5, ServiceSubset: "v2"}}})
	set(t, &api.ServiceRouterConfigEntry{Kind: api.ServiceRouter, Name: "cfg-web",
		Routes: []api.ServiceRoute{{
			Match:       &api.ServiceRouteMatch{HTTP: &api.ServiceRouteHTTPMatch{PathPrefix: "/x", Methods: []string{"get"}}},
			Destination: &api.ServiceRouteDestination{Service: "cfg-other", RequestTimeout: 3 * time.Second, NumRetries: 2},
		}}})
	set(t, &api.IngressGatewayConfigEntry{Kind: api.IngressGateway, Name: "cfg-gate",
		Listeners: []api.IngressListener{{Port: 8080, Protocol: "http", Services: []api.IngressService{{Name: "cfg-web"}}}}})
	set(t, &api.TerminatingGatewayConfigEntry{Kind: api.TerminatingGateway, Name: "cfg-out",
		Services: []api.LinkedService{{Name: "cfg-legacy", CAFile: "ca.pem", SNI: "x"}}})
	set(t, &api.MeshConfigEntry{TransparentProxy: api.TransparentProxyMeshConfig{MeshDestinationsOnly: true}})
	set(t, &api.ExportedServicesConfigEntry{Name: "default",
		Services: []api.ExportedService{{Name: "cfg-web", Consumers: []api.ServiceConsumer{{Peer: "dc2"}}}}})
	set(t, &api.APIGatewayConfigEntry{Kind: api.APIGateway, Name: "cfg-api",
		Listeners: []api.APIGatewayListener{{Name: "one", Port: 8443, Protocol: "http"}}})
	set(t, &api.HTTPRouteConfigEntry{Kind: api.HTTPRoute, Name: "cfg-route",
		Parents: []api.ResourceReference{{Kind: api.APIGateway, Name: "cfg-api"}},
		Rules: []api.HTTPRouteRule{{Services: []api.HTTPService{{Name: "cfg-web"}},
			Matches: []api.HTTPMatch{{Path: api.HTTPPathMatch{Match: api.HTTPPathMatchPrefix, Value: "/"}}}}}})
	set(t, &api.TCPRouteConfigEntry{Kind: api.TCPRoute, Name: "cfg-tcp", Services: []api.TCPService{{Name: "cfg-legacy"}}})
	set(t, &api.InlineCertificateConfigEntry{Kind: api.InlineCertificate, Name: "cfg-cert",
		Certificate: "-----BEGIN CERTIFICATE-----", PrivateKey: "-----BEGIN PRIVATE KEY-----"})
	set(t, &api.JWTProviderConfigEntry{Kind: api.JWTProvider, Name: "cfg-jwt", Issuer: "me",
		JSONWebKeySet: &api.JSONWebKeySet{Local: &api.LocalJWKS{Filename: "keys"}}})

	read, meta, err := entries.Get(api.ServiceRouter, "cfg-web", nil)
	must(t, err)
	route := read.(*api.ServiceRouterConfigEntry).Routes[0]
	equal(t, "method", route.Match.HTTP.Methods[0], "GET")
	equal(t, "timeout", route.Destination.RequestTimeout, 3*time.Second)
	equal(t, "retries", route.Destination.NumRetries, 2)
	if meta.LastIndex == 0 || read.GetCreateIndex() == 0 || read.GetModifyIndex() == 0 {
		t.Fatalf("indexes: %+v %+v", meta, read)
	}
	read, _, err = entries.Get(api.ServiceResolver, "cfg-web", nil)
	must(t, err)
	resolver := read.(*api.ServiceResolverConfigEntry)
	equal(t, "connect timeout", resolver.ConnectTimeout, 15*time.Second)
	equal(t, "filter", resolver.Subsets["v1"].Filter, "Service.Meta.v == 1")
	read, _, err = entries.Get(api.ServiceSplitter, "cfg-web", nil)
	must(t, err)
	equal(t, "weight", read.(*api.ServiceSplitterConfigEntry).Splits[0].Weight, 99.5)
	read, _, err = entries.Get(api.ProxyDefaults, "global", nil)
	must(t, err)
	equal(t, "protocol", read.(*api.ProxyConfigEntry).Config["protocol"].(string), "http")
	read, _, err = entries.Get(api.MeshConfig, "mesh", nil)
	must(t, err)
	equal(t, "mesh only", read.(*api.MeshConfigEntry).TransparentProxy.MeshDestinationsOnly, true)
	for _, kind := range []string{api.ServiceDefaults, api.ProxyDefaults, api.ServiceResolver, api.ServiceSplitter,
		api.ServiceRouter, api.IngressGateway, api.TerminatingGateway, api.MeshConfig, api.ExportedServices, api.APIGateway,
		api.HTTPRoute, api.TCPRoute, api.InlineCertificate, api.JWTProvider} {
		list, _, err := entries.List(kind, nil)
		must(t, err)
		equal(t, "entries of "+kind, len(list), 1)
	}

	linked, _, err := client(t).Catalog().GatewayServices("cfg-out", nil)
	must(t, err)
	if len(linked) != 1 || linked[0].Service.Name != "cfg-legacy" || linked[0].CAFile != "ca.pem" || linked[0].FromWildcard {
		t.Fatalf("linked: %+v", linked)
	}
	// What others rest on stays.
	_, err = entries.Delete(api.ServiceResolver, "cfg-web", nil)
	if err == nil || !strings.Contains(err.Error(), `does not have a subset named "v1"`) {
		t.Fatalf("a resolver that a splitter needs: %v", err)
	}
	for _, kind := range []string{api.ServiceRouter, api.ServiceSplitter, api.ServiceResolver, api.IngressGateway} {
		name := "cfg-web"
		if kind == api.IngressGateway {
			name = "cfg-gate"
		}
		_, err = entries.Delete(kind, name, nil)
		must(t, err)
	}
}

func TestConfigEntryIsSetAndDeletedAtAnIndex(t *testing.T) {
	entries := client(t).ConfigEntries()
	entry := &api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "cfg-cas", Protocol: "tcp"}
	set(t, entry)
	read, _, err := entries.Get(entry.Kind, entry.Name, nil)
	must(t, err)
	index := read.GetModifyIndex()
	entry.Protocol = "http"
	done, _, err := entries.CAS(entry, index+1, nil)
	must(t, err)
	equal(t, "set at a wrong index", done, false)
	done, _, err = entries.CAS(entry, index, nil)
	must(t, err)
	equal(t, "set at its index", done, true)
	done, _, err = entries.DeleteCAS(entry.Kind, entry.Name, index, nil)
	must(t, err)
	equal(t, "deleted at a wrong index", done, false)
	_, err = entries.Delete(entry.Kind, entry.Name, nil)
	must(t, err)
	_, _, err = entries.Get(entry.Kind, entry.Name, nil)
	if err == nil || !strings.Contains(err.Error(), `Config entry not found for "service-defaults" / "cfg-cas"`) {
		t.Fatalf("what is gone: %v", err)
	}
	_, _, err = entries.Set(&api.ServiceSplitterConfigEntry{Kind: api.ServiceSplitter, Name: "cfg-cas",
		Splits: []api.ServiceSplit{{Weight: 100}}}, nil)
	if err == nil || !strings.Contains(err.Error(), "does not permit advanced routing or splitting behavior") {
		t.Fatalf("a splitter of tcp: %v", err)
	}
}

func TestProxiesAreCompletedByConfigEntriesAndReadersWake(t *testing.T) {
	registration := &api.CatalogRegistration{Node: "cfg-node", Address: "192.0.2.77",
		Locality: &api.Locality{Region: "eu", Zone: "eu-1"},
		Service: &api.AgentService{Kind: api.ServiceKindConnectProxy, ID: "cfg-p", Service: "cfg-merged-proxy", Port: 20000,
			Proxy: &api.AgentServiceConnectProxyConfig{DestinationServiceName: "cfg-merged",
				Upstreams: []api.Upstream{{DestinationName: "cfg-db", LocalBindPort: 5000}}}}}
	_, err := client(t).Catalog().Register(registration, nil)
	must(t, err)
	t.Cleanup(func() {
		_, _ = client(t).Catalog().Deregister(&api.CatalogDeregistration{Node: "cfg-node"}, nil)
	})
	options := &api.QueryOptions{MergeCentralConfig: true}
	rows, meta, err := client(t).Health().Connect("cfg-merged", "", false, options)
	must(t, err)
	equal(t, "rows", len(rows), 1)
	equal(t, "zone", rows[0].Node.Locality.Zone, "eu-1")
	address := rows[0].Service.TaggedAddresses["consul-virtual"]
	if !strings.HasPrefix(address.Address, "240.0.0.") || address.Port != 20000 {
		t.Fatalf("virtual address: %+v", address)
	}
	woken := make(chan []*api.ServiceEntry, 1)
	failed := make(chan error, 1)
	go func() {
		wait := &api.QueryOptions{MergeCentralConfig: true, WaitIndex: meta.LastIndex, WaitTime: syncLimit}
		rows, after, err := client(t).Health().Connect("cfg-merged", "", false, wait)
		if err != nil || after.LastIndex <= meta.LastIndex {
			failed <- err
			return
		}
		woken <- rows
	}()
	set(t, &api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "cfg-merged", Protocol: "grpc", MaxInboundConnections: 9,
		UpstreamConfig: &api.UpstreamConfiguration{Defaults: &api.UpstreamConfig{ConnectTimeoutMs: 30}}})
	select {
	case err := <-failed:
		t.Fatalf("not woken: %v", err)
	case rows = <-woken:
	}
	proxy := rows[0].Service.Proxy
	equal(t, "protocol", proxy.Config["protocol"].(string), "grpc")
	equal(t, "limit", proxy.Config["max_inbound_connections"].(float64), 9)
	equal(t, "upstream's timeout", proxy.Upstreams[0].Config["connect_timeout_ms"].(float64), 30)
	plain, _, err := client(t).Health().Connect("cfg-merged", "", false, nil)
	must(t, err)
	equal(t, "settings that nobody asked to be merged", len(plain[0].Service.Proxy.Config), 0)
}
