package streams_test

import (
	"regexp"
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
