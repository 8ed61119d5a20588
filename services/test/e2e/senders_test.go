package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// login is a caller of the 3rdparty dialect.
type login struct {
	api
	header string
}

const thirdparty = "/3rdparty/v1"

// loginOf makes an account with a login and gives it, and the account's token.
func (s *trunkline) loginOf(name string) (login, string) {
	s.Helper()
	password := "correct horse " + name
	token := s.accountWithLogin(name, name, password)
	return login{
		api{s.Context(), s.client, s.url + thirdparty},
		"Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+password)),
	}, token
}

func (l login) call(method, path, body string) (answer, error) {
	return l.do(method, path, body, "Authorization", l.header, "Content-Type", "application/json")
}

// message is what the 3rdparty dialect says of a group.
type message struct {
	ID         string `json:"id"`
	State      string `json:"state"`
	DeviceID   string `json:"deviceId"`
	Recipients []struct {
		PhoneNumber string  `json:"phoneNumber"`
		State       string  `json:"state"`
		Error       *string `json:"error"`
	} `json:"recipients"`
	States map[string]time.Time `json:"states"`
}

func (s *trunkline) must(want int) func(answer, error) (m message) {
	return func(got answer, err error) (m message) {
		s.Helper()
		if err != nil || got.status != want {
			s.Fatalf("got %v, %v, want %d", got, err, want)
		}
		if strings.HasPrefix(got.body, "{") {
			if err := json.Unmarshal([]byte(got.body), &m); err != nil {
				s.Fatal(err)
			}
		}
		return m
	}
}

// What one API queues, another reads, cancels and pulls.
func TestSenders_Mixed(t *testing.T) {
	everywhere(t, func(t *testing.T, newHost newHost, shards int) { launch(t, newHost, shards).mixedSenders(t) })
}

func (s *trunkline) mixedSenders(t *testing.T) {
	t.Helper()
	l, token := s.loginOf("mixed")
	phone := s.api(token)

	sent := s.must(202)(l.call("POST", "/messages", `{"id":"order-1","phoneNumbers":["+12025550100","+12025550101"],"textMessage":{"text":"secret-text-mixed-1"}}`))
	data := s.must(202)(l.call("POST", "/messages", `{"phoneNumbers":["+12025550100"],"dataMessage":{"data":"c2VjcmV0","port":53739}}`))
	sealed := s.must(202)(l.call("POST", "/messages", `{"phoneNumbers":["$aes-256-cbc/pbkdf2-sha1$i=75000$c2FsdA==$bnVtYmVy"],"isEncrypted":true,"textMessage":{"text":"$aes-256-cbc/pbkdf2-sha1$i=75000$c2FsdA==$dGV4dA=="}}`))
	queued, err := phone.post("", sms{"+1234567890", "secret-text-mixed-2"})
	if err != nil {
		t.Fatal(err)
	}
	hash := queued.queued().Items[0].Hash
	if got := s.must(200)(l.call("GET", "/messages/"+hash, "")); got.ID != hash || got.State != "Pending" || got.Recipients[0].PhoneNumber != "+1234567890" {
		t.Errorf("a message of the queue dialect: got %+v", got)
	}
	page, err := phone.pull("Pixel", 10, 0)
	if err != nil || len(page) != 3 {
		t.Fatalf("got %v, %v, want the two of the group and the other, and nothing that the phone cannot send", page, err)
	}
	if got := s.must(200)(l.call("GET", "/messages/order-1", "")); got.State != "Processed" || got.DeviceID == "" {
		t.Errorf("with the phone: got %+v", got)
	}
	if _, err := phone.report("Pixel", success, page); err != nil {
		t.Fatal(err)
	}
	if got := s.must(200)(l.call("GET", "/message/"+sent.ID, "")); got.State != "Delivered" || got.Recipients[1].State != "Delivered" || got.States["Delivered"].IsZero() {
		t.Errorf("reported: got %+v", got)
	}
	for _, left := range []message{data, sealed} {
		if got := s.must(200)(l.call("GET", "/messages/"+left.ID, "")); got.State != "Pending" || got.Recipients[0].PhoneNumber != left.Recipients[0].PhoneNumber {
			t.Errorf("for another phone: got %+v", got)
		}
	}
	s.must(409)(l.call("DELETE", "/messages/order-1", ""))
	if got := s.must(200)(l.call("DELETE", "/messages/"+data.ID, "")); got.State != "Cancelling" {
		t.Errorf("cancelled: got %+v", got)
	}
	queued, err = phone.post("", sms{"+1234567890", "secret-text-mixed-3"})
	if err != nil {
		t.Fatal(err)
	}
	s.must(200)(l.call("DELETE", "/messages/"+queued.queued().Items[0].Hash, ""))
	if page, err := phone.pull("Pixel", 10, 0); err != nil || len(page) != 0 {
		t.Errorf("got %v, %v after it was cancelled", page, err)
	}
	for _, ref := range []string{"order-1", hash} {
		if shown := s.command("message", "show", ref); !strings.Contains(shown, "delivered") {
			t.Errorf("message show %s: got %s", ref, shown)
		}
	}
}

// No account sees, cancels or guesses what is another's.
func TestSenders_Apart(t *testing.T) {
	everywhere(t, func(t *testing.T, newHost newHost, shards int) { launch(t, newHost, shards).apartSenders(t) })
}

func (s *trunkline) apartSenders(t *testing.T) {
	t.Helper()
	mine, token := s.loginOf("mine")
	theirs, other := s.loginOf("theirs")
	sent := s.must(202)(mine.call("POST", "/messages", `{"id":"order-1","phoneNumbers":["+12025550100"],"message":"secret-text-apart-1"}`))
	if _, err := s.api(token).pull("Pixel", 1, 0); err != nil {
		t.Fatal(err)
	}
	s.must(201)(mine.call("POST", "/webhooks", `{"id":"hook","url":"https://example.org","event":"sms:sent"}`))
	s.must(200)(mine.call("PATCH", "/settings", `{"ping":{"interval_seconds":60}}`))
	device := s.must(200)(mine.call("GET", "/messages/order-1", "")).DeviceID
	if device == "" {
		t.Fatal("no phone has it")
	}
	for path, empty := range map[string]string{"/messages": "[]", "/devices": "[]", "/webhooks": "[]", "/settings": "{}"} {
		if got, err := theirs.call("GET", path, ""); err != nil || got.status != 200 || got.body != empty {
			t.Errorf("GET %s: got %v, %v, want %s", path, got, err, empty)
		}
	}
	s.must(404)(theirs.call("GET", "/messages/order-1", ""))
	s.must(404)(theirs.call("DELETE", "/messages/order-1", ""))
	s.must(400)(theirs.call("POST", "/messages", fmt.Sprintf(`{"deviceId":%q,"phoneNumbers":["+12025550100"],"message":"secret-text-apart-2"}`, device)))
	s.must(400)(theirs.call("POST", "/webhooks", fmt.Sprintf(`{"deviceId":%q,"url":"https://example.org","event":"sms:sent"}`, device)))
	s.must(204)(theirs.call("DELETE", "/devices/"+device, ""))
	s.must(204)(theirs.call("DELETE", "/webhooks/hook", ""))
	if page, err := s.api(other).pull("Pixel", 10, 0); err != nil || len(page) != 0 {
		t.Errorf("another account's phone got %v, %v", page, err)
	}
	// The same id is another group there.
	s.must(202)(theirs.call("POST", "/messages", `{"id":"order-1","phoneNumbers":["+12025550100"],"message":"secret-text-apart-3"}`))
	if got := s.must(200)(mine.call("GET", "/messages/order-1", "")); got.ID != sent.ID || got.State != "Processed" {
		t.Errorf("got %+v afterwards", got)
	}
	for path, want := range map[string]int{"/devices": 1, "/webhooks": 1} {
		var all []any
		got, err := mine.call("GET", path, "")
		if err != nil || json.Unmarshal([]byte(got.body), &all) != nil || len(all) != want {
			t.Errorf("GET %s afterwards: got %v, %v", path, got, err)
		}
	}
}

// The same id 20 times at once, and after a restart: one message, and one SMS.
func TestSenders_SameID(t *testing.T) {
	everywhere(t, func(t *testing.T, newHost newHost, shards int) { launch(t, newHost, shards).sameIDSenders(t) })
}

func (s *trunkline) sameIDSenders(t *testing.T) {
	t.Helper()
	l, token := s.loginOf("same")
	const tries = 20
	statuses := make([]int, tries)
	var done sync.WaitGroup
	for i := range tries {
		done.Go(func() {
			got, err := l.call("POST", "/messages", `{"id":"order-1","phoneNumbers":["+12025550100"],"message":"secret-text-same-1"}`)
			if err != nil {
				t.Error(err)
			}
			if statuses[i] = got.status; got.status >= http.StatusInternalServerError {
				t.Errorf("got %v", got)
			}
		})
	}
	done.Wait()
	slices.Sort(statuses)
	if statuses[0] != http.StatusAccepted || statuses[1] != http.StatusConflict || statuses[tries-1] != http.StatusConflict {
		t.Errorf("got %v, want one 202 and conflicts", statuses)
	}
	s.Stop()
	s.Start()
	l.api = api{s.Context(), s.client, s.url + thirdparty}
	s.must(409)(l.call("POST", "/messages", `{"id":"order-1","phoneNumbers":["+12025550100"],"message":"secret-text-same-1"}`))
	if page, err := s.api(token).pull("Pixel", 10, 0); err != nil || len(page) != 1 {
		t.Errorf("got %v, %v, want one message", page, err)
	}
}

// Many messages of one second, in which the server is killed: all go out soon after it, none before and none twice.
func TestSenders_Scheduled(t *testing.T) {
	t.Parallel()
	if raceEnabled {
		t.Skip("slow")
	}
	s := launch(t, process, 1)
	l, token := s.loginOf("scheduled")
	// Time to post them all, and little more: everything is due in one second.
	all := many(4_000, 20_000)
	due := time.Now().Add(15 * time.Second).Truncate(time.Second).UTC()
	l.postMany(t, all, fmt.Sprintf(`"scheduleAt":%q`, due.Format(time.RFC3339)))
	if !time.Now().Before(due) || t.Failed() {
		t.Fatalf("the messages were not posted in time, at %v", time.Now())
	}
	if page, err := s.api(token).pull("Early", 10, 0); err != nil || len(page) != 0 {
		t.Fatalf("got %v, %v before they were due", page, err)
	}
	until(t, due.Add(100*time.Millisecond))
	s.Kill()
	killed := time.Now()
	s.Start()
	away := time.Since(killed)
	var done sync.WaitGroup
	var mu sync.Mutex
	seen := map[string]time.Time{}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for phone := range 4 {
		done.Go(func() {
			a := s.api(token)
			a.ctx = ctx
			for ctx.Err() == nil {
				page, err := a.pull(fmt.Sprint("phone-", phone), 200, 1)
				now := time.Now()
				mu.Lock()
				for _, m := range page {
					if !seen[m.Hash].IsZero() {
						t.Errorf("message %s was handed out twice", m.Hash)
					}
					seen[m.Hash] = now
				}
				if len(seen) == all || err != nil && ctx.Err() == nil {
					stop()
				}
				mu.Unlock()
			}
		})
	}
	done.Wait()
	last := due
	for _, at := range seen {
		if at.After(last) {
			last = at
		}
		if at.Before(due) {
			t.Errorf("a message went out %v early", due.Sub(at))
		}
	}
	if len(seen) != all {
		t.Errorf("got %d messages, want %d", len(seen), all)
	}
	t.Logf("%d messages were out %v after they were due, of which the server was away for %v", len(seen), last.Sub(due).Round(time.Millisecond), away.Round(time.Millisecond))
}

// postMany posts messages to 100 recipients at a time, with that in the body too.
func (l login) postMany(t *testing.T, n int, with string) {
	t.Helper()
	const recipients, workers = 100, 8
	var done sync.WaitGroup
	for worker := range workers {
		done.Go(func() {
			for first := worker * recipients; first < n; first += workers * recipients {
				numbers := make([]string, recipients)
				for i := range numbers {
					numbers[i] = fmt.Sprintf(`"+1202%07d"`, 2_000_000+first+i)
				}
				body := fmt.Sprintf(`{"phoneNumbers":[%s],"message":"secret-text-many-%d",%s}`, strings.Join(numbers, ","), first, with)
				if got, err := l.call("POST", "/messages", body); err != nil || got.status != http.StatusAccepted {
					t.Errorf("post of %d: got %v, %v", first, got, err)
					return
				}
			}
		})
	}
	done.Wait()
}

// until returns at a time.
func until(t *testing.T, at time.Time) {
	t.Helper()
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

// What is urgent goes before very many that are not, and another account's phones notice neither.
func TestSenders_Priority(t *testing.T) {
	t.Parallel()
	s := launch(t, inside, 1)
	l, token := s.loginOf("urgent")
	l.postMany(t, many(10_000, 100_000), `"priority":-1`)
	s.must(202)(l.call("POST", "/messages", `{"phoneNumbers":["+12025550100"],"message":"secret-text-urgent-1","priority":0}`))
	urgent := s.must(202)(l.call("POST", "/messages", `{"phoneNumbers":["+12025550100"],"message":"secret-text-urgent-2","priority":100}`))
	s.must(200)(l.call("GET", "/messages/"+urgent.ID, "")) // all before it wait
	page, err := s.api(token).pull("Pixel", 3, 0)
	if err != nil || len(page) != 3 || page[0].Text != "secret-text-urgent-2" || page[1].Text != "secret-text-urgent-1" {
		t.Fatalf("got %v, %v, want the urgent one, the normal one, and one of the others", page, err)
	}
	calm, other := s.loginOf("calm")
	s.must(202)(calm.call("POST", "/messages", `{"phoneNumbers":["+12025550100"],"message":"secret-text-calm-1","priority":-1}`))
	if page, err := s.api(other).pull("Pixel", 3, 0); err != nil || len(page) != 1 {
		t.Errorf("another account's phone got %v, %v", page, err)
	}
}
