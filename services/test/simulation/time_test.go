package simulation

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/services/accounts"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// inTime runs a test of what time brings, with an account on that plan.
func inTime(t *testing.T, begin time.Time, change func(*streams.Plan), f func(w *world, own *tenant)) {
	t.Helper()
	bustest.SimulateFrom(t, begin, func(t *testing.T) {
		w := &world{t: t, rng: rand.New(rand.NewPCG(1, 2)), dir: memoryDir(t), shards: 1, model: newModel()}
		w.start()
		defer func() { w.stop() }()
		plan := accounts.DefaultPlan()
		plan.Rate = 0
		change(&plan)
		f(w, w.tenant("shop", plan))
		quiesce()
		w.verify()
	})
}

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// post posts n messages, and gives the answer.
func (w *world) post(own *tenant, n int, key string) (status int, body string) {
	w.t.Helper()
	var header map[string]string
	if key != "" {
		header = map[string]string{"Idempotency-Key": key}
	}
	messages := strings.TrimSuffix(strings.Repeat(`{"phone":"+1555000001","message":"Hello"},`, n), ",")
	return w.do("POST", "/api/"+own.token+"/queue", "["+messages+"]", header, time.Minute)
}

func (w *world) mustPost(own *tenant, n int, key string) (body string) {
	w.t.Helper()
	status, body := w.post(own, n, key)
	if status != 200 {
		w.t.Fatalf("post: got %d %s", status, body)
	}
	return body
}

// away stops the server until then. Most of a long time is better spent so: it
// looks at something every second.
func (w *world) away(until time.Time) {
	w.stop()
	time.Sleep(time.Until(until))
	w.longAway = true
	w.start()
	w.longAway = false
}

// A key answers for a day, whether the server runs all the time or not, and is free again after it.
func TestKeyEndsAfterADay(t *testing.T) {
	inTime(t, noon, func(*streams.Plan) {}, func(w *world, own *tenant) {
		first := w.mustPost(own, 2, "order-1")
		end := time.Now().Add(streams.KeyTTL)
		w.away(end.Add(-time.Minute))
		if again := w.mustPost(own, 2, "order-1"); again != first {
			t.Errorf("within a day: got %s, want %s", again, first)
		}
		if status, body := w.post(own, 3, "order-1"); status != 422 {
			t.Errorf("another request under the key: got %d %s, want 422", status, body)
		}
		time.Sleep(2 * time.Minute)
		if again := w.mustPost(own, 2, "order-1"); again == first {
			t.Errorf("after a day: got the first answer %s", again)
		}
	})
}

// A minute's requests may come at once; then one comes through a second.
func TestRateComesBack(t *testing.T) {
	inTime(t, noon, func(p *streams.Plan) { p.Rate = 60 }, func(w *world, own *tenant) {
		accepted := func() (n int) {
			for {
				status, body := w.post(own, 1, "")
				switch {
				case status == 429 && strings.Contains(body, "rate_limited"):
					return n
				case status != 200:
					t.Fatalf("got %d %s", status, body)
				}
				n++
			}
		}
		for _, step := range []struct {
			wait time.Duration
			want int
		}{{0, 60}, {time.Second, 1}, {500 * time.Millisecond, 0}, {500 * time.Millisecond, 1}, {10 * time.Second, 10}, {time.Hour, 60}} {
			time.Sleep(step.wait)
			if got := accepted(); got != step.want {
				t.Errorf("after %s: %d were accepted, want %d", step.wait, got, step.want)
			}
		}
	})
}

// A limit is a month's, in UTC, to the second.
func TestMonthBegins(t *testing.T) {
	end := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	inTime(t, end.Add(-time.Hour), func(p *streams.Plan) { p.Limit = 10 }, func(w *world, own *tenant) {
		w.mustPost(own, 10, "")
		time.Sleep(time.Until(end) - time.Second)
		if status, body := w.post(own, 1, ""); status != 429 || !strings.Contains(body, `"used":10`) {
			t.Errorf("a second before the month ends: got %d %s, want 429", status, body)
		}
		time.Sleep(time.Second)
		w.mustPost(own, 10, "")
		if status, body := w.post(own, 1, ""); status != 429 {
			t.Errorf("in the new month: got %d %s, want 429", status, body)
		}
		if usage, ok := operate[request.Usage](w, request.QuotaUsage, request.UsageOf{Account: own.id}); !ok || usage.Used != 10 || usage.Month != "2026-12" {
			t.Errorf("got usage %+v", usage)
		}
	})
}

// A message is known for 30 days, and its events are kept for five more: to the hour, and as long again as a server that
// stops within that hour is away.
func TestMessagesAreForgotten(t *testing.T) {
	const day = 24 * time.Hour
	begin := time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)
	inTime(t, begin, func(*streams.Plan) {}, func(w *world, own *tenant) {
		hash := strings.Split(w.mustPost(own, 3, ""), `"hash":"`)[1][:16]
		id, err := streams.ParseMessageID(hash)
		if err != nil {
			t.Fatal(err)
		}
		known := func() bool {
			shown, ok := operate[request.Shown](w, request.DispatcherShow(0), request.Show{Account: own.id, ID: id})
			if !ok {
				t.Fatal("a message cannot be looked up")
			}
			return shown.Message != nil
		}
		stored := func() int {
			stream, err := w.bus.JS.Stream(context.Background(), streams.EnqueueStream(0))
			must(t, err)
			info, err := stream.Info(context.Background(), jetstream.WithSubjectFilter(streams.AccountSubjects(0, own.id)))
			must(t, err)
			return int(info.State.Subjects[streams.EnqueueSubject(0, own.id, streams.Lane{Priority: streams.Normal})])
		}
		time.Sleep(time.Hour) // what was stored by now is known from then on
		w.away(begin.Add(30*day - time.Hour))
		if !known() {
			t.Error("unknown before 30 days have passed")
		}
		time.Sleep(3 * time.Hour)
		if known() {
			t.Error("known after 30 days")
		}
		if _, body := w.do("POST", "/api/"+own.token+"/status", fmt.Sprintf(`{"device":"late","messages":[{"hash":%q,"status":2}]}`, hash), nil, time.Minute); !strings.Contains(body, "Unknown hash") {
			t.Errorf("a report: got %s, want that the hash is unknown", body)
		}
		if _, page := w.do("GET", "/api/"+own.token+"/get_messages", "", nil, time.Minute); page != "[]" {
			t.Errorf("a pull: got %s, want nothing", page)
		}
		w.away(begin.Add(35*day - time.Hour))
		if got := stored(); got != 3 {
			t.Errorf("got %d messages in the stream within 35 days, want 3", got)
		}
		w.verify() // from events behind the horizon, too
		time.Sleep(3 * time.Hour)
		if got := stored(); got != 0 {
			t.Errorf("got %d messages in the stream after 35 days, want none", got)
		}
		w.mustPost(own, 1, "")
	})
}
