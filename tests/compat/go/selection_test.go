package compat

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/serf/coordinate"
)

func TestFilterAndNear(t *testing.T) {
	c := client(t)
	for number, zone := range []string{"a", "b", "b"} {
		_, err := c.Catalog().Register(&api.CatalogRegistration{
			Node: fmt.Sprintf("go-near-%d", number), Address: fmt.Sprintf("192.0.2.%d", 60+number),
			NodeMeta: map[string]string{"zone": zone},
			Service:  &api.AgentService{ID: "near", Service: "go-near", Port: 70 + number},
		}, nil)
		must(t, err)
	}
	rows, _, err := c.Health().Service("go-near", "", false, &api.QueryOptions{Filter: `Node.Meta.zone == b and Service.Port != 72`})
	must(t, err)
	if len(rows) != 1 || rows[0].Node.Node != "go-near-1" {
		t.Fatalf("filtered: %+v", rows)
	}
	_, _, err = c.Catalog().Nodes(&api.QueryOptions{Filter: "Nope == 1"})
	if err == nil || !strings.Contains(err.Error(), `Selector "Nope" is not valid`) {
		t.Fatalf("an unknown selector: %v", err)
	}
	services, err := c.Agent().ServicesWithFilter("Service == nowhere")
	must(t, err)
	equal(t, "services of the agent", len(services), 0)

	// Farthest first by name; the coordinates turn it round.
	for number := 0; number < 3; number++ {
		place := coordinate.NewCoordinate(coordinate.DefaultConfig())
		place.Vec[0] = float64(3-number) / 100
		_, err := c.Coordinate().Update(&api.CoordinateEntry{Node: fmt.Sprintf("go-near-%d", number), Coord: place}, nil)
		must(t, err)
	}
	end := time.Now().Add(syncLimit)
	for {
		places, _, err := c.Coordinate().Node("go-near-2", nil)
		if err == nil && len(places) == 1 && places[0].Coord.Vec[0] == 0.01 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no coordinate: %v, %v", places, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	near, _, err := c.Catalog().Service("go-near", "", &api.QueryOptions{Near: "go-near-2"})
	must(t, err)
	for number, row := range near {
		equal(t, "order", row.Node, fmt.Sprintf("go-near-%d", 2-number))
	}
	maps, err := c.Coordinate().Datacenters()
	must(t, err)
	if len(maps) != 1 || len(maps[0].Coordinates) == 0 || !strings.HasSuffix(maps[0].Coordinates[0].Node, ".dc1") {
		t.Fatalf("datacenters: %+v", maps)
	}
	for number := 0; number < 3; number++ {
		_, err := c.Catalog().Deregister(&api.CatalogDeregistration{Node: fmt.Sprintf("go-near-%d", number)}, nil)
		must(t, err)
	}
}
