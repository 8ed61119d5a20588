package fault_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/trunkline-sms/trunkline/pkg/fault"
)

func TestErrorJSON(t *testing.T) {
	e := &fault.Error{Kind: fault.LimitExceeded, Code: "monthly_limit", Text: "The month's limit is used up", RetryAfter: 1500 * time.Millisecond, Limit: 100, Used: 99}
	b, err := json.Marshal(e.With(errors.New("hidden")))
	if err != nil {
		t.Fatal(err)
	}
	got, want := string(b), `{"kind":"limit_exceeded","code":"monthly_limit","text":"The month's limit is used up","retry_after_ms":1500,"limit":100,"used":99}`
	if got != want {
		t.Errorf("JSON\n got %s\nwant %s", got, want)
	}

	var back fault.Error
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*e, back, cmpopts.IgnoreUnexported(fault.Error{})); diff != "" {
		t.Errorf("round trip (-want +got)\n%s", diff)
	}
	if back.Unwrap() != nil {
		t.Errorf("cause crossed the wire: %v", back.Unwrap())
	}
}

func TestErrorJSONEdges(t *testing.T) {
	b, err := json.Marshal(&fault.Error{Kind: fault.Full, RetryAfter: time.Microsecond})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(b), `"retry_after_ms":1}`; !strings.HasSuffix(got, want) {
		t.Errorf("a short wait must not become none: got %s, want …%s", got, want)
	}

	var e fault.Error
	if err := json.Unmarshal([]byte(`{}`), &e); err != nil {
		t.Fatal(err)
	}
	if got, want := e.Kind, fault.Internal; got != want {
		t.Errorf("kind of an empty object: got %q, want %q", got, want)
	}
	if err := json.Unmarshal([]byte(`{"kind":1}`), &e); err == nil {
		t.Error("a number as kind was accepted")
	}
}

func TestAs(t *testing.T) {
	notFound := fault.New(fault.NotFound, "message_not_found", "No such message")
	tests := []struct {
		name string
		err  error
		kind fault.Kind
		code string
	}{
		{"itself", notFound, fault.NotFound, "message_not_found"},
		{"wrapped", fmt.Errorf("show message: %w", notFound), fault.NotFound, "message_not_found"},
		{"over a deadline", notFound.With(context.DeadlineExceeded), fault.NotFound, "message_not_found"},
		{"deadline", fmt.Errorf("read: %w", context.DeadlineExceeded), fault.Unavailable, "unavailable"},
		{"cancelled", context.Canceled, fault.Unavailable, "unavailable"},
		{"anything else", io.ErrUnexpectedEOF, fault.Internal, "internal"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := fault.As(tt.err)
			if e.Kind != tt.kind || e.Code != tt.code {
				t.Errorf("got %s %s, want %s %s", e.Kind, e.Code, tt.kind, tt.code)
			}
			if !fault.Is(tt.err, tt.kind) {
				t.Errorf("Is(%s) = false", tt.kind)
			}
			if fault.Is(tt.err, fault.RateLimited) {
				t.Error("Is(RateLimited) = true")
			}
		})
	}
	if fault.As(nil) != nil || fault.Is(nil, fault.Internal) {
		t.Error("nil became a fault")
	}
}

func TestChain(t *testing.T) {
	full := fault.New(fault.Full, "queue_full", "The queue is full")
	err := fmt.Errorf("enqueue: %w", full.With(io.ErrShortWrite))

	if !errors.Is(err, full) {
		t.Error("a copy made by With is not the fault it was made from")
	}
	if errors.Is(err, fault.New(fault.Full, "disk_full", "The disk is full")) {
		t.Error("faults of different codes are equal")
	}
	if !errors.Is(err, io.ErrShortWrite) {
		t.Error("the cause is not in the chain")
	}
	if full.Unwrap() != nil {
		t.Error("With changed its receiver")
	}
	if got, want := err.Error(), "enqueue: queue_full: The queue is full: short write"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !errors.Is(fault.As(io.ErrUnexpectedEOF), io.ErrUnexpectedEOF) {
		t.Error("As dropped the cause of an internal error")
	}
}

// FuzzError: whatever another part answers, it is a fault with a kind, and crosses the wire again as the same.
func FuzzError(f *testing.F) {
	for _, seed := range []string{
		`{"kind":"rate_limited","code":"a","text":"b","retry_after_ms":1500}`, `{"kind":"limit_exceeded","limit":-1,"used":9223372036854775807}`,
		`{}`, `null`, `{"retry_after_ms":9223372036854775807}`, `{"retry_after_ms":-1}`, `{"kind":"from a later version"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got := new(fault.Error)
		if json.Unmarshal(data, got) != nil {
			return
		}
		if got.RetryAfter < 0 {
			t.Errorf("%s: retry after %v", data, got.RetryAfter)
		}
		written, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		again := new(fault.Error)
		if err := json.Unmarshal(written, again); err != nil || again.Kind == "" && string(data) != "null" {
			t.Fatalf("%s is written as %s: %v", data, written, err)
		}
		if rewritten, err := json.Marshal(again); err != nil || string(rewritten) != string(written) {
			t.Errorf("%s is written as %s and then as %s, %v", data, written, rewritten, err)
		}
	})
}
