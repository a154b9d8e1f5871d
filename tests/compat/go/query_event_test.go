package compat

import (
	"context"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/consul/api/watch"
)

func register(t *testing.T, id, node string, port int, status string, tags ...string) {
	t.Helper()
	_, err := client(t).Catalog().Register(&api.CatalogRegistration{
		Node: node, Address: "192.0.2.50",
		Service: &api.AgentService{ID: id, Service: "go-geo", Tags: tags, Port: port},
		Check:   &api.AgentCheck{Node: node, CheckID: "service:" + id, Name: id, Status: status, ServiceID: id},
	}, nil)
	must(t, err)
}

func TestPreparedQuery(t *testing.T) {
	queries := client(t).PreparedQuery()
	register(t, "geo1", "go-geo-a", 1001, api.HealthPassing, "v1")
	register(t, "geo2", "go-geo-b", 1002, api.HealthPassing, "v2")
	register(t, "geo3", "go-geo-c", 1003, api.HealthCritical, "v1")
	defer func() {
		for _, node := range []string{"go-geo-a", "go-geo-b", "go-geo-c"} {
			_, err := client(t).Catalog().Deregister(&api.CatalogDeregistration{Node: node}, nil)
			must(t, err)
		}
	}()
	definition := &api.PreparedQueryDefinition{
		Name:    "go-query",
		Service: api.ServiceQuery{Service: "go-geo", Failover: api.QueryFailoverOptions{Datacenters: []string{"nowhere"}}},
		DNS:     api.QueryDNSOptions{TTL: "17s"},
	}
	id, _, err := queries.Create(definition, nil)
	must(t, err)
	list, _, err := queries.Get(id, nil)
	must(t, err)
	if len(list) != 1 || list[0].Name != "go-query" || list[0].Service.Failover.Datacenters[0] != "nowhere" {
		t.Fatalf("the query: %+v", list)
	}
	executed, _, err := queries.Execute("GO-query", nil)
	must(t, err)
	if len(executed.Nodes) != 2 || executed.Service != "go-geo" || executed.DNS.TTL != "17s" || executed.Datacenter != "dc1" {
		t.Fatalf("what it finds: %+v", executed)
	}
	executed, _, err = queries.Execute(id, &api.QueryOptions{Near: "go-geo-b"})
	must(t, err)
	equal(t, "the nearest", executed.Nodes[0].Service.ID, "geo2")

	// DNS gives the same, with the TTL of the query.
	host, _, err := net.SplitHostPort(os.Getenv("CONSUL_HTTP_ADDR"))
	must(t, err)
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(host, "8600"))
	}}
	ctx, cancel := context.WithTimeout(context.Background(), syncLimit)
	defer cancel()
	for _, name := range []string{"go-query.query.consul.", "_go-query._tcp.query.dc1.consul."} {
		_, records, err := resolver.LookupSRV(ctx, "", "", name)
		must(t, err)
		equal(t, "records of "+name, len(records), 2)
	}
	_, err = resolver.LookupHost(ctx, "nobody.query.consul.")
	if err == nil || !strings.Contains(err.Error(), "no such host") {
		t.Fatalf("a name of no query: %v", err)
	}

	definition.ID = id
	definition.Service.Tags = []string{"v2", "!v1"}
	definition.Service.OnlyPassing = true
	_, err = queries.Update(definition, nil)
	must(t, err)
	executed, _, err = queries.Execute("go-query", nil)
	must(t, err)
	if len(executed.Nodes) != 1 || executed.Nodes[0].Service.ID != "geo2" {
		t.Fatalf("what it finds by tags: %+v", executed.Nodes)
	}
	_, err = queries.Delete(id, nil)
	must(t, err)
	_, _, err = queries.Execute("go-query", nil)
	if err == nil || !strings.Contains(err.Error(), "404") || !strings.Contains(err.Error(), "Query not found") {
		t.Fatalf("a deleted query: %v", err)
	}
}

func TestPreparedQueryTemplate(t *testing.T) {
	queries := client(t).PreparedQuery()
	id, _, err := queries.Create(&api.PreparedQueryDefinition{
		Name:     "go-tpl-",
		Template: api.QueryTemplate{Type: "name_prefix_match", Regexp: "^go-tpl-(.+)-([^-]+)$"},
		Service:  api.ServiceQuery{Service: "${match(1)}", Tags: []string{"${match(2)}"}},
	}, nil)
	must(t, err)
	executed, _, err := queries.Execute("go-tpl-some-service-primary", nil)
	must(t, err)
	equal(t, "the rendered service", executed.Service, "some-service")
	list, _, err := queries.List(nil)
	must(t, err)
	if len(list) == 0 || list[0].Template.Type != "name_prefix_match" {
		t.Fatalf("the list: %+v", list)
	}
	_, err = queries.Delete(id, nil)
	must(t, err)
}

func TestEvent(t *testing.T) {
	events := client(t).Event()
	id, _, err := events.Fire(&api.UserEvent{Name: "go-deploy", Payload: []byte("v2")}, nil)
	must(t, err)
	_, _, err = events.Fire(&api.UserEvent{Name: "go-deploy", NodeFilter: "^no-such-node$"}, nil)
	must(t, err)
	eventually(t, "the event is here", func(options *api.QueryOptions) (*api.QueryMeta, bool, error) {
		list, meta, err := events.List("go-deploy", options)
		if err == nil && len(list) == 1 {
			if list[0].ID != id || string(list[0].Payload) != "v2" || list[0].LTime == 0 {
				t.Fatalf("another event: %+v", list[0])
			}
			equal(t, "the index", meta.LastIndex, events.IDToIndex(id))
		}
		return meta, len(list) == 1, err
	})
}

func TestWatchPlans(t *testing.T) {
	changes := make(chan string, 16)
	run := func(parameters map[string]interface{}) *watch.Plan {
		plan, err := watch.Parse(parameters)
		must(t, err)
		plan.HybridHandler = func(_ watch.BlockingParamVal, data interface{}) {
			switch data := data.(type) {
			case nil:
				changes <- "nothing"
			case *api.KVPair:
				changes <- string(data.Value)
			case []*api.UserEvent:
				for _, event := range data {
					changes <- event.Name
				}
			}
		}
		go func() {
			if err := plan.Run(os.Getenv("CONSUL_HTTP_ADDR")); err != nil {
				changes <- err.Error()
			}
		}()
		return plan
	}
	next := func(want string) {
		t.Helper()
		select {
		case got := <-changes:
			equal(t, "the change", got, want)
		case <-time.After(syncLimit):
			t.Fatalf("no change within %s, want %q", syncLimit, want)
		}
	}
	kv := client(t).KV()
	key := run(map[string]interface{}{"type": "key", "key": "go-watched"})
	next("nothing")
	_, err := kv.Put(&api.KVPair{Key: "go-watched", Value: []byte("one")}, nil)
	must(t, err)
	next("one")
	_, err = kv.Delete("go-watched", nil)
	must(t, err)
	next("nothing")
	key.Stop()
	event := run(map[string]interface{}{"type": "event", "name": "go-watched"})
	_, _, err = client(t).Event().Fire(&api.UserEvent{Name: "go-watched"}, nil)
	must(t, err)
	next("go-watched")
	event.Stop()
}
