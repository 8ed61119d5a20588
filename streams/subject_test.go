package streams_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/trunkline-sms/trunkline/streams"
)

func TestEnqueueSubjectRoundTrip(t *testing.T) {
	account := streams.AccountIDOf("shop")
	for _, target := range []streams.DeviceID{0, streams.DeviceIDOf(account, "Pixel")} {
		for _, priority := range []streams.Priority{streams.High, streams.Normal, streams.Low} {
			for _, class := range []streams.Class{streams.Text, streams.Other} {
				lane := streams.Lane{Target: target, Priority: priority, Class: class}
				subject := streams.EnqueueSubject(3, account, lane)
				gotAccount, gotLane, err := streams.ParseEnqueueSubject(subject)
				if err != nil || gotAccount != account || gotLane != lane {
					t.Errorf("%s: got %v %v %v", subject, gotAccount, gotLane, err)
				}
				if name := streams.ConsumerName(account, lane); !regexp.MustCompile(`^[A-Za-z0-9_-]+$`).MatchString(name) {
					t.Errorf("consumer name %q has characters that the engine refuses", name)
				}
			}
		}
	}
	for _, bad := range []string{
		"", "sms.enqueue.0", "sms.enqueue.0.x.any.normal.text", "sms.status.0." + account.String() + ".decision",
		"sms.enqueue.0." + account.String() + ".any.urgent.text", "sms.enqueue.0." + account.String() + ".0000000000000000.low.text",
	} {
		if _, _, err := streams.ParseEnqueueSubject(bad); err == nil {
			t.Errorf("ParseEnqueueSubject(%q) gave no error", bad)
		}
	}
}

func TestStatusSubjects(t *testing.T) {
	account := streams.AccountIDOf("shop")
	for _, subject := range []string{streams.DecisionSubject(1, account), streams.ReportSubject(1, account)} {
		if got, err := streams.ParseStatusSubject(subject); err != nil || got != account {
			t.Errorf("%s: got %v, %v", subject, got, err)
		}
	}
	if _, err := streams.ParseStatusSubject(streams.HorizonSubject(1)); err == nil {
		t.Error("a horizon subject has no account, but gave no error")
	}
}

func TestOwnerOf(t *testing.T) {
	shop := streams.AccountIDOf("shop")
	for _, subject := range []string{
		streams.EnqueueSubject(3, shop, streams.Lane{}), streams.ScheduledSubject(3, shop), streams.KeySubject(3, shop, "key"), streams.DecisionSubject(3, shop),
	} {
		if got := streams.OwnerOf(subject); got != shop.String() {
			t.Errorf("%s: got %q, want %s", subject, got, shop)
		}
	}
	if got := streams.OwnerOf("sms.barrier.3"); got != "" {
		t.Errorf("got %q, want nobody", got)
	}
}

func TestKeySubjectHidesTheKey(t *testing.T) {
	account := streams.AccountIDOf("shop")
	a, b := streams.KeySubject(0, account, "order 1"), streams.KeySubject(0, account, "order 2")
	if a == b {
		t.Error("two keys share a subject")
	}
	if !regexp.MustCompile(`^sms\.key\.0\.[0-9a-f]{16}\.[0-9a-f]{32}$`).MatchString(a) {
		t.Errorf("got %q", a)
	}
}

func TestShardsShareAccountsEvenly(t *testing.T) {
	const accounts = 8000
	counts := make([]int, 4)
	for i := range accounts {
		counts[streams.Shards(4).Of(streams.AccountIDOf(string(rune('a'+i%26))+string(rune(i))))]++
	}
	for shard, n := range counts {
		if n < accounts/4*8/10 || n > accounts/4*12/10 {
			t.Errorf("shard %d has %d of %d accounts", shard, n, accounts)
		}
	}
}

// FuzzParse holds every parser of a subject, a lane, an id or a claim to its writer: what is read is written again as
// it was, or, of a subject, as its shard writes it.
func FuzzParse(f *testing.F) {
	account := streams.AccountIDOf("shop")
	lane := streams.Lane{Target: streams.DeviceIDOf(account, "Pixel"), Priority: streams.Low, Class: streams.Other}
	for _, seed := range []string{
		streams.EnqueueSubject(3, account, lane), streams.EnqueueSubject(0, account, streams.Lane{}), lane.String(), "any.normal.text",
		streams.DecisionSubject(1, account), streams.ReportSubject(1, account), account.String(), streams.IngressClaim(7), streams.QuotaClaim,
		"sms.enqueue.0.0000000000000000.any.high.text", "sms.enqueue..", "0123456789ABCDEF", "ingress.01", "\x00", "İ23456789abcdef",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := streams.ParseMessageID(text); err == nil && id.String() != text {
			t.Errorf("id %q is written %q", text, id)
		}
		if got, err := streams.ParseLane(text); err == nil && got.String() != text {
			t.Errorf("lane %q is written %q", text, got)
		}
		if instance, err := streams.ParseIngressClaim(text); err == nil && streams.IngressClaim(instance) != text {
			t.Errorf("claim %q is written %q", text, streams.IngressClaim(instance))
		}
		if account, lane, err := streams.ParseEnqueueSubject(text); err == nil {
			again, laneAgain, err := streams.ParseEnqueueSubject(streams.EnqueueSubject(0, account, lane))
			if err != nil || again != account || laneAgain != lane {
				t.Errorf("subject %q is %v %v, and that is read as %v %v, %v", text, account, lane, again, laneAgain, err)
			}
			if name := streams.ConsumerName(account, lane); !safe.MatchString(name) {
				t.Errorf("subject %q makes the consumer %q", text, name)
			}
		}
		if account, err := streams.ParseStatusSubject(text); err == nil {
			if again, err := streams.ParseStatusSubject(streams.ReportSubject(0, account)); err != nil || again != account {
				t.Errorf("subject %q is of %v, and that is read as %v, %v", text, account, again, err)
			}
		}
		if key := streams.KeySubject(0, account, text); len(text) > 3 && strings.Contains(strings.TrimPrefix(key, "sms.key.0."+account.String()), text) {
			t.Errorf("key %q is in its subject %q", text, key)
		}
	})
}

// safe is what the engine takes for a name.
var safe = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
