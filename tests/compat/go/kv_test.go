package compat

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

func TestKVPutGetDelete(t *testing.T) {
	kv := client(t).KV()
	pair, meta, err := kv.Get("go/absent", nil)
	must(t, err)
	if pair != nil || meta.LastIndex == 0 || !meta.KnownLeader {
		t.Fatalf("an absent key: %+v, %+v", pair, meta)
	}
	value := []byte{0, 1, 0xff, '\n'}
	_, err = kv.Put(&api.KVPair{Key: "go/a b/é", Value: value, Flags: 42}, nil)
	must(t, err)
	pair, _, err = kv.Get("go/a b/é", nil)
	must(t, err)
	equal(t, "key", pair.Key, "go/a b/é")
	equal(t, "value", string(pair.Value), string(value))
	equal(t, "flags", pair.Flags, 42)
	equal(t, "indexes of a new key", pair.CreateIndex, pair.ModifyIndex)
	_, err = kv.Delete("go/a b/é", nil)
	must(t, err)
	pair, _, err = kv.Get("go/a b/é", nil)
	must(t, err)
	if pair != nil {
		t.Fatalf("deleted, and still there: %+v", pair)
	}
	if _, err = kv.Put(&api.KVPair{Key: "/leading"}, nil); err == nil {
		t.Fatal("a key that begins with a slash was taken")
	}
}

func TestKVCheckAndSet(t *testing.T) {
	kv := client(t).KV()
	set := func(index uint64, value string) bool {
		done, _, err := kv.CAS(&api.KVPair{Key: "go/cas", Value: []byte(value), ModifyIndex: index}, nil)
		must(t, err)
		return done
	}
	equal(t, "made", set(0, "1"), true)
	equal(t, "made again", set(0, "2"), false)
	pair, _, err := kv.Get("go/cas", nil)
	must(t, err)
	equal(t, "set at its index", set(pair.ModifyIndex, "3"), true)
	equal(t, "set at an old index", set(pair.ModifyIndex, "4"), false)
	done, _, err := kv.DeleteCAS(pair, nil)
	must(t, err)
	equal(t, "deleted at an old index", done, false)
	pair, _, err = kv.Get("go/cas", nil)
	must(t, err)
	equal(t, "value", string(pair.Value), "3")
	done, _, err = kv.DeleteCAS(pair, nil)
	must(t, err)
	equal(t, "deleted at its index", done, true)
}

func TestKVTrees(t *testing.T) {
	kv := client(t).KV()
	for _, key := range []string{"go/tree/a", "go/tree/b/c", "go/tree/b/d", "go/treetop"} {
		_, err := kv.Put(&api.KVPair{Key: key, Value: []byte(key)}, nil)
		must(t, err)
	}
	pairs, _, err := kv.List("go/tree/", nil)
	must(t, err)
	var listed []string
	for _, pair := range pairs {
		equal(t, "value", string(pair.Value), pair.Key)
		listed = append(listed, pair.Key)
	}
	equal(t, "recurse", strings.Join(listed, " "), "go/tree/a go/tree/b/c go/tree/b/d")
	keys, _, err := kv.Keys("go/tree/", "/", nil)
	must(t, err)
	equal(t, "keys to the separator", strings.Join(keys, " "), "go/tree/a go/tree/b/")
	keys, _, err = kv.Keys("go/tree", "", nil)
	must(t, err)
	equal(t, "all keys", len(keys), 4)
	_, err = kv.DeleteTree("go/tree/", nil)
	must(t, err)
	keys, _, err = kv.Keys("go/tree", "", nil)
	must(t, err)
	equal(t, "keys after the tree is gone", strings.Join(keys, " "), "go/treetop")
	keys, _, err = kv.Keys("go/nothing/here", "", nil)
	must(t, err)
	equal(t, "keys of nothing", len(keys), 0)
}

func TestKVConsistencyModes(t *testing.T) {
	kv := client(t).KV()
	_, err := kv.Put(&api.KVPair{Key: "go/modes", Value: []byte("1")}, nil)
	must(t, err)
	pair, meta, err := kv.Get("go/modes", &api.QueryOptions{RequireConsistent: true})
	must(t, err)
	if pair == nil || !meta.KnownLeader {
		t.Fatalf("consistent: %+v, %+v", pair, meta)
	}
	_, meta, err = kv.Get("go/modes", &api.QueryOptions{AllowStale: true})
	must(t, err)
	if !meta.KnownLeader || meta.LastIndex == 0 || meta.LastContact > 10*time.Second {
		t.Fatalf("stale: %+v", meta)
	}
	if _, _, err = kv.Get("go/modes", &api.QueryOptions{AllowStale: true, RequireConsistent: true}); err == nil {
		t.Fatal("stale and consistent at once was taken")
	}
	if _, _, err = kv.Get("go/modes", &api.QueryOptions{Datacenter: "nowhere"}); err == nil ||
		!strings.Contains(err.Error(), "No path to datacenter") {
		t.Fatalf("an unknown datacenter: %v", err)
	}
}

func TestKVBlockingQueries(t *testing.T) {
	kv := client(t).KV()
	_, err := kv.Put(&api.KVPair{Key: "go/watched/x", Value: []byte("0")}, nil)
	must(t, err)
	pair, meta, err := kv.Get("go/watched/x", nil)
	must(t, err)

	begin := time.Now()
	_, same, err := kv.Get("go/watched/x", &api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: 200 * time.Millisecond})
	must(t, err)
	if waited := time.Since(begin); waited < 200*time.Millisecond {
		t.Fatalf("nothing changed, and the query came back after %s", waited)
	}
	equal(t, "index of an unchanged key", same.LastIndex, meta.LastIndex)

	// Every change is seen by a watcher that asks on from where it was, each after the one before it was seen.
	seen := make(chan string)
	go func() {
		defer close(seen)
		index := meta.LastIndex
		for {
			pair, meta, err := kv.Get("go/watched/x", &api.QueryOptions{WaitIndex: index, WaitTime: syncLimit})
			if err != nil {
				seen <- err.Error()
				return
			}
			if meta.LastIndex < index {
				seen <- "the index went backwards"
				return
			}
			index = meta.LastIndex
			if pair == nil {
				return
			}
			seen <- string(pair.Value)
		}
	}()
	for _, value := range []string{"1", "2", "3", "4", "5"} {
		_, err = kv.Put(&api.KVPair{Key: "go/watched/x", Value: []byte(value)}, nil)
		must(t, err)
		for got := range seen {
			if got == value {
				break
			}
			if got > value {
				t.Fatalf("want %s, the watcher saw %s", value, got)
			}
		}
	}
	_, err = kv.Delete(pair.Key, nil)
	must(t, err)
	for range seen {
	}

	// A prefix wakes for a key made below it, and not for one beside it.
	_, meta, err = kv.List("go/watched/", nil)
	must(t, err)
	done := make(chan api.KVPairs, 1)
	go func() {
		pairs, _, err := kv.List("go/watched/", &api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: syncLimit})
		if err == nil {
			done <- pairs
		}
		close(done)
	}()
	_, err = kv.Put(&api.KVPair{Key: "go/watched/y", Value: []byte("new")}, nil)
	must(t, err)
	pairs := <-done
	if len(pairs) != 1 || pairs[0].Key != "go/watched/y" {
		t.Fatalf("the prefix woke with %v", pairs)
	}
}
