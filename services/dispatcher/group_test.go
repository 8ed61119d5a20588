package dispatcher_test

import (
	"encoding/json"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// other is another account in shop's shard.
var other = streams.AccountIDOf("other")

// group accepts one request's messages.
func (h *harness) group(a streams.AccountID, name string, n int, lane streams.Lane) []streams.MessageID {
	h.t.Helper()
	var all []streams.MessageID
	for i := range n {
		m := h.ids.Message()
		all = append(all, m)
		e := event.Enqueued{ID: m, Phone: "+40700000000", Text: event.Private("text of " + m.String()), Month: "2026-11"}
		if n > 1 {
			e.Group = all[0]
		}
		if i == 0 {
			e.Name = name
		}
		h.publish(streams.EnqueueSubject(h.shards.Of(a), a, lane), e)
	}
	h.folded(a)
	return all
}

func (h *harness) find(a streams.AccountID, ref string) *request.Group {
	h.t.Helper()
	return call[request.Found](h, request.DispatcherFind(h.shards.Of(a)), request.Find{Account: a, Ref: ref}).Group
}

func (h *harness) browse(q request.Browse) (ids []streams.MessageID, total int) {
	h.t.Helper()
	got := call[request.Browsed](h, request.DispatcherBrowse(h.shards.Of(q.Account)), q)
	for _, g := range got.Groups {
		ids = append(ids, g.ID)
	}
	return ids, got.Total
}

func TestGroupsAreFound(t *testing.T) {
	h := newHarness(t, 1)
	ids := h.group(shop, "order-1", 3, normal)
	for _, ref := range []string{"order-1", ids[0].String(), ids[2].String()} {
		g := h.find(shop, ref)
		if g == nil || g.ID != ids[0] || g.Name != "order-1" || len(g.Messages) != 3 || g.State != streams.Pending {
			t.Fatalf("%s: got %+v", ref, g)
		}
		for i, m := range g.Messages {
			e, err := event.Decode[event.Enqueued](m.Body)
			if m.ID != ids[i] || err != nil || e.Text.Reveal() != "text of "+m.ID.String() {
				t.Errorf("%s: got message %d as %+v, %v", ref, i, m, err)
			}
		}
	}
	// Another account has none of it.
	for _, ref := range []string{"order-1", ids[0].String(), "order-2", "", "0000000000000000"} {
		if g := h.find(other, ref); g != nil {
			t.Errorf("got %+v as another account's %q", g, ref)
		}
	}
	page := h.pull(phone(shop, "Pixel", 2))
	h.report(shop, "Pixel", streams.Delivered, page...)
	g := h.find(shop, "order-1")
	if g.State != streams.Pending || g.Device != streams.DeviceIDOf(shop, "Pixel") {
		t.Errorf("with one left: got %+v", g)
	}
	var steps []streams.State
	for _, step := range g.Messages[0].Steps {
		if step.At.IsZero() {
			t.Error("got a step without a time")
		}
		steps = append(steps, step.State)
	}
	if diff := cmp.Diff([]streams.State{streams.Leased, streams.Delivered}, steps); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	h.pull(phone(shop, "Pixel", 2))
	h.report(shop, "Pixel", streams.Failed, ids[2])
	if g := h.find(shop, "order-1"); g.State != streams.Sent {
		t.Errorf("with one of three failed: got %v, want sent", g.State)
	}
}

func TestGroupsAreListed(t *testing.T) {
	inTime(t, func(h *harness) {
		var heads []streams.MessageID
		for i := range 5 {
			heads = append(heads, h.group(shop, "", 1+i%3, normal)[0])
			pass(time.Minute)
		}
		h.group(other, "", 1, normal)
		newest := []streams.MessageID{heads[4], heads[3], heads[2], heads[1], heads[0]}
		at := func(i int) time.Time { return heads[i].Time() }
		h.cancel(shop, true, heads[0])
		for name, test := range map[string]struct {
			q     request.Browse
			want  []streams.MessageID
			total int
		}{
			"all":         {request.Browse{Limit: 100}, newest, 5},
			"a page":      {request.Browse{Limit: 2, Offset: 1}, newest[1:3], 5},
			"oldest":      {request.Browse{Limit: 3, Oldest: true}, heads[:3], 5},
			"past it":     {request.Browse{Limit: 3, Offset: 7}, nil, 5},
			"from":        {request.Browse{Limit: 9, From: at(3)}, newest[:2], 2},
			"to":          {request.Browse{Limit: 9, To: at(1)}, newest[4:], 1},
			"of a state":  {request.Browse{Limit: 9, States: []streams.State{streams.Cancelled}}, heads[:1], 1},
			"of no state": {request.Browse{Limit: 9, States: []streams.State{streams.Sent}}, nil, 0},
			"of a device": {request.Browse{Limit: 9, Device: 7}, nil, 0},
		} {
			test.q.Account = shop
			got, total := h.browse(test.q)
			if diff := cmp.Diff(test.want, got); diff != "" || total != test.total {
				t.Errorf("%s: got %d in all, want %d (-want +got):\n%s", name, total, test.total, diff)
			}
		}
		for _, content := range []bool{false, true} {
			got := call[request.Browsed](h, request.DispatcherBrowse(0), request.Browse{Account: shop, Limit: 1, Content: content})
			e, err := event.Decode[event.Enqueued](got.Groups[0].Messages[0].Body)
			if err != nil || e.Phone == "" || (e.Text != "") != content {
				t.Errorf("with content %v: got %v, %d bytes of text", content, err, len(e.Text))
			}
		}
	})
}

// Priorities and targets: what is urgent first, and what is for another phone not at all.
func TestLanesInOrder(t *testing.T) {
	h := newHarness(t, 1)
	pixel := streams.DeviceIDOf(shop, "Pixel")
	lanes := []streams.Lane{
		{Priority: streams.Low}, {Priority: streams.Low, Target: pixel}, {Priority: streams.Normal}, {Priority: streams.Normal, Target: pixel},
		{Priority: streams.High}, {Priority: streams.High, Target: pixel},
	}
	var want []streams.MessageID
	for _, lane := range lanes {
		want = append(h.group(shop, "", 1, lane), want...)
	}
	data := h.group(shop, "", 1, streams.Lane{Priority: streams.High, Class: streams.Other})
	if diff := cmp.Diff([]streams.MessageID{want[1], want[3], want[5]}, h.pull(phone(shop, "Nexus", 10))); diff != "" {
		t.Errorf("another phone (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]streams.MessageID{want[0], want[2], want[4]}, h.pull(phone(shop, "Pixel", 10))); diff != "" {
		t.Errorf("the target (-want +got):\n%s", diff)
	}
	q := phone(shop, "Data", 10)
	q.Other = true
	if diff := cmp.Diff(data, h.pull(q)); diff != "" {
		t.Errorf("a phone that can carry data (-want +got):\n%s", diff)
	}
}

// Messages that do not fit into one answer come in the next.
func TestPagesAreBounded(t *testing.T) {
	h := newHarness(t, 1)
	var ids []streams.MessageID
	text := event.Private(strings.Repeat("x", 60_000))
	for range 100 {
		m := h.ids.Message()
		ids = append(ids, m)
		h.publish(streams.EnqueueSubject(0, shop, normal), event.Enqueued{ID: m, Phone: "+40700000000", Text: text, Month: "2026-11"})
	}
	var got []streams.MessageID
	for len(got) < len(ids) {
		page := call[request.Pulled](h, request.DispatcherPull(0), phone(shop, "Pixel", 100))
		size := 0
		for _, m := range page.Messages {
			size += len(m.Body)
			got = append(got, m.ID)
		}
		if size > 4<<20 || size == 0 {
			t.Fatalf("got a page of %d bytes", size)
		}
	}
	// What is put back comes again when the engine thinks fit.
	slices.Sort(got)
	if diff := cmp.Diff(ids, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := bus.Call[request.Browsed](t.Context(), h.bus, request.DispatcherBrowse(0), request.Browse{Account: shop, Limit: 100, Content: true}); err == nil {
		t.Error("got a list that is larger than an answer may be")
	}
	if got, _ := h.browse(request.Browse{Account: shop, Limit: 50, Content: true}); len(got) != 50 {
		t.Errorf("got a list of %d, want 50", len(got))
	}
}

// A group that is larger than an answer may be comes in several, also behind
// the first of a list.
func TestLargeGroupsComeInParts(t *testing.T) {
	h := newHarness(t, 1)
	var ids []streams.MessageID
	for i := range 1000 {
		m := h.ids.Message()
		ids = append(ids, m)
		e := event.Enqueued{ID: m, Group: ids[0], Phone: "+40700000000", Text: event.Private(strings.Repeat("x", 20_000)), Month: "2026-11"}
		if i == 0 {
			e.Name = "large"
		}
		h.publishLater(streams.EnqueueSubject(0, shop, normal), e)
	}
	h.await()
	asked := 0
	ask := func(q request.Find) (request.Found, error) {
		asked++
		found := call[request.Found](h, request.DispatcherFind(0), q)
		if data, err := json.Marshal(found); err != nil || len(data) > maxAnswer {
			t.Fatalf("got an answer of %d bytes, %v", len(data), err)
		}
		return found, nil
	}
	check := func(g *request.Group) {
		t.Helper()
		if g == nil || g.ID != ids[0] || !g.More {
			t.Fatalf("got %v as the first part", g)
		}
		if err := g.Rest(shop, ask); err != nil {
			t.Fatal(err)
		}
		for i, m := range g.Messages {
			e, err := event.Decode[event.Enqueued](m.Body)
			if i < len(ids) && (m.ID != ids[i] || err != nil || e.ID != m.ID || len(e.Text) != 20_000) {
				t.Fatalf("message %d is %s, %v", i, m.ID, err)
			}
		}
		if len(g.Messages) != len(ids) || g.More {
			t.Errorf("got %d messages", len(g.Messages))
		}
	}
	found, _ := ask(request.Find{Account: shop, Ref: "large"})
	check(found.Group)
	if asked < 5 || asked > 6 {
		t.Errorf("it came in %d parts", asked)
	}
	listed := call[request.Browsed](h, request.DispatcherBrowse(0), request.Browse{Account: shop, Limit: 1, Content: true})
	check(&listed.Groups[0])
	if listed := call[request.Browsed](h, request.DispatcherBrowse(0), request.Browse{Account: shop, Limit: 100}); listed.Groups[0].More {
		t.Error("without their content the messages did not fit")
	}
}

// maxAnswer is the most that an answer may be.
const maxAnswer = 6 << 20

// Of a list that is larger than an answer may be hardly more is read than fits.
func TestListsReadOnlySoMuch(t *testing.T) {
	h := newHarness(t, 1)
	const groups, members, length = 40, 25, 60_000
	text := event.Private(strings.Repeat("x", length))
	for range groups {
		first := h.ids.Message()
		for k := range members {
			m := first
			if k > 0 {
				m = h.ids.Message()
			}
			h.publishLater(streams.EnqueueSubject(0, shop, normal), event.Enqueued{ID: m, Group: first, Phone: "+40700000000", Text: text, Month: "2026-11"})
		}
		h.await()
	}
	h.folded(shop)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := bus.Call[request.Browsed](t.Context(), h.bus, request.DispatcherBrowse(0), request.Browse{Account: shop, Limit: 100, Content: true})
	runtime.ReadMemStats(&after)
	if fault.As(err).Code != "too_much" {
		t.Errorf("got %v, want too_much", err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > groups*members*length {
		t.Errorf("refusing %d bytes of messages took %d bytes", groups*members*length, used)
	}
}

// A list looks through so many messages and no more.
func TestListsLookOnlySoFar(t *testing.T) {
	h := newHarness(t, 1)
	const most, beyond = 100_000, 100
	for range most + beyond {
		h.publishLater(streams.EnqueueSubject(0, shop, normal), event.Enqueued{ID: h.ids.Message(), Phone: "+40700000000", Text: "t", Month: "2026-11"})
	}
	h.await()
	if got, total := h.browse(request.Browse{Account: shop, Limit: 2}); len(got) != 2 || total != most {
		t.Errorf("got %d groups of %d, want 2 of %d", len(got), total, most)
	}
	if got, total := h.browse(request.Browse{Account: shop, Limit: 2, States: []streams.State{streams.Sent}}); len(got) != 0 || total != 0 {
		t.Errorf("got %d groups of %d, want none", len(got), total)
	}
}
