package compat

import (
	"os"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/consul/sdk/testutil"
)

// Consul's own test helper starts the `consul` it finds in PATH, which COMPAT_OWN_SERVER says is the program under test.
func TestSDKStartsAServer(t *testing.T) {
	if os.Getenv("COMPAT_OWN_SERVER") == "" {
		t.Skip("COMPAT_OWN_SERVER is not set: the `consul` in PATH may be another")
	}
	server, err := testutil.NewTestServerConfigT(t, nil)
	must(t, err)
	defer func() {
		if err := server.Stop(); err != nil {
			t.Errorf("it did not stop on an interrupt: %v", err)
		}
	}()
	server.WaitForLeader(t)
	server.WaitForActiveCARoot(t)
	server.WaitForSerfCheck(t)

	server.SetKVString(t, "sdk/key", "value")
	equal(t, "value", server.GetKVString(t, "sdk/key"), "value")
	server.PopulateKV(t, map[string][]byte{"sdk/a": []byte("1"), "sdk/b": []byte("2")})
	equal(t, "keys", len(server.ListKV(t, "sdk/")), 3)
	server.AddAddressableService(t, "web", api.HealthPassing, "192.0.2.60", 8080, []string{"primary"})
	server.AddCheck(t, "memory", "", api.HealthWarning)

	config := api.DefaultConfig()
	config.Address = server.HTTPAddr
	consul, err := api.NewClient(config)
	must(t, err)
	eventually(t, "the service is in the catalog", func(options *api.QueryOptions) (*api.QueryMeta, bool, error) {
		entries, meta, err := consul.Health().Service("web", "primary", false, options)
		return meta, len(entries) == 1 && entries[0].Service.Port == 8080, err
	})
}
