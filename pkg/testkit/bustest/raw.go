package bustest

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
)

// AskRaw sends any bytes to an endpoint, as a part of another version or a foreign program might. The answer must have
// the form of A, or be a fault other than Internal.
func AskRaw[A any](t testing.TB, b *bus.Bus, subject string, data []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	m, err := b.Conn.RequestMsgWithContext(ctx, &nats.Msg{
		Subject: subject, Data: data, Header: nats.Header{"Trunkline-Timeout": {"20ms"}}, // a handler that waits should not wait longer
	})
	if err != nil {
		t.Fatalf("%s: %q: %v", subject, data, err)
	}
	if kind := m.Header.Get(micro.ErrorCodeHeader); kind != "" {
		var f fault.Error
		if err := json.Unmarshal(m.Data, &f); err != nil || f.Kind == fault.Internal || f.Text == "" || string(f.Kind) != kind {
			t.Fatalf("%s: %q: got %s, %v", subject, data, m.Data, err)
		}
		return
	}
	var a A
	if err := json.Unmarshal(m.Data, &a); err != nil {
		t.Fatalf("%s: %q: got %s: %v", subject, data, m.Data, err)
	}
}
