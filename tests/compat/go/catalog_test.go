package compat

import (
	"testing"

	"github.com/hashicorp/consul/api"
)

func TestCatalogRegisterAndDeregister(t *testing.T) {
	catalog, health := client(t).Catalog(), client(t).Health()
	registration := &api.CatalogRegistration{
		Node:     "go-ext",
		Address:  "192.0.2.40",
		NodeMeta: map[string]string{"rack": "7"},
		Service: &api.AgentService{ID: "db1", Service: "go-db", Tags: []string{"primary"}, Port: 5432,
			Meta: map[string]string{"v": "12"}},
		Check: &api.AgentCheck{Node: "go-ext", CheckID: "service:db1", Name: "db", Status: api.HealthPassing, ServiceID: "db1"},
	}
	_, err := catalog.Register(registration, nil)
	must(t, err)

	node, _, err := catalog.Node("go-ext", nil)
	must(t, err)
	equal(t, "address", node.Node.Address, "192.0.2.40")
	equal(t, "datacenter", node.Node.Datacenter, "dc1")
	equal(t, "port", node.Services["db1"].Port, 5432)
	list, _, err := catalog.NodeServiceList("go-ext", nil)
	must(t, err)
	equal(t, "services in the list", len(list.Services), 1)
	nodes, meta, err := catalog.Nodes(&api.QueryOptions{NodeMeta: map[string]string{"rack": "7"}})
	must(t, err)
	if len(nodes) != 1 || nodes[0].Node != "go-ext" || meta.LastIndex == 0 {
		t.Fatalf("nodes of rack 7: %v, %+v", nodes, meta)
	}
	services, _, err := catalog.Services(nil)
	must(t, err)
	if tags := services["go-db"]; len(tags) != 1 || tags[0] != "primary" {
		t.Fatalf("services: %v", services)
	}
	rows, _, err := catalog.Service("go-db", "primary", nil)
	must(t, err)
	if len(rows) != 1 || rows[0].ServicePort != 5432 || rows[0].Address != "192.0.2.40" || rows[0].ServiceMeta["v"] != "12" {
		t.Fatalf("instances: %+v", rows)
	}
	rows, _, err = catalog.Service("go-db", "replica", nil)
	must(t, err)
	equal(t, "instances with another tag", len(rows), 0)
	checks, _, err := health.Node("go-ext", nil)
	must(t, err)
	equal(t, "the node's health", checks.AggregatedStatus(), api.HealthPassing)

	// What is gone wakes who waits for it.
	gone := make(chan int, 1)
	_, before, err := health.Service("go-db", "", false, nil)
	must(t, err)
	go func() {
		entries, _, err := health.Service("go-db", "", false, &api.QueryOptions{WaitIndex: before.LastIndex, WaitTime: syncLimit})
		if err != nil {
			gone <- -1
			return
		}
		gone <- len(entries)
	}()
	_, err = catalog.Deregister(&api.CatalogDeregistration{Node: "go-ext", ServiceID: "db1"}, nil)
	must(t, err)
	equal(t, "instances that the watcher saw at last", <-gone, 0)
	_, err = catalog.Deregister(&api.CatalogDeregistration{Node: "go-ext"}, nil)
	must(t, err)
	node, _, err = catalog.Node("go-ext", nil)
	must(t, err)
	if node != nil {
		t.Fatalf("deregistered, and still there: %+v", node)
	}
}

func TestCatalogOfTheCluster(t *testing.T) {
	consul := client(t)
	datacenters, err := consul.Catalog().Datacenters()
	must(t, err)
	if len(datacenters) != 1 || datacenters[0] != "dc1" {
		t.Fatalf("datacenters: %v", datacenters)
	}
	peers, err := consul.Status().Peers()
	must(t, err)
	leader, err := consul.Status().Leader()
	must(t, err)
	found := false
	for _, peer := range peers {
		found = found || peer == leader
	}
	if !found || leader == "" {
		t.Fatalf("the leader %q is none of the peers %v", leader, peers)
	}
	rows, _, err := consul.Catalog().Service("consul", "", nil)
	must(t, err)
	equal(t, "servers in the catalog", len(rows), len(peers))
	entries, _, err := consul.Health().Service("consul", "", true, nil)
	must(t, err)
	equal(t, "healthy servers", len(entries), len(peers))
	checks, _, err := consul.Health().State(api.HealthAny, nil)
	must(t, err)
	alive := 0
	for _, check := range checks {
		if check.CheckID == "serfHealth" && check.Status == api.HealthPassing {
			alive++
		}
	}
	if alive < len(peers) {
		t.Fatalf("%d of %d nodes are alive", alive, len(peers))
	}
}
