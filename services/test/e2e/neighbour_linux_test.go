package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/trunkline-sms/trunkline/pkg/secret"
	"github.com/trunkline-sms/trunkline/pkg/table"
	"github.com/trunkline-sms/trunkline/pkg/testkit"
	"github.com/trunkline-sms/trunkline/services/accounts"
)

const (
	neighbourPhones = 20
	neighbourPace   = 50 * time.Millisecond // between two posts
	neighbourPost   = 10                    // messages of a post: 200 a second
	neighbourPage   = 5                     // messages of a pull
	neighbourLease  = 30 * time.Second
	// neighbourLate is the most posts under way: then the next one waits.
	neighbourLate = 512
)

// The phases of what is measured.
const (
	quietPhase = iota
	hostilePhase
	afterwards
)

// neighbour is a good account: it posts as many messages a second as it did yesterday, its phones wait for them and
// report each, and its owner signs in with a password now and then.
type neighbour struct {
	*trunkline
	name    string
	token   string
	journal *journal
	phase   atomic.Int32
	sending atomic.Int32  // requests that are not answered
	halt    chan struct{} // closed when no more are to be posted

	signing  sync.RWMutex // held for writing while the password changes
	password string

	mu      sync.Mutex
	posted  map[string]time.Time // by text, until a phone has it
	took    map[string]*[3]*hdrhistogram.Histogram
	trouble map[string]int // what was answered otherwise than it should, during the quiet and the hostile phase
}

func newNeighbour(s *trunkline, name string) *neighbour {
	s.Helper()
	n := &neighbour{
		trunkline: s, name: name, journal: newJournal(neighbourLease), halt: make(chan struct{}),
		posted: map[string]time.Time{}, took: map[string]*[3]*hdrhistogram.Histogram{}, trouble: map[string]int{},
		password: "correct horse " + name,
	}
	plan := accounts.DefaultPlan()
	plan.Rate, plan.Lease = 0, neighbourLease
	s.withAccounts(func(book *accounts.Accounts) (uint64, error) {
		made, err := book.Create(s.Context(), accounts.Spec{Name: name, Plan: plan, Login: name, Password: secret.String(n.password)})
		n.token = made.Token.Reveal()
		return made.Revision, err
	})
	logs.secret(n.token)
	return n
}

// begin begins a phase.
func (n *neighbour) begin(phase int32) { n.phase.Store(phase) }

// changePassword gives the owner another one.
func (n *neighbour) changePassword() {
	n.Helper()
	n.signing.Lock()
	defer n.signing.Unlock()
	n.password += " battery"
	password := secret.String(n.password)
	n.withAccounts(func(book *accounts.Accounts) (uint64, error) {
		return book.Set(n.Context(), n.name, accounts.Change{Password: &password})
	})
}

// work lets all work until ctx is done.
func (n *neighbour) work(ctx context.Context) (wait func()) {
	var all sync.WaitGroup
	all.Go(func() { n.post(ctx) })
	for i := range neighbourPhones {
		all.Go(func() { n.carry(ctx, i) })
	}
	return all.Wait
}

// rest posts no more, and waits until all that was accepted has been delivered.
func (n *neighbour) rest() {
	n.Helper()
	close(n.halt)
	over := time.NewTimer(testkit.Patience)
	defer over.Stop()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for c := n.journal.count(); c.Lost+c.Refused+int(n.sending.Load()) > 0; c = n.journal.count() {
		select {
		case <-again.C:
		case <-over.C:
			n.Errorf("the good account's messages are not all answered and delivered within %v after the attack: %+v", testkit.Patience, c)
			return
		}
	}
}

// post posts at its pace, whether the one before is answered or not.
func (n *neighbour) post(ctx context.Context) {
	var under sync.WaitGroup
	defer under.Wait()
	room := make(chan struct{}, neighbourLate)
	tick := time.NewTicker(neighbourPace)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-n.halt:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		room <- struct{}{}
		under.Go(func() {
			defer func() { <-room }()
			if i%40 == 19 {
				n.postAs(ctx, i)
			}
			if i%40 == 39 {
				n.postByNode(ctx, i)
			}
			messages := make([]sms, neighbourPost)
			for k := range messages {
				messages[k] = sms{fmt.Sprintf("+1202%07d", i*neighbourPost+k), text("good", i*neighbourPost+k)}
			}
			body, err := json.Marshal(messages)
			if err != nil {
				n.note("post", err.Error())
				return
			}
			a := n.api(n.token)
			n.send(ctx, "post", messages, true, func() (answer, error) {
				return a.do(http.MethodPost, "/queue", string(body), "Idempotency-Key", messages[0].Message, "X-Forwarded-For", "198.51.100.1")
			})
		})
	}
}

// postAs posts one message as the owner, who signs in for it.
func (n *neighbour) postAs(ctx context.Context, i int) {
	one := sms{fmt.Sprintf("+1203%07d", i), text("owner", i)}
	body := fmt.Sprintf(`{"id":"order-%d","phoneNumbers":[%q],"textMessage":{"text":%q}}`, i, one.Phone, one.Message)
	a := api{n.Context(), n.client, n.url + thirdparty}
	n.send(ctx, "basic", []sms{one}, true, func() (answer, error) {
		n.signing.RLock()
		defer n.signing.RUnlock()
		header := "Basic " + base64.StdEncoding.EncodeToString([]byte(n.name+":"+n.password))
		got, err := a.do(http.MethodPost, "/messages", body, "Authorization", header, "Content-Type", "application/json", "X-Forwarded-For", "198.51.100.2")
		if got.status == http.StatusAccepted || got.status == http.StatusConflict { // a repeat of what was stored
			got.status = http.StatusOK
		}
		return got, err
	})
}

// postByNode posts one message with the login in the body.
func (n *neighbour) postByNode(ctx context.Context, i int) {
	one := sms{fmt.Sprintf("+1203%07d", i), text("owner", i)}
	a := api{n.Context(), n.client, n.url}
	n.send(ctx, "node", []sms{one}, false, func() (answer, error) {
		n.signing.RLock()
		defer n.signing.RUnlock()
		body := fmt.Sprintf(`{"deviceUsername":%q,"password":%q,"phoneNumbers":[%q],"message":%q}`, n.name, n.password, one.Phone, one.Message)
		return a.do(http.MethodPost, "/api/send-sms", body, "Content-Type", "application/json", "X-Forwarded-For", "198.51.100.2")
	})
}

// send posts until it is answered as it should be, and says how often it was not. What has no key is not posted again
// where nobody knows whether it is stored.
func (n *neighbour) send(ctx context.Context, what string, messages []sms, keyed bool, do func() (answer, error)) {
	n.journal.posting(messages)
	n.sending.Add(1)
	defer n.sending.Add(-1)
	begun := time.Now()
	n.mu.Lock()
	for _, m := range messages {
		n.posted[m.Message] = begun
	}
	n.mu.Unlock()
	for {
		phase := n.phase.Load()
		got, err := do()
		open := n.journal.posted(messages, keyed, got, err)
		if err == nil && got.status == http.StatusOK {
			n.record(what, phase, time.Since(begun))
			return
		}
		n.refused(what, phase, got, err)
		if open && !keyed || !rest(ctx, retry) {
			return
		}
	}
}

// carry is a phone: it waits for messages, and reports each.
func (n *neighbour) carry(ctx context.Context, i int) {
	a, device, from := n.api(n.token), fmt.Sprintf("phone-%d", i), fmt.Sprintf("198.51.100.%d", 10+i)
	a.ctx = ctx
	for ctx.Err() == nil {
		phase, asked := n.phase.Load(), time.Now()
		got, err := a.do(http.MethodGet, fmt.Sprintf("/get_messages?device=%s&limit=%d&wait=30", device, neighbourPage), "", "X-Forwarded-For", from)
		var page []outgoing
		if err == nil && got.status == http.StatusOK {
			err = json.Unmarshal([]byte(got.body), &page)
		}
		if err != nil || got.status != http.StatusOK {
			if ctx.Err() != nil {
				return
			}
			n.refused("pull", phase, got, err)
			rest(ctx, retry)
			continue
		}
		if len(page) == 0 {
			continue
		}
		n.journal.pulled(device, asked, page)
		n.record("pull", n.phase.Load(), time.Since(n.ready(asked, page)))
		for !n.report(ctx, a, device, from, page) && rest(ctx, retry) {
		}
	}
}

// ready is when there were a phone and a message for it: from then on it is the server who keeps them waiting.
func (n *neighbour) ready(asked time.Time, page []outgoing) time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range page {
		if at := n.posted[m.Text]; at.After(asked) {
			asked = at
		}
		delete(n.posted, m.Text)
	}
	return asked
}

func (n *neighbour) report(ctx context.Context, a api, device, from string, page []outgoing) bool {
	items := make([]string, len(page))
	for i, m := range page {
		items[i] = fmt.Sprintf(`{"hash":%q,"status":%d}`, m.Hash, success)
	}
	phase, begun := n.phase.Load(), time.Now()
	got, err := a.do(http.MethodPost, "/status", fmt.Sprintf(`{"device":%q,"messages":[%s]}`, device, strings.Join(items, ",")), "X-Forwarded-For", from)
	if err == nil && got.status == http.StatusOK && !strings.HasPrefix(got.body, `{"ok":true,`) {
		err = errors.New("not ok")
	}
	if err != nil || got.status != http.StatusOK {
		n.refused("report", phase, got, err)
		return ctx.Err() != nil
	}
	n.record("report", phase, time.Since(begun))
	n.journal.reported(page)
	return true
}

// refused notes what was not answered as it should be.
func (n *neighbour) refused(what string, phase int32, got answer, err error) {
	said := fmt.Sprint(got.status, " ", got.queued().Code)
	if err != nil {
		said = "broken off: " + err.Error()
	}
	n.note(what, fmt.Sprint([]string{"quiet", "hostile", "afterwards"}[phase], ": ", said))
}

func (n *neighbour) note(what, said string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.trouble[what+", "+said]++
}

func (n *neighbour) record(what string, phase int32, took time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.took[what] == nil {
		n.took[what] = &[3]*hdrhistogram.Histogram{}
		for i := range n.took[what] {
			n.took[what][i] = hdrhistogram.New(1, (10 * time.Minute).Microseconds(), 3)
		}
	}
	_ = n.took[what][phase].RecordValue(took.Microseconds())
}

func (n *neighbour) at(what string, phase int, q float64) time.Duration {
	return time.Duration(n.took[what][phase].ValueAtQuantile(q)) * time.Microsecond
}

// kinds are what was measured.
func (n *neighbour) kinds() (all []string) {
	for what := range n.took {
		all = append(all, what)
	}
	slices.Sort(all)
	return all
}

func (n *neighbour) table() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := table.Table{Right: true}
	all.Row("", "quiet", "p50", "p99", "hostile", "p50", "p99", "factor")
	for _, what := range n.kinds() {
		of := n.took[what]
		all.Row(what, of[quietPhase].TotalCount(), n.at(what, quietPhase, 50), n.at(what, quietPhase, 99),
			of[hostilePhase].TotalCount(), n.at(what, hostilePhase, 50), n.at(what, hostilePhase, 99), fmt.Sprintf("%.1f", n.factor(what)))
	}
	var text strings.Builder
	_ = all.Print(&text)
	return text.String()
}

// factor is by how much the slowest became slower.
func (n *neighbour) factor(what string) float64 {
	return float64(n.at(what, hostilePhase, 99)) / float64(max(n.at(what, quietPhase, 99), 1))
}

// slower says what became slower by more than a factor.
func (n *neighbour) slower(factor float64) (all []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, what := range n.kinds() {
		if got := n.factor(what); got > factor {
			all = append(all, fmt.Sprintf("%s: the 99th percentile became %.1f times as long, want at most %v", what, got, factor))
		}
	}
	return all
}
