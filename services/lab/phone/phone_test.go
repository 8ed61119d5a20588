package phone_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/services/lab/phone"
)

const token = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// queue is a server of the queue dialect that hands out messages in memory.
type queue struct {
	answers chan answer // answers to give before the usual ones

	mu      sync.Mutex
	waiting []string
	calls   calls
	settled chan struct{}
	open    int // messages without a report
}

type calls struct {
	reports []report
	asked   []string    // the query of each pull
	at      []time.Time // when each call came
}

// seen gives the calls until now: one that the phone gave up may still be under way.
func (q *queue) seen() calls {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.calls
	return calls{slices.Clone(c.reports), slices.Clone(c.asked), slices.Clone(c.at)}
}

type answer struct {
	status     int
	retryAfter time.Duration
}

type report struct {
	Device   string          `json:"device"`
	Messages []phone.Outcome `json:"messages"`
}

func newQueue(messages int) *queue {
	q := &queue{answers: make(chan answer, 10), settled: make(chan struct{}), open: messages}
	for i := range messages {
		q.waiting = append(q.waiting, fmt.Sprintf("%016x", i))
	}
	return q
}

func (q *queue) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.calls.at = append(q.calls.at, time.Now())
	select {
	case a := <-q.answers:
		if a.retryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(a.retryAfter.Seconds())))
		}
		w.WriteHeader(a.status)
		_, _ = w.Write([]byte(`{"error":"as the test wants"}`))
		return
	default:
	}
	switch r.URL.Path {
	case "/api/" + token + "/get_messages":
		q.pull(w, r)
	case "/api/" + token + "/status":
		var rep report
		if err := json.NewDecoder(r.Body).Decode(&rep); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		q.calls.reports = append(q.calls.reports, rep)
		if q.open -= len(rep.Messages); q.open == 0 {
			close(q.settled)
		}
		_, _ = fmt.Fprintf(w, `{"ok":true,"updated":%d}`, len(rep.Messages))
	default:
		w.WriteHeader(http.StatusUnauthorized)
	}
}

func (q *queue) pull(w http.ResponseWriter, r *http.Request) {
	q.calls.asked = append(q.calls.asked, r.URL.RawQuery)
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	limit = min(limit, len(q.waiting))
	page := []map[string]string{}
	for _, hash := range q.waiting[:limit] {
		page = append(page, map[string]string{"phone": "+1234567890", "text": "hello", "hash": hash})
	}
	q.waiting = q.waiting[limit:]
	_ = json.NewEncoder(w).Encode(page)
}

// statuses gives what was reported of each message, and fails on a message that
// was reported twice.
func (q *queue) statuses(t *testing.T) map[string]int {
	t.Helper()
	all := map[string]int{}
	for _, r := range q.seen().reports {
		for _, m := range r.Messages {
			if _, twice := all[m.Hash]; twice {
				t.Errorf("message %s was reported twice", m.Hash)
			}
			all[m.Hash] = m.Status
		}
	}
	return all
}

// serve serves q in memory, in or outside a bubble.
func serve(t *testing.T, q *queue) phone.Options {
	t.Helper()
	listener := httpx.NewMemory()
	server := &http.Server{Handler: q}
	var done sync.WaitGroup
	done.Go(func() { _ = server.Serve(listener) })
	client := listener.Client()
	t.Cleanup(func() {
		client.CloseIdleConnections()
		_ = server.Close()
		done.Wait()
	})
	return phone.Options{URL: "http://phones.test", Token: token, Client: client, Limit: 10}
}

func mustNew(t *testing.T, o phone.Options) *phone.Phone {
	t.Helper()
	p, err := phone.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// runUntil runs a phone until done is closed.
func runUntil(t *testing.T, run func(context.Context) error, done <-chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := run(ctx); err != nil {
			t.Error(err)
		}
	})
	<-done
	cancel()
	wait.Wait()
}

func TestPhoneReportsWhatItPulled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(25)
		o := serve(t, q)
		o.Device, o.Batch, o.Wait = "pixel", 4, 20*time.Second
		o.Delay = phone.Delay{Max: time.Second}
		runUntil(t, mustNew(t, o).Run, q.settled)

		if got := len(q.statuses(t)); got != 25 {
			t.Errorf("got %d messages reported, want 25", got)
		}
		var sizes []int
		for _, r := range q.seen().reports {
			sizes = append(sizes, len(r.Messages))
			if r.Device != "pixel" {
				t.Errorf("got device %q in a report, want pixel", r.Device)
			}
		}
		if diff := cmp.Diff([]int{4, 4, 2, 4, 4, 2, 4, 1}, sizes); diff != "" {
			t.Errorf("sizes of the reports (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff("device=pixel&limit=10&wait=20", q.seen().asked[0]); diff != "" {
			t.Errorf("query of a pull (-want +got):\n%s", diff)
		}
	})
}

func TestPhoneReportsSlowWorkBetween(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(4)
		o := serve(t, q)
		o.Delay = phone.Delay{Min: 4 * time.Second, Max: 4 * time.Second}
		runUntil(t, mustNew(t, o).Run, q.settled)
		if got, want := len(q.seen().reports), 2; got != want {
			t.Errorf("got %d reports of four messages of 4 s each, want %d", got, want)
		}
	})
}

func TestPhoneFails(t *testing.T) {
	for fail, want := range map[float64]int{0: phone.Success, 1: phone.Failure} {
		synctest.Test(t, func(t *testing.T) {
			q := newQueue(5)
			o := serve(t, q)
			o.Fail = fail
			runUntil(t, mustNew(t, o).Run, q.settled)
			for hash, got := range q.statuses(t) {
				if got != want {
					t.Errorf("fail %v: message %s has status %d, want %d", fail, hash, got, want)
				}
			}
		})
	}
}

func TestPhoneWaitsAsLongAsItIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1)
		q.answers <- answer{status: http.StatusTooManyRequests, retryAfter: 30 * time.Second}
		runUntil(t, mustNew(t, serve(t, q)).Run, q.settled)
		at := q.seen().at
		if pause := at[1].Sub(at[0]); pause < 30*time.Second || pause > 33*time.Second {
			t.Errorf("got a pause of %v after Retry-After: 30, want 30 to 33 s", pause)
		}
	})
}

func TestPhoneBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1)
		for range 8 {
			q.answers <- answer{status: http.StatusServiceUnavailable}
		}
		runUntil(t, mustNew(t, serve(t, q)).Run, q.settled)
		want := 200 * time.Millisecond
		at := q.seen().at
		for i := range 8 {
			if pause := at[i+1].Sub(at[i]); pause < want/2 || pause > want*3/2 {
				t.Errorf("got pause %d of %v, want %v, give or take half", i, pause, want)
			}
			want = min(2*want, 10*time.Second)
		}
	})
}

func TestPhoneReportsUntilItIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(3)
		o := serve(t, q)
		o.Hooks.Pulled = func(string, []string) { q.answers <- answer{status: http.StatusServiceUnavailable} }
		runUntil(t, mustNew(t, o).Run, q.settled)
		if got := len(q.statuses(t)); got != 3 {
			t.Errorf("got %d messages reported, want 3", got)
		}
	})
}

// A report that is refused for good does not hold up the phone.
func TestPhoneDropsAHopelessReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(2)
		o := serve(t, q)
		o.Limit, q.open = 1, 1
		var pulled, dropped int
		o.Hooks.Pulled = func(string, []string) {
			if pulled++; pulled == 1 {
				q.answers <- answer{status: http.StatusUnprocessableEntity}
			}
		}
		o.Hooks.Dropped = func(_ string, outcomes []phone.Outcome, _ error) { dropped += len(outcomes) }
		runUntil(t, mustNew(t, o).Run, q.settled)
		if got := len(q.statuses(t)); got != 1 || dropped != 1 {
			t.Errorf("got %d messages reported and %d dropped, want 1 and 1", got, dropped)
		}
	})
}

func TestPhoneReportsWhatIsInHandWhenStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(10)
		o := serve(t, q)
		o.Delay = phone.Delay{Min: time.Hour, Max: time.Hour}
		pulled := make(chan struct{})
		o.Hooks.Pulled = func(string, []string) { close(pulled) }
		begun := time.Now()
		runUntil(t, mustNew(t, o).Run, pulled)
		if got := len(q.statuses(t)); got != 10 {
			t.Errorf("got %d messages reported, want 10", got)
		}
		if took := time.Since(begun); took > time.Minute {
			t.Errorf("the phone took %v to stop", took)
		}
	})
}

// A phone that was told to stop gives up on a server that is gone.
func TestPhoneStopsWithoutAServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(10)
		o := serve(t, q)
		stop := make(chan struct{})
		o.Hooks.Pulled = func(string, []string) {
			for range cap(q.answers) {
				q.answers <- answer{status: http.StatusBadGateway, retryAfter: time.Minute}
			}
		}
		o.Hooks.Failed = func(string, error, time.Duration) { close(stop) }
		var dropped int
		o.Hooks.Dropped = func(_ string, outcomes []phone.Outcome, _ error) { dropped += len(outcomes) }
		begun := time.Now()
		runUntil(t, mustNew(t, o).Run, stop)
		if took := time.Since(begun); took > 6*time.Second || dropped != 10 {
			t.Errorf("the phone took %v to stop and dropped %d messages, want 5 s and 10", took, dropped)
		}
	})
}

func TestPhoneWithAWrongToken(t *testing.T) {
	o := serve(t, newQueue(1))
	o.Token = "fedcba9876543210"
	err := mustNew(t, o).Run(t.Context())
	if !errors.Is(err, phone.ErrUnauthorized) {
		t.Errorf("got error %v, want ErrUnauthorized", err)
	}
}

func TestErrorsHoldNoToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener := httpx.NewMemory()
		_ = listener.Close()
		failed := make(chan error, 1)
		stop := make(chan struct{})
		o := phone.Options{URL: "http://phones.test", Token: token, Client: listener.Client(), Limit: 1}
		o.Hooks.Failed = func(_ string, err error, _ time.Duration) {
			select {
			case failed <- err:
				close(stop)
			default:
			}
		}
		runUntil(t, mustNew(t, o).Run, stop)
		if err := <-failed; strings.Contains(err.Error(), token) {
			t.Error("the error of a call holds the token")
		}
	})
}

func TestNewRefuses(t *testing.T) {
	good := phone.Options{URL: "http://phones.test", Token: token, Limit: 1}
	for want, change := range map[string]func(*phone.Options){
		"url":    func(o *phone.Options) { o.URL = "127.0.0.1:8080" },
		"token":  func(o *phone.Options) { o.Token = "" },
		"device": func(o *phone.Options) { o.Device = strings.Repeat("a", 16) },
		"limit":  func(o *phone.Options) { o.Limit = 201 },
		"wait":   func(o *phone.Options) { o.Wait = -1 },
		"fail":   func(o *phone.Options) { o.Fail = 1.1 },
	} {
		o := good
		change(&o)
		if _, err := phone.New(o); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got error %v, want one about %s", err, want)
		}
	}
	mustNew(t, good)
}

func TestDelay(t *testing.T) {
	for text, want := range map[string]phone.Delay{
		"0s":       {},
		"500ms":    {Min: 500 * time.Millisecond, Max: 500 * time.Millisecond},
		"0s..2s":   {Max: 2 * time.Second},
		"1s..1m2s": {Min: time.Second, Max: 62 * time.Second},
	} {
		var got phone.Delay
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("delay %s: got %v and error %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "2", "2s..1s", "-1s", "1s..", "..1s"} {
		if err := new(phone.Delay).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("delay %q: got no error", text)
		}
	}
}
