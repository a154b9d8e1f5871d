package compat

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

// A session without a lock-delay, ended with the test.
func session(t *testing.T, entry *api.SessionEntry) string {
	t.Helper()
	sessions := client(t).Session()
	entry.LockDelay = time.Nanosecond
	id, _, err := sessions.Create(entry, nil)
	must(t, err)
	t.Cleanup(func() { _, _ = sessions.Destroy(id, nil) })
	return id
}

func TestSessionLife(t *testing.T) {
	sessions := client(t).Session()
	id, _, err := sessions.Create(&api.SessionEntry{Name: "go", TTL: "20s", LockDelay: 3 * time.Second, Behavior: api.SessionBehaviorDelete}, nil)
	must(t, err)
	entry, meta, err := sessions.Info(id, nil)
	must(t, err)
	if meta.LastIndex == 0 || entry.CreateIndex == 0 {
		t.Fatalf("a session without an index: %+v, %+v", entry, meta)
	}
	equal(t, "name", entry.Name, "go")
	equal(t, "TTL", entry.TTL, "20s")
	equal(t, "lock-delay", entry.LockDelay, 3*time.Second)
	equal(t, "behaviour", entry.Behavior, "delete")
	equal(t, "checks", strings.Join(entry.NodeChecks, " "), "serfHealth")
	renewed, _, err := sessions.Renew(id, nil)
	must(t, err)
	equal(t, "renewed", renewed.ID, id)
	onNode, _, err := sessions.Node(entry.Node, nil)
	must(t, err)
	all, _, err := sessions.List(nil)
	must(t, err)
	for _, list := range [][]*api.SessionEntry{onNode, all} {
		found := false
		for _, one := range list {
			found = found || one.ID == id
		}
		equal(t, "listed", found, true)
	}
	_, err = sessions.Destroy(id, nil)
	must(t, err)
	entry, _, err = sessions.Info(id, nil)
	must(t, err)
	renewed, _, err = sessions.Renew(id, nil)
	must(t, err)
	if entry != nil || renewed != nil {
		t.Fatalf("destroyed, and still there: %+v, %+v", entry, renewed)
	}
}

func TestSessionWithoutChecks(t *testing.T) {
	sessions := client(t).Session()
	id, _, err := sessions.CreateNoChecks(&api.SessionEntry{LockDelay: time.Nanosecond}, nil)
	must(t, err)
	entry, _, err := sessions.Info(id, nil)
	must(t, err)
	equal(t, "checks", len(entry.NodeChecks)+len(entry.ServiceChecks), 0)
	_, err = sessions.Destroy(id, nil)
	must(t, err)
}

func TestSessionIsRefused(t *testing.T) {
	sessions := client(t).Session()
	for _, entry := range []*api.SessionEntry{{TTL: "1s"}, {Node: "nowhere"}, {NodeChecks: []string{"nothing"}}} {
		if _, _, err := sessions.Create(entry, nil); err == nil {
			t.Fatalf("%+v was taken", entry)
		}
	}
}

func TestKVAcquireRelease(t *testing.T) {
	kv := client(t).KV()
	one, two := session(t, &api.SessionEntry{}), session(t, &api.SessionEntry{})
	pair := func(holder, value string) *api.KVPair {
		return &api.KVPair{Key: "go/held", Session: holder, Value: []byte(value)}
	}
	taken, _, err := kv.Acquire(pair(one, "1"), nil)
	must(t, err)
	equal(t, "taken", taken, true)
	taken, _, err = kv.Acquire(pair(two, "2"), nil)
	must(t, err)
	equal(t, "taken by another", taken, false)
	_, err = kv.Put(&api.KVPair{Key: "go/held", Value: []byte("plain")}, nil)
	must(t, err)
	held, _, err := kv.Get("go/held", nil)
	must(t, err)
	equal(t, "holder", held.Session, one)
	equal(t, "lock index after a plain put", held.LockIndex, 1)
	released, _, err := kv.Release(pair(one, "3"), nil)
	must(t, err)
	equal(t, "released", released, true)
	taken, _, err = kv.Acquire(pair(two, "4"), nil)
	must(t, err)
	equal(t, "taken after a release", taken, true)
	held, _, err = kv.Get("go/held", nil)
	must(t, err)
	equal(t, "lock index", held.LockIndex, 2)
	_, err = kv.Delete("go/held", nil)
	must(t, err)
}

func TestLockExcludesAndIsLost(t *testing.T) {
	consul := client(t)
	options := func() *api.LockOptions {
		return &api.LockOptions{
			Key: "go/lock", Value: []byte("x"), LockWaitTime: 2 * time.Second,
			Session: session(t, &api.SessionEntry{Behavior: api.SessionBehaviorRelease}),
		}
	}
	first, second := options(), options()
	one, err := consul.LockOpts(first)
	must(t, err)
	lost, err := one.Lock(nil)
	must(t, err)
	second.LockTryOnce = true
	second.LockWaitTime = 100 * time.Millisecond
	other, err := consul.LockOpts(second)
	must(t, err)
	channel, err := other.Lock(nil)
	must(t, err)
	if channel != nil {
		t.Fatal("two hold one lock")
	}
	must(t, one.Unlock())
	channel, err = other.Lock(nil)
	must(t, err)
	if channel == nil {
		t.Fatal("a lock that was given back cannot be taken")
	}
	<-lost
	// The end of the session is told to its holder.
	_, err = consul.Session().Destroy(second.Session, nil)
	must(t, err)
	select {
	case <-channel:
	case <-time.After(syncLimit):
		t.Fatal("nobody told the holder that its lock is lost")
	}
	_ = other.Unlock()
	must(t, one.Destroy())
}

func TestLockWithItsOwnSession(t *testing.T) {
	lock, err := client(t).LockOpts(&api.LockOptions{Key: "go/own", SessionTTL: "10s", LockDelay: time.Nanosecond})
	must(t, err)
	lost, err := lock.Lock(nil)
	must(t, err)
	if lost == nil {
		t.Fatal("not taken")
	}
	must(t, lock.Unlock())
	must(t, lock.Destroy())
}

func TestSemaphoreHasItsSeats(t *testing.T) {
	consul := client(t)
	seat := func() *api.Semaphore {
		made, err := consul.SemaphoreOpts(&api.SemaphoreOptions{
			Prefix: "go/semaphore", Limit: 2, Session: session(t, &api.SessionEntry{}),
			SemaphoreTryOnce: true, SemaphoreWaitTime: 100 * time.Millisecond,
		})
		must(t, err)
		return made
	}
	one, two, three := seat(), seat(), seat()
	for _, each := range []*api.Semaphore{one, two} {
		lost, err := each.Acquire(nil)
		must(t, err)
		if lost == nil {
			t.Fatal("a free seat is not given")
		}
	}
	lost, err := three.Acquire(nil)
	must(t, err)
	if lost != nil {
		t.Fatal("three on two seats")
	}
	must(t, one.Release())
	lost, err = three.Acquire(nil)
	must(t, err)
	if lost == nil {
		t.Fatal("a seat that was given back is not free")
	}
	must(t, two.Release())
	must(t, three.Release())
	_ = one.Destroy()
}

func TestTransaction(t *testing.T) {
	consul := client(t)
	holder := session(t, &api.SessionEntry{})
	ok, reply, _, err := consul.Txn().Txn(api.TxnOps{
		{KV: &api.KVTxnOp{Verb: api.KVLock, Key: "go/txn", Value: []byte("1"), Session: holder}},
		{KV: &api.KVTxnOp{Verb: api.KVGet, Key: "go/txn"}},
		{Node: &api.NodeTxnOp{Verb: api.NodeSet, Node: api.Node{Node: "go-txn", Address: "192.0.2.80"}}},
		{Service: &api.ServiceTxnOp{Verb: api.ServiceSet, Node: "go-txn", Service: api.AgentService{ID: "t1", Service: "go-txn-web", Port: 80}}},
		{Check: &api.CheckTxnOp{Verb: api.CheckSet, Check: api.HealthCheck{Node: "go-txn", CheckID: "c1", Name: "c", Status: "passing", ServiceID: "t1"}}},
	}, nil)
	must(t, err)
	if !ok || len(reply.Results) != 5 {
		t.Fatalf("%v, %+v", ok, reply)
	}
	equal(t, "read in the transaction", string(reply.Results[1].KV.Value), "1")
	equal(t, "holder", reply.Results[0].KV.Session, holder)
	entries, _, err := consul.Health().Service("go-txn-web", "", true, nil)
	must(t, err)
	equal(t, "instances", len(entries), 1)

	ok, keys, _, err := consul.KV().Txn(api.KVTxnOps{
		{Verb: api.KVSet, Key: "go/txn-other", Value: []byte("2")},
		{Verb: api.KVCheckNotExists, Key: "go/txn"},
	}, nil)
	must(t, err)
	equal(t, "done", ok, false)
	equal(t, "errors", len(keys.Errors), 1)
	equal(t, "operation", keys.Errors[0].OpIndex, 1)
	equal(t, "what", keys.Errors[0].What, `key "go/txn" exists`)
	pair, _, err := consul.KV().Get("go/txn-other", nil)
	must(t, err)
	if pair != nil {
		t.Fatalf("half a transaction was done: %+v", pair)
	}

	ok, read, _, err := consul.Txn().Txn(api.TxnOps{
		{KV: &api.KVTxnOp{Verb: api.KVGetTree, Key: "go/txn"}},
		{Node: &api.NodeTxnOp{Verb: api.NodeGet, Node: api.Node{Node: "go-txn"}}},
	}, &api.QueryOptions{RequireConsistent: true})
	must(t, err)
	if !ok || len(read.Results) != 2 {
		t.Fatalf("%v, %+v", ok, read)
	}
	equal(t, "node", read.Results[1].Node.Address, "192.0.2.80")

	ok, _, _, err = consul.Txn().Txn(api.TxnOps{
		{KV: &api.KVTxnOp{Verb: api.KVDelete, Key: "go/txn"}},
		{Node: &api.NodeTxnOp{Verb: api.NodeDelete, Node: api.Node{Node: "go-txn"}}},
	}, nil)
	must(t, err)
	equal(t, "deleted", ok, true)
}

func TestTransactionHasALimit(t *testing.T) {
	var operations api.TxnOps
	for range 129 {
		operations = append(operations, &api.TxnOp{KV: &api.KVTxnOp{Verb: api.KVGetOrEmpty, Key: "go/none"}})
	}
	_, _, _, err := client(t).Txn().Txn(operations, nil)
	if err == nil || !strings.Contains(err.Error(), "Transaction contains too many operations (129 > 128)") {
		t.Fatal(err)
	}
	ok, reply, _, err := client(t).Txn().Txn(operations[:128], nil)
	must(t, err)
	if !ok || len(reply.Results) != 128 {
		t.Fatalf("%v, %d", ok, len(reply.Results))
	}
}
