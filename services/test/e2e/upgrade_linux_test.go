package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/testkit"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// futureKind is of an event that today's version has never heard of.
const futureKind = "messages.planned.v1"

// nextVersion builds the command as a version to come: after each lease its dispatchers decide something of a new kind,
// and its ingresses write a field more.
func nextVersion(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	replace := map[string]string{}
	alter := func(path string, changes ...string) {
		path, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		read, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text := string(read)
		for i := 0; i < len(changes); i += 2 {
			if strings.Count(text, changes[i]) != 1 {
				t.Fatalf("%s has not one of %q: the test is out of date", path, changes[i])
			}
			text = strings.Replace(text, changes[i], changes[i+1], 1)
		}
		replace[path] = filepath.Join(dir, strings.ReplaceAll(path, "/", "_"))
		if err := os.WriteFile(replace[path], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const stored = "case err == nil:\n\t\t\treturn stored, true, nil"
	alter("../../../pkg/bus/decide.go", stored, `case err == nil:
			if decision.Header.Get("`+event.KindHeader+`") == "`+string(event.KindLeased)+`" {
				planned := &nats.Msg{Subject: decision.Subject, Data: []byte("{}"), Header: nats.Header{"`+event.KindHeader+`": {"`+futureKind+`"}}}
				if next, err := d.Bus.PublishFenced(ctx, planned, stored); err == nil {
					stored = next
				}
			}
			return stored, true, nil`)
	// A field more in an event of today.
	alter("../../../streams/event/enqueue.go", "type Enqueued struct {", "type Enqueued struct {\n\tCampaign string `json:\"campaign,omitzero\"`\n")
	alter("../../ingress/messages/post.go", "Month: p.grant.Month, Grant: p.grant.ID,", "Month: p.grant.Month, Grant: p.grant.ID, Campaign: \"of the future\",")

	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	file, path := filepath.Join(dir, "overlay.json"), filepath.Join(built.dir, "trunkline-next")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-overlay", file, "-o", path, "../../cmd/trunkline").CombinedOutput(); err != nil {
		t.Fatalf("build the next version: %v: %s", err, out)
	}
	return path
}

// A cluster is upgraded part by part under load, and each of a pair works beside one of the other version: what the new
// one writes and the old one does not know is set aside. Then all of it goes back.
func TestCluster_Upgrade(t *testing.T) {
	t.Parallel()
	next := nextVersion(t)
	c := newChaos(t)
	exchange := func(path string, names ...string) {
		for _, name := range names {
			c.host.binary = func(testing.TB, string) string { return path }
			p := c.host.parts[name]
			p.end(t, syscall.SIGTERM)
			c.host.awaitReady(t, c.host.startPart(t, p.role, p.number))
			<-c.journal.after(60)
		}
	}
	ended := func() {
		for _, p := range c.host.parts {
			if p.cmd.Process.Signal(syscall.Signal(0)) != nil {
				t.Errorf("%s has ended; its log is %s", p.name(), p.log.Name())
			}
			c.host.awaitReady(t, p)
		}
	}
	exchange(next, "dispatcher-1", "ingress-1", "quota-1")
	testkit.Eventually(t, "there is an event of the future", c.ofTheFuture)
	ended()
	exchange(next, "quota-0", "dispatcher-0", "ingress-0")
	ended()
	exchange(built.path(t), "dispatcher-0", "ingress-0", "quota-0")
	ended()
	// A rebuild by the old version reads all that the next one wrote.
	c.command("projection", "verify", "dispatcher-0")
	c.bounds("upgraded and back", 0)
	c.check()
}

// ofTheFuture says whether the last decision about the first account is of a kind that today's version does not know.
func (c *chaos) ofTheFuture() (is bool) {
	c.Helper()
	c.withBus(func(b *bus.Bus) {
		last, err := b.LastForSubject(c.Context(), streams.StatusStream(0), streams.DecisionSubject(0, streams.AccountIDOf(c.accounts[0])))
		is = err == nil && last.Header.Get(event.KindHeader) == futureKind
	})
	return is
}
