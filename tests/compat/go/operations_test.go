package compat

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

// What was saved comes back, and what was written after it is gone.
func TestSnapshotIsSavedAndRestored(t *testing.T) {
	consul := client(t)
	_, err := consul.KV().Put(&api.KVPair{Key: "go-snapshot/kept", Value: []byte("1")}, nil)
	must(t, err)
	reader, meta, err := consul.Snapshot().Save(nil)
	must(t, err)
	saved, err := io.ReadAll(reader)
	must(t, err)
	must(t, reader.Close())
	if meta.LastIndex == 0 || !meta.KnownLeader {
		t.Fatalf("meta of a snapshot: %+v", meta)
	}
	_, err = consul.KV().Put(&api.KVPair{Key: "go-snapshot/later", Value: []byte("2")}, nil)
	must(t, err)

	broken := append([]byte(nil), saved...)
	broken[len(broken)/2] ^= 1
	if err := consul.Snapshot().Restore(nil, bytes.NewReader(broken)); err == nil {
		t.Fatal("a damaged snapshot was restored")
	}
	later, _, err := consul.KV().Get("go-snapshot/later", nil)
	must(t, err)
	if later == nil {
		t.Fatal("a refused snapshot changed something")
	}
	must(t, consul.Snapshot().Restore(nil, bytes.NewReader(saved)))
	kept, after, err := consul.KV().Get("go-snapshot/kept", &api.QueryOptions{RequireConsistent: true})
	must(t, err)
	later, _, err = consul.KV().Get("go-snapshot/later", &api.QueryOptions{RequireConsistent: true})
	must(t, err)
	if kept == nil || string(kept.Value) != "1" || later != nil {
		t.Fatalf("after the restore: %v, %v", kept, later)
	}
	if after.LastIndex <= meta.LastIndex {
		t.Fatalf("the index went back from %d to %d", meta.LastIndex, after.LastIndex)
	}
}

func TestAgentMetrics(t *testing.T) {
	agent := client(t).Agent()
	metrics, err := agent.Metrics()
	must(t, err)
	if metrics.Timestamp == "" || len(metrics.Gauges) == 0 {
		t.Fatalf("metrics: %+v", metrics)
	}
	for _, gauge := range metrics.Gauges {
		if !strings.HasPrefix(gauge.Name, "consul.") {
			t.Fatalf("a gauge is called %q", gauge.Name)
		}
	}
}

func TestAgentHost(t *testing.T) {
	host, err := client(t).Agent().Host()
	must(t, err)
	if host["Memory"] == nil || host["CPU"] == nil || host["Host"] == nil {
		t.Fatalf("host: %v", host)
	}
}

func TestAgentMonitorShowsTheLogAsItIsWritten(t *testing.T) {
	consul := client(t)
	stop := make(chan struct{})
	lines, err := consul.Agent().Monitor("trace", stop, nil)
	must(t, err)
	deadline := time.After(20 * time.Second)
	for {
		select {
		case line := <-lines:
			if line != "" {
				close(stop)
				return
			}
		case <-time.After(100 * time.Millisecond):
			// Anything that is logged at this level will do.
			_, _ = consul.Status().Leader()
			_, err := consul.KV().Put(&api.KVPair{Key: "go-monitor", Value: []byte("x")}, nil)
			must(t, err)
		case <-deadline:
			t.Fatal("no line came")
		}
	}
}

func TestOperatorUsage(t *testing.T) {
	usage, _, err := client(t).Operator().Usage(nil)
	must(t, err)
	if usage.Usage["dc1"].ServiceInstances == 0 {
		t.Fatalf("usage: %+v", usage)
	}
}
