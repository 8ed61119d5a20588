package ingress_test

import (
	"net/http"
	"strings"
	"testing"

	"go.uber.org/zap/zapcore"

	"github.com/trunkline-sms/trunkline/streams"
)

// Whatever happens, no log line holds a token, a number, a text or a phone's name.
func TestIngress_LogsNoSecrets(t *testing.T) {
	f := start(t, options{EnqueueMaxBytes: 32 << 10})
	token := f.Token("acme", func(a *streams.Account) { a.Plan.Limit = 50 })
	wrong := strings.Repeat("f00d", 16)
	secrets := []string{token, wrong, "1234567890", "Sesame", "Phony", "order-17"}
	post := func(path, body string) int {
		status, _ := f.Post(path, body, "Idempotency-Key", "order-17", "Authorization", "Bearer "+token)
		return status
	}
	statuses := map[int]bool{}
	for _, token := range []string{token, wrong} {
		path := "/api/" + token
		for _, body := range []string{
			`[{"phone":"+1234567890","message":"Sesame"}]`, `[{"phone":"+1234567890x","message":"Sesame"}]`, `[{"phone":"+1234567890","message":"Sesame`,
			`"Sesame"`, `{"device":"Phony","messages":[{"hash":"Sesame","status":2},{"hash":"a1b2c3d4e5f67890","status":3}]}`,
		} {
			statuses[post(path+"/queue", body)] = true
			statuses[post(path+"/status", body)] = true
			statuses[post("/api/queue?token="+token, body)] = true
			statuses[post("/"+token+"/nowhere", body)] = true
		}
		status, _ := f.Get(path + "/get_messages?device=Phony")
		statuses[status] = true
	}
	// A limit that is used up, a stream that is full, parts that are gone.
	many := "[" + strings.TrimSuffix(strings.Repeat(`{"phone":"+1234567890","message":"Sesame"},`, 60), ",") + "]"
	status, _ := f.Post("/api/"+token+"/queue", many)
	statuses[status] = true
	free := f.Token("free", nil)
	long := `{"phone":"+1234567890","message":"Sesame ` + strings.Repeat("x", 900) + `"}`
	for status = 0; status != http.StatusServiceUnavailable; {
		status, _ = f.Post("/api/"+free+"/queue", long)
	}
	secrets = append(secrets, free)
	f.StopDispatcher()
	status, _ = f.Get("/api/" + token + "/get_messages?device=Phony&wait=1")
	statuses[status] = true
	for _, want := range []int{200, 400, 401, 404, 422, 429, 503} {
		if !statuses[want] {
			t.Errorf("no answer was a %d", want)
		}
	}

	f.StopIngress()
	if f.Logs.FilterLevelExact(zapcore.WarnLevel).FilterMessage("request").Len() == 0 || f.Logs.FilterLevelExact(zapcore.DebugLevel).Len() == 0 {
		t.Error("nothing was logged of refused or taken requests")
	}
	encoder := zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "m"})
	for _, entry := range f.Logs.All() {
		line, err := encoder.EncodeEntry(entry.Entry, entry.Context)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range secrets {
			if strings.Contains(line.String(), secret) {
				t.Errorf("%q is in a log line: %s", secret, line)
			}
		}
	}
}
