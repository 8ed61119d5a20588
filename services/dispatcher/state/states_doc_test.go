package state

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// docTable gives the rows of the table with that header, without backticks.
func docTable(t *testing.T, page, header string) [][]string {
	t.Helper()
	var rows [][]string
	inside := false
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		switch {
		case line == header:
			inside = true
			continue
		case !strings.HasPrefix(line, "|"):
			inside = false
			continue
		case !inside || strings.HasPrefix(line, "|--"):
			continue
		}
		cells := strings.Split(strings.ReplaceAll(strings.Trim(line, "|"), "`", ""), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	if len(rows) == 0 {
		t.Fatalf("docs/states.md has no table %s", header)
	}
	return rows
}

const (
	statesHeader    = "| state | means | code | ended |"
	eventsHeader    = "| from | released | leased | lapsed: pending | lapsed: leased | lapsed: failed | cancelled | expired | requeued | reported: sent | reported: delivered | reported: failed |"
	conditionHeader = "| event | round | lease | phone |"
	holderHeader    = "| lease names | report names | holder |"
	policyHeader    = "| policy | attempts | becomes |"
)

func TestStatesPage(t *testing.T) {
	text, err := os.ReadFile("../../../docs/states.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	t.Run("states", func(t *testing.T) { checkStates(t, docTable(t, page, statesHeader)) })
	events := docTable(t, page, eventsHeader)
	t.Run("events", func(t *testing.T) { checkEvents(t, events) })
	t.Run("diagram", func(t *testing.T) { checkDiagram(t, page, events) })
	t.Run("conditions", func(t *testing.T) { checkConditions(t, docTable(t, page, conditionHeader)) })
	t.Run("holders", func(t *testing.T) { checkHolders(t, docTable(t, page, holderHeader)) })
	t.Run("policies", func(t *testing.T) { checkPolicies(t, docTable(t, page, policyHeader)) })
	t.Run("kinds", func(t *testing.T) {
		for _, kind := range eventKinds(t) {
			if strings.HasPrefix(kind, "release.") {
				continue // of no message
			}
			if !strings.Contains(page, "`"+kind+"`") {
				t.Errorf("the page does not name %s", kind)
			}
		}
	})
}

func checkStates(t *testing.T, rows [][]string) {
	var got []string
	for _, row := range rows {
		got = append(got, strings.Join([]string{row[0], row[2], row[3]}, " "))
	}
	var want []string
	for _, s := range streams.States() {
		ended := map[bool]string{true: "yes", false: "no"}[s.Terminal()]
		want = append(want, strings.Join([]string{s.String(), strconv.Itoa(s.Code()), ended}, " "))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("states (-code +page):\n%s", diff)
	}
}

// columns are the events of the table, in its order.
func columns() []string {
	cells := strings.Split(strings.Trim(eventsHeader, "| "), " | ")
	return cells[1:]
}

func checkEvents(t *testing.T, rows [][]string) {
	var from []string
	for _, row := range rows {
		from = append(from, row[0])
		for i, column := range columns() {
			want := row[i+1]
			if want == "·" {
				want = row[0]
			}
			m := newDocMessage(t, row[0])
			m.apply(m.event(column, fitting))
			if got := m.state(); got != want {
				t.Errorf("%s, %s: the fold gives %q, the page %q", row[0], column, got, want)
			}
		}
	}
	want := []string{"held"}
	for _, s := range streams.States() {
		want = append(want, s.String())
	}
	slices.Sort(from)
	slices.Sort(want)
	if diff := cmp.Diff(want, from); diff != "" {
		t.Errorf("rows (-code +page):\n%s", diff)
	}
}

var edge = regexp.MustCompile(`(?m)^\s*(\w+) --> (\w+)$`)

// checkDiagram holds the diagram to the table.
func checkDiagram(t *testing.T, page string, rows [][]string) {
	want := map[string]bool{}
	for _, row := range rows {
		for _, cell := range row[1:] {
			if to, _, _ := strings.Cut(cell, " "); cell != "·" {
				want[row[0]+" "+to] = true
			}
		}
	}
	got := map[string]bool{}
	for _, match := range edge.FindAllStringSubmatch(page, -1) {
		got[match[1]+" "+match[2]] = true
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("arrows (-table +diagram):\n%s", diff)
	}
}

// fit says in what an event does not fit its message.
type fit struct{ otherRound, otherLease, otherPhone bool }

var fitting = fit{}

// docMessage is a message in a projection of its own.
type docMessage struct {
	t    *testing.T
	db   *bolt.DB
	seq  uint64
	held bool // the state to come to is held
}

var (
	docAccount = streams.AccountIDOf("docs")
	docID      = streams.FirstIDAt(docTime)
	docTime    = streams.Epoch.Add(100 * 24 * time.Hour)
)

const (
	docLease  streams.LeaseID  = 10
	nextLease streams.LeaseID  = 11
	docPhone  streams.DeviceID = 1
	noPhone   streams.DeviceID = 0
	stranger  streams.DeviceID = 2
)

// newDocMessage brings a message into a state, by events where there are any
// that do.
func newDocMessage(t *testing.T, state string) *docMessage { return newLeasedBy(t, state, docPhone) }

func newLeasedBy(t *testing.T, state string, phone streams.DeviceID) *docMessage {
	t.Helper()
	db, err := bolt.Open(filepath.Join(t.TempDir(), "states.db"), 0o600, &bolt.Options{NoSync: true, NoFreelistSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	m := &docMessage{t: t, db: db}
	if accepted := (event.Enqueued{ID: docID}); state == "scheduled" {
		accepted.Due = docTime.Add(time.Hour)
		m.apply(event.Scheduled{Enqueued: accepted})
	} else {
		m.apply(accepted)
	}
	leased := event.Leased{Lease: docLease, Device: phone, At: docTime, Until: docTime.Add(time.Hour), Policy: streams.Retry, Attempts: 3, Messages: []event.Attempt{{ID: docID}}}
	switch state {
	case "pending", "scheduled":
	case "leased", "failed", "held":
		m.apply(leased)
		if state != "leased" {
			to := map[string]streams.State{"failed": streams.Failed, "held": streams.Leased}[state]
			m.apply(event.Lapsed{Lease: docLease, Messages: []event.Lapse{{ID: docID, To: to}}})
		}
	case "cancelled":
		m.apply(event.Cancelled{Messages: []event.Attempt{{ID: docID}}})
	case "expired":
		m.apply(event.Expired{Messages: []event.Attempt{{ID: docID}}})
	case "sent", "delivered":
		to := map[string]streams.State{"sent": streams.Sent, "delivered": streams.Delivered}[state]
		m.apply(event.Reported{Messages: []event.Report{{ID: docID, State: to}}})
	default:
		t.Fatalf("the page names the state %q, which there is not", state)
	}
	if got := m.state(); got != state {
		t.Fatalf("got a message that is %s, want %s", got, state)
	}
	return m
}

// event makes the event of a column about the message as it stands.
func (m *docMessage) event(column string, f fit) event.Event {
	m.t.Helper()
	round, lease, phone := m.record().round, docLease, docPhone
	if f.otherRound {
		round++
	}
	if f.otherLease {
		lease = nextLease
	}
	if f.otherPhone {
		phone = stranger
	}
	attempts := []event.Attempt{{ID: docID, Round: round}}
	kind, to, _ := strings.Cut(column, ": ")
	var state streams.State
	if to != "" {
		if err := state.UnmarshalText([]byte(to)); err != nil {
			m.t.Fatal(err)
		}
	}
	switch kind {
	case "released":
		return event.Enqueued{ID: docID, Released: true}
	case "expired":
		return event.Expired{Messages: attempts}
	case "leased":
		lease = nextLease
		if f.otherLease {
			lease = docLease // taken
		}
		return event.Leased{Lease: lease, Device: phone, At: docTime, Until: docTime.Add(time.Hour), Policy: streams.Retry, Attempts: 3, Messages: attempts}
	case "lapsed":
		return event.Lapsed{Lease: lease, Messages: []event.Lapse{{ID: docID, Round: round, To: state}}}
	case "cancelled":
		return event.Cancelled{Messages: attempts}
	case "requeued":
		return event.Requeued{Messages: attempts}
	case "reported":
		return event.Reported{Device: phone, Messages: []event.Report{{ID: docID, State: state}}}
	}
	m.t.Fatalf("the page names the event %q, which there is not", column)
	return nil
}

func (m *docMessage) apply(e event.Event) {
	m.t.Helper()
	subject := streams.DecisionSubject(0, docAccount)
	switch e.Kind() {
	case event.KindEnqueued:
		subject = streams.EnqueueSubject(0, docAccount, streams.Lane{})
	case event.KindScheduled:
		subject = streams.ScheduledSubject(0, docAccount)
	case event.KindReported:
		subject = streams.ReportSubject(0, docAccount)
	}
	data, err := event.Encode(e)
	if err != nil {
		m.t.Fatal(err)
	}
	m.seq++
	err = m.db.Update(func(tx *bolt.Tx) error {
		return Fold{}.Apply(tx, projection.Event{Subject: subject, Kind: string(e.Kind()), Seq: m.seq, Time: docTime, Data: data})
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *docMessage) record() (r record) {
	m.t.Helper()
	err := m.db.View(func(tx *bolt.Tx) (err error) {
		r, _, err = View{tx}.Account(docAccount).record(docID)
		if err == nil && r.state == streams.Leased {
			m.held, err = View{tx}.Account(docAccount).isHeld(&r)
		}
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return r
}

// state says where the message stands, in the page's words.
func (m *docMessage) state() string {
	m.t.Helper()
	r := m.record()
	word := r.currentState().String()
	if r.state == streams.Leased && m.held {
		word = "held"
	}
	if r.round > 0 {
		word += " +" + strconv.Itoa(r.round)
	}
	return word
}

// checkConditions applies each event once as it does not fit: "any" and "–"
// mean that it works all the same.
func checkConditions(t *testing.T, rows [][]string) {
	seen := map[string]bool{}
	for _, row := range rows {
		seen[row[0]] = true
		column, from := row[0], "leased"
		switch row[0] {
		case "lapsed": // of a lease that is held already: it cannot become so
			column, from = "lapsed: failed", "held"
		case "leased":
			from = "held"
		case "requeued":
			from = "failed"
		case "released":
			from = "scheduled"
		}
		works := newDocMessage(t, from)
		works.apply(works.event(column, fitting))
		want := works.state()
		if want == from {
			t.Fatalf("%s does nothing to a message that is %s", column, from)
		}
		for i, off := range []fit{{otherRound: true}, {otherLease: true}, {otherPhone: true}} {
			m := newDocMessage(t, from)
			m.apply(m.event(column, off))
			got, matters := m.state(), !slices.Contains([]string{"any", "–"}, row[i+1])
			if matters && got != from {
				t.Errorf("%s with another %s: the message becomes %s, the page says that it stays %s", column, []string{"round", "lease", "phone"}[i], got, from)
			}
			if !matters && got != want {
				t.Errorf("%s with another %s: the message is %s, the page says that it becomes %s", column, []string{"round", "lease", "phone"}[i], got, want)
			}
		}
	}
	for _, column := range columns() {
		kind, _, _ := strings.Cut(column, ": ")
		if !seen[column] && !seen[kind] {
			t.Errorf("the page does not say when %q fits", column)
		}
	}
}

func checkHolders(t *testing.T, rows [][]string) {
	phones := map[string]streams.DeviceID{"nobody": noPhone, "a phone": docPhone, "the same phone": docPhone, "another phone": stranger}
	if len(rows) != 5 {
		t.Errorf("got %d rows, want the 5 ways that lease and report can name phones", len(rows))
	}
	for _, row := range rows {
		lease, ok := phones[row[0]]
		report, ok2 := phones[row[1]]
		if !ok || !ok2 {
			t.Fatalf("unknown phones in %v", row)
		}
		m := newLeasedBy(t, "leased", lease)
		m.apply(event.Reported{Device: report, Messages: []event.Report{{ID: docID, State: streams.Failed}}})
		holder := map[bool]string{true: "yes", false: "no"}[m.state() == "failed"]
		if holder != row[2] {
			t.Errorf("lease of %s, report of %s: holder %s, the page says %s", row[0], row[1], holder, row[2])
		}
	}
}

func checkPolicies(t *testing.T, rows [][]string) {
	got := map[string]string{}
	for _, row := range rows {
		got[row[0]+", "+row[1]] = row[2]
	}
	want := map[string]string{}
	for _, policy := range []streams.LapsePolicy{streams.Retry, streams.Hold, streams.Fail} {
		want[string(policy)+", left"] = fate(lease{policy: policy, attempts: 3}, record{tries: 2}).String()
		want[string(policy)+", used up"] = fate(lease{policy: policy, attempts: 3}, record{tries: 3}).String()
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("policies (-code +page):\n%s", diff)
	}
}

// eventKinds reads the kinds off the contract's source, so that a new one
// cannot be forgotten here.
func eventKinds(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../../../streams/event/event.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "Kind" {
			for _, value := range spec.Values {
				text, err := strconv.Unquote(value.(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				kinds = append(kinds, text)
			}
		}
		return true
	})
	if len(kinds) == 0 {
		t.Fatal("found no kinds in streams/event/event.go")
	}
	return kinds
}
