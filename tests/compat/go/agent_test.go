package compat

import (
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
)

func TestAgentTellsOfItself(t *testing.T) {
	agent := client(t).Agent()
	self, err := agent.Self()
	must(t, err)
	equal(t, "datacenter", self["Config"]["Datacenter"], any("dc1"))
	name, err := agent.NodeName()
	must(t, err)
	members, err := agent.Members(false)
	must(t, err)
	servers, found := 0, false
	for _, member := range members {
		if member.Name == name {
			found = true
			equal(t, "own status", member.Status, 1 /* alive, as Serf counts */)
		}
		if member.IsConsulServer() {
			servers++
		}
	}
	peers, err := client(t).Status().Peers()
	must(t, err)
	if !found || servers != len(peers) {
		t.Fatalf("%s among %d members, %d of %d servers", name, len(members), servers, len(peers))
	}
	version, err := agent.Version()
	must(t, err)
	if version["HumanVersion"] == "" {
		t.Fatalf("version: %v", version)
	}
}

// A service goes its whole way: registered, checked, found by others, failing, gone.
func TestAgentServiceWithTTLCheck(t *testing.T) {
	consul := client(t)
	agent := consul.Agent()
	must(t, agent.ServiceRegister(&api.AgentServiceRegistration{
		ID: "go-web-1", Name: "go-web", Tags: []string{"blue", "v1"}, Port: 8080, Address: "192.0.2.50",
		Meta:            map[string]string{"team": "a"},
		Weights:         &api.AgentWeights{Passing: 3, Warning: 1},
		TaggedAddresses: map[string]api.ServiceAddress{"wan": {Address: "198.51.100.50", Port: 80}},
		Check:           &api.AgentServiceCheck{TTL: "1m", Notes: "say you live"},
	}))
	services, err := agent.Services()
	must(t, err)
	held := services["go-web-1"]
	if held == nil || held.Service != "go-web" || held.Port != 8080 || held.Weights.Passing != 3 || held.Meta["team"] != "a" ||
		held.TaggedAddresses["wan"].Address != "198.51.100.50" {
		t.Fatalf("the agent holds %+v", held)
	}
	one, _, err := agent.Service("go-web-1", nil)
	must(t, err)
	equal(t, "one service", one.Service, "go-web")
	checks, err := agent.Checks()
	must(t, err)
	equal(t, "first status", checks["service:go-web-1"].Status, api.HealthCritical)
	equal(t, "type", checks["service:go-web-1"].Type, "ttl")

	states := []struct {
		set  func(id, note string) error
		want string
	}{{agent.PassTTL, api.HealthPassing}, {agent.WarnTTL, api.HealthWarning}, {agent.FailTTL, api.HealthCritical}}
	for _, state := range states {
		must(t, state.set("service:go-web-1", "now "+state.want))
		status, info, err := agent.AgentHealthServiceByID("go-web-1")
		must(t, err)
		equal(t, "health by id", status, state.want)
		equal(t, "health by id, in the body", info.AggregatedStatus, state.want)
		status, infos, err := agent.AgentHealthServiceByName("go-web")
		must(t, err)
		equal(t, "health by name", status, state.want)
		equal(t, "instances by name", len(infos), 1)
		eventually(t, "the catalog says "+state.want, func(options *api.QueryOptions) (*api.QueryMeta, bool, error) {
			checks, meta, err := consul.Health().Checks("go-web", options)
			return meta, len(checks) == 1 && checks[0].Status == state.want && checks[0].Output == "now "+state.want, err
		})
		passing, _, err := consul.Health().Service("go-web", "blue", true, nil)
		must(t, err)
		equal(t, "among the passing", len(passing) == 1, state.want == api.HealthPassing)
	}
	must(t, agent.UpdateTTL("service:go-web-1", "by update", api.HealthPassing))
	eventually(t, "the update is in the catalog", func(options *api.QueryOptions) (*api.QueryMeta, bool, error) {
		entries, meta, err := consul.Health().Service("go-web", "", true, options)
		done := len(entries) == 1 && entries[0].Service.Port == 8080 && entries[0].Checks.AggregatedStatus() == api.HealthPassing
		return meta, done, err
	})

	must(t, agent.ServiceDeregister("go-web-1"))
	eventually(t, "the service is gone", func(options *api.QueryOptions) (*api.QueryMeta, bool, error) {
		rows, meta, err := consul.Catalog().Service("go-web", "", options)
		return meta, len(rows) == 0, err
	})
	status, info, err := agent.AgentHealthServiceByID("go-web-1")
	must(t, err)
	if status != api.HealthCritical || info != nil {
		t.Fatalf("health of nothing: %s, %+v", status, info)
	}
	if err := agent.ServiceDeregister("go-web-1"); err == nil || !strings.Contains(err.Error(), "Unknown service ID") {
		t.Fatalf("deregistered twice: %v", err)
	}
}

func TestAgentChecksOfNodeAndService(t *testing.T) {
	consul := client(t)
	agent := consul.Agent()
	name, err := agent.NodeName()
	must(t, err)
	must(t, agent.CheckRegister(&api.AgentCheckRegistration{Name: "go-memory", Notes: "of the node",
		AgentServiceCheck: api.AgentServiceCheck{TTL: "10m", Status: api.HealthWarning}}))
	eventually(t, "the node's check is in the catalog", func(options *api.QueryOptions) (*api.QueryMeta, bool, error) {
		checks, meta, err := consul.Health().Node(name, options)
		for _, check := range checks {
			if check.CheckID == "go-memory" && check.Status == api.HealthWarning {
				return meta, true, err
			}
		}
		return meta, false, err
	})
	checks, _, err := consul.Health().State(api.HealthWarning, nil)
	must(t, err)
	equal(t, "warnings", len(checks), 1)
	must(t, agent.CheckDeregister("go-memory"))

	must(t, agent.ServiceRegister(&api.AgentServiceRegistration{Name: "go-plain"}))
	must(t, agent.CheckRegister(&api.AgentCheckRegistration{ID: "go-plain-alive", Name: "alive", ServiceID: "go-plain",
		AgentServiceCheck: api.AgentServiceCheck{TTL: "10m"}}))
	held, err := agent.Checks()
	must(t, err)
	equal(t, "the check's service", held["go-plain-alive"].ServiceName, "go-plain")
	must(t, agent.PassTTL("go-plain-alive", ""))
	must(t, agent.ServiceDeregister("go-plain"))
	held, err = agent.Checks()
	must(t, err)
	equal(t, "checks left", len(held), 0)

	err = agent.CheckRegister(&api.AgentCheckRegistration{Name: "x", ServiceID: "nowhere",
		AgentServiceCheck: api.AgentServiceCheck{TTL: "1m"}})
	if err == nil || !strings.Contains(err.Error(), `ServiceID "nowhere" does not exist`) {
		t.Fatalf("a check of no service: %v", err)
	}
	if err = agent.PassTTL("nowhere", ""); err == nil {
		t.Fatal("a check that is not there passed")
	}
}

// The agent runs TCP and HTTP checks by itself, here against its own HTTP port.
func TestAgentRunsChecks(t *testing.T) {
	consul := client(t)
	agent := consul.Agent()
	address := api.DefaultConfig().Address
	must(t, agent.ServiceRegister(&api.AgentServiceRegistration{Name: "go-checked", Port: 8500,
		Checks: api.AgentServiceChecks{
			{CheckID: "go-http", HTTP: "http://" + address + "/v1/status/leader", Interval: "1s"},
			{CheckID: "go-tcp", TCP: address, Interval: "1s"},
			{CheckID: "go-refused", TCP: strings.Split(address, ":")[0] + ":1", Interval: "1s"},
		}}))
	eventually(t, "two pass and one is refused", func(options *api.QueryOptions) (*api.QueryMeta, bool, error) {
		checks, meta, err := consul.Health().Checks("go-checked", options)
		status := map[string]string{}
		for _, check := range checks {
			status[check.CheckID] = check.Status
		}
		done := status["go-http"] == api.HealthPassing && status["go-tcp"] == api.HealthPassing &&
			status["go-refused"] == api.HealthCritical
		return meta, done, err
	})
	held, err := agent.Checks()
	must(t, err)
	if !strings.HasPrefix(held["go-http"].Output, "HTTP GET http://"+address+"/v1/status/leader: 200 OK Output: ") {
		t.Fatalf("output: %q", held["go-http"].Output)
	}
	must(t, agent.ServiceDeregister("go-checked"))
}
