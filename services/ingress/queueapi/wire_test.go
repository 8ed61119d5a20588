package queueapi

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/trunkline-sms/trunkline/streams"
)

// checkQueued reads POST queue's answer as a client does.
func checkQueued(t *testing.T, answer []byte, queued, failed int) {
	t.Helper()
	var got struct {
		OK             bool
		Queued, Failed int
		Items          []struct {
			Index *int
			Hash  streams.MessageID
			Phone string
		}
		Errors []struct {
			Index *int
			Error string
		}
	}
	decoder := json.NewDecoder(bytes.NewReader(answer))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&got); err != nil {
		t.Fatalf("%v in %s", err, answer)
	}
	if got.OK != (queued > 0) || got.Queued != queued || got.Failed != failed || len(got.Items) != queued || len(got.Errors) != failed {
		t.Fatalf("got %s, want %d queued and %d failed", answer, queued, failed)
	}
	for _, item := range got.Items {
		if item.Index == nil || !isPhone(item.Phone) {
			t.Fatalf("got item %+v", item)
		}
	}
}

func TestAppendQueued(t *testing.T) {
	got := appendQueued(nil, []queuedOut{{0, 0xa1b2c3d4e5f67890, "+1234567890"}, {2, 1, "071234"}}, []errorOut{{1, "Invalid phone format"}, {3, "Phone is required"}})
	want := `{"ok":true,"queued":2,"failed":2,"items":[{"index":0,"hash":"a1b2c3d4e5f67890","phone":"+1234567890"},{"index":2,"hash":"0000000000000001","phone":"071234"}],` +
		`"errors":[{"index":1,"error":"Invalid phone format"},{"index":3,"error":"Phone is required"}]}`
	if string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
	checkQueued(t, got, 2, 2)
}
