package core

import (
	"fmt"
	"testing"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
)

// Without room for messages nothing is asked of quota and nothing stored; what was answered before is answered, and
// reports are stored.
func TestCore_Enqueue_NoRoom(t *testing.T) {
	c, quota, limited := withQuota(t)
	first, err := c.Enqueue(t.Context(), keyed(1, "k", "hash"))
	if err != nil {
		t.Fatal(err)
	}
	c.room = func() error { return fmt.Errorf("%w: a disk", bus.ErrFull) }
	for name, cmd := range map[string]Enqueue{"limited": limited, "keyed": keyed(1, "other", "hash"), "plain": drafts(1)} {
		_, err := c.Enqueue(t.Context(), cmd)
		if f := fault.As(err); f == nil || f.Kind != fault.Full || f.Code != "queue_full" || f.RetryAfter < time.Second {
			t.Errorf("%s: got %v, want queue_full and when to come again", name, err)
		}
	}
	// A grant would be open, or given back.
	if got := stored(t, c, allMessages); got != 1 || !c.Idle() || len(quota.released) != 0 {
		t.Errorf("got %d messages stored, idle %t, %d grants released, want the first one and no grant", got, c.Idle(), len(quota.released))
	}
	if again, err := c.Enqueue(t.Context(), keyed(1, "k", "hash")); err != nil || !again.Replayed || again.IDs[0] != first.IDs[0] {
		t.Errorf("repeat: got %+v, %v, want the first answer", again, err)
	}
	if _, err := c.Report(t.Context(), reports(2)); err != nil {
		t.Errorf("report: %v", err)
	}
	c.room = func() error { return fmt.Errorf("%w: a disk", bus.ErrNotStored) }
	if _, err := c.Enqueue(t.Context(), drafts(1)); !fault.Is(err, fault.Unavailable) || fault.As(err).Code != "not_stored" {
		t.Errorf("got %v, want not_stored", err)
	}
	c.room = func() error { return nil }
	if _, err := c.Enqueue(t.Context(), drafts(1)); err != nil {
		t.Errorf("with room again: %v", err)
	}
}
