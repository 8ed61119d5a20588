package ingress_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

const (
	one    = `[{"phone":"+1234567890","message":"Hello"}]`
	queued = `{"ok":true,"queued":1,"failed":0,"items":[{"index":0,"hash":"`
)

// Of many requests with one key, one is stored, and all get its answer; so does one after a restart.
func TestIngress_OneKey(t *testing.T) {
	f := start(t, options{})
	id := streams.AccountIDOf("acme")
	token := f.Token("acme", func(a *streams.Account) { a.Plan.Limit = 1000 })
	answers := make([]string, 20)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() {
			status, body := f.Post("/api/"+token+"/queue", one, "Idempotency-Key", "k")
			answers[i] = fmt.Sprint(status, body)
		})
	}
	all.Wait()
	for _, answer := range answers {
		if answer != answers[0] || !strings.HasPrefix(answer, "200"+queued) {
			t.Fatalf("got %s and %s", answers[0], answer)
		}
	}
	if got := f.Stored("ENQUEUE_0", "sms.enqueue.>"); got != 1 {
		t.Errorf("got %d messages, want 1", got)
	}
	if got := f.Quota.Used(id); got != 1 {
		t.Errorf("quota counts %d, want 1", got)
	}
	f.Restart()
	status, body := f.Post("/api/"+token+"/queue", one, "Idempotency-Key", "k")
	if got := fmt.Sprint(status, body); got != answers[0] {
		t.Errorf("after a restart: got %s, want %s", got, answers[0])
	}
	if got := f.Stored("ENQUEUE_0", "sms.enqueue.>"); got != 1 {
		t.Errorf("after a restart: got %d messages, want 1", got)
	}
}

// A full stream refuses before anything is lost, gives back what quota granted, and leaves reports alone.
func TestIngress_Full(t *testing.T) {
	f := start(t, options{EnqueueMaxBytes: 64 << 10})
	id := streams.AccountIDOf("acme")
	token := f.Token("acme", func(a *streams.Account) { a.Plan.Limit = 100_000 })
	item := `{"phone":"+1234567890","message":"` + strings.Repeat("x", 500) + `"},`
	body := "[" + strings.TrimSuffix(strings.Repeat(item, 20), ",") + "]"
	accepted := 0
	for {
		r, err := http.NewRequest(http.MethodPost, f.URL+"/api/"+token+"/queue", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := f.Client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		var got struct{ Error, Code string }
		err = json.NewDecoder(answer.Body).Decode(&got)
		_ = answer.Body.Close()
		if answer.StatusCode == http.StatusOK {
			accepted += 20
			continue
		}
		if answer.StatusCode != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") != "30" || got.Code != "queue_full" || err != nil {
			t.Errorf("got %s %+v, retry after %s, %v", answer.Status, got, answer.Header.Get("Retry-After"), err)
		}
		break
	}
	if got := f.Stored("ENQUEUE_0", "sms.enqueue.>"); accepted == 0 || got != accepted {
		t.Errorf("got %d stored, want %d", got, accepted)
	}
	if got := f.Quota.Used(id); got != int64(accepted) {
		t.Errorf("quota counts %d, want %d", got, accepted)
	}
	_, page := f.Get("/api/" + token + "/get_messages?limit=1")
	var messages []struct{ Hash string }
	if err := json.Unmarshal([]byte(page), &messages); err != nil || len(messages) != 1 {
		t.Fatalf("got %s, %v", page, err)
	}
	status, got := f.Post("/api/"+token+"/status", `{"messages":[{"hash":"`+messages[0].Hash+`","status":2}]}`)
	if status != http.StatusOK || got != `{"ok":true,"updated":1}` {
		t.Errorf("report: got %d %s", status, got)
	}
}

// A reserve that was under way when a newer leader asked is worth nothing.
func TestIngress_LeaderChangesMeanwhile(t *testing.T) {
	f := start(t, options{})
	token := f.Token("acme", func(a *streams.Account) { a.Plan.Limit = 1000 })
	f.Quota.BeforeAnswer(func() {
		grants, err := bus.Call[request.Grants](context.Background(), f.Bus, request.IngressGrants(0), request.OpenGrants{Leader: 2})
		if err != nil || len(grants.Grants) != 0 {
			t.Errorf("open grants: got %v, %v", grants, err)
		}
	})
	status, body := f.Post("/api/"+token+"/queue", one)
	if status != http.StatusServiceUnavailable || !strings.Contains(body, `"code":"quota_unavailable"`) {
		t.Errorf("got %d %s", status, body)
	}
	f.Quota.Lead(2)
	if status, body := f.Post("/api/"+token+"/queue", one); status != http.StatusOK {
		t.Errorf("under the newer leader: got %d %s", status, body)
	}
	if got := f.Stored("ENQUEUE_0", "sms.enqueue.>"); got != 1 {
		t.Errorf("got %d stored, want 1", got)
	}
}

func TestIngress_Sizes(t *testing.T) {
	f := start(t, options{})
	token := f.Token("acme", nil)
	path := "/api/" + token + "/queue"
	item := `{"phone":"+1234567890","message":"` + strings.Repeat("é", 1000) + `"},`
	list := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat(item, n), ",") + "]" }
	status, body := f.Post(path, list(1000), "Idempotency-Key", "k") // 1,001 with the marker
	if status != http.StatusOK || !strings.Contains(body, `"queued":1000,"failed":0`) {
		t.Errorf("1000 messages: got %d %.200s", status, body)
	}
	if status, body := f.Post(path, list(1001)); status != http.StatusUnprocessableEntity || body != `{"error":"At most 1000 messages are allowed in one request","code":"too_many_messages"}` {
		t.Errorf("1001 messages: got %d %.200s", status, body)
	}
	if status, _ := f.Post(path, one+strings.Repeat(" ", 4<<20-len(one))); status != http.StatusOK {
		t.Errorf("4 MiB: got %d", status)
	}
	if status, body := f.Post(path, one+strings.Repeat(" ", 4<<20-len(one)+1)); status != http.StatusRequestEntityTooLarge || !strings.Contains(body, `"code":"body_too_large"`) {
		t.Errorf("4 MiB and a byte: got %d %s", status, body)
	}
	if got := f.Stored("ENQUEUE_0", "sms.enqueue.>"); got != 1001 {
		t.Errorf("got %d stored, want 1001", got)
	}
}

// An account's messages and reports lie in its own shard.
func TestIngress_Shards(t *testing.T) {
	f := start(t, options{Shards: 3})
	used := map[streams.Shard]int{}
	for i := range 12 {
		name := fmt.Sprint("account", i)
		token := f.Token(name, nil)
		if status, body := f.Post("/api/"+token+"/queue", one); status != http.StatusOK {
			t.Fatalf("got %d %s", status, body)
		}
		_, page := f.Get("/api/" + token + "/get_messages")
		var messages []struct{ Hash string }
		if err := json.Unmarshal([]byte(page), &messages); err != nil || len(messages) != 1 {
			t.Fatalf("got %s, %v", page, err)
		}
		if _, got := f.Post("/api/"+token+"/status", `{"messages":[{"hash":"`+messages[0].Hash+`","status":3}]}`); got != `{"ok":true,"updated":1}` {
			t.Errorf("report: got %s", got)
		}
		id := streams.AccountIDOf(name)
		shard := f.Deployment.Shards.Of(id)
		used[shard]++
		if got := f.Stored(streams.EnqueueStream(shard), streams.EnqueueSubject(shard, id, streams.Lane{Priority: streams.Normal})); got != 1 {
			t.Errorf("got %d messages in shard %v, want 1", got, shard)
		}
		if got := f.Stored(streams.StatusStream(shard), streams.ReportSubject(shard, id)); got != 1 {
			t.Errorf("got %d reports in shard %v, want 1", got, shard)
		}
	}
	if len(used) != 3 {
		t.Errorf("got shards %v, want all 3", used)
	}
}

// When ingress stops, a phone that waits gets its answer at once, and the claim is gone.
func TestIngress_StopsWhilePhonesWait(t *testing.T) {
	f := start(t, options{StopGrace: time.Hour})
	token := f.Token("acme", nil)
	answered := make(chan string, 1)
	go func() {
		status, body := f.Get("/api/" + token + "/get_messages?wait=30")
		answered <- fmt.Sprint(status, body)
	}()
	pull := <-f.Dispatcher.Pulls
	f.StopIngress()
	if got := <-answered; got != "200[]" || !f.Dispatcher.WasHung(pull.Poll) {
		t.Errorf("got %s, hung up: %v", got, f.Dispatcher.WasHung(pull.Poll))
	}
	if err := f.claim(); !errors.Is(err, jetstream.ErrKeyNotFound) {
		t.Errorf("the claim: got %v", err)
	}
}

// claim looks for the ingress's claim.
func (f *fixture) claim() error {
	bucket, err := f.Bus.JS.KeyValue(context.Background(), streams.ClaimsBucket)
	if err == nil {
		_, err = bucket.Get(context.Background(), streams.IngressClaim(0))
	}
	return err
}

// What is under way when ingress stops is stored and answered, under a claim that still holds.
func TestIngress_StopsWhileStoring(t *testing.T) {
	f := start(t, options{})
	token := f.Token("acme", func(a *streams.Account) { a.Plan.Limit = 1000 })
	stopped := make(chan struct{})
	f.Quota.BeforeAnswer(func() {
		go func() {
			defer close(stopped)
			f.StopIngress()
		}()
		for { // until it takes no more
			conn, err := net.Dial("tcp", strings.TrimPrefix(f.URL, "http://"))
			if err != nil {
				break
			}
			_ = conn.Close()
		}
		if err := f.claim(); err != nil {
			t.Errorf("the claim, while a request is under way: got %v", err)
		}
	})
	if status, body := f.Post("/api/"+token+"/queue", one); status != http.StatusOK || f.Stored("ENQUEUE_0", "sms.enqueue.>") != 1 {
		t.Errorf("got %d %s with %d stored", status, body, f.Stored("ENQUEUE_0", "sms.enqueue.>"))
	}
	<-stopped
}

// A phone that waits gets what comes meanwhile, and one that leaves is not waited for.
func TestIngress_LongPoll(t *testing.T) {
	f := start(t, options{})
	token := f.Token("acme", nil)
	answered := make(chan string, 1)
	go func() {
		_, body := f.Get("/api/" + token + "/get_messages?wait=30&device=Phone")
		answered <- body
	}()
	if pull := <-f.Dispatcher.Pulls; pull.Name != "Phone" || pull.Device != streams.DeviceIDOf(pull.Account, "Phone") || pull.Limit != 20 {
		t.Errorf("got pull %+v", pull)
	}
	f.Post("/api/"+token+"/queue", one)
	if got := <-answered; !strings.HasPrefix(got, `[{"phone":"+1234567890","text":"Hello","hash":"`) {
		t.Errorf("got %s", got)
	}

	ctx, leave := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, f.URL+"/api/"+token+"/get_messages?wait=30", nil)
	if err != nil {
		t.Fatal(err)
	}
	left := make(chan error, 1)
	go func() {
		answer, err := f.Client.Do(r)
		if err == nil {
			_ = answer.Body.Close()
		}
		left <- err
	}()
	pull := <-f.Dispatcher.Pulls
	leave()
	f.Dispatcher.Hung(pull.Poll)
	if err := <-left; err == nil {
		t.Error("the phone that left got an answer")
	}
}

// A report is stored whether a dispatcher says what it did or not.
func TestIngress_MuteDispatcher(t *testing.T) {
	f := start(t, options{})
	token := f.Token("acme", nil)
	_, body := f.Post("/api/"+token+"/queue", one)
	hash := strings.TrimPrefix(body, queued)[:16]
	f.Dispatcher.Mute.Store(true)
	if _, got := f.Post("/api/"+token+"/status", `{"messages":[{"hash":"`+hash+`","status":2},{"hash":"x","status":2}]}`); got !=
		`{"ok":true,"updated":1,"errors":[{"index":1,"hash":"x","error":"Unknown hash"}]}` {
		t.Errorf("got %s", got)
	}
	if got := f.Stored("STATUS_0", "sms.status.>"); got != 1 {
		t.Errorf("got %d reports, want 1", got)
	}
}

func TestIngress_TooManyDevices(t *testing.T) {
	f := start(t, options{})
	token := f.Token("acme", nil)
	id := streams.AccountIDOf("acme")
	for i := range streams.MaxDevices {
		seen := fmt.Appendf(nil, `{"last_seen":%q}`, time.Now().Format(time.RFC3339))
		if _, err := f.Bus.JS.PublishAsync("$KV.devices."+streams.DeviceKey(id, streams.DeviceID(i+1)), seen); err != nil {
			t.Fatal(err)
		}
	}
	<-f.Bus.JS.PublishAsyncComplete()
	if status, body := f.Get("/api/" + token + "/get_messages?device=New"); status != http.StatusConflict || body != `{"error":"The account has too many device names","code":"too_many_devices"}` {
		t.Errorf("a pull: got %d %s", status, body)
	}
	// What happened is stored all the same.
	if status, body := f.Post("/api/"+token+"/status", `{"device":"New","messages":[{"hash":"a1b2c3d4e5f67890","status":2}]}`); status != http.StatusOK {
		t.Errorf("a report: got %d %s", status, body)
	}
}

// What another part lacks is a warning once it has been there; until then the system is starting.
func TestIngress_Health(t *testing.T) {
	f := start(t, options{})
	health := func() (status string, check string) {
		code, body := f.Get("/health")
		var got struct {
			Status string
			Checks map[string]struct{ Status string }
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(code, got.Status), got.Checks["dispatcher-0:answer"].Status
	}
	if status, check := health(); status != "200pass" || check != "pass" {
		t.Errorf("got %s, %s", status, check)
	}
	f.StopDispatcher()
	if status, check := health(); status != "200warn" || check != "warn" {
		t.Errorf("without a dispatcher: got %s, %s", status, check)
	}
	if status, _ := f.Post("/api/"+f.Token("acme", nil)+"/queue", one); status != http.StatusOK {
		t.Errorf("enqueue without a dispatcher: got %d", status)
	}
	if status, body := f.Get("/api/" + f.Token("acme", nil) + "/get_messages"); status != http.StatusServiceUnavailable || !strings.Contains(body, "dispatcher_unavailable") {
		t.Errorf("pull without a dispatcher: got %d %s", status, body)
	}
}

func TestIngress_Metrics(t *testing.T) {
	f := start(t, options{})
	token := f.Token("acme", nil)
	f.Post("/api/"+token+"/queue", one)
	f.Post("/api/none/queue", one)
	f.Get("/api/" + token + "/get_messages")
	_, body := f.Get("/metrics")
	for _, want := range []string{
		"trunkline_ingress_accepted_messages_total 1\n",
		"trunkline_ingress_pulled_messages_total 1\n",
		`trunkline_ingress_refused_requests_total{reason="invalid_token"} 1` + "\n",
		`trunkline_ingress_commit_messages_count{stream="enqueue"} 1` + "\n",
		`trunkline_ingress_http_answers_total{route="/api/:token/queue",status="200"} 1` + "\n",
		`trunkline_ingress_http_answers_total{route="/api/:token/queue",status="401"} 1` + "\n",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if strings.Contains(body, token) || strings.Contains(body, "none") {
		t.Error("metrics tell a token")
	}
}
