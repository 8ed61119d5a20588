package e2e

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/trunkline-sms/trunkline/services/operator"
	"github.com/trunkline-sms/trunkline/streams"
)

// Of the parts over a cluster only a dispatcher may purge messages and reports, and it nothing else.
func TestPurge_Permissions(t *testing.T) {
	dir := t.TempDir()
	keys := operator.Keys{Dir: dir, Owner: -1}
	if err := keys.Run(t.Context(), &operator.Terminal{Out: io.Discard, Err: io.Discard}); err != nil {
		t.Fatal(err)
	}
	public, err := os.ReadFile(filepath.Join(dir, "keys.env"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Fields(string(public)) {
		name, value, _ := strings.Cut(line, "=")
		t.Setenv(name, value)
	}
	options, err := server.ProcessConfigFile("../../../configs/cluster/accounts.conf")
	if err != nil {
		t.Fatal(err)
	}
	options.Host, options.Port, options.NoLog, options.NoSigs = "127.0.0.1", -1, true, true
	options.JetStream, options.StoreDir = true, filepath.Join(dir, "engine")
	node, err := server.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	node.Start()
	t.Cleanup(func() { node.Shutdown(); node.WaitForShutdown() })
	if !node.ReadyForConnections(time.Minute) {
		t.Fatal("the node takes no connections")
	}
	all := streams.Deployment{Shards: 3}.Names()
	own := map[string]func(string) bool{
		"ingress": func(name string) bool { return name == "KV_devices" || name == "KV_registry" },
		"quota":   func(string) bool { return false },
		"version": func(name string) bool { return name == "OBJ_apks" },
		"dispatcher": func(name string) bool {
			return strings.HasPrefix(name, "ENQUEUE_") || strings.HasPrefix(name, "STATUS_")
		},
		"operator": func(string) bool { return true },
	}
	for part, may := range own {
		option, err := nats.NkeyOptionFromSeed(filepath.Join(dir, part+".nk"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range all {
			conn, err := nats.Connect(node.ClientURL(), option, nats.CustomInboxPrefix("_INBOX."+part), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
			if err != nil {
				t.Fatal(err)
			}
			err = conn.Publish("$JS.API.STREAM.PURGE."+name, nil)
			if err == nil {
				err = conn.Flush()
			}
			if err != nil {
				t.Fatal(err)
			}
			refused := conn.LastError() != nil
			if refused == may(name) {
				t.Errorf("%s purges %s: refused is %t: %v", part, name, refused, conn.LastError())
			}
			conn.Close()
		}
	}
	if len(all) != 13 || !slices.Contains(all, streams.StatusStream(2)) {
		t.Error(fmt.Sprint("got the streams ", all))
	}
}
