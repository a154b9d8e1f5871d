// A member of a pool made of HashiCorp's own library, as a program that a test drives: one command a line on standard input,
// one answer or event a line on standard output.
package main

import (
	"bufio"
	"encoding/base64"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"
)

func configuration(name, bind, key string, protocol int, events chan serf.Event) (*serf.Config, error) {
	host, port, err := net.SplitHostPort(bind)
	if err != nil {
		return nil, err
	}
	config := serf.DefaultConfig()
	config.NodeName = name
	config.ProtocolVersion = uint8(protocol)
	config.Tags = map[string]string{"role": "library"}
	config.EventCh = events
	config.MemberlistConfig = memberlist.DefaultLocalConfig()
	config.MemberlistConfig.BindAddr = host
	if config.MemberlistConfig.BindPort, err = strconv.Atoi(port); err != nil {
		return nil, err
	}
	config.MemberlistConfig.AdvertisePort = config.MemberlistConfig.BindPort
	if key != "" {
		secret, err := base64.StdEncoding.DecodeString(key)
		if err != nil {
			return nil, err
		}
		if config.MemberlistConfig.Keyring, err = memberlist.NewKeyring(nil, secret); err != nil {
			return nil, err
		}
	}
	return config, nil
}

func tell(event serf.Event) {
	switch event := event.(type) {
	case serf.MemberEvent:
		for _, member := range event.Members {
			fmt.Printf("%s %s\n", event.Type, member.Name)
		}
	case serf.UserEvent:
		fmt.Printf("user %s %s\n", event.Name, event.Payload)
	case *serf.Query:
		fmt.Printf("query %s %s\n", event.Name, event.Payload)
		if err := event.Respond([]byte("library says " + string(event.Payload))); err != nil {
			fmt.Printf("error %v\n", err)
		}
	}
}

func members(pool *serf.Serf) string {
	var lines []string
	for _, member := range pool.Members() {
		lines = append(lines, fmt.Sprintf("%s=%s(%s)", member.Name, member.Status, member.Tags["role"]))
	}
	sort.Strings(lines)
	return strings.Join(lines, " ")
}

func ask(pool *serf.Serf, name, payload string) (string, error) {
	parameters := pool.DefaultQueryParams()
	parameters.RequestAck = true
	parameters.Timeout = 3 * time.Second
	query, err := pool.Query(name, []byte(payload), parameters)
	if err != nil {
		return "", err
	}
	var answers []string
	for answer := range query.ResponseCh() {
		answers = append(answers, answer.From+":"+string(answer.Payload))
	}
	sort.Strings(answers)
	return strings.Join(answers, "|"), nil
}

func do(pool *serf.Serf, words []string) (string, error) {
	argument := func(at int) string {
		if at < len(words) {
			return words[at]
		}
		return ""
	}
	switch words[0] {
	case "join":
		count, err := pool.Join([]string{argument(1)}, false)
		return strconv.Itoa(count), err
	case "members":
		return members(pool), nil
	case "event":
		return "", pool.UserEvent(argument(1), []byte(argument(2)), false)
	case "query":
		return ask(pool, argument(1), argument(2))
	case "rotate":
		for _, step := range []func(string) (*serf.KeyResponse, error){
			pool.KeyManager().InstallKey, pool.KeyManager().UseKey,
		} {
			if _, err := step(argument(1)); err != nil {
				return "", err
			}
		}
		return "", nil
	case "leave":
		return "", pool.Leave()
	}
	return "", fmt.Errorf("unknown command %q", words[0])
}

func main() {
	name := flag.String("name", "library", "the member's name")
	bind := flag.String("bind", "127.0.0.1:7946", "where it listens")
	key := flag.String("key", "", "the pool's key in base64")
	protocol := flag.Int("protocol", 5, "Serf's protocol")
	flag.Parse()
	events := make(chan serf.Event, 256)
	config, err := configuration(*name, *bind, *key, *protocol, events)
	if err != nil {
		log.Fatal(err)
	}
	pool, err := serf.Create(config)
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		for event := range events {
			tell(event)
		}
	}()
	fmt.Println("ready")
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		words := strings.Fields(input.Text())
		if len(words) == 0 {
			continue
		}
		answer, err := do(pool, words)
		if err != nil {
			fmt.Printf("failed %s %v\n", words[0], strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		fmt.Printf("done %s %s\n", words[0], answer)
	}
}
