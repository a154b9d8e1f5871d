package compat

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

func TestConnectRootsAndLeaf(t *testing.T) {
	consul := client(t)
	roots, meta, err := consul.Connect().CARoots(nil)
	must(t, err)
	if meta.LastIndex == 0 || roots.ActiveRootID == "" || roots.TrustDomain == "" {
		t.Fatalf("roots: %+v, %+v", roots, meta)
	}
	fromAgent, _, err := consul.Agent().ConnectCARoots(nil)
	must(t, err)
	equal(t, "active root", fromAgent.ActiveRootID, roots.ActiveRootID)
	pool := x509.NewCertPool()
	for _, root := range roots.Roots {
		if !pool.AppendCertsFromPEM([]byte(root.RootCertPEM)) {
			t.Fatalf("not a certificate: %q", root.RootCertPEM)
		}
	}

	leaf, meta, err := consul.Agent().ConnectCALeaf("go-leaf", nil)
	must(t, err)
	equal(t, "service", leaf.Service, "go-leaf")
	equal(t, "uri", leaf.ServiceURI, "spiffe://"+roots.TrustDomain+"/ns/default/dc/dc1/svc/go-leaf")
	pair, err := tls.X509KeyPair([]byte(leaf.CertPEM), []byte(leaf.PrivateKeyPEM))
	must(t, err)
	certificate, err := x509.ParseCertificate(pair.Certificate[0])
	must(t, err)
	if len(certificate.URIs) != 1 || certificate.URIs[0].String() != leaf.ServiceURI || len(certificate.DNSNames) != 0 {
		t.Fatalf("names of the certificate: %v, %v", certificate.URIs, certificate.DNSNames)
	}
	between := x509.NewCertPool()
	for _, der := range pair.Certificate[1:] {
		issuer, err := x509.ParseCertificate(der)
		must(t, err)
		between.AddCert(issuer)
	}
	_, err = certificate.Verify(x509.VerifyOptions{Roots: pool, Intermediates: between,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
	must(t, err)
	if leaf.ValidBefore.Before(time.Now().Add(time.Minute)) || leaf.ValidAfter.After(time.Now()) {
		t.Fatalf("valid from %s to %s", leaf.ValidAfter, leaf.ValidBefore)
	}

	// The same leaf again; a query that waits for the next one comes back with this one.
	again, _, err := consul.Agent().ConnectCALeaf("go-leaf", nil)
	must(t, err)
	equal(t, "serial number of the second answer", again.SerialNumber, leaf.SerialNumber)
	waited, later, err := consul.Agent().ConnectCALeaf("go-leaf",
		&api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: 100 * time.Millisecond})
	must(t, err)
	equal(t, "serial number after waiting", waited.SerialNumber, leaf.SerialNumber)
	equal(t, "index after waiting", later.LastIndex, meta.LastIndex)
}

func TestIntentions(t *testing.T) {
	connect := client(t).Connect()
	upsert := func(source, destination string, action api.IntentionAction) {
		t.Helper()
		_, err := connect.IntentionUpsert(&api.Intention{SourceName: source, DestinationName: destination, Action: action,
			Description: "for " + source}, nil)
		must(t, err)
	}
	upsert("go-a", "go-b", api.IntentionActionAllow)
	upsert("*", "go-b", api.IntentionActionDeny)
	got, meta, err := connect.IntentionGetExact("go-a", "go-b", nil)
	must(t, err)
	if got == nil || got.Action != api.IntentionActionAllow || got.Description != "for go-a" || meta.LastIndex == 0 {
		t.Fatalf("exact: %+v, %+v", got, meta)
	}
	listed, _, err := connect.Intentions(nil)
	must(t, err)
	equal(t, "listed", len(listed), 2)
	matched, _, err := connect.IntentionMatch(&api.IntentionMatch{By: api.IntentionMatchDestination, Names: []string{"go-b", "go-c"}}, nil)
	must(t, err)
	if rows := matched["go-b"]; len(rows) != 2 || rows[0].SourceName != "go-a" || rows[1].SourceName != "*" ||
		rows[0].Precedence <= rows[1].Precedence {
		t.Fatalf("matched: %+v", matched)
	}
	equal(t, "matched for another", len(matched["go-c"]), 0)
	check := func(source string) bool {
		t.Helper()
		allowed, _, err := connect.IntentionCheck(&api.IntentionCheck{Source: source, Destination: "go-b"}, nil)
		must(t, err)
		return allowed
	}
	equal(t, "go-a may", check("go-a"), true)
	equal(t, "another may", check("go-z"), false)

	// A change wakes who waits for the match.
	_, before, err := connect.IntentionMatch(&api.IntentionMatch{By: api.IntentionMatchDestination, Names: []string{"go-b"}}, nil)
	must(t, err)
	woken := make(chan api.IntentionAction, 1)
	go func() {
		matched, _, err := connect.IntentionMatch(&api.IntentionMatch{By: api.IntentionMatchDestination, Names: []string{"go-b"}},
			&api.QueryOptions{WaitIndex: before.LastIndex, WaitTime: syncLimit})
		if err != nil || len(matched["go-b"]) == 0 {
			woken <- ""
			return
		}
		woken <- matched["go-b"][0].Action
	}()
	upsert("go-a", "go-b", api.IntentionActionDeny)
	equal(t, "what the watcher saw", <-woken, api.IntentionActionDeny)
	equal(t, "go-a may now", check("go-a"), false)

	for _, source := range []string{"go-a", "*"} {
		_, err = connect.IntentionDeleteExact(source, "go-b", nil)
		must(t, err)
	}
	got, _, err = connect.IntentionGetExact("go-a", "go-b", nil)
	must(t, err)
	if got != nil {
		t.Fatalf("deleted, and still there: %+v", got)
	}
}

func TestServiceIntentionsConfigEntries(t *testing.T) {
	entries := client(t).ConfigEntries()
	entry := &api.ServiceIntentionsConfigEntry{Kind: api.ServiceIntentions, Name: "go-config", Meta: map[string]string{"by": "go"},
		Sources: []*api.SourceIntention{
			{Name: "go-a", Action: api.IntentionActionAllow, Description: "friends"},
			{Name: "*", Action: api.IntentionActionDeny},
		}}
	done, _, err := entries.Set(entry, nil)
	must(t, err)
	equal(t, "set", done, true)
	got, _, err := entries.Get(api.ServiceIntentions, "go-config", nil)
	must(t, err)
	held := got.(*api.ServiceIntentionsConfigEntry)
	if len(held.Sources) != 2 || held.Sources[0].Name != "go-a" || held.Sources[0].Action != api.IntentionActionAllow ||
		held.Sources[0].Type != api.IntentionSourceConsul || held.Meta["by"] != "go" {
		t.Fatalf("the entry: %+v", held)
	}
	listed, _, err := entries.List(api.ServiceIntentions, nil)
	must(t, err)
	equal(t, "entries", len(listed), 1)

	entry.Sources = entry.Sources[:1]
	done, _, err = entries.CAS(entry, held.ModifyIndex+1000, nil)
	must(t, err)
	equal(t, "set at another index", done, false)
	done, _, err = entries.CAS(entry, held.ModifyIndex, nil)
	must(t, err)
	equal(t, "set at its index", done, true)
	shown, _, err := client(t).Connect().Intentions(nil)
	must(t, err)
	equal(t, "as intentions", len(shown), 1)
	_, err = entries.Delete(api.ServiceIntentions, "go-config", nil)
	must(t, err)
	if _, _, err = entries.Get(api.ServiceIntentions, "go-config", nil); err == nil {
		t.Fatal("deleted, and still there")
	}
}
