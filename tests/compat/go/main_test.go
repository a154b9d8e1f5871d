// Package compat drives an agent with Consul's own Go client, as any program written for Consul would.
//
// The agent's address comes from CONSUL_HTTP_ADDR, which the client reads by itself.
package compat

import (
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

// An agent brings its services to the catalog by itself, this soon at the latest.
const syncLimit = 15 * time.Second

func client(t *testing.T) *api.Client {
	t.Helper()
	made, err := api.NewClient(api.DefaultConfig())
	must(t, err)
	return made
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// eventually asks with blocking queries until look is satisfied.
func eventually(t *testing.T, what string, look func(options *api.QueryOptions) (*api.QueryMeta, bool, error)) {
	t.Helper()
	end := time.Now().Add(syncLimit)
	options := &api.QueryOptions{WaitTime: time.Second}
	for {
		meta, done, err := look(options)
		must(t, err)
		if done {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, syncLimit)
		}
		if meta == nil || meta.LastIndex == 0 {
			t.Fatalf("%s: an answer without an index: %+v", what, meta)
		}
		options.WaitIndex = meta.LastIndex
	}
}
